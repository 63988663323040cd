//! Programs that are given one frame at a time, by the calling thread and its CPU, and all that they did: what a fuzzer needs. It must
//! not know what a frame means.

use aya::maps::ProgramArray;
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use maglev_common::backend::InterfaceRecord;
use maglev_common::counters::Counts;
use maglev_common::flow::Bucket;
use maglev_common::fragment::Line;
use maglev_common::maps::{EGRESS_PROGRAM, PROGRAM};
use maglev_harness::{self as names, Fault};
use maglev_model::plan::Step;

use super::{LOOPBACK, clone, program};
use crate::Settings;
use crate::attach;
use crate::barrier::Barrier;
use crate::error::DataplaneError;
use crate::maps::Maps;
use crate::object::{Beside, Loaded};
use crate::publish;
use crate::shared::Mapped;
use crate::sizes::Sizes;

/// The program of the harness that fills the headroom with ones before the program under test runs.
const POISON: &str = "poison";

/// Room behind a frame for what a program adds to it.
const ROOM: usize = 256;

/// Words of `struct __sk_buff`: `mark`, `ingress_ifindex` and `ifindex`.
const MARK: usize = 2;
const INGRESS_IFINDEX: usize = 9;
const IFINDEX: usize = 10;
/// Bytes of `struct __sk_buff`, of which the kernel returns as many as it has.
const SKB_CONTEXT: usize = 192;

/// An XDP program behind the one that fills the headroom.
#[derive(Debug)]
pub(super) struct Poisoned {
    harness: Ebpf,
}

impl Poisoned {
    /// For a loaded program.
    pub(super) fn new(under_test: &Xdp) -> Result<Self, DataplaneError> {
        let fd = under_test.fd().map_err(|error| DataplaneError::program("under test", &error))?;
        let fd = clone(fd)?;
        let mut harness =
            EbpfLoader::new().load(names::HARNESS).map_err(|error| DataplaneError::loading("the harness", &error))?;
        program(&mut harness, POISON)?.load().map_err(|error| DataplaneError::program(POISON, &error))?;
        let map = harness.map_mut(names::UNDER_TEST).ok_or_else(|| DataplaneError::no_map(names::UNDER_TEST))?;
        let mut programs =
            ProgramArray::try_from(map).map_err(|error| DataplaneError::map(names::UNDER_TEST, "look-up", &error))?;
        programs.set(0, &fd, 0).map_err(|error| DataplaneError::map(names::UNDER_TEST, "update", &error))?;
        Ok(Self { harness })
    }

    /// Runs the program on a frame that comes in by the loopback device; returns its action. `out` becomes the frame after.
    pub(super) fn run(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<u32, DataplaneError> {
        out.resize(frame.len() + ROOM, 0);
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(out);
        let program = program(&mut self.harness, POISON)?;
        let result = program.test_run(options).map_err(|error| DataplaneError::program(POISON, &error))?;
        out.truncate(result.data_size_out as usize);
        Ok(result.return_value)
    }
}

/// An outgoing packet's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departed {
    /// The program's action.
    pub action: u32,
    /// The packet's mark after.
    pub mark: u32,
}

/// The load balancer, loaded and given its tables, attached to nothing. Every frame comes in by interface number 1, the loopback
/// device: an interface record with that index is the ingress.
#[derive(Debug)]
pub struct Balancer {
    under_test: Poisoned,
    maps: Maps,
    ebpf: Loaded,
}

impl Balancer {
    /// Loads the programs that ship, or those with a fault, and publishes their tables. `interfaces` in the order of their slots;
    /// `settings` name none.
    ///
    /// # Errors
    /// One line: not root, the kernel refuses the object, or a step cannot be carried out.
    pub fn load(
        settings: &Settings,
        interfaces: &[InterfaceRecord],
        steps: &[Step],
        fault: Option<Fault>,
    ) -> Result<Self, DataplaneError> {
        let sizes = Sizes::from_settings(settings)?;
        let mut ebpf = match fault {
            None => Loaded::balancer(settings, &sizes, &[])?,
            Some(fault) => {
                let globals = [(names::FAULT, fault as u32)];
                Loaded::balancer_of(
                    names::FAULTY,
                    PROGRAM,
                    settings,
                    &sizes,
                    Beside { globals: &globals, ..Beside::default() },
                )?
            }
        };
        ebpf.load_classifier(EGRESS_PROGRAM)?;
        let mut maps = Maps::open(&ebpf, &sizes, settings)?;
        for (slot, record) in interfaces.iter().enumerate() {
            attach::publish_as(&mut ebpf, &maps, slot, record, LOOPBACK)?;
        }
        let mut barrier = Barrier::choose()?;
        steps.iter().try_for_each(|step| publish::carry_out(&mut maps, &mut barrier, step))?;
        let under_test = Poisoned::new(ebpf.xdp(PROGRAM)?)?;
        Ok(Self { under_test, maps, ebpf })
    }

    /// Runs the XDP program on a frame; returns its action. `out` becomes the frame after.
    ///
    /// # Errors
    /// The kernel refuses the run.
    pub fn receive(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<u32, DataplaneError> {
        self.under_test.run(frame, out)
    }

    /// Runs the egress program on a packet of a socket with this mark, or one that came in by the loopback device if it is
    /// forwarded. `out` becomes the packet after.
    ///
    /// # Errors
    /// The kernel refuses the run.
    pub fn send(
        &mut self,
        mark: u32,
        forwarded: bool,
        frame: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Departed, DataplaneError> {
        let program: &mut SchedClassifier = self.ebpf.egress()?;
        depart(program, mark, forwarded, frame, out)
    }

    /// What a CPU has counted.
    pub fn counts(&self, cpu: usize) -> Option<&Counts> {
        self.maps.counts.get(cpu)
    }

    /// Forgets all flows, and all datagrams whose first fragments came.
    pub fn forget(&self) {
        self.maps.fragments.iter().flat_map(Mapped::values).for_each(Line::clear);
        self.maps.flows.values().iter().for_each(Bucket::clear);
    }
}

/// Runs a classifier on an outgoing packet.
pub(super) fn depart(
    program: &mut SchedClassifier,
    mark: u32,
    forwarded: bool,
    frame: &[u8],
    out: &mut Vec<u8>,
) -> Result<Departed, DataplaneError> {
    let mut context = [0_u8; 4 * (IFINDEX + 1)];
    for (word, value) in [(MARK, mark), (INGRESS_IFINDEX, u32::from(forwarded)), (IFINDEX, LOOPBACK)] {
        context[4 * word..][..4].copy_from_slice(&value.to_ne_bytes());
    }
    let mut after = [0_u8; SKB_CONTEXT];
    out.resize(frame.len() + ROOM, 0);
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.data_out = Some(out);
    options.ctx_in = Some(&context);
    options.ctx_out = Some(&mut after);
    let result = program.test_run(options).map_err(|error| DataplaneError::program(EGRESS_PROGRAM, &error))?;
    out.truncate(result.data_size_out as usize);
    let mut word = [0; 4];
    word.copy_from_slice(&after[4 * MARK..][..4]);
    Ok(Departed { action: result.return_value, mark: u32::from_ne_bytes(word) })
}
