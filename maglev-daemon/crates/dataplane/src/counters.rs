//! Counters as totals over the per-CPU regions of the maps. It must not know names of VIPs or backends.

use aya::maps::MapData;
use maglev_common::backend::MemberId;
use maglev_common::counters::{Counter, Counts, DecapCounter, Traffic};
use maglev_common::flow::WAYS;
use maglev_common::maps::{COUNTER_REGION, COUNTS};
use maglev_common::pod::Word;
use maglev_common::vip::VipId;
use serde::{Deserialize, Serialize};

use super::error::DataplaneError;
use super::maps::Maps;
use super::shared::{Mapped, Shape};

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
    flow_entries: u64,
}

impl Snapshot {
    pub(super) fn read(maps: &Maps) -> Self {
        Self {
            counters: counters(maps),
            sent_by_cpu: maps.counts_by_cpu().iter().map(sent).collect(),
            vips: totals(maps, Counts::vips),
            members: totals(maps, Counts::members),
            flow_entries: u64::from(maps.sizes.flows) * WAYS as u64,
        }
    }

    /// Flows there is room for in the flow tables of all CPUs.
    pub const fn flow_entries(&self) -> u64 {
        self.flow_entries
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

/// What lies where in the map of counters. It is saved with a set, so that a release of another layout reads what this one counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    /// Words in a region.
    words: u32,
    /// The counters' names, a word each.
    counters: Vec<String>,
    /// The first word of member id 0, and the number of ids: packets and bytes of each.
    members: [u32; 2],
    /// The same of VIPs.
    vips: [u32; 2],
}

impl Layout {
    /// This release's.
    pub(super) fn ours() -> Self {
        Self {
            words: (size_of::<Counts>() / size_of::<Word>()) as u32,
            counters: Counter::ALL.iter().map(|counter| counter.name().to_owned()).collect(),
            members: Counts::MEMBERS,
            vips: Counts::VIPS,
        }
    }

    /// Lets two counters lie in each other's place.
    #[cfg(test)]
    pub(super) fn exchange(&mut self, one: &str, other: &str) {
        let [one, other] = [one, other].map(|name| self.counters.iter().position(|known| known == name).unwrap());
        self.counters.swap(one, other);
    }

    /// Whether a program of this layout may go on to count in a map of that one, which may lack counters.
    pub(super) fn continues(&self, before: &Self) -> bool {
        let Self { words, counters, members, vips } = before;
        (self.words, self.members, self.vips) == (*words, *members, *vips) && self.counters.starts_with(counters)
    }

    /// For each word that both have, its index and ours.
    fn shared<'a>(&'a self, ours: &'a Counts) -> impl Iterator<Item = (usize, &'a Word)> {
        let named = |name: &str| Counter::ALL.iter().find(|counter| counter.name() == name);
        let counters = self.counters.iter().enumerate();
        let counters = counters.filter_map(move |(at, name)| Some((at, ours.counter(*named(name)?))));
        let [members, vips] =
            [(self.members, ours.members()), (self.vips, ours.vips())].map(|([at, count], traffic)| {
                let each = traffic.iter().take(count as usize).zip((at as usize..).step_by(2));
                each.flat_map(|(traffic, at)| [(at, &traffic.packets), (at + 1, &traffic.bytes)])
            });
        counters.chain(members).chain(vips)
    }
}

/// The counters of another layout that a data plane continues: what they counted is added where no program counts.
#[derive(Debug)]
pub(super) struct Earlier {
    map: Mapped<Word>,
    layout: Layout,
    /// What was added already, by word.
    added: Vec<u64>,
}

impl Earlier {
    /// Opens another set's map.
    pub(super) fn open(data: &MapData, layout: &Layout) -> Result<Self, DataplaneError> {
        let failed = |error| DataplaneError::map(COUNTS, "BPF_OBJ_GET_INFO_BY_FD", &error);
        let (words, regions) = (layout.words, data.info().map_err(failed)?.max_entries());
        let shape = Shape::of_values(words as usize * size_of::<Word>(), regions);
        let map = Mapped::part_of(COUNTS, data, &shape, 0, words.saturating_mul(regions))?;
        Ok(Self { map, layout: layout.clone(), added: vec![0; words as usize] })
    }

    /// Adds what was counted since the last call.
    pub(super) fn add_to(&mut self, ours: &Counts) {
        let counted = sums(self.map.values().chunks_exact(self.added.len()), self.added.len());
        for (at, word) in self.layout.shared(ours) {
            // A map that is not as its layout says has less.
            let (Some(counted), Some(added)) = (counted.get(at), self.added.get(at)) else { continue };
            word.set(word.get().wrapping_add(counted.wrapping_sub(*added)));
        }
        self.added = counted;
    }
}

/// All counters of a backend's decapsulation at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecapSnapshot(Vec<u64>);

impl DecapSnapshot {
    pub(super) fn read(counters: &Mapped<Word>) -> Self {
        Self(sums(counters.values().chunks_exact(COUNTER_REGION as usize), COUNTER_REGION as usize))
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

fn sums<'a>(regions: impl Iterator<Item = &'a [Word]>, words: usize) -> Vec<u64> {
    let mut sums = vec![0_u64; words];
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
