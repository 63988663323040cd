//! The state file, beside the API's socket: what the next daemon has to know to go on with the program and the maps that
//! outlive this one. It must not know what is in a planner's state.
//!
//! It is written before a plan is carried out, and replaced as a whole. It need not survive the machine: the maps do not
//! either. It stays where they are detached: which backends were in use it tells still.

use std::fs::{self, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock::Clock;
use crate::config::NodeConfig;
use crate::dataplane::{Dataplane, DataplaneError, Fingerprint, Pins, Settings};
use crate::net::links::Link;
use crate::plan::{InUse, Planner, Saved};

/// Tells boots apart.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The file's contents.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept<P> {
    /// In which boot it was written.
    boot: String,
    /// The pinned program and maps it is about.
    set: String,
    /// Since when they forward: time since the boot.
    since: Duration,
    maps: Fingerprint,
    planner: P,
}

/// How the data plane began.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) dataplane: Dataplane,
    /// To go on with, if another daemon's data plane was adopted.
    pub(super) planner: Option<Planner>,
    /// The backends that another daemon used at its end, adopted or not.
    pub(super) in_use: InUse,
    /// Packets were forwarded until now by what another daemon left, adopted or replaced in one step.
    pub(super) kept: bool,
    /// Who writes the file, if anything outlives the daemon.
    pub(super) keeper: Option<Keeper>,
    /// Since when it forwards.
    pub(super) since: Duration,
}

/// Begins with what another daemon left, if it can be gone on with; else anew.
pub(super) fn begin(
    node: &NodeConfig,
    settings: &Settings,
    links: &[Link],
    clock: &Clock,
) -> Result<Begun, DataplaneError> {
    let now = clock.now();
    let Some(folder) = &node.pin else {
        let dataplane = Dataplane::start(settings, links)?;
        return Ok(Begun { dataplane, planner: None, in_use: InUse::new(), kept: false, keeper: None, since: now });
    };
    let pins = Arc::new(Pins::hold(folder)?);
    let path = node.socket.with_extension("state");
    let fingerprint = Fingerprint::of(settings)?;
    let boot = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
    let keeper = |set: &str, since| Keeper {
        path: path.clone(),
        kept: Kept { boot: boot.clone(), set: set.to_owned(), since, maps: fingerprint.clone(), planner: () },
        failed: false,
        written: None,
    };
    let found = read(&path);
    let known = found.as_ref().ok().and_then(Option::as_ref);
    let in_use = known.map(|kept| kept.planner.in_use()).unwrap_or_default();
    let adopted = found.and_then(|kept| {
        let kept = kept.ok_or_else(|| "no state file tells of it".to_owned())?;
        if kept.boot != boot {
            return Err("the state file is of another boot".to_owned());
        }
        if let Some(what) = fingerprint.difference(&kept.maps) {
            return Err(format!("{what} was another"));
        }
        let dataplane = Dataplane::adopt(settings, links, &pins, &kept.set).map_err(|error| error.to_string())?;
        let planner = Planner::restore(node.limits, node.outer, &kept.planner, &dataplane.live())?;
        let keeper = Some(keeper(&kept.set, kept.since));
        Ok((dataplane, planner, keeper, kept.since))
    });
    let reason = match adopted {
        Ok((dataplane, planner, keeper, since)) => {
            return Ok(Begun { dataplane, planner: Some(planner), in_use, kept: true, keeper, since });
        }
        Err(reason) => reason,
    };
    let kept = !pins.is_empty();
    if !kept {
        tracing::debug!(reason, "nothing is pinned");
    } else {
        tracing::warn!(reason, folder = %folder.display(), "what is pinned is replaced, without what it knew of transitions");
    }
    let dataplane = Dataplane::replace(settings, links, &pins)?;
    let keeper = dataplane.set().map(|(_, set)| keeper(set, now));
    Ok(Begun { dataplane, planner: None, in_use, kept, keeper, since: now })
}

fn read(path: &Path) -> Result<Option<Kept<Saved>>, String> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| format!("cannot read {}: {error}", path.display()))?,
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| format!("{} makes no sense: {error}", path.display()))
}

/// Writes the state file.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    /// All but what changes.
    kept: Kept<()>,
    /// Whether the last write failed.
    failed: bool,
    /// A hash of what was written last.
    written: Option<u64>,
}

impl Keeper {
    /// Writes what is so once the next plan is carried out. If that fails there is no file: an old one would mislead.
    /// A plan that is tried again leads to what is written already.
    pub(super) fn keep(&mut self, saved: &Saved) {
        let outcome = self.replace(saved);
        self.written = outcome.as_ref().ok().copied();
        if let Err(error) = &outcome {
            let _ = fs::remove_file(&self.path);
            if !self.failed {
                tracing::error!(file = %self.path.display(), %error, "cannot be written: a daemon started after this one dies would know nothing of transitions");
            }
        }
        self.failed = outcome.is_err();
    }

    /// Returns a hash of what is written.
    fn replace(&self, saved: &Saved) -> io::Result<u64> {
        let Kept { boot, set, since, maps, planner: () } = &self.kept;
        let kept = Kept { boot: boot.clone(), set: set.clone(), since: *since, maps: maps.clone(), planner: saved };
        let text = serde_json::to_vec(&kept)?;
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        if self.written == Some(hash) && self.path.exists() {
            return Ok(hash);
        }
        let aside = self.path.with_extension("state-new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(&text)?;
        fs::rename(&aside, &self.path)?;
        Ok(hash)
    }
}
