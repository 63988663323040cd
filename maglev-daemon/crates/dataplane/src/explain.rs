//! The decision for a flow, and its reason: the packet path of the kernel, run here over the same maps. Reads only: writes to
//! the flow table go to a copy of the bucket.

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use maglev_common::backend::MemberId;
use maglev_common::counters::{Counter, VipTraffic};
use maglev_common::flow::{Bucket, Seconds};
use maglev_common::forwarding::Forwarding;
use maglev_common::fragment::{Datagram, Line};
use maglev_common::hash::{FlowHash, Transport, Tuple4, Tuple6};
use maglev_common::settings::Tracking;
use maglev_common::table::{PoolIndex, Slot, SlotWord, TableStart};
use maglev_common::vip::VipId;
use maglev_ebpf::affinity;
use maglev_ebpf::env::{self, Choice, Clock, Decision, Flow, Flows, Segment};
use maglev_ebpf::packet::l4;
use maglev_ebpf::path::forward::decide;
use maglev_ebpf::vip::{self, Lookup, Tuple};
use maglev_model::Protocol;
use nix::time::{ClockId, clock_gettime};

use super::error::DataplaneError;
use super::maps::Maps;
use super::object;

/// The flow asked about: a packet from the client to the VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The client's address and port.
    pub source: SocketAddr,
    /// The VIP's address and port.
    pub destination: SocketAddr,
    /// The transport protocol.
    pub protocol: Protocol,
}

/// A CPU whose flow table has the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The CPU's number.
    pub cpu: u32,
    /// Where it sends the flow.
    pub member: MemberId,
    /// Whether the flow was seen in two different seconds.
    pub confirmed: bool,
    /// Seconds since its last packet.
    pub idle: u16,
}

/// The decision for a flow, and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The VIP the flow is for, if there is one.
    pub vip: Option<VipId>,
    /// The decision for the flow's next packet, on the CPU that saw it last; or the reason for which it is passed or
    /// dropped.
    pub outcome: Result<Decision, Counter>,
    /// The owner of the flow's slot, if it has one.
    pub owner: MemberId,
    /// The CPUs whose flow tables have the flow, the last to see it first.
    pub remembered: Vec<Remembered>,
}

/// Looks the flow up in the tables, and in every CPU's flow table.
pub(super) fn explain(maps: &Maps, flow: Asked) -> Result<Explanation, DataplaneError> {
    let now = now()?;
    let view = |cpu| View::new(maps, cpu, now);
    let ports = u32::from(flow.source.port().swap_bytes()) | u32::from(flow.destination.port().swap_bytes()) << 16;
    let transport = Transport::new(ports, flow.protocol.number());
    match (flow.source.ip(), flow.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let word = |address: [u8; 4]| u64::from(u32::from_le_bytes(address));
            let addresses = word(source.octets()) | word(destination.octets()) << 32;
            Ok(explain_tuple(maps.sizes.cpus, view, Tuple4 { addresses, transport }))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let [a, b] = words(source.octets());
            let [c, d] = words(destination.octets());
            Ok(explain_tuple(maps.sizes.cpus, view, Tuple6 { addresses: [a, b, c, d], transport }))
        }
        (source, destination) => {
            Err(DataplaneError::Flow(format!("{source} and {destination} are addresses of different families")))
        }
    }
}

/// An IPv6 address as two little-endian words of its network-order bytes.
fn words(octets: [u8; 16]) -> [u64; 2] {
    let address = u128::from_le_bytes(octets);
    [address as u64, (address >> 64) as u64]
}

fn explain_tuple<'a, F: Tuple>(cpus: u32, view: impl Fn(u32) -> View<'a>, tuple: F) -> Explanation {
    // A packet in the midst of the flow: a SYN would ask whether the flow begins anew.
    let segment = if tuple.transport().protocol() == l4::UDP { Segment::DATAGRAM } else { Segment::OTHER };
    let table = view(0);
    let mut remembered = Vec::new();
    if let Ok(decision) = decide(tuple, segment, &table)
        && is_remembered(&decision, &table)
    {
        let Flow { pool, word: _, hash } = decision.flow;
        remembered.extend((0..cpus).filter_map(|cpu| view(cpu).remembered(hash, pool)));
    }
    remembered.sort_by_key(|entry| entry.idle);
    let cpu = remembered.first().map_or(0, |entry| entry.cpu);
    let vip = match vip::lookup(tuple, &table) {
        Lookup::Vip(word) => Some(word.id()),
        Lookup::AddressOnly(_) | Lookup::Unknown => None,
    };
    let outcome = decide(tuple, segment, &view(cpu));
    let slot = outcome.map_or(SlotWord::default(), |decision| decision.slot_word(&table));
    Explanation { vip, outcome, owner: slot.owner(), remembered }
}

/// Whether the flow table is consulted for a flow at all.
fn is_remembered(decision: &Decision, tables: &View<'_>) -> bool {
    decision.flow.word.tracking() == Tracking::Always || decision.slot_word(tables).in_transition()
}

/// The time by which flows age, as the program computes it.
pub(super) fn now() -> Result<Seconds, DataplaneError> {
    Ok(Seconds((jiffies_in(Duration::ZERO)?.wrapping_mul(object::seconds_per_jiffy()?) >> 32) as u16))
}

/// The kernel's jiffies after so much time. They began five minutes before they wrap 32 bits (`INITIAL_JIFFIES`), when the monotonic
/// clock began at zero.
pub(super) fn jiffies_in(time: Duration) -> Result<u64, DataplaneError> {
    let since_boot = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)
        .map_err(|errno| DataplaneError::Flow(format!("cannot read the clock: {errno}")))?;
    let jiffy = object::jiffy_nanoseconds()?;
    let nanoseconds = (Duration::from(since_boot) + time).as_nanos() as u64;
    let first = (1_u64 << 32).wrapping_sub(300 * (1_000_000_000 / jiffy));
    Ok(first.wrapping_add(nanoseconds / jiffy))
}

/// The maps as one CPU sees them.
pub(super) struct View<'a> {
    maps: &'a Maps,
    cpu: u32,
    now: Seconds,
    /// The flow's bucket, to be written to without consequence.
    copy: OnceCell<Bucket>,
    /// Whether errors are on their second side.
    second: bool,
}

impl<'a> View<'a> {
    /// The maps as this CPU sees them at this time.
    pub(super) fn new(maps: &'a Maps, cpu: u32, now: Seconds) -> Self {
        Self { maps, cpu, now, copy: OnceCell::new(), second: false }
    }

    /// The same, with errors about flows of slots that are learning on their other side.
    #[cfg(test)]
    pub(super) fn of_second_side(self) -> Self {
        Self { second: true, ..self }
    }

    fn remembered(&self, hash: FlowHash, pool: PoolIndex) -> Option<Remembered> {
        let entry = self.shared_bucket(hash).and_then(|bucket| affinity::peek(self, bucket, pool, hash));
        let entry = entry.or_else(|| affinity::bound_before(self, pool, hash))?;
        let idle = self.now.since(entry.last_seen());
        // The two clocks may differ by a tick: an entry that was used "in a second" was used now.
        let idle = if idle > u16::MAX / 2 { 0 } else { idle };
        Some(Remembered { cpu: self.cpu, member: entry.member(), confirmed: entry.is_confirmed(), idle })
    }

    fn shared_bucket(&self, hash: FlowHash) -> Option<&Bucket> {
        let sets = self.maps.sizes.flow_sets;
        self.maps.flows.get(self.cpu as usize * sets as usize + hash.set(sets - 1) as usize)
    }
}

impl env::Forwarding for View<'_> {
    fn forwarding(&self) -> &Forwarding {
        self.maps.forwarding()
    }

    fn slot(&self, TableStart(start): TableStart, slot: Slot) -> SlotWord {
        let word = self.maps.tables.values().as_flattened().get(start as usize + slot.index());
        word.map_or(SlotWord::default(), |word| SlotWord(word.get()))
    }
}

impl Clock for View<'_> {
    fn now(&self) -> Seconds {
        self.now
    }
}

impl Flows for View<'_> {
    fn bucket(&self, hash: FlowHash) -> Option<&Bucket> {
        let shared = self.shared_bucket(hash)?;
        Some(self.copy.get_or_init(|| shared.copy()))
    }

    fn bucket_before(&self, hash: FlowHash) -> Option<&Bucket> {
        let (before, sets) = (self.maps.flows_before.as_ref()?, self.maps.sizes.sets_before);
        before.get(self.cpu as usize * sets as usize + hash.set(sets - 1) as usize)
    }

    fn choose(&self, flow: Flow, segment: impl Fn() -> Segment) -> (MemberId, Choice) {
        affinity::choose(self, flow, segment)
    }

    fn resolve(&self, flow: Flow, segment: Segment) -> (MemberId, Choice) {
        affinity::resolve(self, flow, segment)
    }

    fn choose_for_error(&self, flow: Flow, segment: Segment) -> (MemberId, Choice) {
        affinity::choose_for_error(self, flow, segment)
    }
}

/// What is only explained is not answered too often.
impl env::Answers for View<'_> {
    fn may_answer(&self) -> bool {
        true
    }

    fn takes_turn(&self, _flow: FlowHash) -> bool {
        self.second
    }
}

impl env::Fragments for View<'_> {
    fn may_begin(&self) -> bool {
        true
    }

    fn line(&self, datagram: Datagram) -> Option<&Line> {
        self.maps.fragments.as_ref()?.get(datagram.line() as usize)
    }
}

/// An explanation is not counted.
impl env::Counters for View<'_> {
    fn count(&self, _: Counter) {}

    fn count_vip(&self, _: VipTraffic, _: u64) {}

    fn count_member(&self, _: MemberId, _: u64) {}
}
