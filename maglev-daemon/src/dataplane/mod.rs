//! The data plane: loads the eBPF object, attaches it, and publishes plans into its memory-mapped maps. The only room
//! that names aya. It must not know files, requests or what a pool is for.
//!
//! ```text
//!  Settings ──▶ object (load, size) ──▶ shared (maps as memory) ──▶ attach (interfaces)
//!  [Step]   ──▶ publish ──▶ maps          maps ──▶ counters, explain
//! ```

use maglev_common::flow::WAYS;
use maglev_common::hash::HashKey;
use maglev_common::table::PoolIndex;

use crate::model::Limits;
use crate::net::links::Link;
use crate::plan::{Step, SurveyOrder};

mod attach;
mod barrier;
mod bpf;
mod counters;
mod decap;
mod error;
mod explain;
mod flows;
mod maps;
mod object;
mod publish;
#[cfg(feature = "bench")]
pub mod rig;
mod shared;
mod survey;
mod trace;

#[cfg(test)]
pub(crate) mod harness;
#[cfg(test)]
mod tests;

use barrier::Barrier;

pub use attach::{Interface, InterfaceSettings, Mode, Refresh};
pub use counters::{DecapSnapshot, Snapshot, Totals};
pub use decap::{Decap, DecapSettings, Pass};
pub use error::DataplaneError;
pub use explain::{Asked, Explanation, Remembered};
pub use object::sha256;
pub use survey::Survey;

/// What the data plane is started with; none of it changes while it runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many of each are taken; more is refused. The maps have room for the most.
    pub limits: Limits,
    /// Sets of seven flows in each CPU's flow table: a power of two, at most [`maglev_common::flow::MAX_SETS`].
    pub flow_sets: u32,
    /// The key of the flow hash.
    pub hash_key: HashKey,
    /// Whether each packet costs one call of a helper more than it has to.
    pub slowed: bool,
    /// Whether the table alone decides, whatever pools and slots say.
    pub table_only: bool,
    /// Whether the program logs each decision. Needs a tokio runtime.
    pub trace: bool,
    /// The interfaces to attach to, in the order of their slots: at most
    /// [`maglev_common::maps::MAX_INTERFACES`].
    pub interfaces: Vec<InterfaceSettings>,
}

/// The loaded and attached program and its maps. Dropping it detaches the program.
#[derive(Debug)]
pub struct Dataplane {
    /// Declared first, so that it is dropped first: nothing is unmapped under a program that still runs.
    attached: attach::Attached,
    maps: maps::Maps,
    barrier: Barrier,
    /// Holds the programs and the device map.
    ebpf: object::Loaded,
    /// The name of the one that is attached.
    program: &'static str,
    trace: Option<trace::Reader>,
}

impl Dataplane {
    /// Loads the program, sizes and maps its memory, and attaches it to the configured interfaces. `links` are the
    /// interfaces that exist now. All tables are empty: every packet passes until a plan is published.
    ///
    /// # Errors
    /// One line that says what is missing and the remedy. Nothing stays loaded or attached.
    pub fn start(settings: &Settings, links: &[Link]) -> Result<Self, DataplaneError> {
        let barrier = Barrier::choose()?;
        let chosen = attach::choose(&settings.interfaces, links)?;
        let sizes = object::Sizes::of(settings)?;
        let mut ebpf = object::Loaded::balancer(settings, &sizes)?;
        let maps = maps::Maps::open(&ebpf, &sizes, settings)?;
        let program = object::program(settings);
        let trace = if settings.trace { Some(trace::Reader::start(&mut ebpf)?) } else { None };
        let mut attached = attach::Attached::default();
        for (slot, interface) in chosen.into_iter().enumerate() {
            attach::describe(&mut ebpf, &maps, slot, &interface)?;
            attached.attach(&mut ebpf, program, interface)?;
        }
        let bytes: u64 = maps.memory().iter().map(|(_, bytes)| bytes).sum();
        tracing::info!(bytes, cpus = sizes.cpus, flow_sets = settings.flow_sets, "data plane started");
        Ok(Self { attached, maps, barrier, ebpf, program, trace })
    }

    /// Carries out the steps of a plan in their order.
    ///
    /// # Errors
    /// Says which step could not be carried out; the steps before it stand.
    pub fn publish(&mut self, steps: &[Step]) -> Result<(), DataplaneError> {
        steps.iter().try_for_each(|step| publish::carry_out(&mut self.maps, &self.barrier, step))
    }

    /// All counters, summed over the CPUs.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.maps)
    }

    /// The attached interfaces in the order of their slots.
    pub fn interfaces(&self) -> &[Interface] {
        self.attached.interfaces()
    }

    /// Takes over changed MAC addresses and MTUs of the attached interfaces, and attaches to an interface that was made
    /// anew under its name.
    pub fn refresh(&mut self, links: &[Link]) -> Refresh {
        self.attached.refresh(&mut self.ebpf, self.program, Some(&self.maps), links)
    }

    /// Where a flow goes, and why, by the code that runs in the kernel. Reads only.
    ///
    /// # Errors
    /// The flow's addresses are of different families.
    pub fn explain(&self, flow: Asked) -> Result<Explanation, DataplaneError> {
        explain::explain(&self.maps, flow)
    }

    /// Clears flow entries so old that their age can no longer be told. To be called each hour or so.
    ///
    /// # Errors
    /// The clock cannot be read.
    pub fn sweep(&self) -> Result<(), DataplaneError> {
        flows::sweep(&self.maps, explain::now()?);
        Ok(())
    }

    /// Begins to look at every flow entry, for pools in transition.
    ///
    /// # Errors
    /// The clock cannot be read.
    pub fn survey(&self, orders: Vec<SurveyOrder>) -> Result<Survey, DataplaneError> {
        Ok(Survey::new(orders, explain::now()?))
    }

    /// Looks at some of the flow entries: a few milliseconds' worth. Tells whether there are more.
    pub fn go_on(&self, survey: &mut Survey) -> bool {
        survey.go_on(&self.maps)
    }

    /// How many flows the flow tables know that were seen within `idle` seconds on these slots of a pool.
    ///
    /// # Errors
    /// The clock cannot be read.
    pub fn active_flows(&self, pool: PoolIndex, slots: &[bool], idle: u16) -> Result<u64, DataplaneError> {
        Ok(flows::active(&self.maps, explain::now()?, pool, slots, idle))
    }

    /// Flows there is room for in the flow tables of all CPUs.
    pub fn flow_entries(&self) -> u64 {
        u64::from(self.maps.sizes.flows) * WAYS as u64
    }

    /// Bytes of kernel memory by map.
    pub fn memory(&self) -> Vec<(&'static str, u64)> {
        self.maps.memory()
    }

    /// Detaches the program and frees its maps. Dropping does the same.
    pub fn stop(self) {
        let Self { attached, maps, barrier: _, ebpf, program: _, trace } = self;
        let names: Vec<_> = attached.interfaces().iter().map(|interface| interface.name.clone()).collect();
        drop(attached);
        drop((maps, ebpf, trace));
        tracing::info!(interfaces = ?names, "data plane detached");
    }
}
