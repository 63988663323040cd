//! What the API tells of the speaker, and asks it. It must not know the protocol.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Answer, Caller, view};
use crate::announce::Prefix;
use crate::bgp::speaker::{self, NeighborStatus};
use crate::model::shown;

/// The way to the speaker; without one there are no neighbours, and prefixes are told all the same.
#[derive(Clone, Debug, Default)]
pub struct Bgp {
    /// The neighbours' tasks.
    pub speaker: speaker::Handle,
    /// The prefixes of the VIPs.
    pub prefixes: Option<watch::Receiver<Arc<Vec<Prefix>>>>,
}

impl Bgp {
    /// Every neighbour's session.
    pub(crate) fn neighbors(&self) -> view::BgpNeighbors {
        view::BgpNeighbors(self.speaker.neighbors().into_iter().map(neighbor).collect())
    }

    /// Every prefix that VIPs ask to be announced.
    pub(crate) fn routes(&self) -> view::BgpRoutes {
        let prefixes = self.prefixes.as_ref().map(|prefixes| prefixes.borrow().clone()).unwrap_or_default();
        view::BgpRoutes(prefixes.iter().map(route).collect())
    }

    /// VIPs with what routers are told of them.
    pub(super) fn told_of(&self, mut vips: Vec<view::Vip>) -> Vec<view::Vip> {
        let Some(prefixes) = &self.prefixes else { return vips };
        let prefixes = prefixes.borrow();
        let named = prefixes.iter().flat_map(|prefix| prefix.vips.iter().map(move |vip| (vip.as_str(), prefix)));
        let by_vip: BTreeMap<&str, &Prefix> = named.collect();
        for vip in &mut vips {
            if let Some(prefix) = by_vip.get(vip.name.as_str()) {
                vip.health.announced = Some(prefix.withheld.is_none());
                vip.health.withheld.clone_from(&prefix.withheld);
            }
        }
        vips
    }

    /// Ends a neighbour's session and begins again.
    pub(super) async fn reset(&self, name: &str, caller: Caller) -> Answer<()> {
        if self.speaker.reset(name, "reset by the operator").await {
            let Caller { uid, pid } = caller;
            tracing::info!(uid, pid, neighbor = name, "BGP session reset");
            return Ok(());
        }
        let names: Vec<String> = self.speaker.neighbors().into_iter().map(|neighbor| neighbor.name).collect();
        let known = if names.is_empty() { "none: maglev.yaml has no `bgp`".to_owned() } else { names.join(", ") };
        Err(view::Error::conflict(format!("there is no BGP neighbour {}; there is: {known}", shown(name))))
    }
}

fn neighbor(status: NeighborStatus) -> view::BgpNeighbor {
    let NeighborStatus { name, remote_as, state, since, prefixes_sent, told: _, sessions, last_error, last_error_at } =
        status;
    view::BgpNeighbor { name, remote_as, state, since, prefixes_sent, sessions, last_error, last_error_at }
}

fn route(found: &Prefix) -> view::BgpRoute {
    let Prefix { prefix, vips, communities, withheld, shortage: _ } = found;
    view::BgpRoute {
        prefix: *prefix,
        announced: withheld.is_none(),
        reason: withheld.clone(),
        vips: vips.iter().map(ToString::to_string).collect(),
        communities: communities.iter().map(ToString::to_string).collect(),
    }
}
