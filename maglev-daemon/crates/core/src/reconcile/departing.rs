//! VIPs that were removed, but that neighbors may still send packets for: they are served until [`super::Event::Forget`], with their
//! pools as they were, while everything else is planned without delay. It must not know neighbors, nor plans.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maglev_model::{Clash, Name, Places, Services, Vip};

use super::{Batch, Reconciler};

/// VIPs that were removed and are served still, and the requests that wait for that to end.
#[derive(Debug, Default)]
pub(super) struct Departing {
    /// Whether removed VIPs are served at all.
    is_on: bool,
    /// All of them.
    kept: BTreeSet<Name>,
    /// Those whose place no other VIP takes next, and that [`super::Event::Forget`] did not name yet.
    gone: BTreeMap<Name, Vip>,
    /// Those that it named. They are served no longer from the next plan on.
    forgotten: BTreeSet<Name>,
    /// Requests, each with the VIPs that it waits for.
    requests: Vec<(BTreeSet<Name>, Batch)>,
    /// The services that were just saved differ from the published ones.
    holds: bool,
}

impl Departing {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.requests.is_empty()
    }

    /// Takes the requests that a plan is to be made for, and returns those that it answers: not those whose changes it leaves out.
    pub(super) fn hold(&mut self, batch: Batch) -> Batch {
        let mut answered = Batch::new();
        for (names, mut held) in std::mem::take(&mut self.requests) {
            let names: BTreeSet<Name> = names.intersection(&self.kept).cloned().collect();
            if names.is_empty() { answered.append(&mut held) } else { self.requests.push((names, held)) }
        }
        if std::mem::take(&mut self.holds) {
            self.wait(batch);
        } else {
            answered.extend(batch);
        }
        answered
    }

    /// These requests are answered once all removed VIPs that are still served have ended.
    pub(super) fn wait(&mut self, batch: Batch) {
        if !batch.is_empty() {
            self.requests.push((self.kept.clone(), batch));
        }
    }
}

impl Reconciler {
    /// Neighbors are configured: from here on a VIP that is removed is served until [`super::Event::Forget`].
    pub fn keep_removed(&mut self) {
        self.departing.is_on = true;
    }

    /// The VIPs that were removed and are served until [`super::Event::Forget`] names them.
    pub fn departing(&self) -> impl Iterator<Item = &Vip> {
        self.departing.gone.values()
    }

    pub(super) fn forget(&mut self, names: BTreeSet<Name>) {
        self.departing.gone.retain(|name, _| !names.contains(name));
        self.departing.forgotten.extend(names);
        self.served_outdated = true;
    }

    /// Adds the removed VIPs whose place is not taken to those to be served. A VIP that changes its address
    /// keeps its old one until then. `before`: the VIPs that were served.
    pub(super) fn keep_departing(&mut self, before: &Services) {
        let Self { departing, served, .. } = self;
        if !departing.is_on {
            return;
        }
        let forgotten = std::mem::take(&mut departing.forgotten);
        let kept = kept(before, served, forgotten);
        let known = std::mem::replace(&mut departing.kept, kept.keys().cloned().collect());
        let places = served.places();
        let gone = kept.iter().filter(|(_, vip)| !is_taken(&places, vip));
        departing.gone = gone.map(|(name, vip)| (name.clone(), vip.clone())).collect();
        departing.holds = departing.kept.difference(&known).next().is_some();
        if kept.is_empty() {
            return;
        }
        let wanted = Arc::clone(served);
        let served = Arc::make_mut(served);
        served.vips.extend(kept.iter().map(|(name, vip)| (name.clone(), vip.clone())));
        let others = served.vips.iter().filter(|(name, _)| !kept.contains_key(*name));
        let in_use: BTreeSet<&Name> = others.map(|(_, vip)| &vip.pool).collect();
        let pools =
            kept.values().filter(|vip| !in_use.contains(&vip.pool)).filter_map(|vip| before.pools.get(&vip.pool));
        served.pools.extend(pools.map(|pool| (pool.name.clone(), pool.clone())));
        let is_served = |vip: &Vip| served.vips.get(&vip.name) == Some(vip);
        departing.holds |= served.pools != wanted.pools || !wanted.vips.values().all(is_served);
    }
}

/// Whether the place of a VIP is another's: its packets would be for both.
fn is_taken(places: &Places, vip: &Vip) -> bool {
    matches!(places.clash(vip), Some(Clash::Taken | Clash::Ambiguous(_)))
}

/// As [`all_kept`]; those without a key of their own only while the packet path can have all of them.
fn kept(before: &Services, wanted: &Services, mut forgotten: BTreeSet<Name>) -> BTreeMap<Name, Vip> {
    let kept = all_kept(before, wanted, &forgotten);
    let others = wanted.vips.values().filter(|vip| !kept.contains_key(&vip.name));
    let mut places = Places::default();
    if others.chain(kept.values()).all(|vip| places.try_insert(vip)) {
        return kept;
    }
    forgotten.extend(before.vips.values().filter(|vip| !vip.has_key()).map(|vip| vip.name.clone()));
    all_kept(before, wanted, &forgotten)
}

/// The VIPs of `before` that packets would no longer find: those without a place among `wanted`, and those in the place of a VIP
/// that waits for one of these.
fn all_kept(before: &Services, wanted: &Services, forgotten: &BTreeSet<Name>) -> BTreeMap<Name, Vip> {
    let mut kept = BTreeMap::<Name, Vip>::new();
    loop {
        let own = wanted.vips.values().filter(|vip| !kept.contains_key(&vip.name));
        let places: Places = own.chain(kept.values()).collect();
        let stays = |vip: &&Vip| !is_taken(&places, vip) && !forgotten.contains(&vip.name);
        let more: Vec<Vip> = before.vips.values().filter(stays).cloned().collect();
        if more.is_empty() {
            return kept;
        }
        kept.extend(more.into_iter().map(|vip| (vip.name.clone(), vip)));
    }
}
