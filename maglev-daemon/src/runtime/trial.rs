//! Starts of a release that is not proven yet: counted in the pin folder, and in a file that outlives the machine, so that the third one
//! that fails runs the release before it. It must not know what a start does.
//!
//! ```text
//!  another binary than the proven one:  start 1 ─fails─▶ start 2 ─fails─▶ start 3: the kept binary is executed
//!                                          │                │
//!                                          └── ready, and PROBATION passed ──▶ proven; the count begins anew
//! ```
//!
//! A start fails if the process ends, however it does, before it is proven; but not if it is stopped in order once it was ready.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::anyhow;
use maglev_dataplane::Pins;
use maglev_store::Content;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Starts of a binary after which it runs no more: at the last one, the kept binary runs in its place.
const STARTS: u32 = 3;

/// Why the kept binary runs, for itself: it does not judge again.
const INSTEAD: &str = "MAGLEV_RUNS_INSTEAD_OF";

/// The file, beside `services.yaml`, and the version of its form.
const FILE: &str = "releases.json";
const VERSION: u32 = 1;

/// The running executable.
const OWN: &str = "/proc/self/exe";

/// An executable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Binary {
    /// Its SHA-256 in hexadecimal.
    sha256: String,
    release: String,
}

/// What starts have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The binary that passed its probation last.
    proven: Option<Binary>,
    /// BGP neighbors whose sessions were established then.
    #[serde(default)]
    established: usize,
    /// Another one, and how often it was started since.
    trial: Option<(Binary, u32)>,
}

/// The kept binary, and why it runs in the place of this one.
#[derive(Debug)]
pub(super) struct Instead {
    binary: PathBuf,
    reason: String,
}

/// The trial of the running binary.
#[derive(Debug)]
pub(super) struct Trial {
    pins: Arc<Pins>,
    file: PathBuf,
    own: Binary,
    record: Record,
    /// The binary that would run instead.
    kept: Option<PathBuf>,
    /// If this is the kept binary: in whose place it runs, and why.
    instead: Option<String>,
}

impl Trial {
    /// Counts this start. Returns the binary that is to run instead, if this one has failed too often.
    pub(super) fn begin(pins: &Arc<Pins>, kept: &Path, services: &Path) -> (Self, Option<Instead>) {
        let file = services.with_file_name(FILE);
        let own =
            Binary { sha256: digest(Path::new(OWN)).unwrap_or_default(), release: maglev_api::RELEASE.to_owned() };
        let kept = digest(kept).filter(|sha256| *sha256 != own.sha256).map(|_| kept.to_owned());
        let instead = env::var(INSTEAD).ok();
        let record = read(pins, &file);
        let mut trial = Self { pins: Arc::clone(pins), file, own, record, kept, instead };
        let failed = trial.count();
        (trial, failed)
    }

    fn count(&mut self) -> Option<Instead> {
        if self.instead.is_some() || self.is_proven() {
            return None;
        }
        let before = self.record.trial.take().filter(|(binary, _)| *binary == self.own).map_or(0, |(_, starts)| starts);
        let starts = before.saturating_add(1);
        self.record.trial = Some((self.own.clone(), starts));
        self.save();
        if starts < STARTS {
            return None;
        }
        let reason =
            format!("release {} was started {} times and not ready for long enough", self.own.release, starts - 1);
        self.instead(&reason)
    }

    /// The kept binary, to run in the place of this one.
    pub(super) fn instead(&self, reason: &str) -> Option<Instead> {
        let binary = self.kept.clone().filter(|_| self.record.proven.is_some() && self.instead.is_none());
        binary.map(|binary| Instead { binary, reason: reason.to_owned() })
    }

    /// Why this binary runs in the place of another one.
    pub(super) fn runs_instead(&self) -> Option<&str> {
        self.instead.as_deref()
    }

    /// Whether it passed its probation before.
    pub(super) fn is_proven(&self) -> bool {
        self.record.proven.as_ref() == Some(&self.own)
    }

    /// BGP sessions that were established as the proven binary passed its probation.
    pub(super) const fn established_before(&self) -> usize {
        self.record.established
    }

    /// The binary passed its probation, with so many BGP sessions.
    pub(super) async fn pass(&mut self, established: usize) {
        if self.instead.is_some() {
            return;
        }
        self.record = Record { proven: Some(self.own.clone()), established, trial: None };
        self.pin();
        // The node runs: nothing else waits for a slow disk.
        let (record, file) = (self.record.clone(), self.file.clone());
        let _ = tokio::task::spawn_blocking(move || keep(&record, &file)).await;
    }

    /// The binary failed its probation: it is not started again.
    pub(super) fn fail(&mut self) {
        self.record.trial = Some((self.own.clone(), STARTS));
        self.save();
    }

    /// The start is not counted: it ended in order, after it was ready.
    pub(super) fn stop(&mut self) {
        if let Some((_, starts)) = &mut self.record.trial
            && self.instead.is_none()
        {
            *starts = starts.saturating_sub(1);
            self.save();
        }
    }

    fn save(&self) {
        self.pin();
        keep(&self.record, &self.file);
    }

    fn pin(&self) {
        let saved = maglev_store::seal(&self.record)
            .and_then(|bytes| self.pins.save_trial(&bytes).map_err(|error| error.to_string()));
        if let Err(error) = saved {
            tracing::warn!(error, "starts of this release cannot be counted: no other release is run in its place");
        }
    }
}

impl Instead {
    /// Runs the kept binary in the place of this process, with its arguments.
    ///
    /// # Errors
    /// It cannot be executed; this process goes on.
    pub(super) fn run(&self) -> anyhow::Error {
        let Self { binary, reason } = self;
        tracing::error!(binary = %binary.display(), reason, "ROLLING BACK: running the kept binary of the release before");
        let error = Command::new(binary).args(env::args_os().skip(1)).env(INSTEAD, reason).exec();
        anyhow!("cannot execute {}: {error}", binary.display())
    }
}

/// The record of earlier starts: the pinned one, or that of the file once the machine was booted anew. A damaged one is as good as none.
fn read(pins: &Pins, file: &Path) -> Record {
    let pinned = pins.trial().map_err(|error| error.to_string());
    let pinned = pinned.and_then(|bytes| bytes.map(|bytes| maglev_store::unseal(&bytes)).transpose());
    pinned.and_then(|pinned| pinned.map_or_else(|| recall(file), Ok)).unwrap_or_else(|error| {
        tracing::warn!(error, "the count of starts cannot be read, and begins anew");
        Record::default()
    })
}

fn recall(file: &Path) -> Result<Record, String> {
    match Content::find(file)? {
        None => Ok(Record::default()),
        Some(Content { version: VERSION, value }) => {
            serde_json::from_value(value).map_err(|error| format!("{}: {error}", file.display()))
        }
        Some(Content { version, .. }) => Err(format!("{} is of version {version}, not {VERSION}", file.display())),
    }
}

fn keep(record: &Record, file: &Path) {
    let value = serde_json::to_value(record).map_err(|error| error.to_string());
    if let Err(error) = value.and_then(|value| Content { version: VERSION, value }.keep(file)) {
        tracing::warn!(error, "which releases are proven is not known after the next boot");
    }
}

/// The SHA-256 of a file, in hexadecimal; `None` if it cannot be read.
fn digest(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use maglev_testing::TempDir;

    use super::*;

    #[test]
    fn the_record_outlives_the_machine_in_a_file_that_other_versions_and_damage_do_not_pass_for() {
        let directory = TempDir::new();
        let file = directory.path().join(FILE);
        assert_eq!(recall(&file), Ok(Record::default()));
        let binary = |sha256: &str| Binary { sha256: sha256.into(), release: "1.0.0".into() };
        let record = Record { proven: Some(binary("a")), established: 2, trial: Some((binary("b"), 2)) };
        keep(&record, &file);
        assert_eq!(recall(&file), Ok(record.clone()));
        // Its twin counts, until that is damaged too.
        fs::write(&file, "{").unwrap();
        assert_eq!(recall(&file), Ok(record));
        Content { version: VERSION + 1, value: serde_json::Value::Null }.keep(&file).unwrap();
        assert!(recall(&file).unwrap_err().contains("is of version 2, not 1"));
        Content { version: VERSION, value: serde_json::json!({ "proven": 7 }) }.keep(&file).unwrap();
        assert!(recall(&file).unwrap_err().contains("releases.json"));
    }
}
