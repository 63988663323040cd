//! Settings of `maglev.yaml` that apply with a reload: BGP neighbors and their attributes, and the address for scrapers. They are
//! prepared before services are replaced, so that they cannot fail afterwards. It must not know the protocol.

use maglev_api::view;
use maglev_bgp::speaker;
use maglev_core::reconcile::{Denied, Event};
use maglev_model::bgp::NeighborChange;
use maglev_model::{Refusal, Services};
use tokio::net::TcpListener;

use super::super::files::{Forwarding, Live};
use super::super::succession::Successor;
use super::super::{sockets, start};
use super::Owner;

/// Settings that can be applied: their addresses are listened at.
#[derive(Debug)]
pub(super) struct Prepared {
    live: Live,
    /// The speaker's, if they differ.
    speaker: Option<speaker::Prepared>,
    /// The socket for scrapers, if its address differs; none, if there is to be none.
    scraped: Option<Option<TcpListener>>,
    /// The data plane that takes over, and its settings, if those differ.
    data_plane: Option<(Forwarding, Successor)>,
}

impl Owner {
    /// Checks whether these settings fit the services that apply with them.
    pub(super) fn review_live(&self, live: &Live, services: &Services) -> Result<(), Denied> {
        let configured = start::configured(live.bgp.as_ref(), live.metrics);
        self.node.reconciler().review_configured(&configured, services)
    }

    /// The neighbors that these settings change.
    pub(super) fn changed_neighbors(&self, live: &Live) -> Vec<view::NeighborChange> {
        let (Some(running), Some(next)) = (&self.files.running().bgp, &live.bgp) else { return Vec::new() };
        running.changes(next).into_iter().map(neighbor).collect()
    }

    /// Prepares these settings.
    pub(super) fn prepare(&self, live: Live, data_plane: Option<(Forwarding, Successor)>) -> Result<Prepared, Denied> {
        let running = self.files.live();
        let refused = |error: anyhow::Error| Denied::Refused(Refusal::Conflict(format!("{error:#}")));
        let speaker = self.speaker.as_ref().zip(live.bgp.as_ref()).filter(|_| running.bgp != live.bgp);
        let speaker = speaker.map(|(speaker, bgp)| speaker.prepare(bgp)).transpose().map_err(refused)?;
        let scraped = (running.metrics != live.metrics).then(|| live.metrics.map(sockets::listen).transpose());
        Ok(Prepared { speaker, scraped: scraped.transpose().map_err(refused)?, live, data_plane })
    }

    /// Applies these settings. Sessions that they do not concern go on. Returns the data plane that is to take over.
    pub(super) fn apply_live(
        &mut self,
        Prepared { live, speaker, scraped, data_plane }: Prepared,
        changed: &[view::NeighborChange],
    ) -> Option<(Forwarding, Successor)> {
        if live == self.files.live() {
            return data_plane;
        }
        for change in changed {
            tracing::info!("{change}");
        }
        if let (Some(running), Some(prepared)) = (&mut self.speaker, speaker) {
            running.apply(prepared);
        }
        if let (Some(scraper), Some(scraped)) = (&self.scraped, scraped) {
            // Its task ends with the servers.
            let _ = scraper.send(scraped);
        }
        let configured = start::configured(live.bgp.as_ref(), live.metrics);
        self.files.apply(live);
        self.reconcile(Event::Configured(configured));
        self.sessions_changed();
        data_plane
    }
}

fn neighbor((name, change): (String, NeighborChange)) -> view::NeighborChange {
    let (session, keys) = match change {
        NeighborChange::Added => (view::SessionChange::Added, Vec::new()),
        NeighborChange::Removed => (view::SessionChange::Removed, Vec::new()),
        NeighborChange::Kept(keys) => (view::SessionChange::Kept, keys),
        NeighborChange::Reset(keys) => (view::SessionChange::Reset, keys),
    };
    view::NeighborChange { name, session, keys: keys.into_iter().map(str::to_owned).collect() }
}
