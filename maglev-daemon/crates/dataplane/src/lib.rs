//! The data plane: loads the eBPF object, attaches it, and publishes plans into its memory-mapped maps. The only room
//! that names aya. It must not know files, requests or the purpose of a pool.
//!
//! ```text
//!  Settings ──▶ object (load, size) ──▶ shared (maps as memory) ──▶ attach, egress, vlans (interfaces)
//!                      ▲ adopt, pins (what outlives the daemon)         │
//!                      └────────────────────────────────────────────────┘
//!  [Step]   ──▶ publish ──▶ maps          maps ──▶ counters, explain
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use maglev_common::hash::HashKey;
use maglev_model::Limits;
use maglev_model::plan::{Live, Step, SurveyOrder};
use maglev_net::links::Link;

mod adopt;
mod attach;
mod barrier;
mod bpf;
mod capture;
mod counters;
mod decap;
mod driver_report;
mod drivers;
mod egress;
mod error;
pub mod examine;
mod explain;
mod features;
mod fenced;
mod flows;
mod held;
mod machine;
mod maps;
mod mode;
mod object;
mod offloads;
mod pass;
mod pins;
mod publish;
#[cfg(feature = "bench")]
pub mod rig;
mod shared;
mod sizes;
pub mod statistics;
mod succession;
mod survey;
mod trace;
mod vlans;

#[cfg(test)]
pub(crate) mod harness;
#[cfg(test)]
mod tests;

use barrier::Barrier;
use driver_report::Surroundings;
use pins::PinnedLink;
use succession::Continued;

pub use adopt::{Fingerprint, Kept};
pub use attach::{Interface, InterfaceSettings, Refresh, program_name};
pub use capture::{
    CaptureFilter, CaptureId, CaptureProgram, CaptureSource, CaptureTarget, CaptureTotals, Captured, CapturedDecision,
    Sink,
};
pub use counters::{DecapSnapshot, Snapshot, Totals};
pub use decap::{Decap, DecapPlace, DecapSettings, Prefixes, can_be_vips, within_limit};
pub use error::DataplaneError;
pub use explain::{Asked, Explanation, Remembered};
pub use mode::Mode;
pub use object::{backend_sha256, sha256};
pub use pass::Pass;
pub use pins::Pins;
pub use succession::{Device, Rehearsal, Slots};
pub use survey::Survey;
pub use vlans::VlanDevice;

/// The data plane's settings; they do not change while it runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many of each are taken; more is refused. The maps have room for the most.
    pub limits: Limits,
    /// Sets of seven flows in each CPU's flow table: a power of two, at most [`maglev_common::flow::MAX_SETS`].
    pub flow_sets: u32,
    /// Packets that the node itself may answer in a second, over all CPUs: echo requests. A CPU may answer at least
    /// ten of them.
    pub answers: u32,
    /// Datagrams in fragments that may begin in a second, over all CPUs. On a CPU at least ten of them may.
    pub fragmented: u32,
    /// The key of the flow hash.
    pub hash_key: HashKey,
    /// Whether the program logs each decision. Needs a tokio runtime.
    pub trace: bool,
    /// How long packets for VIPs are forwarded without a [`Dataplane::beat`]; `None`: for ever.
    pub watchdog: Option<Duration>,
    /// Whether an interface may be without a program for a moment: what a change of its mode takes.
    pub cut: bool,
    /// The interfaces to attach to, in the order of their slots: at most
    /// [`maglev_common::maps::MAX_INTERFACES`].
    pub interfaces: Vec<InterfaceSettings>,
}

/// The loaded and attached program and its maps. Dropping it detaches the program, unless it is left to the next daemon.
#[derive(Debug)]
pub struct Dataplane {
    /// Declared first, so that they are dropped first: nothing is unmapped under a program that still runs.
    attached: attach::Attached,
    /// Never outlives the daemon: without a daemon there are no health checks.
    egress: egress::Egress,
    vlans: vlans::Vlans,
    maps: maps::Maps,
    barrier: Barrier,
    /// Holds the programs and the device map.
    ebpf: object::Loaded,
    /// The name of the one that is attached.
    program: &'static str,
    trace: Option<trace::Reader>,
    watchdog: Option<Duration>,
    left: Option<Left>,
    settings: Settings,
    capturing: Option<capture::Capturing>,
}

/// The state that is left to the next daemon.
#[derive(Debug)]
struct Left {
    pins: Arc<Pins>,
    /// Program and maps.
    set: String,
    adopted: bool,
    /// The set of another daemon that this one continues with programs of its own: it stays until [`Dataplane::release`].
    previous: Option<String>,
    /// Its counters, if they are to be added to those of this one.
    earlier: Option<counters::Earlier>,
    /// Whether all that is held is of this set.
    whole: bool,
    /// Links of interfaces that are not configured any more.
    leftover: Vec<PinnedLink>,
}

impl Drop for Left {
    /// A set that never forwarded is useless.
    fn drop(&mut self) {
        if !self.whole && !self.adopted {
            self.pins.remove_set(&self.set);
        }
    }
}

impl Dataplane {
    /// Loads the program, sizes and maps its memory, and attaches it to the configured interfaces. `links` are the
    /// interfaces that exist now. All tables are empty: every packet passes until a plan is published.
    ///
    /// # Errors
    /// One line that says what is missing and the remedy. Nothing stays loaded or attached.
    pub fn start(settings: &Settings, links: &[Link]) -> Result<Self, DataplaneError> {
        Self::load(settings, links, None, None)
    }

    /// The same, to be left to the next daemon. Another daemon's set keeps forwarding until [`Self::outlive`].
    ///
    /// # Errors
    /// As for [`Self::start`]; another daemon's set keeps forwarding.
    pub fn replace(settings: &Settings, links: &[Link], pins: &Arc<Pins>) -> Result<Self, DataplaneError> {
        Self::load(settings, links, Some(pins), None)
    }

    fn load(
        settings: &Settings,
        links: &[Link],
        pins: Option<&Arc<Pins>>,
        continued: Option<&Continued<'_>>,
    ) -> Result<Self, DataplaneError> {
        let barrier = Barrier::choose()?;
        let held = pins.map_or_else(|| Ok(BTreeMap::new()), |pins| pins.links(bpf::LinkKind::Xdp))?;
        let chosen = attach::choose_or_await(&settings.interfaces, links, &held)?;
        let sizes = sizes::Sizes::from_settings(settings)?;
        let (maps, sizes) = match continued.zip(pins) {
            Some((continued, pins)) => continued.maps(pins, sizes),
            None => (Vec::new(), sizes),
        };
        let mut ebpf = object::Loaded::balancer(settings, &sizes, &maps)?;
        ebpf.load_classifier(maglev_common::maps::EGRESS_PROGRAM)?;
        let maps = maps::Maps::open(&ebpf, &sizes, settings)?;
        if let Some((continued, pins)) = continued.zip(pins) {
            continued.take_over(pins, &maps);
        }
        let mut earlier = continued.zip(pins).and_then(|(continued, pins)| continued.counters(pins));
        if let Some(earlier) = &mut earlier {
            earlier.add_to(maps.counted_before());
        }
        let program = object::program(settings);
        let trace = if settings.trace { Some(trace::Reader::start(&mut ebpf)?) } else { None };
        let left = match pins {
            Some(pins) => {
                let (pins, set) = (Arc::clone(pins), ebpf.pin(pins, program)?);
                let previous = continued.map(|continued| continued.set.to_owned());
                Some(Left { pins, set, adopted: false, previous, earlier, whole: false, leftover: Vec::new() })
            }
            None => None,
        };
        let (attached, egress, vlans) = <_>::default();
        let (watchdog, settings) = (settings.watchdog, settings.clone());
        let capturing = None;
        let mut plane =
            Self { attached, egress, vlans, maps, barrier, ebpf, program, trace, watchdog, left, settings, capturing };
        plane.beat()?;
        plane.attach(chosen, held, plane.settings.cut, links)?;
        // Health checks are encapsulated once: by the data plane of this process that this one continues, until it takes over.
        if !continued.is_some_and(Continued::is_of_this_process) {
            plane.guard()?;
        }
        let bytes: u64 = plane.maps.memory().iter().map(|(_, bytes)| bytes).sum();
        tracing::info!(bytes, cpus = sizes.cpus, flow_sets = sizes.flow_sets, "data plane started");
        Ok(plane)
    }

    /// Attaches the programs to interfaces; one that a pinned link holds stays as it is.
    fn attach(
        &mut self,
        chosen: Vec<Interface>,
        mut held: BTreeMap<u32, PinnedLink>,
        cut: bool,
        links: &[Link],
    ) -> Result<(), DataplaneError> {
        attach::refuse_cuts(&chosen, &held, cut, links)?;
        let surroundings = Surroundings { links, alone: chosen.len() == 1 };
        for (slot, interface) in chosen.into_iter().enumerate() {
            if !interface.exists() {
                self.attached.wait_for(interface);
                continue;
            }
            attach::describe(&mut self.ebpf, &self.maps, slot, &interface)?;
            let at = links.iter().find(|link| link.index == interface.index).and_then(|link| link.xdp);
            match held.remove(&interface.index) {
                Some(link) if at.is_some_and(|at| interface.mode.is(at.at)) => self.attached.take_over(interface, link),
                other => {
                    // A link cannot change its mode.
                    if let Some(link) = other {
                        link.end();
                    }
                    self.attached.attach(&mut self.ebpf, self.program, interface, surroundings)?;
                }
            }
        }
        if let Some(left) = &mut self.left {
            left.leftover = held.into_values().collect();
        }
        self.vlans.follow(&mut self.ebpf, &self.maps, self.attached.interfaces(), links)
    }

    /// Attaches the egress program to the interfaces that exist.
    fn guard(&mut self) -> Result<(), DataplaneError> {
        let there = self.attached.interfaces().iter().filter(|interface| interface.exists());
        match self.egress.follow(self.ebpf.egress()?, there).pop() {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    /// Shows the packet path that the daemon lives: to be called more often than [`Settings::watchdog`] says.
    ///
    /// # Errors
    /// The clock cannot be read.
    pub fn beat(&self) -> Result<(), DataplaneError> {
        let Some(watchdog) = self.watchdog else { return Ok(()) };
        let deadline = explain::jiffies_in(watchdog)?;
        self.maps.forwarding().deadline.set(deadline);
        Ok(())
    }

    /// From here on forwarding outlives the daemon. To be called once the first plan is published: every interface runs
    /// this program then, and another daemon's set is removed.
    ///
    /// # Errors
    /// A program cannot be replaced, or a link not be pinned.
    pub fn outlive(&mut self) -> Result<(), DataplaneError> {
        let Some(left) = &mut self.left else { return Ok(()) };
        self.attached.outlive(&left.pins, self.ebpf.program(self.program)?)?;
        left.leftover.drain(..).for_each(PinnedLink::end);
        if let Some(mut earlier) = left.earlier.take() {
            // The other program's last packets have been counted then.
            self.barrier.wait()?;
            earlier.add_to(self.maps.counted_before());
        }
        let kept: Vec<&str> =
            [Some(&left.set), left.previous.as_ref()].into_iter().flatten().map(|set| &**set).collect();
        left.pins.remove_sets_but(&kept);
        // Of a daemon that was killed while packets were captured.
        left.pins.unpin_captured(&left.set);
        left.whole = true;
        Ok(())
    }

    /// Takes the place of the data plane of this process that it continues, once the first plan is published; that one is to be
    /// dropped then.
    ///
    /// # Errors
    /// As for [`Self::outlive`]; the call can be repeated.
    pub fn take_over(&mut self, before: &mut Self) -> Result<(), DataplaneError> {
        self.beat()?;
        self.outlive()?;
        self.egress.take_over(std::mem::take(&mut before.egress), self.ebpf.egress()?)?;
        self.guard()
    }

    /// Frees the set that this one continues: nothing goes back to it.
    pub fn release(&mut self) {
        if let Some((left, previous)) = self.left.as_mut().and_then(|left| left.previous.take().map(|set| (left, set)))
        {
            left.pins.remove_set(&previous);
            tracing::info!(set = previous, "the previous data plane is released");
        }
    }

    /// The contents of the maps, from which a planner continues.
    pub fn live(&self) -> Live {
        adopt::live(&self.maps)
    }

    /// The set that is left to the next daemon: the folder it lies in, and its name.
    pub fn set(&self) -> Option<(&Path, &str)> {
        self.left.as_ref().map(|left| (left.pins.folder(), left.set.as_str()))
    }

    /// Whether it was another daemon's before.
    pub fn is_adopted(&self) -> bool {
        self.left.as_ref().is_some_and(|left| left.adopted)
    }

    /// Carries out the steps of a plan in their order.
    ///
    /// # Errors
    /// Says which step could not be carried out; the steps before it stand.
    pub fn publish(&mut self, steps: &[Step]) -> Result<(), DataplaneError> {
        steps.iter().try_for_each(|step| publish::carry_out(&mut self.maps, &mut self.barrier, step))
    }

    /// All counters, summed over the CPUs.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::read(&self.maps)
    }

    /// How the interfaces are at the start: some may not exist yet.
    pub fn begun(&self) -> Refresh {
        Refresh { detached: self.attached.awaited(), ..Refresh::default() }
    }

    /// The configured interfaces in the order of their slots.
    pub fn interfaces(&self) -> &[Interface] {
        self.attached.interfaces()
    }

    /// The VLAN devices on configured interfaces, through which packets can leave too.
    pub fn vlans(&self) -> &[VlanDevice] {
        self.vlans.devices()
    }

    /// Takes over changed MAC addresses and MTUs of the attached interfaces, and attaches both programs to an interface that
    /// was made anew under its name. Follows the VLAN devices on them.
    pub fn refresh(&mut self, links: &[Link]) -> Refresh {
        let Self { attached, egress, vlans, ebpf, .. } = self;
        let mut refresh = attached.refresh(ebpf, self.program, Some(&self.maps), links);
        if let Err(error) = vlans.follow(ebpf, &self.maps, attached.interfaces(), links) {
            refresh.problems.push(error.to_string());
        }
        let there: Vec<_> = attached.interfaces().iter().filter(|it| !refresh.detached.contains(&it.name)).collect();
        match ebpf.egress() {
            Ok(program) => {
                for (interface, error) in egress.follow(program, there) {
                    refresh.unguarded.push(interface.name.clone());
                    refresh.problems.push(error.to_string());
                }
            }
            Err(error) => refresh.problems.push(error.to_string()),
        }
        self.capture_everywhere();
        refresh
    }

    /// The decision for a flow, and its reason, by the code that runs in the kernel. Reads only.
    ///
    /// # Errors
    /// The flow's addresses are of different families.
    pub fn explain(&self, flow: Asked) -> Result<Explanation, DataplaneError> {
        explain::explain(&self.maps, flow)
    }

    /// Begins a survey of every flow entry, for pools in transition.
    ///
    /// # Errors
    /// The clock cannot be read.
    pub fn survey(&self, orders: Vec<SurveyOrder>) -> Result<Survey, DataplaneError> {
        Ok(Survey::new(orders, explain::now()?))
    }

    /// Examines some of the flow entries: a few milliseconds' worth. Returns whether there are more.
    pub fn go_on(&self, survey: &mut Survey) -> bool {
        survey.go_on(&self.maps)
    }

    /// Bytes of kernel memory by map.
    pub fn memory(&self) -> Vec<(&'static str, u64)> {
        self.maps.memory()
    }

    /// Detaches the program and frees its maps: nothing is left.
    pub fn stop(mut self) {
        self.end_captures();
        let Self { mut attached, egress, vlans: _, maps, barrier: _, ebpf, trace, left, .. } = self;
        let names: Vec<_> = attached.interfaces().iter().map(|interface| interface.name.clone()).collect();
        attached.unpin();
        drop((attached, egress));
        if let Some(left) = &left {
            left.pins.remove_all();
        }
        drop((maps, ebpf, trace));
        tracing::info!(interfaces = ?names, "data plane detached");
    }

    /// Ends, and leaves forwarding to the next daemon. Dropping does the same.
    pub fn leave(mut self) {
        self.end_captures();
        match self.left.as_ref().filter(|left| left.whole || left.adopted) {
            Some(left) => tracing::info!(set = left.set, "data plane left forwarding"),
            None => tracing::info!("data plane detached"),
        }
    }
}
