//! BGP over the API: sessions, prefixes and resets. It must not know the protocol.

use std::collections::BTreeMap;
use std::sync::Arc;

use maglev_api::{Answer, view};
use maglev_bgp::speaker;
use maglev_core::announce::Prefix;
use maglev_core::announced::Announced;
use maglev_model::bgp::{Failure, NeighborStatus};
use maglev_model::{UnixTime, shown};
use tokio::sync::watch;

use super::Caller;

/// The reason shown without a `bgp` section.
const OFF: &str = "BGP off";

/// Access to the speaker, if BGP is on, and to the prefixes of the VIPs.
#[derive(Clone, Debug, Default)]
pub struct Bgp {
    /// The neighbors' tasks; none if BGP is off.
    pub speaker: speaker::Handle,
    /// The prefixes of the VIPs.
    pub prefixes: Option<watch::Receiver<Arc<Vec<Prefix>>>>,
}

impl Bgp {
    /// Every neighbor's session.
    pub(crate) fn neighbors(&self) -> view::BgpNeighbors {
        view::BgpNeighbors(self.speaker.neighbors().into_iter().map(neighbor).collect())
    }

    /// Every prefix of VIPs that is to be announced; none if BGP is off.
    pub(crate) fn routes(&self) -> view::BgpRoutes {
        let neighbors = self.speaker.neighbors();
        let prefixes = self.prefixes();
        let prefixes = prefixes.iter().filter(|_| !neighbors.is_empty());
        view::BgpRoutes(prefixes.map(|prefix| route(prefix, &neighbors)).collect())
    }

    /// Sessions and prefixes in numbers; `None` if BGP is off.
    pub(super) fn summary(&self) -> Option<view::BgpSummary> {
        let neighbors = self.speaker.neighbors();
        if neighbors.is_empty() {
            return None;
        }
        let prefixes = self.prefixes();
        let announced = |found: &&Prefix| neighbors.iter().any(|neighbor| neighbor.announced.contains(&found.prefix));
        Some(view::BgpSummary {
            neighbors: neighbors.len(),
            established: neighbors.iter().filter(|neighbor| neighbor.is_established()).count(),
            prefixes: prefixes.len(),
            announced: prefixes.iter().filter(announced).count(),
        })
    }

    /// Adds to each VIP the number of neighbors that it is announced to.
    pub(super) fn with_announcements(&self, mut vips: Vec<view::Vip>) -> Vec<view::Vip> {
        let (neighbors, prefixes) = (self.speaker.neighbors(), self.prefixes());
        let found = prefixes.iter().map(|prefix| (prefix, Announced::new(prefix, &neighbors)));
        let found: Vec<_> = found.collect();
        let named = found.iter().flat_map(|(prefix, found)| prefix.vips.iter().map(move |vip| (vip.as_str(), found)));
        let by_vip: BTreeMap<&str, &Announced> = named.collect();
        for vip in &mut vips {
            let Some(Announced { to, of, reason }) = by_vip.get(vip.name.as_str()) else { continue };
            if neighbors.is_empty() {
                vip.health.withheld = Some(OFF.to_owned());
                continue;
            }
            vip.health.announced = Some(*to > 0);
            (vip.health.announced_to, vip.health.neighbors) = (Some(*to), Some(*of));
            vip.health.withheld.clone_from(reason);
        }
        vips
    }

    /// The prefixes as last published; readers do not block the publisher.
    fn prefixes(&self) -> Arc<Vec<Prefix>> {
        self.prefixes.as_ref().map(|prefixes| Arc::clone(&prefixes.borrow())).unwrap_or_default()
    }

    /// Resets a neighbor's session.
    pub(super) async fn reset(&self, name: &str, caller: Caller) -> Answer<()> {
        if self.speaker.reset(name, "reset by the operator").await {
            let Caller { uid, pid } = caller;
            tracing::info!(uid, pid, neighbor = name, "BGP session reset");
            return Ok(());
        }
        let names: Vec<String> = self.speaker.neighbors().into_iter().map(|neighbor| neighbor.name).collect();
        let known = if names.is_empty() { "none: maglev.yaml has no `bgp`".to_owned() } else { names.join(", ") };
        Err(view::Error::conflict(format!("unknown BGP neighbor {}; known: {known}", shown(name))))
    }
}

fn neighbor(status: NeighborStatus) -> view::BgpNeighbor {
    let NeighborStatus { name, remote_as, state, since, announced, ipv4: _, ipv6: _, sent: _, sessions, errors } =
        status;
    let of = |failure: Option<Failure>| failure.map(|Failure { text, at: UnixTime(at) }| (text, at)).unzip();
    let (last_error, last_error_at) = of(errors.last);
    let (later_error, later_error_at) = of(errors.later);
    view::BgpNeighbor {
        name,
        remote_as,
        state,
        since,
        prefixes_sent: announced.len(),
        sessions,
        last_error,
        last_error_at,
        later_error,
        later_error_at,
    }
}

fn route(found: &Prefix, neighbors: &[NeighborStatus]) -> view::BgpRoute {
    let Prefix { prefix, vips, communities, withheld: _, shortage: _ } = found;
    let Announced { to, of, reason } = Announced::new(found, neighbors);
    view::BgpRoute {
        prefix: *prefix,
        announced: to > 0,
        announced_to: to,
        neighbors: of,
        reason,
        vips: vips.iter().map(ToString::to_string).collect(),
        communities: communities.iter().map(ToString::to_string).collect(),
    }
}
