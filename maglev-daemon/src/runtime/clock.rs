//! The time that events are told in: since the machine's boot, suspension included, so that a deadline outlives the daemon
//! that set it.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};

/// The clock, and when it was first looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
    /// At that moment.
    at: Duration,
    /// What tells the time.
    source: Source,
}

type Source = fn() -> nix::Result<Duration>;

impl Clock {
    pub(super) fn start() -> anyhow::Result<Self> {
        Self::from_source(since_boot)
    }

    /// A clock that tells the time of another source.
    pub(super) fn from_source(source: Source) -> anyhow::Result<Self> {
        let at = source().context("cannot read the time since the boot")?;
        Ok(Self { started: Instant::now(), at, source })
    }

    /// When it was first looked at.
    pub(super) const fn started(&self) -> (Instant, Duration) {
        (self.started, self.at)
    }

    /// The time.
    pub(super) fn now(&self) -> Duration {
        // What could be read once can be read again.
        (self.source)().unwrap_or_else(|_| self.at + self.started.elapsed())
    }

    /// When it will be this time, or that it is by now.
    pub(super) fn instant(&self, time: Duration) -> Instant {
        Instant::now() + time.saturating_sub(self.now())
    }
}

fn since_boot() -> nix::Result<Duration> {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from)
}
