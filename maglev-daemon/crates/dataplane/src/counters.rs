//! Counters as totals over the per-CPU regions of the maps. It must not know names of VIPs or backends.

use maglev_common::backend::MemberId;
use maglev_common::counters::{Counter, Counts, DecapCounter, Traffic};
use maglev_common::maps::COUNTER_REGION;
use maglev_common::pod::Word;
use maglev_common::vip::VipId;

use super::maps::Maps;
use super::shared::Mapped;

/// Packets and bytes over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets.
    pub packets: u64,
    /// Bytes of the frames as they came in, Ethernet header included.
    pub bytes: u64,
}

/// All counters of the load balancer at one moment. They are read one after the other while packets pass, so sums may
/// differ by the packets in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    counters: Vec<u64>,
    sent_by_cpu: Vec<u64>,
    vips: Vec<Totals>,
    members: Vec<Totals>,
}

impl Snapshot {
    pub(super) fn read(maps: &Maps) -> Self {
        Self {
            counters: counters(maps),
            sent_by_cpu: maps.counts.values().iter().map(sent).collect(),
            vips: totals(maps, Counts::vips),
            members: totals(maps, Counts::members),
        }
    }

    /// How often an event was counted.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters.get(counter as usize).copied().unwrap_or(0)
    }

    /// Packets that each CPU sent to backends.
    pub fn sent_by_cpu(&self) -> &[u64] {
        &self.sent_by_cpu
    }

    /// Packets that arrived for a VIP.
    pub fn vip(&self, id: VipId) -> Totals {
        self.vips.get(usize::from(id.0)).copied().unwrap_or_default()
    }

    /// Packets that were sent to a member.
    pub fn member(&self, id: MemberId) -> Totals {
        self.members.get(usize::from(id.get())).copied().unwrap_or_default()
    }
}

/// All counters of a backend's decapsulation at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecapSnapshot(Vec<u64>);

impl DecapSnapshot {
    pub(super) fn read(counters: &Mapped<Word>) -> Self {
        Self(sums(counters.values().chunks_exact(COUNTER_REGION as usize)))
    }

    /// How often an event was counted.
    pub fn counter(&self, counter: DecapCounter) -> u64 {
        self.0.get(counter as usize).copied().unwrap_or(0)
    }
}

impl std::iter::Sum for DecapSnapshot {
    fn sum<I: Iterator<Item = Self>>(snapshots: I) -> Self {
        let mut total = vec![0_u64; COUNTER_REGION as usize];
        for Self(counters) in snapshots {
            total.iter_mut().zip(counters).for_each(|(sum, counter)| *sum = sum.wrapping_add(counter));
        }
        Self(total)
    }
}

fn sent(counts: &Counts) -> u64 {
    let [transmitted, redirected] =
        [Counter::Transmitted, Counter::Redirected].map(|counter| counts.counter(counter).get());
    transmitted.wrapping_add(redirected)
}

fn counters(maps: &Maps) -> Vec<u64> {
    let of_node = |counter| {
        maps.counts.values().iter().fold(0, |sum: u64, counts| sum.wrapping_add(counts.counter(counter).get()))
    };
    Counter::ALL.iter().map(|&counter| of_node(counter)).collect()
}

fn sums<'a>(regions: impl Iterator<Item = &'a [Word]>) -> Vec<u64> {
    let mut sums = vec![0_u64; COUNTER_REGION as usize];
    for region in regions {
        sums.iter_mut().zip(region).for_each(|(sum, word)| *sum = sum.wrapping_add(word.get()));
    }
    sums
}

fn totals(maps: &Maps, region: impl Fn(&Counts) -> &[Traffic]) -> Vec<Totals> {
    let mut totals = vec![Totals::default(); region(maps.counts.first()).len()];
    for counts in maps.counts.values() {
        for (total, traffic) in totals.iter_mut().zip(region(counts)) {
            total.packets = total.packets.wrapping_add(traffic.packets.get());
            total.bytes = total.bytes.wrapping_add(traffic.bytes.get());
        }
    }
    totals
}
