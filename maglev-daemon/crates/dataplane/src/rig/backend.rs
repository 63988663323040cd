//! Decapsulation that is given one frame at a time and tells all that it did: what a fuzzer needs. It must not know what a frame
//! means.

use aya::maps::ProgramArray;
use aya::programs::{TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use ipnet::IpNet;
use maglev_common::counters::DecapCounter;
use maglev_common::maps as names;
use maglev_common::pod::Word;
use maglev_common::settings::Mss;
use maglev_harness::{HARNESS, UNDER_TEST};

use super::{clone, program};
use crate::counters::DecapSnapshot;
use crate::decap::Prefixes;
use crate::error::DataplaneError;
use crate::maps;
use crate::object::{self, Loaded};
use crate::shared::Mapped;

/// The program of the harness that fills the headroom with ones before the program under test runs.
const POISON: &str = "poison";

/// A backend's program, loaded and attached to nothing.
#[derive(Debug)]
pub struct Backend {
    harness: Ebpf,
    counters: Mapped<Word>,
    /// Holds the program and its tries.
    _ebpf: Loaded,
}

impl Backend {
    /// Loads the program that ships.
    ///
    /// # Errors
    /// One line: not root, or the kernel refuses the object.
    pub fn load(sources: &[IpNet], vips: &[IpNet]) -> Result<Self, DataplaneError> {
        let cpus = object::possible_cpus()?;
        let mut ebpf = Loaded::backend(names::DECAP_PROGRAM, cpus, Mss::Off, None)?;
        Prefixes::new(sources.iter().copied()).write(&mut ebpf, [names::DECAP_SOURCES4, names::DECAP_SOURCES6])?;
        Prefixes::new(vips.iter().copied()).write(&mut ebpf, [names::DECAP_VIPS4, names::DECAP_VIPS6])?;
        let counters = maps::open(&ebpf, names::DECAP_COUNTERS, cpus * names::COUNTER_REGION)?;
        let fd = clone(
            ebpf.xdp(names::DECAP_PROGRAM)?
                .fd()
                .map_err(|error| DataplaneError::program(names::DECAP_PROGRAM, &error))?,
        )?;
        let mut harness =
            EbpfLoader::new().load(HARNESS).map_err(|error| DataplaneError::loading("the harness", &error))?;
        program(&mut harness, POISON)?.load().map_err(|error| DataplaneError::program(POISON, &error))?;
        let map = harness.map_mut(UNDER_TEST).ok_or_else(|| DataplaneError::no_map(UNDER_TEST))?;
        let mut programs =
            ProgramArray::try_from(map).map_err(|error| DataplaneError::map(UNDER_TEST, "look-up", &error))?;
        programs.set(0, &fd, 0).map_err(|error| DataplaneError::map(UNDER_TEST, "update", &error))?;
        Ok(Self { harness, counters, _ebpf: ebpf })
    }

    /// Runs the program on a frame; returns its action. `out` becomes the frame after.
    ///
    /// # Errors
    /// The kernel refuses the run.
    pub fn receive(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<u32, DataplaneError> {
        out.resize(frame.len() + 256, 0);
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(out);
        let poison = program(&mut self.harness, POISON)?;
        let result = poison.test_run(options).map_err(|error| DataplaneError::program(POISON, &error))?;
        out.truncate(result.data_size_out as usize);
        Ok(result.return_value)
    }

    /// How often each event was counted.
    pub fn counted(&self) -> Vec<u64> {
        let snapshot = DecapSnapshot::read(&self.counters);
        DecapCounter::ALL.iter().map(|counter| snapshot.counter(*counter)).collect()
    }
}
