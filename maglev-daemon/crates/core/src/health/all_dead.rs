//! Whether no backend of a pool answers: then other nodes, or none, serve its clients better. It must not
//! know which backends.

use std::time::Duration;

/// How long it must last to count.
pub(super) const LASTS: Duration = Duration::from_secs(60);

/// Whether and since when all backends of a pool are dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AllDead {
    since: Option<Duration>,
    lasting: bool,
}

impl AllDead {
    /// Records whether all are dead now. Returns whether that begins or ends, or has lasted long enough.
    pub(super) fn update(&mut self, dead: bool, now: Duration) -> bool {
        let since = dead.then(|| self.since.unwrap_or(now));
        let lasting = since.is_some_and(|since| since + LASTS <= now);
        let before = std::mem::replace(self, Self { since, lasting });
        before != *self
    }

    /// Whether all are dead, and have been for long enough.
    pub(super) const fn is_lasting(&self) -> bool {
        self.lasting
    }

    /// Whether all are dead now.
    pub(super) const fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// When time alone makes it count.
    pub(super) fn deadline(&self) -> Option<Duration> {
        (!self.lasting).then_some(self.since? + LASTS)
    }
}
