//! The clock of events: time since the machine's boot, suspension included, so that a deadline outlives the daemon that set it.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};

/// The clock, and its first reading.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
    /// The runtime's clock at the first reading.
    at: Duration,
    /// The source of the time.
    source: Source,
}

type Source = fn() -> nix::Result<Duration>;

impl Clock {
    pub(super) fn start() -> anyhow::Result<Self> {
        Self::from_source(since_boot)
    }

    /// A clock with another source.
    pub(super) fn from_source(source: Source) -> anyhow::Result<Self> {
        let at = source().context("cannot read the time since the boot")?;
        Ok(Self { started: Instant::now(), at, source })
    }

    /// The first reading.
    pub(super) const fn started(&self) -> (Instant, Duration) {
        (self.started, self.at)
    }

    /// The time.
    pub(super) fn now(&self) -> Duration {
        // The first reading succeeded, so later ones do.
        (self.source)().unwrap_or_else(|_| self.at + self.started.elapsed())
    }

    /// The instant of this time; the present one if it has passed.
    pub(super) fn instant(&self, time: Duration) -> Instant {
        Instant::now() + time.saturating_sub(self.now())
    }
}

fn since_boot() -> nix::Result<Duration> {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from)
}
