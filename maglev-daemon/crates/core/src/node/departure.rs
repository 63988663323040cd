//! VIPs that were removed while no daemon ran: they are served until neighbors that kept prefixes over the restart have received
//! the withdrawal. It must not know which VIPs these are.

use std::time::Duration;

use super::release::TURNED;

/// How long a neighbor may take to come back after a restart: as long as neighbors usually keep prefixes (RFC 4724, section 3).
const BACK: Duration = Duration::from_secs(120);

/// Whether neighbors have received the withdrawal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Departure {
    /// Nothing is to be withdrawn; or it is received.
    #[default]
    Over,
    /// There are no sessions yet.
    Early,
    /// Not all neighbors were sent everything; it is waited for no longer than until then.
    Unsent(Duration),
    /// They were, and move traffic to other nodes until then.
    Sent(Duration),
}

impl Departure {
    /// Sessions changed. `sent`: all neighbors are back, and were sent everything, without the prefix that is not announced again.
    pub(super) fn sessions(&mut self, sent: bool, now: Duration) {
        *self = match *self {
            Self::Early | Self::Unsent(_) if sent => Self::Sent(now + TURNED),
            Self::Early => Self::Unsent(now + BACK),
            other => other,
        };
    }

    /// When it is over.
    pub(super) const fn deadline(self) -> Option<Duration> {
        match self {
            Self::Over | Self::Early => None,
            Self::Unsent(at) | Self::Sent(at) => Some(at),
        }
    }

    /// Whether it ends now.
    pub(super) fn ends(&mut self, now: Duration) -> bool {
        let ends = self.deadline().is_some_and(|at| at <= now);
        if ends {
            *self = Self::Over;
        }
        ends
    }
}
