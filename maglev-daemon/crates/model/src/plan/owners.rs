//! Which backends own a pool's slots, with which weights, and which slot belongs to which: one rule for the published table and
//! for a preview of it. It must not know transitions.

use maglev_common::backend::MemberId;
use maglev_common::table::SlotWord;

use super::published::PublishedPool;
use crate::table::Table;
use crate::{Backend, Name, Ramp, Standing, Weight};

/// The owners of slots: names, weights and ids, in the order of names.
pub(super) type Owners = Vec<(Name, Weight, MemberId)>;

/// The state of a backend when slots are distributed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) id: MemberId,
    pub(super) standing: Standing,
    /// Whether it has a next hop now.
    pub(super) is_resolved: bool,
}

/// A backend that takes new flows and serves as far as its health goes: it owns slots if it has a next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) owner: (Name, Weight, MemberId),
    pub(super) is_resolved: bool,
}

/// The candidates among backends, in the same order. A backend without a record is not a candidate.
pub(super) fn candidates<'a>(
    backends: impl Iterator<Item = &'a Backend>,
    known: impl Fn(&Backend) -> Option<Known>,
) -> Vec<Candidate> {
    let takers = backends.filter(|backend| backend.takes_new_flows());
    let takers: Vec<_> = takers.filter_map(|backend| Some((backend, known(backend)?))).collect();
    let takers: Vec<_> = takers.into_iter().filter(|(_, known)| known.standing.serves).collect();
    let parts: Vec<_> = takers.iter().map(|(backend, known)| (backend.weight, known.standing.percent)).collect();
    let candidate = |((backend, known), weight): ((&Backend, Known), Weight)| {
        let Known { id, standing: _, is_resolved } = known;
        Candidate { owner: (backend.name.clone(), weight, id), is_resolved }
    };
    takers.into_iter().zip(effective_weights(&parts)).map(candidate).collect()
}

/// The candidates that own slots: those with a next hop. If none has one, all of them: their packets are then dropped as
/// unresolved, which is more precise than "no backend".
pub(super) fn owners(candidates: Vec<Candidate>) -> Owners {
    let all_wait = candidates.iter().all(|candidate| !candidate.is_resolved);
    let owners = candidates.into_iter().filter(|candidate| candidate.is_resolved || all_wait);
    owners.map(|candidate| candidate.owner).collect()
}

/// The table of these owners, by names.
pub(super) fn table_of(owners: &Owners) -> Table {
    Table::build(owners.iter().map(|(name, weight, _)| (name, *weight)))
}

/// The owner of each slot, by id.
pub(super) fn by_slot(table: &Table, owners: &Owners) -> Vec<SlotWord> {
    let id = |&owner: &u16| owners.get(usize::from(owner)).map_or(MemberId::NOBODY, |(_, _, id)| *id);
    table.slots().iter().map(|owner| SlotWord::settled(id(owner))).collect()
}

impl PublishedPool {
    /// The candidates among backends of this pool.
    pub(super) fn candidates<'a>(&self, backends: impl Iterator<Item = &'a Backend>) -> Vec<Candidate> {
        candidates(backends, |backend| self.known(backend))
    }

    /// The record of a backend; `None` if it is not published.
    pub(super) fn known(&self, backend: &Backend) -> Option<Known> {
        let member = self.members.get(&(backend.name.clone(), backend.address))?;
        Some(Known { id: member.id, standing: member.standing, is_resolved: member.next_hop.is_resolved() })
    }
}

/// Weights scaled to these percentages. All are scaled alike, as far as the range allows, and rounded up to 1: a small share
/// must not become zero. The table depends on their ratios alone.
fn effective_weights(parts: &[(Weight, u8)]) -> Vec<Weight> {
    let all = u32::from(Ramp::FULL);
    if parts.iter().all(|(_, percent)| *percent == Ramp::FULL) {
        return parts.iter().map(|(weight, _)| *weight).collect();
    }
    let heaviest = parts.iter().map(|(weight, _)| u32::from(weight.0)).max().unwrap_or(1).max(1);
    let scale = all.min(u32::from(u16::MAX) / heaviest);
    let part = |(weight, percent): &(Weight, u8)| {
        let part = u32::from(weight.0) * scale * u32::from(*percent) / all;
        Weight(u16::try_from(part.max(1)).unwrap_or(u16::MAX))
    };
    parts.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AdminState;

    #[test]
    fn backends_without_a_next_hop_own_slots_where_none_has_one() {
        let backend = |n: u8| {
            let (name, address) = (Name::parse(&format!("web{n}")).unwrap(), [10, 0, 1, n].into());
            Backend { name, address, weight: Weight(100), state: AdminState::Active, mtu: None }
        };
        let backends = [1, 2, 3].map(backend);
        let owned = |resolved: [bool; 3], unhealthy: usize| -> Vec<u16> {
            let known = |backend: &Backend| {
                let n = backends.iter().position(|other| other == backend)?;
                let standing = Standing { serves: n != unhealthy, ..Standing::default() };
                Some(Known { id: MemberId::from_low_bits(n as u16 + 1), standing, is_resolved: resolved[n] })
            };
            owners(candidates(backends.iter(), known)).iter().map(|(_, _, id)| id.get()).collect()
        };
        assert_eq!(owned([true, true, true], 9), [1, 2, 3]);
        assert_eq!(owned([true, false, true], 9), [1, 3]);
        assert_eq!(owned([false, false, false], 9), [1, 2, 3]);
        assert_eq!(owned([false, true, false], 1), [1, 3], "one that fails its checks is no candidate");
    }

    #[test]
    fn parts_of_weights_keep_their_ratios() {
        let weights = |parts: &[(u16, u8)]| -> Vec<u16> {
            let parts: Vec<_> = parts.iter().map(|(weight, percent)| (Weight(*weight), *percent)).collect();
            effective_weights(&parts).into_iter().map(|weight| weight.0).collect()
        };
        assert_eq!(weights(&[(100, 100), (65_535, 100)]), [100, 65_535]);
        assert_eq!(weights(&[(1, 100), (1, 10)]), [100, 10]);
        assert_eq!(weights(&[(100, 100), (200, 29)]), [10_000, 5_800]);
        assert_eq!(weights(&[(65_535, 50), (1, 10)]), [32_767, 1], "little is not nothing");
    }

    #[test]
    fn a_table_depends_on_ratios_alone() {
        let names: Vec<_> = ["a", "b", "c"].map(|name| Name::parse(name).unwrap()).into();
        let table = |weights: [u16; 3]| Table::build(names.iter().zip(weights.map(Weight)));
        assert_eq!(table([1, 2, 3]), table([100, 200, 300]));
        let shares = table([100, 100, 10]).shares();
        assert!(shares[2].abs_diff(shares[0] / 10) < 10, "{shares:?}");
    }
}
