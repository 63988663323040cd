//! The state file, beside the API's socket: the state that the next daemon needs to adopt the program and the maps that outlive
//! this one. It must not know the content of a planner's state.
//!
//! It is written before a plan is carried out, and replaced as a whole. It need not survive the machine: the maps do not
//! either. It stays after they are detached, since it names the backends that were in use.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use maglev_config::NodeConfig;
use maglev_dataplane::{Dataplane, DataplaneError, Fingerprint, Pins, Settings};
use maglev_model::Vip;
use maglev_model::plan::{InUse, Planner, Saved};
use maglev_net::links::Link;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::clock::Clock;

/// Identifies a boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The file's contents.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept<P> {
    /// The boot in which it was written.
    boot: String,
    /// The set of pinned program and maps.
    set: String,
    /// The begin of forwarding, since the boot.
    since: Duration,
    maps: Fingerprint,
    planner: P,
}

/// The data plane at the start: adopted, replaced or new.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) dataplane: Dataplane,
    /// The planner's state, if another daemon's data plane was adopted.
    pub(super) planner: Option<Planner>,
    /// The backends that the previous daemon used at its end, adopted or not.
    pub(super) in_use: InUse,
    /// The VIPs that the previous daemon served, if packets were forwarded until now.
    pub(super) served: Vec<Vip>,
    /// Whether the previous daemon's data plane forwarded until now: adopted, or replaced in one step.
    pub(super) kept: bool,
    /// The writer of the file, if the data plane outlives the daemon.
    pub(super) keeper: Option<Keeper>,
    /// The begin of forwarding.
    pub(super) since: Duration,
}

/// Adopts the previous daemon's data plane if possible; else loads a new one.
pub(super) fn begin(
    node: &NodeConfig,
    settings: &Settings,
    links: &[Link],
    clock: &Clock,
) -> Result<Begun, DataplaneError> {
    let now = clock.now();
    let Some(folder) = &node.pin else { return Ok(Begun::new(Dataplane::start(settings, links)?, now)) };
    let pins = Arc::new(Pins::hold(folder)?);
    let path = node.socket.with_extension("state");
    let fingerprint = Fingerprint::from_settings(settings)?;
    let boot = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
    let keeper = |set: &str, since| Keeper {
        path: path.clone(),
        kept: Kept { boot: boot.clone(), set: set.to_owned(), since, maps: fingerprint.clone(), planner: () },
        written: None,
        unsaved: watch::Sender::default(),
        pending: None,
    };
    let found = read(&path);
    let known = found.as_ref().ok().and_then(Option::as_ref);
    let in_use = known.map(|kept| kept.planner.in_use()).unwrap_or_default();
    let served = known.filter(|kept| kept.boot == boot).map(|kept| kept.planner.served()).unwrap_or_default();
    let adopted = found.and_then(|kept| {
        let kept = kept.ok_or_else(|| "there is no state file".to_owned())?;
        if kept.boot != boot {
            return Err("the state file was written in another boot".to_owned());
        }
        if let Some(what) = fingerprint.difference(&kept.maps) {
            return Err(format!("{what} differs"));
        }
        let dataplane = Dataplane::adopt(settings, links, &pins, &kept.set).map_err(|error| error.to_string())?;
        let planner = Planner::restore(node.limits, node.outer, &kept.planner, &dataplane.live())?;
        let keeper = Some(keeper(&kept.set, kept.since));
        Ok((dataplane, planner, keeper, kept.since))
    });
    let reason = match adopted {
        Ok((dataplane, planner, keeper, since)) => {
            let begun = Begun::new(dataplane, since);
            return Ok(Begun { planner: Some(planner), in_use, served, kept: true, keeper, ..begun });
        }
        Err(reason) => reason,
    };
    let kept = !pins.is_empty();
    if !kept {
        tracing::debug!(reason, "nothing is pinned");
    } else {
        tracing::warn!(reason, folder = %folder.display(), "replacing the pinned data plane; transition history is lost");
    }
    let dataplane = Dataplane::replace(settings, links, &pins)?;
    let keeper = dataplane.set().map(|(_, set)| keeper(set, now));
    let served = if kept { served } else { Vec::new() };
    Ok(Begun { in_use, served, kept, keeper, ..Begun::new(dataplane, now) })
}

impl Begun {
    /// A data plane that replaces no other.
    fn new(dataplane: Dataplane, since: Duration) -> Self {
        let (planner, in_use, served, keeper) = (None, InUse::new(), Vec::new(), None);
        Self { dataplane, planner, in_use, served, kept: false, keeper, since }
    }
}

fn read(path: &Path) -> Result<Option<Kept<Saved>>, String> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| format!("cannot read {}: {error}", path.display()))?,
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| format!("{} makes no sense: {error}", path.display()))
}

/// How long after a failure the state file is written again.
const AGAIN: Duration = Duration::from_secs(5);

/// Writes the state file.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    /// The constant fields.
    kept: Kept<()>,
    /// A hash of the last written content.
    written: Option<u64>,
    /// The error of the last write, if it failed.
    unsaved: watch::Sender<Option<String>>,
    /// The content of the failed write, and the time of its retry.
    pending: Option<(Box<Saved>, Instant)>,
}

impl Keeper {
    /// The reason why the state file is not written, if so.
    pub(super) fn unsaved(&self) -> watch::Receiver<Option<String>> {
        self.unsaved.subscribe()
    }

    /// Writes the state after the next plan. After a failed write there is no file, since an old one would mislead; the write is
    /// retried. A plan that is retried leads to the state that is written already.
    pub(super) fn keep(&mut self, saved: Box<Saved>) {
        let file = self.path.display();
        let failed = self.unsaved.borrow().is_some();
        let outcome = self.replace(&saved);
        self.written = outcome.as_ref().ok().copied();
        match &outcome {
            Err(error) if !failed => {
                tracing::error!("{error}: if this daemon dies, the next one has no history of transitions; retrying");
            }
            Ok(_) if failed => tracing::info!(%file, "the state file is written again"),
            Err(_) | Ok(_) => {}
        }
        let reason = outcome.err();
        self.pending = reason.as_ref().map(|_| (saved, Instant::now() + AGAIN));
        self.unsaved.send_if_modified(|known| {
            let changed = *known != reason;
            *known = reason;
            changed
        });
    }

    /// The time until the retry of a failed write.
    pub(super) fn pause(&self) -> Option<Duration> {
        self.pending.as_ref().map(|(_, at)| at.saturating_duration_since(Instant::now()))
    }

    /// Retries a failed write if that is due.
    pub(super) fn retry(&mut self) {
        if let Some((saved, _)) = self.pending.take_if(|(_, at)| *at <= Instant::now()) {
            self.keep(saved);
        }
    }

    /// Returns a hash of the content.
    fn replace(&self, saved: &Saved) -> Result<u64, String> {
        let Kept { boot, set, since, maps, planner: () } = &self.kept;
        let kept = Kept { boot: boot.clone(), set: set.clone(), since: *since, maps: maps.clone(), planner: saved };
        let text = serde_json::to_vec(&kept).map_err(|error| error.to_string())?;
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        if self.written == Some(hash) && self.path.exists() {
            return Ok(hash);
        }
        let written = maglev_store::replace(&self.path, &text, maglev_store::Kept::UntilReboot { mode: 0o600 });
        if written.is_err() {
            // An old file would mislead the next daemon.
            let _ = fs::remove_file(&self.path);
        }
        written.map(|()| hash)
    }
}

#[cfg(test)]
mod faults {
    use super::*;
    use maglev_testing::TempDir;
    use maglev_testing::matrix::Row;
    use serde_json::json;

    fn keeper(path: PathBuf) -> Keeper {
        let maps = json!({
            "layout": 1, "object": "", "program": "", "hash_key": "", "flow_sets": 1, "cpus": 1, "limits": [1, 1, 1],
            "interfaces": []
        });
        let maps = serde_json::from_value(maps).unwrap();
        let kept = Kept { boot: "boot".into(), set: "a".into(), since: Duration::ZERO, maps, planner: () };
        Keeper { path, kept, written: None, unsaved: watch::Sender::default(), pending: None }
    }

    fn saved(last_id: u16) -> Box<Saved> {
        serde_json::from_value(json!({ "outer": [null, null], "last_id": last_id, "vips": {}, "pools": [] })).unwrap()
    }

    #[test]
    fn a_state_file_that_cannot_be_written_is_said_and_written_later() {
        let _row = Row::fault("C15", "a state file that cannot be written: said until it is written again");
        let directory = TempDir::new();
        let folder = directory.path().join("run");
        let mut keeper = keeper(folder.join("maglev.state"));
        let unsaved = keeper.unsaved();
        keeper.keep(saved(1));
        let reason = unsaved.borrow().clone().unwrap();
        assert!(reason.starts_with("cannot write ") && reason.contains("maglev.state.new: No such file"), "{reason}");
        assert!(keeper.pause().is_some_and(|pause| pause <= AGAIN));
        keeper.retry();
        assert!(unsaved.borrow().is_some(), "it is not due yet");

        fs::create_dir(&folder).unwrap();
        keeper.pending.as_mut().unwrap().1 = Instant::now();
        keeper.retry();
        assert_eq!((unsaved.borrow().clone(), keeper.pause()), (None, None));
        assert!(read(&folder.join("maglev.state")).unwrap().is_some());

        // An outdated file is removed.
        fs::create_dir(folder.join(".maglev.state.new")).unwrap();
        keeper.keep(saved(2));
        assert!(unsaved.borrow().is_some() && read(&folder.join("maglev.state")).unwrap().is_none());
    }
}
