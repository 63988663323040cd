//! The progress of attaching, for the service manager and the log. It must not know what is attached.

use maglev_dataplane::Refresh;
use maglev_net::links::Watch;

use super::Say;
use crate::runtime::{Failure, systemd};

/// The progress, as last shown.
#[derive(Debug, Default)]
pub(super) struct Progress {
    status: String,
    ready: bool,
}

impl Progress {
    /// Reports these interfaces, and those of them that are awaited, to the service manager; and readiness once all are attached.
    pub(super) fn show(&mut self, interfaces: &[&str], now: &Refresh, say: Say) -> Result<(), Failure> {
        let status = match &now.detached[..] {
            [] => format!("decapsulating on {}", interfaces.join(", ")),
            missing => format!("waiting for {}", missing.join(", ")),
        };
        if status != self.status {
            systemd::notify(&format!("STATUS={status}"));
            self.status = status;
        }
        if now.detached.is_empty() && !self.ready {
            self.ready = true;
            systemd::notify("READY=1");
            say("ready")?;
        }
        Ok(())
    }
}

/// Logs changes of the interfaces, and requests another read if there is a problem.
pub fn take(now: Refresh, last: &mut Refresh, watch: &mut Watch) {
    now.log_news(last);
    if !now.problems.is_empty() {
        watch.again();
    }
    *last = now;
}
