//! The fields of the services that are hashed. No text for people or for debugging is hashed, so that two releases hash the same
//! services alike.
//!
//! Structs are destructured whole. A field that is added later is hashed only where it has not its default value, with a tag
//! of its own, so that nodes of both releases agree while it is not used.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::Fields;
use crate::{
    AdminState, Affinity, Announce, AnnounceBy, Backend, Check, Community, EncapKind, Hysteresis, Name, OnAllDead,
    Override, Percent, Pool, PoolHealth, PoolSettings, Ports, Probe, Protocol, Request, Service, Services, Tls,
    Tracking, TransitionSettings, UdpPolicy, Unserved, Via, Vip, Weight,
};

impl Fields {
    pub(super) fn services(&mut self, services: &Services) {
        let Services { pools, vips } = services;
        self.list(pools.values(), |out, pool| out.pool(pool));
        self.list(vips.values(), Self::vip);
    }

    fn pool(&mut self, pool: &Pool) {
        let Pool { name, settings, health, backends } = pool;
        self.name(name);
        let PoolSettings { tracking, transition, min_healthy, encap } = *settings;
        self.number(match tracking {
            Tracking::Exception => 0_u8,
            Tracking::Always => 1,
        });
        let TransitionSettings { learning, idle, udp } = transition;
        self.duration(learning);
        self.duration(idle);
        self.number(match udp {
            UdpPolicy::New => 0_u8,
            UdpPolicy::Keep => 1,
        });
        self.number(min_healthy);
        self.health(health);
        self.list(backends.values(), Self::backend);
        match encap {
            EncapKind::IpIp => {}
            EncapKind::Gue => self.text("encap gue"),
        }
    }

    fn backend(&mut self, backend: &Backend) {
        let Backend { name, address, weight: Weight(weight), state, mtu } = backend;
        self.name(name);
        self.address(*address);
        self.number(*weight);
        self.number(match state {
            AdminState::Active => 0_u8,
            AdminState::Draining { since: _ } => 1,
            AdminState::Disabled { since: _ } => 2,
        });
        if let Some(mtu) = mtu {
            self.text("mtu");
            self.number(mtu.bytes());
        }
    }

    fn health(&mut self, health: &PoolHealth) {
        let PoolHealth { check, overrides, panic: Percent(panic), slow_start, on_all_dead } = health;
        self.list(check, |out, check| out.check(check));
        self.list(overrides, |out, (name, own)| {
            let Override { port, path, host } = own;
            out.name(name);
            out.list(port, |out, port| out.number(port.get()));
            out.list(path, |out, path| out.text(path));
            out.list(host, |out, host| out.text(host));
        });
        // A percentage leaves the highest bit free, so that a pool without this setting keeps its digest.
        let keep = match on_all_dead {
            OnAllDead::Withdraw => 0_u8,
            OnAllDead::Keep => 0x80,
        };
        self.number(*panic | keep);
        self.duration(*slow_start);
    }

    fn check(&mut self, check: &Check) {
        let Check { probe, interval, timeout, jitter, hysteresis: Hysteresis { fall, rise }, port, via } = check;
        self.probe(probe);
        [*interval, *timeout, *jitter].into_iter().for_each(|duration| self.duration(duration));
        self.number(*fall);
        self.number(*rise);
        self.list(port, |out, port| out.number(port.get()));
        match via {
            Via::Direct => self.number(0_u8),
            Via::Encap { vip } => {
                self.number(1_u8);
                self.list(vip, Self::name);
            }
        }
    }

    fn probe(&mut self, probe: &Probe) {
        match probe {
            Probe::Tcp => self.number(0_u8),
            Probe::Http(request) => {
                self.number(1_u8);
                self.request(request);
            }
            Probe::Https(request, Tls { name, of_host, verify }) => {
                self.number(2_u8);
                self.request(request);
                self.text(name);
                self.number(u8::from(*of_host));
                self.number(u8::from(*verify));
            }
            Probe::Udp { payload, expect } => {
                self.number(3_u8);
                self.bytes(payload);
                self.bytes(expect);
            }
            Probe::Dns { query, rcode } => {
                self.number(4_u8);
                self.text(query);
                self.number(*rcode);
            }
        }
    }

    fn request(&mut self, request: &Request) {
        let Request { path, host, status, body } = request;
        self.text(path);
        self.list(host, |out, host| out.text(host));
        self.number(*status.start());
        self.number(*status.end());
        self.list(body, |out, body| out.text(body));
    }

    fn vip(&mut self, vip: &Vip) {
        let Vip { name, service, pool, announce, when_empty, affinity } = vip;
        self.name(name);
        self.service(*service);
        self.name(pool);
        let Announce { by, communities } = announce;
        match by {
            AnnounceBy::Address => self.number(0_u8),
            AnnounceBy::Prefix(prefix) => {
                self.number(1_u8);
                self.prefix(*prefix);
            }
            AnnounceBy::Nothing => self.number(2_u8),
        }
        // By their bytes: the order of the type's variants may differ between releases.
        let communities: std::collections::BTreeSet<_> = communities.iter().map(wire).collect();
        self.list(communities, |out, bytes| out.bytes(&bytes));
        match when_empty {
            Unserved::Drop => {}
            Unserved::Reset => self.text("when_empty"),
        }
        match affinity {
            Affinity::FiveTuple => {}
            Affinity::Source => self.text("source"),
            Affinity::Prefix(length) => {
                self.text("source");
                self.number(*length);
            }
        }
    }

    /// One address is its bytes, and a prefix those and its length. No port is any, one is one, and two are a range.
    fn service(&mut self, Service { network, ports, protocol }: Service) {
        let length = Some(network.prefix_len()).filter(|length| *length < network.max_prefix_len());
        let octets = match network.addr() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        self.bytes(&octets.into_iter().chain(length).collect::<Vec<_>>());
        let ports = match ports {
            Ports::Any => Vec::new(),
            Ports::Range { first, last } if first == last => vec![first],
            Ports::Range { first, last } => vec![first, last],
        };
        self.list(ports, |out, port| out.number(port.get()));
        self.number(match protocol {
            Protocol::Tcp => 6_u8,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
            Protocol::UdpLite => 136,
            Protocol::Esp => 50,
            Protocol::Gre => 47,
            Protocol::Any => 0,
        });
    }

    fn prefix(&mut self, prefix: IpNet) {
        self.address(prefix.addr());
        self.number(prefix.prefix_len());
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.bytes(&address.octets()),
            IpAddr::V6(address) => self.bytes(&address.octets()),
        }
    }

    /// In nanoseconds.
    fn duration(&mut self, duration: Duration) {
        self.number(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    fn name(&mut self, name: &Name) {
        self.text(name.as_str());
    }
}

/// A community as it is sent: 4, 8 or 12 bytes, so that no two kinds share bytes.
fn wire(community: &Community) -> Vec<u8> {
    match *community {
        Community::Standard(asn, value) => [asn, value].map(u16::to_be_bytes).concat(),
        Community::Extended(bytes) => bytes.to_vec(),
        Community::Large(asn, first, second) => [asn, first, second].map(u32::to_be_bytes).concat(),
    }
}
