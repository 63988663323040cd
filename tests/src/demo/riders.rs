//! The demo's riders: a long download and connections that are held, all of them on while the backend beneath some of
//! them goes and returns.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::{
    client::{
        Client,
        download::{Download, Downloaded},
        held::{Held, Plan, Report},
    },
    lab::{
        Affinity, Backend,
        addresses::{WWW4, WWW6},
    },
};

/// Connections that are held.
const HELD: usize = 200;
/// The length of the download in bytes: more than it can finish before it is ordered to hurry.
const LENGTH: u64 = 64 << 20;
/// The pool's times in the demo: a step of two minutes would be a long one.
pub(super) const AFFINITY: Affinity = Affinity { tracking: "exception", learning: 5, idle: 30 };

/// The connections.
pub(super) struct Riders {
    held: Held,
    download: Download,
}

/// How it went.
#[derive(Debug, Serialize)]
pub(super) struct Ridden {
    /// Connections that were held.
    pub(super) held: usize,
    /// Of them, those that broke, and the download if it did.
    pub(super) broken: usize,
    /// Bytes that the held ones received, every one correct.
    pub(super) bytes: u64,
    /// The download's bytes, likewise, and how long it took.
    pub(super) downloaded: u64,
    pub(super) seconds: f64,
    /// Reasons for the first few that broke.
    pub(super) failures: Vec<String>,
}

impl Riders {
    /// Begins the download on this backend, and opens every connection.
    pub(super) fn board(client: &Client, home: &str) -> Result<Self> {
        let download = client.download_slowly((WWW4, Backend::PORT).into(), home, LENGTH)?;
        let held = client.hold(Plan {
            targets: [WWW4, WWW6].map(|vip| (vip, Backend::TALK_PORT).into()).to_vec(),
            held: HELD,
            arrivals: 0,
            pace: Duration::from_secs(1),
            silence: Duration::from_secs(AFFINITY.learning) * 9 / 10,
            seed: 1,
        });
        held.await_open()?;
        ensure!(held.homes().contains_key(home), "no held connection lives on {home}");
        Ok(Self { held, download })
    }

    /// Waits until every held connection has had an answer to something it says from now on.
    pub(super) fn await_spoken(&self) -> Result<()> {
        self.held.await_spoken(Instant::now())?;
        Ok(())
    }

    /// Lets all of them come to their end.
    pub(super) fn alight(self) -> Result<Ridden> {
        let Report { held, counts, broken, cut } = self.held.finish()?;
        let mut failures: Vec<String> = broken.iter().chain(&cut).map(ToString::to_string).collect();
        let Downloaded { length, took, .. } = self.download.finish().unwrap_or_else(|error| {
            failures.insert(0, format!("the download: {error:#}"));
            Downloaded { length: 0, took: Duration::ZERO, pause: Duration::ZERO }
        });
        let broken = failures.len();
        failures.truncate(5);
        Ok(Ridden { held, broken, bytes: counts.bytes, downloaded: length, seconds: took.as_secs_f64(), failures })
    }
}
