//! How a starting daemon continues the pinned data plane of the one before it: the same programs, programs of its own over the same
//! flow table, or nothing of it. And the state that it saves for the next one, in the pin folder. It must not know the content of a
//! planner's state.
//!
//! The state is written before a plan is carried out, and replaced as a whole. It need not survive the machine: the maps do not
//! either. Where the data plane ends with the daemon, the state is left in a file beside the API's socket, since it names the
//! backends that were in use.

mod parts;

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use maglev_api::view::{DataPlaneStage, What};
use maglev_common::backend::{InterfaceSlot, NextHop};
use maglev_config::NodeConfig;
use maglev_dataplane::{Dataplane, DataplaneError, Fingerprint, Kept, Pins, Settings, Slots};
use maglev_model::Vip;
use maglev_model::plan::{InUse, Planner, Saved};
use maglev_net::links::Link;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::clock::Clock;
use parts::Parts;

/// What a daemon leaves to the next one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Left<P> {
    /// The release that wrote it.
    release: String,
    /// The begin of forwarding, since the boot.
    since: Duration,
    maps: Fingerprint,
    /// The interfaces of slots, VLAN devices too.
    slots: Slots,
    planner: P,
}

/// The data plane at the start: adopted, continued, replaced or new.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) dataplane: Dataplane,
    /// The planner's state, if another daemon's data plane is continued.
    pub(super) planner: Option<Planner>,
    /// The backends that the previous daemon used at its end, continued or not.
    pub(super) in_use: InUse,
    /// The VIPs that the previous daemon served, if packets were forwarded until now.
    pub(super) served: Vec<Vip>,
    /// Whether the previous daemon's data plane forwarded until now.
    pub(super) kept: bool,
    /// The writer of the state, if the data plane outlives the daemon.
    pub(super) keeper: Option<Keeper>,
    /// The begin of forwarding.
    pub(super) since: Duration,
    /// How the pinned data plane is continued.
    pub(super) heritage: Heritage,
}

/// How a daemon continues the data plane of the one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Heritage {
    /// There was none.
    #[default]
    None,
    /// With the same programs and maps.
    Adopted,
    /// With programs of its own, for these differences, and not always with all of its contents.
    Continued { differences: Vec<&'static str>, kept: Kept },
    /// Not at all, for this reason; but it forwards until this one can.
    Replaced(String),
}

impl Heritage {
    /// The differences for which programs of this daemon continue those of the previous one.
    pub(super) fn differences(&self) -> Vec<String> {
        match self {
            Self::Continued { differences, .. } => differences.iter().map(ToString::to_string).collect(),
            Self::None | Self::Adopted | Self::Replaced(_) => Vec::new(),
        }
    }

    /// Whether packets go on to be counted where they were.
    pub(super) const fn counts(&self) -> bool {
        matches!(self, Self::Adopted | Self::Continued { kept: Kept { counters: true, .. }, .. })
    }

    /// Its event; an adoption has none.
    pub(super) fn event(&self) -> Option<What> {
        let (stage, reason) = match self {
            Self::None | Self::Adopted => return None,
            Self::Continued { differences, kept: Kept { flows: true, .. } } => {
                (DataPlaneStage::Continued, format!("{} changed", differences.join(", ")))
            }
            Self::Continued { differences, kept: Kept { flows: false, .. } } => {
                (DataPlaneStage::Replaced, format!("{} changed; transitions go on", differences.join(", ")))
            }
            Self::Replaced(reason) => (DataPlaneStage::Replaced, reason.clone()),
        };
        Some(What::DataPlane { stage, reason: Some(reason) })
    }
}

/// The event of a binary that runs in the place of another one.
pub(super) fn rolled_back(reason: String) -> What {
    What::DataPlane { stage: DataPlaneStage::RolledBack, reason: Some(reason) }
}

/// The decision about the pinned data plane, before anything is loaded.
#[derive(Debug)]
pub(super) struct Found {
    /// The pinned set that forwards, and what its daemon left with it.
    set: Option<String>,
    left: Result<Left<Saved>, String>,
    pub(super) heritage: Heritage,
}

impl Found {
    /// Reads what is pinned.
    pub(super) fn read(node: &NodeConfig, settings: &Settings, pins: &Pins) -> Result<Self, DataplaneError> {
        let mine = Fingerprint::from_settings(settings)?;
        let set = pins.current();
        let left = match &set {
            None => Err("it is not known which of the pinned programs forwards".to_owned()),
            Some(set) => read(pins, set),
        };
        let heritage = match &left {
            Err(_) if pins.is_empty() => Heritage::None,
            Err(reason) => Heritage::Replaced(reason.clone()),
            Ok(left) => left.heritage(&mine, node, settings),
        };
        Ok(Self { set, left, heritage })
    }
}

impl Left<Saved> {
    fn heritage(&self, mine: &Fingerprint, node: &NodeConfig, settings: &Settings) -> Heritage {
        let mut differences = mine.differences(&self.maps);
        if !self.planner.has_sources(&node.outer) {
            differences.push("`encap`");
        }
        // The reader of its log belongs to the process that loaded a program.
        if settings.trace && differences.is_empty() {
            differences.push("`trace`");
        }
        if differences.is_empty() {
            Heritage::Adopted
        } else if mine.has_same_slots(&self.maps) {
            Heritage::Continued { differences, kept: mine.keeps(&self.maps) }
        } else {
            Heritage::Replaced("`hash_key` differs: every flow finds another slot; drain, restart and undrain one node after the other".to_owned())
        }
    }
}

/// What the daemon of a pinned set left.
fn read(pins: &Pins, set: &str) -> Result<Left<Saved>, String> {
    let bytes = pins.state(set).map_err(|error| error.to_string())?;
    let bytes = bytes.ok_or_else(|| "its daemon saved no state".to_owned())?;
    maglev_store::unseal(&bytes).map_err(|error| format!("its daemon's state cannot be used: {error}"))
}

/// Continues the previous daemon's data plane as far as possible; else loads a new one.
pub(super) fn begin(
    node: &NodeConfig,
    settings: &Settings,
    links: &[Link],
    clock: &Clock,
    pins: Option<Arc<Pins>>,
) -> Result<Begun, DataplaneError> {
    let now = clock.now();
    let Some(pins) = pins else { return Ok(Begun::new(Dataplane::start(settings, links)?, now)) };
    let path = node.socket.with_extension("state");
    let start = Start { node, settings, links, now, pins: &pins, path: &path };
    let Found { set, left, heritage } = Found::read(node, settings, &pins)?;
    let before = left.as_ref().ok();
    let in_use = before.map_or_else(|| in_use(&path), |left| left.planner.in_use());
    let served = before.map(|left| left.planner.served()).unwrap_or_default();
    let continued = match (set, left) {
        (Some(set), Ok(left)) => start.go_on(&set, left, heritage),
        _ => Err(heritage),
    };
    let heritage = match continued {
        Ok(begun) => return Ok(Begun { in_use, served, ..begun }),
        Err(heritage) => heritage,
    };
    if let Heritage::Replaced(reason) = &heritage {
        tracing::warn!(
            reason,
            folder = %pins.folder().display(),
            "replacing the pinned data plane; transition history is lost"
        );
    }
    let dataplane = Dataplane::replace(settings, links, &pins)?;
    let keeper = start.keeper(&dataplane, now)?;
    let kept = heritage != Heritage::None;
    let served = if kept { served } else { Vec::new() };
    Ok(Begun { in_use, served, kept, keeper, heritage, ..Begun::new(dataplane, now) })
}

/// What a start is made of.
struct Start<'a> {
    node: &'a NodeConfig,
    settings: &'a Settings,
    links: &'a [Link],
    now: Duration,
    pins: &'a Arc<Pins>,
    /// Of the file that is left where nothing is pinned.
    path: &'a Path,
}

impl Start<'_> {
    /// Continues a set as `heritage` says. What is pinned may be damaged: then with less of it, and with none of it at last.
    fn go_on(&self, set: &str, left: Left<Saved>, heritage: Heritage) -> Result<Begun, Heritage> {
        let given_up = |reason: String| Heritage::Replaced(reason);
        let (differences, kept) = match heritage {
            Heritage::Adopted => match self.adopt(set, &left) {
                Ok(begun) => return Ok(begun),
                Err(reason) => {
                    tracing::warn!(reason, "the pinned data plane cannot be adopted as it is");
                    (vec!["what is pinned"], Kept::ALL)
                }
            },
            Heritage::Continued { differences, kept } => (differences, kept),
            other => return Err(other),
        };
        let reason = differences.join(", ");
        tracing::info!(
            reason,
            flows = kept.flows,
            counters = kept.counters,
            "loading programs that continue the pinned data plane"
        );
        let begun = self.succeed(set, left).map_err(given_up)?;
        Ok(Begun { heritage: Heritage::Continued { differences, kept }, ..begun })
    }

    fn adopt(&self, set: &str, left: &Left<Saved>) -> Result<Begun, String> {
        let said = |error: DataplaneError| error.to_string();
        let dataplane = Dataplane::adopt(self.settings, self.links, self.pins, set).map_err(said)?;
        let planner = Planner::restore(self.node.limits, self.node.outer, &left.planner, &dataplane.live())?;
        let keeper = self.keeper(&dataplane, left.since).map_err(said)?;
        let begun = Begun::new(dataplane, left.since);
        Ok(Begun { planner: Some(planner), kept: true, keeper, heritage: Heritage::Adopted, ..begun })
    }

    fn succeed(&self, set: &str, left: Left<Saved>) -> Result<Begun, String> {
        let said = |error: DataplaneError| error.to_string();
        let Left { release: _, since, maps, slots, mut planner } = left;
        let mut dataplane = Dataplane::succeed(self.settings, self.links, self.pins, (set, &maps)).map_err(said)?;
        let now = dataplane.slots();
        let moved = |next_hop: NextHop| {
            let slot = now.slot_of(slots.device(next_hop.interface().0)?)?;
            Some(next_hop.moved_to(InterfaceSlot(slot)))
        };
        planner.move_next_hops(&moved, self.now);
        dataplane.continue_members(&planner.members(&self.node.outer)).map_err(said)?;
        let planner = Planner::restore(self.node.limits, self.node.outer, &planner, &dataplane.live())?;
        let keeper = self.keeper(&dataplane, since).map_err(said)?;
        Ok(Begun { planner: Some(planner), kept: true, keeper, ..Begun::new(dataplane, since) })
    }

    fn keeper(&self, dataplane: &Dataplane, since: Duration) -> Result<Option<Keeper>, DataplaneError> {
        let maps = Fingerprint::from_settings(self.settings)?;
        let left = |set: &str| Keeper {
            pins: Arc::clone(self.pins),
            set: set.to_owned(),
            path: self.path.to_owned(),
            left: Left {
                release: maglev_api::RELEASE.to_owned(),
                since,
                maps: maps.clone(),
                slots: dataplane.slots(),
                planner: (),
            },
            written: None,
            unsaved: watch::Sender::default(),
            pending: None,
            last: None,
            parts: Parts::new(),
        };
        Ok(dataplane.set().map(|(_, set)| left(set)))
    }
}

impl Begun {
    /// A data plane that continues no other.
    fn new(dataplane: Dataplane, since: Duration) -> Self {
        let (planner, in_use, served, keeper) = (None, InUse::new(), Vec::new(), None);
        Self { dataplane, planner, in_use, served, kept: false, keeper, since, heritage: Heritage::None }
    }
}

/// The backends that were in use as the last data plane was detached.
fn in_use(path: &Path) -> InUse {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return InUse::new(),
        read => read.map_err(|error| error.to_string()),
    };
    match bytes.and_then(|bytes| maglev_store::unseal::<Left<Saved>>(&bytes)) {
        Ok(left) => left.planner.in_use(),
        Err(error) => {
            tracing::warn!(file = %path.display(), error, "the backends that were in use are not known");
            InUse::new()
        }
    }
}

/// What is pinned, as another data plane continues it.
#[derive(Clone, Debug)]
pub(super) struct Lineage {
    pub(super) pins: Arc<Pins>,
    pub(super) set: String,
    pub(super) maps: Fingerprint,
}

/// How long after a failure the state is written again.
const AGAIN: Duration = Duration::from_secs(5);

/// Writes the state.
#[derive(Debug)]
pub(super) struct Keeper {
    pins: Arc<Pins>,
    set: String,
    /// Of the file that is left where nothing is pinned.
    path: PathBuf,
    /// All but the planner's part.
    left: Left<()>,
    /// A hash of the last written content.
    written: Option<u64>,
    /// The error of the last write, if it failed.
    unsaved: watch::Sender<Option<String>>,
    /// The content of the failed write, and the time of its retry.
    pending: Option<(Box<Saved>, Instant)>,
    /// What was written last.
    last: Option<Vec<u8>>,
    /// The pools in it, by their allocations.
    parts: Parts,
}

impl Keeper {
    /// The reason why the state is not written, if so.
    pub(super) fn unsaved(&self) -> watch::Receiver<Option<String>> {
        self.unsaved.subscribe()
    }

    /// What is pinned.
    pub(super) fn lineage(&self) -> Lineage {
        Lineage { pins: Arc::clone(&self.pins), set: self.set.clone(), maps: self.left.maps.clone() }
    }

    /// The keeper of a set that takes the place of this one in the same process.
    pub(super) fn succeed(&self, set: &str, maps: Fingerprint, slots: Slots) -> Self {
        let Left { release, since, .. } = &self.left;
        Self {
            pins: Arc::clone(&self.pins),
            set: set.to_owned(),
            path: self.path.clone(),
            left: Left { release: release.clone(), since: *since, maps, slots, planner: () },
            written: None,
            unsaved: self.unsaved.clone(),
            pending: None,
            last: None,
            parts: Parts::new(),
        }
    }

    /// Notes the interfaces of slots, which the next write names.
    pub(super) fn note_slots(&mut self, slots: Slots) {
        self.left.slots = slots;
    }

    /// Writes the state after the next plan. After a failed write there is none, since an old one would mislead; the write is
    /// retried. A plan that is retried leads to the state that is written already.
    pub(super) fn keep(&mut self, saved: Box<Saved>) {
        let failed = self.unsaved.borrow().is_some();
        let outcome = self.replace(&saved);
        self.written = outcome.as_ref().ok().copied();
        match &outcome {
            Err(error) if !failed => {
                tracing::error!("{error}: if this daemon dies, the next one has no history of transitions; retrying");
            }
            Ok(_) if failed => tracing::info!(set = self.set, "the state for the next daemon is written again"),
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

    /// Leaves the last state in the file: what is pinned is about to be removed.
    pub(super) fn leave_file(&self) {
        let Some(bytes) = &self.last else { return };
        let kept = maglev_store::Kept::UntilReboot { mode: 0o600 };
        if let Err(error) = maglev_store::replace(&self.path, bytes, kept) {
            tracing::warn!("{error}: the next daemon does not know which backends were in use");
        }
    }

    /// Returns a hash of the content.
    fn replace(&mut self, saved: &Saved) -> Result<u64, String> {
        let Left { release, since, maps, slots, planner: () } = &self.left;
        let (release, maps, slots) = (release.clone(), maps.clone(), slots.clone());
        let (planner, pools) = saved.apart();
        self.parts = parts::deflated(pools, &self.parts)?;
        let in_order = pools.iter().filter_map(|pool| self.parts.get(&Arc::as_ptr(pool).addr())).map(|(_, part)| part);
        let bytes = maglev_store::seal_list(&Left { release, since: *since, maps, slots, planner }, in_order)?;
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let hash = hasher.finish();
        if self.written == Some(hash) {
            return Ok(hash);
        }
        let written = self.pins.save_state(&self.set, &bytes).map_err(|error| error.to_string());
        if written.is_err() {
            // An old one would mislead the next daemon.
            self.pins.forget_state(&self.set);
        }
        self.last = Some(bytes);
        written.map(|()| hash)
    }
}

#[cfg(test)]
#[path = "adoption_tests.rs"]
mod faults;
