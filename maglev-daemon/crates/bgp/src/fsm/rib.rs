//! The prefixes announced to a neighbor (the Adj-RIB-Out), and those still to be sent. It must not know connections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;

use super::Route;
use crate::wire::{self, Attributes, Boundary, Encoding, Family, NoRoom};

/// Prefixes that are said at once, at most: about ten messages of IPv4 and twenty of IPv6. More are said when these are
/// sent, so a neighbor that reads slowly holds no memory.
const BATCH: usize = 8_192;

/// Prefixes, and those still to be sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Rib {
    wanted: BTreeMap<IpNet, Arc<Route>>,
    /// No more will come but changes: the end of a family may be marked.
    complete: bool,
    /// The prefixes that were announced to the neighbor in this session.
    said: Arc<BTreeSet<IpNet>>,
    /// Prefixes to say something of.
    pending: BTreeSet<IpNet>,
    /// Families whose end is not marked yet.
    unfinished: BTreeSet<Family>,
    /// Families that are being sent again, and whether that has begun: the neighbor received the mark of the beginning, if it
    /// asks for that.
    refreshing: BTreeMap<Family, bool>,
}

impl Rib {
    /// Prefixes that the neighbor knows.
    pub(super) const fn said(&self) -> &Arc<BTreeSet<IpNet>> {
        &self.said
    }

    /// Whether nothing is left to say.
    pub(super) fn is_all_said(&self) -> bool {
        self.pending.is_empty() && (self.unfinished.is_empty() || !self.complete)
    }

    pub(super) fn announce(&mut self, routes: impl IntoIterator<Item = (IpNet, Arc<Route>)>) {
        for (prefix, route) in routes {
            if self.wanted.get(&prefix) != Some(&route) {
                self.wanted.insert(prefix, route);
                self.pending.insert(prefix);
            }
        }
    }

    pub(super) fn withdraw(&mut self, prefixes: impl IntoIterator<Item = IpNet>) {
        for prefix in prefixes {
            if self.wanted.remove(&prefix).is_some() {
                self.pending.insert(prefix);
            }
        }
    }

    pub(super) const fn complete(&mut self) {
        self.complete = true;
    }

    /// A session begins: nothing is said yet.
    pub(super) fn begin(&mut self, families: &BTreeSet<Family>) {
        self.said = Arc::default();
        self.refreshing.clear();
        self.pending = self.wanted.keys().copied().collect();
        self.unfinished.clone_from(families);
    }

    /// A session ended: the neighbor knows nothing.
    pub(super) fn end(&mut self) {
        self.said = Arc::default();
        self.pending.clear();
        self.refreshing.clear();
        self.unfinished.clear();
    }

    /// A family is to be said again. However often that is asked for, it is once until it has begun.
    pub(super) fn refresh(&mut self, family: Family) {
        if self.refreshing.get(&family) == Some(&false) {
            return;
        }
        self.refreshing.entry(family).or_insert(false);
        self.pending.extend(self.wanted.keys().filter(|prefix| Family::from_prefix(prefix) == family));
    }

    /// Everything is to be said again, with other attributes. UPDATEs replace the earlier ones; no marks are needed.
    pub(super) fn resend(&mut self) {
        self.pending.extend(self.wanted.keys());
    }

    /// The next messages; none if all is said. Returns prefixes that there was no room for.
    pub(super) fn write(
        &mut self,
        out: &mut Vec<u8>,
        encoding: Encoding,
        enhanced_refresh: bool,
        attributes: impl Fn(Family, &Route) -> Option<Attributes>,
    ) -> usize {
        for (family, begun) in self.refreshing.iter_mut().filter(|(_, begun)| !**begun) {
            if enhanced_refresh {
                wire::route_refresh(out, *family, Boundary::Begin);
            }
            *begun = true;
        }
        let too_long = self.write_batch(out, encoding, attributes);
        if self.pending.is_empty() {
            self.mark_ends(out, enhanced_refresh);
        }
        too_long
    }

    fn write_batch(
        &mut self,
        out: &mut Vec<u8>,
        encoding: Encoding,
        attributes: impl Fn(Family, &Route) -> Option<Attributes>,
    ) -> usize {
        let Self { wanted, said, pending, .. } = self;
        if pending.is_empty() {
            return 0;
        }
        let said = Arc::make_mut(said);
        let mut gone = BTreeMap::<Family, Vec<IpNet>>::new();
        let mut new = BTreeMap::<(Family, &Route), Vec<IpNet>>::new();
        for prefix in (0..BATCH).map_while(|_| pending.pop_first()) {
            match wanted.get(&prefix) {
                Some(route) => new.entry((Family::from_prefix(&prefix), route)).or_default().push(prefix),
                None => gone.entry(Family::from_prefix(&prefix)).or_default().push(prefix),
            }
        }
        let mut too_long = 0;
        let mut announced = Vec::new();
        for ((family, route), prefixes) in new {
            // Without attributes nothing may be said of them, and with too many nothing can.
            let written = attributes(family, route)
                .map(|attributes| wire::announce(&mut announced, encoding, family, &attributes, &prefixes));
            match written {
                Some(Ok(())) => said.extend(prefixes),
                Some(Err(NoRoom)) => {
                    too_long += prefixes.len();
                    gone.entry(family).or_default().extend(prefixes);
                }
                None => gone.entry(family).or_default().extend(prefixes),
            }
        }
        for (family, mut prefixes) in gone {
            prefixes.retain(|prefix| said.remove(prefix));
            wire::withdraw(out, encoding, family, &prefixes);
        }
        out.extend(announced);
        too_long
    }

    /// All of some families is said.
    fn mark_ends(&mut self, out: &mut Vec<u8>, enhanced_refresh: bool) {
        for family in std::mem::take(&mut self.refreshing).into_keys().filter(|_| enhanced_refresh) {
            wire::route_refresh(out, family, Boundary::End);
        }
        if self.complete {
            for family in std::mem::take(&mut self.unfinished) {
                wire::end_of_rib(out, family);
            }
        }
    }
}
