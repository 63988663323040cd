//! The measured scenarios: the packets, the services they meet, and how many flows there are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::{Context, Result};
use maglev_common::backend::{InterfaceSlot, MemberId, NextHop};
use maglev_common::encap::EncapKind;
use maglev_common::maps::DEFAULT_FLOW_SETS;
use maglev_common::settings::{Tracking, UdpPolicy, Unserved};
use maglev_common::table::{PoolIndex, PoolWord, SlotWord, TableIndex};
use maglev_common::vip::VipId;
use maglev_model::plan::{self, Step};
use maglev_model::table::Table;
use maglev_model::{Affinity, Name, OuterSources, PacketSettings, Ports, Protocol, Service, Weight};

use super::measure::Mode;

/// The port of every VIP.
const PORT: u16 = 443;
/// The router that every backend is reached by.
const NEXT_HOP: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// Flows that fit a set while few sets run over: of seven ways, four on average.
const FLOWS_PER_SET: u64 = 4;

/// Which flows the packets belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flows {
    /// A random one of this many, a power of two.
    Of(u64),
    /// A new one with each packet, without end.
    New,
}

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ip {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What is peculiar about a scenario's packets or services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing: the path of most packets.
    Plain,
    /// A VLAN tag, which the packet to the backend does not have.
    Tag,
    /// Four bytes of IPv4 options, or a destination options header of IPv6.
    Options,
    /// First fragments.
    Fragments,
    /// ICMP errors that quote a segment of the VIP's.
    Errors,
    /// The pool's packets are encapsulated in GUE.
    Gue,
    /// The VIP has a range of ports.
    Range,
    /// The VIP is a prefix, of any protocol.
    Prefix,
    /// The VIP's flows find their slots by their source.
    Source,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// A description for people.
    pub(super) title: &'static str,
    /// Which flows.
    pub(super) flows: Flows,
    /// VIPs, a power of two.
    pub(super) vips: u16,
    /// Pools; VIPs take them in turn.
    pub(super) pools: u16,
    /// Backends in each pool.
    pub(super) backends: u16,
    /// The packet inside.
    pub(super) inner: Ip,
    /// The outer header.
    pub(super) outer: Ip,
    /// TCP or UDP.
    pub(super) protocol: Protocol,
    /// Bytes of the frame as XDP sees it, which is without its checksum of four bytes.
    pub(super) bytes: usize,
    /// What is peculiar.
    pub(super) kind: Kind,
}

/// IPv4, TCP in the smallest frame, one VIP, 100 backends, 1,024 flows: what the other scenarios differ from.
const BASE: Scenario = Scenario {
    name: "flows-1k",
    title: "1k flows",
    flows: Flows::Of(1 << 10),
    vips: 1,
    pools: 1,
    backends: 100,
    inner: Ip::V4,
    outer: Ip::V4,
    protocol: Protocol::Tcp,
    bytes: 60,
    kind: Kind::Plain,
};

const MANY: Scenario = Scenario { flows: Flows::Of(1 << 16), ..BASE };

/// All of them, in the order of the table.
pub(super) static ALL: [Scenario; 23] = [
    Scenario { name: "flows-1", title: "1 flow", flows: Flows::Of(1), ..BASE },
    BASE,
    Scenario { name: "flows-64k", title: "64k flows", ..MANY },
    Scenario { name: "flows-1m", title: "1M flows", flows: Flows::Of(1 << 20), ..BASE },
    Scenario { name: "syn-flood", title: "SYN flood, every packet a new flow", flows: Flows::New, ..BASE },
    Scenario { name: "vips-64-pools-64", title: "64 VIPs, a pool each, 64k flows", vips: 64, pools: 64, ..MANY },
    Scenario { name: "vips-64-pool-1", title: "64 VIPs on one pool, 64k flows", vips: 64, ..MANY },
    Scenario { name: "vips-512", title: "512 VIPs on 64 pools x 100, 64k flows", vips: 512, pools: 64, ..MANY },
    Scenario { name: "udp", title: "UDP, 1k flows", protocol: Protocol::Udp, ..BASE },
    Scenario { name: "ipv6", title: "IPv6 in IPv4, 1k flows", inner: Ip::V6, bytes: 74, ..BASE },
    Scenario { name: "ipv6-outer", title: "IPv4 in IPv6, 1k flows", outer: Ip::V6, ..BASE },
    Scenario { name: "ipv6-ipv6", title: "IPv6 in IPv6, 1k flows", inner: Ip::V6, outer: Ip::V6, bytes: 74, ..BASE },
    Scenario { name: "bytes-1400", title: "1400 bytes, 1k flows", bytes: 1_400, ..BASE },
    Scenario { name: "vlan", title: "VLAN tag, 1k flows", kind: Kind::Tag, bytes: 64, ..BASE },
    Scenario { name: "options", title: "IPv4 options, 1k flows", kind: Kind::Options, bytes: 64, ..BASE },
    Scenario {
        name: "extension",
        title: "IPv6 extension header, 1k flows",
        kind: Kind::Options,
        inner: Ip::V6,
        bytes: 82,
        ..BASE
    },
    Scenario {
        name: "fragments",
        title: "first fragments, UDP, 1k flows",
        kind: Kind::Fragments,
        protocol: Protocol::Udp,
        bytes: 74,
        ..BASE
    },
    Scenario { name: "icmp-errors", title: "ICMP errors", kind: Kind::Errors, bytes: 70, ..BASE },
    Scenario { name: "gue", title: "GUE, 1k flows", kind: Kind::Gue, ..BASE },
    Scenario { name: "gue-ipv6-outer", title: "GUE in IPv6, 1k flows", kind: Kind::Gue, outer: Ip::V6, ..BASE },
    Scenario { name: "vip-ports", title: "VIP with a range of ports, 1k flows", kind: Kind::Range, ..BASE },
    Scenario { name: "vip-prefix", title: "VIP of a prefix, any protocol, 1k flows", kind: Kind::Prefix, ..BASE },
    Scenario { name: "vip-source", title: "affinity by source, 1k flows", kind: Kind::Source, ..BASE },
];

impl Scenario {
    /// Bytes by which the packet to the backend is longer.
    pub(super) const fn overhead(&self) -> u64 {
        let header = match self.outer {
            Ip::V4 => 20,
            Ip::V6 => 40,
        };
        match self.kind {
            Kind::Gue => header + 12,
            _ => header - self.tags() as u64,
        }
    }

    /// Bytes of VLAN tags.
    pub(super) const fn tags(&self) -> usize {
        match self.kind {
            Kind::Tag => 4,
            _ => 0,
        }
    }

    /// Bytes between the IP header and the ports that the harness writes.
    pub(super) const fn gap(&self) -> usize {
        match (self.kind, self.inner) {
            (Kind::Options, Ip::V4) => 4,
            (Kind::Options, Ip::V6) => 8,
            // The client's port in the quoted segment, which comes second there.
            (Kind::Errors, _) => 8 + 20 + 2,
            _ => 0,
        }
    }

    /// The mask and the step of the harness's flow numbers.
    pub(super) const fn flow_numbers(&self) -> (u64, u64) {
        match self.flows {
            Flows::Of(count) => (count - 1, 0),
            Flows::New => (0, 1),
        }
    }

    /// Sets in a CPU's flow table for a program that decides like this: the default, and more if the flows that it holds
    /// would not fit.
    pub(super) fn flow_sets(&self, mode: Mode) -> u32 {
        match self.flows {
            Flows::Of(count) => {
                let sets = mode.holds(count) / FLOWS_PER_SET;
                DEFAULT_FLOW_SETS.max(sets.next_power_of_two() as u32)
            }
            Flows::New => DEFAULT_FLOW_SETS,
        }
    }

    /// Packets after which tables and caches are as they stay: nearly every flow was seen, or the flow table is full.
    pub(super) const fn settling(&self) -> u32 {
        match self.flows {
            Flows::Of(count) if count > 1 << 14 => 4 * count as u32,
            Flows::Of(_) => 1 << 16,
            Flows::New => 16 * DEFAULT_FLOW_SETS,
        }
    }

    /// Packets of a turn before its time begins, in which the caches fill with the data of this program: nearly every flow is
    /// seen. Otherwise a program with few flows would find all of them where the others drove them, out of the caches,
    /// and not seen for seconds.
    pub(super) const fn warming(&self) -> u32 {
        const LEAST: u32 = 20_000;
        match self.flows {
            Flows::Of(count) if 2 * count > LEAST as u64 => 2 * count as u32,
            Flows::Of(_) | Flows::New => LEAST,
        }
    }

    /// The frame of flow number 0 to VIP number 0. Checksums are not filled in: they are not read.
    pub(super) fn frame(&self) -> Vec<u8> {
        let bytes = self.bytes - self.more();
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 5];
        let protocol = self.protocol.number();
        match self.inner {
            Ip::V4 => {
                frame.extend([0x08, 0x00, 0x45, 0]);
                frame.extend((bytes as u16 - 14).to_be_bytes());
                frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 198, 19, 0, 0]);
            }
            Ip::V6 => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((bytes as u16 - 54).to_be_bytes());
                frame.extend([protocol, 64]);
                frame.extend(Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, 0).octets());
            }
        }
        match self.vip(0) {
            IpAddr::V4(vip) => frame.extend(vip.octets()),
            IpAddr::V6(vip) => frame.extend(vip.octets()),
        }
        frame.extend([0, 0]);
        frame.extend(PORT.to_be_bytes());
        match self.protocol {
            Protocol::Tcp => {
                let flags = if self.flows == Flows::New { 0x02 } else { 0x10 };
                frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            }
            _ => {
                let headers = if self.inner == Ip::V4 { 34 } else { 54 };
                frame.extend((bytes as u16 - headers).to_be_bytes());
                frame.extend([0, 0]);
            }
        }
        frame.resize(bytes, 0);
        self.make_peculiar(&mut frame);
        frame
    }

    /// Bytes that make a packet peculiar.
    const fn more(&self) -> usize {
        match self.kind {
            Kind::Tag | Kind::Options => self.tags() + self.gap(),
            _ => 0,
        }
    }

    /// Makes a plain frame what it is to be.
    fn make_peculiar(&self, frame: &mut Vec<u8>) {
        match (self.kind, self.inner) {
            (Kind::Tag, _) => drop(frame.splice(12..12, [0x81, 0, 0, 5])),
            (Kind::Options, Ip::V4) => {
                frame.splice(34..34, [1; 4]);
                (frame[14], frame[17]) = (0x46, frame[17] + 4);
            }
            (Kind::Options, Ip::V6) => {
                frame.splice(54..54, [frame[20], 0, 1, 4, 0, 0, 0, 0]);
                (frame[20], frame[19]) = (60, frame[19] + 8);
            }
            (Kind::Fragments, _) => frame[20] = 0x20,
            (Kind::Errors, _) => {
                // Fragmentation needed, and the segment that the VIP sent to the client.
                let [vip, client] = [[198, 18, 0, 0], [198, 51, 100, 7]];
                let mut message = vec![3, 4, 0, 0, 0, 0, 5, 120, 0x45, 0, 5, 220, 0, 0, 0x40, 0, 60, 6, 0, 0];
                message.extend([vip, client].concat());
                message.extend(PORT.to_be_bytes());
                message.extend([0, 0, 0, 0, 0, 1]);
                frame[23] = 1;
                frame[34..34 + message.len()].copy_from_slice(&message);
            }
            _ => {}
        }
    }

    /// The packets of a VIP.
    fn service(&self, number: u16) -> Service {
        let port = std::num::NonZeroU16::new(PORT).map_or(Ports::Any, Ports::one);
        let plain = Service { network: self.vip(number).into(), ports: port, protocol: self.protocol };
        match (self.kind, port) {
            (Kind::Range, Ports::Range { first, .. }) => {
                Service { ports: Ports::Range { first, last: first.saturating_add(100) }, ..plain }
            }
            (Kind::Prefix, _) => Service::parse("198.18.0.0/24", "any", "any").unwrap_or(plain),
            _ => plain,
        }
    }

    /// The address of a VIP, within the networks for benchmarks (RFC 2544, RFC 5180).
    fn vip(&self, number: u16) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        match self.inner {
            Ip::V4 => Ipv4Addr::new(198, 18, high, low).into(),
            Ip::V6 => Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, number).into(),
        }
    }

    fn backend(&self, pool: u16, number: u16) -> IpAddr {
        match self.outer {
            Ip::V4 => Ipv4Addr::new(10, 1, pool as u8, number as u8).into(),
            Ip::V6 => Ipv6Addr::new(0x2001, 2, 0, 2, 0, 0, pool, number).into(),
        }
    }

    /// What publishes the services, for a program that decides like this. Flows of slots in transition belong to the next
    /// backend.
    ///
    /// # Errors
    /// If there are more backends than member ids.
    pub(super) fn steps(&self, mode: Mode) -> Result<Vec<Step>> {
        let outer = OuterSources { v4: "10.64.11.0/24".parse().ok(), v6: "2001:2:0:3::/64".parse().ok() };
        let next_hop = NextHop::new(NEXT_HOP, InterfaceSlot(0));
        let encap = if self.kind == Kind::Gue { EncapKind::Gue } else { EncapKind::IpIp };
        let mut steps = Vec::new();
        let (tracking, moving) = match mode {
            Mode::TableOnly | Mode::Capturing(_) => (Tracking::Exception, 0),
            Mode::Exception(moving) => (Tracking::Exception, moving),
            Mode::Always => (Tracking::Always, 0),
        };
        for pool in 0..self.pools {
            steps.push(Step::SetIdle { pool: PoolIndex(pool), seconds: 15 * 60 });
            let id = |n: u16| MemberId::new(pool * self.backends + n + 1).context("too many backends");
            let names = (0..self.backends).map(|n| Name::parse(&format!("web{pool}-{n:05}")));
            let names = names.collect::<Result<Vec<_>, _>>()?;
            for n in 0..self.backends {
                let record = plan::member_record(PoolIndex(pool), self.backend(pool, n), encap, &outer, next_hop);
                steps.push(Step::WriteMember { id: id(n)?, record });
            }
            let table = Table::build(names.iter().map(|name| (name, Weight(100))));
            let moves = |slot: usize| slot as u32 % 100 < moving;
            let word = |(slot, &owner): (usize, &u16)| {
                let word = if moves(slot) { SlotWord::moving } else { SlotWord::settled };
                id(owner).map(word)
            };
            let slots: Arc<[SlotWord]> = table.slots().iter().enumerate().map(word).collect::<Result<_>>()?;
            let (current, previous) = (TableIndex(pool + 1), TableIndex(self.pools + pool + 1));
            steps.push(Step::FillTable { table: current, slots: slots.into() });
            let mut word = PoolWord::settled(current).tracked(tracking, UdpPolicy::New);
            if moving > 0 {
                let owner = |(slot, &owner): (usize, &u16)| match moves(slot) {
                    true => id((owner + 1) % self.backends).map(SlotWord::settled),
                    false => Ok(SlotWord::default()),
                };
                let slots: Arc<[SlotWord]> = table.slots().iter().enumerate().map(owner).collect::<Result<_>>()?;
                steps.push(Step::FillTable { table: previous, slots: slots.into() });
                word = word.learning(previous);
            }
            steps.push(Step::SwitchPool { pool: PoolIndex(pool), word });
        }
        let vips = (0..self.vips).map(|n| {
            let service = self.service(n);
            let (id, pool, when_empty) = (VipId(n), PoolIndex(n % self.pools), Unserved::Drop);
            let affinity = if self.kind == Kind::Source { Affinity::Source } else { Affinity::FiveTuple };
            plan::Listed { service, id, pool, when_empty, affinity, is_serving: true }
        });
        let (four, six) = plan::directories(vips, PacketSettings::default());
        steps.extend([Step::SwitchDirectory4 { contents: four }, Step::SwitchDirectory6 { contents: six }]);
        Ok(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_masks_are_masks() {
        for (n, scenario) in ALL.iter().enumerate() {
            assert!(ALL[..n].iter().all(|other| other.name != scenario.name), "{}", scenario.name);
            assert!(scenario.vips.is_power_of_two());
            let (mask, step) = scenario.flow_numbers();
            assert!((mask + 1).is_power_of_two() && (mask == 0 || step == 0));
        }
    }

    #[test]
    fn a_flow_table_is_larger_only_for_flows_that_it_holds() {
        let million = Scenario { flows: Flows::Of(1 << 20), ..BASE };
        assert_eq!(million.flow_sets(Mode::Always), 1 << 18);
        assert_eq!(million.flow_sets(Mode::Exception(100)), 1 << 18);
        assert_eq!(million.flow_sets(Mode::Exception(5)), DEFAULT_FLOW_SETS, "what operators have");
        assert_eq!(BASE.flow_sets(Mode::Always), DEFAULT_FLOW_SETS);
    }

    #[test]
    fn frames_are_as_long_as_they_say() {
        for scenario in &ALL {
            let frame = scenario.frame();
            assert_eq!(frame.len(), scenario.bytes, "{}", scenario.name);
            let (field, headers) = if scenario.inner == Ip::V4 { (16, 14) } else { (18, 54) };
            let (field, headers) = (field + scenario.tags(), headers + scenario.tags());
            let length = u16::from_be_bytes([frame[field], frame[field + 1]]);
            assert_eq!(usize::from(length), frame.len() - headers, "{}", scenario.name);
        }
    }
}
