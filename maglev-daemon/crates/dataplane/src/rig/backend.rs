//! Decapsulation that is given one frame at a time and reports all that it did, for a fuzzer. It must not know a frame's meaning.

use ipnet::IpNet;
use maglev_common::counters::DecapCounter;
use maglev_common::maps as names;
use maglev_common::pod::Word;
use maglev_common::settings::Mss;

use super::single::Poisoned;
use crate::counters::DecapSnapshot;
use crate::decap::Prefixes;
use crate::error::DataplaneError;
use crate::maps;
use crate::object::{self, Loaded};
use crate::shared::Mapped;

/// A backend's program, loaded and attached to nothing. Every frame comes in by the loopback device.
#[derive(Debug)]
pub struct Backend {
    under_test: Poisoned,
    counters: Mapped<Word>,
    /// Holds the program and its tries.
    _ebpf: Loaded,
}

impl Backend {
    /// Loads the program that ships, without MSS.
    ///
    /// # Errors
    /// One line: not root, or the kernel refuses the object.
    pub fn load(sources: &[IpNet], vips: &[IpNet]) -> Result<Self, DataplaneError> {
        let cpus = object::possible_cpus()?;
        let mut ebpf = Loaded::backend(names::DECAP_PROGRAM, cpus, Mss::Off, None)?;
        Prefixes::new(sources.iter().copied()).write(&mut ebpf, [names::DECAP_SOURCES4, names::DECAP_SOURCES6])?;
        Prefixes::new(vips.iter().copied()).write(&mut ebpf, [names::DECAP_VIPS4, names::DECAP_VIPS6])?;
        let counters = maps::open(&ebpf, names::DECAP_COUNTERS, cpus * names::COUNTER_REGION)?;
        let under_test = Poisoned::new(ebpf.xdp(names::DECAP_PROGRAM)?)?;
        Ok(Self { under_test, counters, _ebpf: ebpf })
    }

    /// Runs the program on a frame; returns its action. `out` becomes the frame after.
    ///
    /// # Errors
    /// The kernel refuses the run.
    pub fn receive(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<u32, DataplaneError> {
        self.under_test.run(frame, out)
    }

    /// How often each event was counted, in the order of [`DecapCounter::ALL`].
    pub fn counted(&self) -> Vec<u64> {
        let snapshot = DecapSnapshot::read(&self.counters);
        DecapCounter::ALL.iter().map(|counter| snapshot.counter(*counter)).collect()
    }
}
