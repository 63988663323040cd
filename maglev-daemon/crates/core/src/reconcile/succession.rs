//! The change to another data plane of this process: its planner continues the running one's, and its first plan holds everything. It
//! must not know how a data plane is made, nor how it takes over.

use maglev_common::backend::NextHop;
use maglev_model::plan::Planner;
use maglev_model::{Refusal, Rules, Services};

use super::{Denied, Effect, Interfaces, Members, Needed, Reconciler, RequestId, Successor, refuse};

impl Reconciler {
    /// Whether a data plane with these rules can take the place of the running one, with these services.
    ///
    /// # Errors
    /// Services that the rules do not allow, VIPs within the outer sources, or numbers in use that are beyond the limits.
    pub fn review_successor(&self, rules: &Rules, services: &Services) -> Result<(), Denied> {
        let faults: Vec<String> = services.validate(rules).iter().map(ToString::to_string).collect();
        if !faults.is_empty() {
            return Err(Denied::Invalid(faults));
        }
        let needed = Needed { outer: rules.outer, ..self.settings.needed.clone() };
        self.settings.needed.check_next(&needed, services).map_err(Denied::Invalid)?;
        self.planner
            .succeed(rules.limits, rules.outer, &Some, self.now)
            .map(drop)
            .map_err(|reason| Denied::Refused(cannot(&reason)))
    }

    /// If another data plane is prepared: the planner goes on with it. Returns the request, and the members it begins with.
    ///
    /// # Errors
    /// The refusal of the request: the running data plane goes on.
    pub(super) fn succeed(&mut self) -> Result<Option<(RequestId, Members)>, Effect> {
        let Some((request, successor)) = self.successor.take() else { return Ok(None) };
        let Successor { rules, packets, interfaces } = *successor;
        let moved = |next_hop| moved(next_hop, &self.settings.interfaces, &interfaces);
        let (planner, members): (Planner, Members) = self
            .planner
            .succeed(rules.limits, rules.outer, &moved, self.now)
            .map_err(|reason| refuse(request, cannot(&reason)))?;
        self.planner = planner.with_packets(packets);
        let adopted = std::mem::take(&mut self.adopted).into_iter();
        self.adopted = adopted.filter_map(|(address, next_hop)| Some((address, moved(next_hop)?))).collect();
        self.settings.needed.outer = rules.outer;
        (self.settings.rules, self.settings.packets, self.settings.interfaces) = (rules, packets, interfaces);
        (self.served_outdated, self.reaches_outdated) = (true, true);
        // The next plan is of everything: one that failed, or could not be finished, has no meaning in other maps.
        (self.unfinished, self.unclosed) = (None, None);
        Ok(Some((request, members)))
    }
}

fn cannot(reason: &str) -> Refusal {
    Refusal::Conflict(format!("the data plane cannot be continued with these settings: {reason}; restart maglevd"))
}

/// A next hop by the slot that its interface has next; none, if it has none.
fn moved(next_hop: NextHop, before: &Interfaces, next: &Interfaces) -> Option<NextHop> {
    let (index, _) = before.slots.iter().find(|(_, slot)| **slot == next_hop.interface())?;
    next.slots.get(index).map(|slot| next_hop.moved_to(*slot))
}
