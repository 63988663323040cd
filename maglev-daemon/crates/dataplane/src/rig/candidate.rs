//! A load balancer as the rig runs it: loaded and given its tables, attached to nothing.

use aya::programs::{ProgramFd, Xdp};
use maglev_common::backend::InterfaceRecord;
use maglev_common::counters::Counter;
use maglev_common::hash::HashKey;
use maglev_common::maps::{CAPTURED_PROGRAM, PROGRAM};
use maglev_harness as names;
use maglev_model::Limits;
use maglev_model::plan::Step;

use super::LOOPBACK;
use crate::barrier::Barrier;
use crate::capture;
use crate::error::DataplaneError;
use crate::maps::Maps;
use crate::object::{Beside, Loaded};
use crate::sizes::Sizes;
use crate::{CaptureFilter, Settings, publish};

/// The MTU of the outgoing interface: more than any packet needs.
const MTU: u32 = 9_000;

/// The settings of a candidate.
#[derive(Clone, Debug)]
pub struct CandidateSettings<'a> {
    /// An object that takes our maps and globals, and is measured as it is; `None` for the one that ships.
    pub object: Option<&'a [u8]>,
    /// Whether the table alone decides.
    pub table_only: bool,
    /// Whether each packet costs one call of a helper more than it has to.
    pub slowed: bool,
    /// The filter of a capture that runs meanwhile; `None`: the program that only forwards is measured.
    pub capture: Option<&'a CaptureFilter>,
    /// Sets of seven flows in each CPU's flow table.
    pub flow_sets: u32,
    /// How many of each are taken.
    pub limits: Limits,
    /// The MAC address of the one interface; members' next hops name slot 0.
    pub mac: [u8; 6],
}

impl CandidateSettings<'_> {
    /// How the program departs from the one that ships; 0 if it does not.
    const fn mode(&self) -> u32 {
        let slowed = if self.slowed { names::SLOWED } else { 0 };
        slowed | if self.table_only { names::TABLE_ONLY } else { 0 }
    }
}

/// A load balancer, loaded.
#[derive(Debug)]
pub struct Candidate {
    ebpf: Loaded,
    maps: Maps,
    /// The name of the program that is measured.
    program: &'static str,
}

impl Candidate {
    /// Loads it and publishes its tables.
    ///
    /// # Errors
    /// One line: the kernel refuses the object, or the object's maps are not ours, or a step cannot be carried out.
    pub fn load(wanted: &CandidateSettings<'_>, steps: &[Step]) -> Result<Self, DataplaneError> {
        let settings = Settings {
            limits: wanted.limits,
            flow_sets: wanted.flow_sets,
            answers: 0,
            // As many as come.
            fragmented: u32::MAX,
            hash_key: HashKey::from_bytes(*b"maglev benchmark"),
            trace: false,
            watchdog: None,
            cut: false,
            interfaces: Vec::new(),
        };
        let sizes = Sizes::from_settings(&settings)?;
        let mode = wanted.mode();
        let (ebpf, program) = match wanted.object {
            Some(object) => (Loaded::balancer_of(object, PROGRAM, &settings, &sizes, Beside::default())?, PROGRAM),
            None if wanted.capture.is_some() => (Loaded::capturing(&settings, &sizes, &[])?, CAPTURED_PROGRAM),
            None if mode == 0 => (Loaded::balancer(&settings, &sizes, &[])?, PROGRAM),
            None => {
                let (program, globals) = (names::MEASURED_PROGRAM, [(names::MODE, mode)]);
                (
                    Loaded::balancer_of(
                        names::MEASURED,
                        program,
                        &settings,
                        &sizes,
                        Beside { globals: &globals, ..Beside::default() },
                    )?,
                    program,
                )
            }
        };
        if let Some(filter) = wanted.capture {
            capture::take(&ebpf, filter)?;
        }
        let mut maps = Maps::open(&ebpf, &sizes, &settings)?;
        maps.forwarding().set_interface(0, &InterfaceRecord::new(wanted.mac, LOOPBACK, MTU).alone());
        let mut barrier = Barrier::choose()?;
        steps.iter().try_for_each(|step| publish::carry_out(&mut maps, &mut barrier, step))?;
        Ok(Self { ebpf, maps, program })
    }

    /// Packets the program says it has encapsulated and sent back.
    pub fn transmitted(&self) -> u64 {
        self.maps.counts.values().iter().map(|counts| counts.counter(Counter::Transmitted).get()).sum()
    }

    /// Instructions the verifier walked to accept the program; `None` if this kernel does not say.
    pub fn verified_instructions(&mut self) -> Option<u32> {
        self.ebpf.xdp(self.program).ok()?.info().ok()?.verified_instruction_count()
    }

    /// The kernel's number of the program.
    ///
    /// # Errors
    /// The kernel does not report it.
    pub fn id(&mut self) -> Result<u32, DataplaneError> {
        self.ebpf.program(self.program).map(|program| program.id)
    }

    /// Bytes by map.
    pub fn memory(&self) -> Vec<(&'static str, u64)> {
        self.maps.memory()
    }

    pub(super) fn program(&mut self) -> Result<&mut Xdp, DataplaneError> {
        self.ebpf.xdp(self.program)
    }

    pub(super) fn fd(&mut self) -> Result<&ProgramFd, DataplaneError> {
        self.ebpf.xdp(self.program)?.fd().map_err(|error| DataplaneError::program(self.program, &error))
    }
}
