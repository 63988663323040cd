//! The owner's reports to the service manager: a sign of life of each turn, and the state in a line. It must not know how they are
//! sent.

use std::time::Instant;

use maglev_core::reconcile::PoolView;
use maglev_model::bgp::NeighborStatus;
use maglev_model::node_drain::Stage;

use super::Owner;

impl Owner {
    /// The daemon is ready.
    pub(in crate::runtime) fn ready(&mut self) {
        let status = self.in_short();
        self.tools.manager.ready(status);
    }

    /// Reports the end of a turn.
    pub(super) fn turned(&mut self) {
        let now = Instant::now();
        if self.tools.heartbeat.is_due(now) {
            self.tools.dataplane.orders().beat();
        }
        if !self.tools.manager.turned(now) {
            return;
        }
        let mark = self.node.generation().wrapping_add(u64::from(self.sessions_up().0) << 48);
        if !self.tools.manager.is_shown(mark) {
            let status = self.in_short();
            self.tools.manager.show(status, mark);
        }
    }

    /// The node's state in a line.
    fn in_short(&mut self) -> String {
        let mut status = match self.trouble_in_short() {
            Some(trouble) => trouble,
            None => self.forwarding_in_short(),
        };
        if let (up, Some(all)) = self.sessions_up() {
            status += &format!("; {up} of {all} BGP sessions");
        }
        status
    }

    /// Why the node does not forward as it is meant to, if so.
    fn trouble_in_short(&self) -> Option<String> {
        let detached = &self.interfaces.refresh.detached;
        if !detached.is_empty() {
            return Some(format!("waiting for interface {}", detached.join(", ")));
        }
        if let Some(trouble) = self.interfaces.trouble() {
            return Some(format!("cannot forward: {trouble}"));
        }
        match self.node.node_drain().stage()? {
            Stage::Drained => Some("drained".to_owned()),
            stage => Some(format!("draining: {}", stage.as_str())),
        }
    }

    fn forwarding_in_short(&mut self) -> String {
        let view = self.snapshot().view;
        if view.vips.is_empty() {
            return "serving no VIP".to_owned();
        }
        let backends: usize = view.pools.iter().map(|pool| pool.backends.len()).sum();
        let usable: usize = view.pools.iter().map(PoolView::usable).sum();
        let behind = if view.not_published.is_some() { "; OUT OF SYNC" } else { "" };
        format!("forwarding to {usable} of {backends} backends{behind}")
    }

    /// Established sessions, and all of them if BGP is on.
    fn sessions_up(&self) -> (u8, Option<usize>) {
        let Some(speaker) = &self.speaker else { return (0, None) };
        let sessions = speaker.handle().neighbors();
        let up = sessions.iter().filter(|session| NeighborStatus::is_established(session)).count();
        (u8::try_from(up).unwrap_or(u8::MAX), Some(sessions.len()))
    }
}
