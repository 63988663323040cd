//! Test runs of the loaded programs, with the headroom a driver leaves: full of ones. It must not know a packet's
//! content.

use aya::maps::ProgramArray;
use aya::programs::{Program, TestRun, TestRunOptions, Xdp, loaded_programs};
use aya::{Ebpf, EbpfLoader};

use maglev_harness::{HARNESS, UNDER_TEST};

use super::Dataplane;
use super::object::Loaded;

/// `XDP_DROP`, `XDP_PASS`, `XDP_TX` and `XDP_REDIRECT`: a program's verdicts.
pub(crate) mod action {
    pub(crate) const DROP: u32 = 1;
    pub(crate) const PASS: u32 = 2;
    pub(crate) const TX: u32 = 3;
    pub(crate) const REDIRECT: u32 = 4;
}

/// A change to a frame before the program under test sees it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Before {
    /// Its headroom is filled with ones.
    Poison,
    /// Its headroom is used up.
    Crowd,
}

/// Runs one loaded program on packets of a test.
pub(crate) struct Harness(Ebpf);

impl Harness {
    /// For the load balancer.
    pub(crate) fn from_dataplane(plane: &mut Dataplane) -> Self {
        Self::new(&mut plane.ebpf, plane.program)
    }

    /// For a program of an object.
    pub(super) fn new(ebpf: &mut Loaded, program: &'static str) -> Self {
        let id = ebpf.program(program).unwrap().id;
        let under_test = loaded_programs().map(Result::unwrap).find(|loaded| loaded.id() == id).unwrap().fd().unwrap();
        let mut harness = Self(EbpfLoader::new().load(HARNESS).unwrap());
        for before in [Before::Poison, Before::Crowd] {
            harness.program(before).load().unwrap();
        }
        let mut programs = ProgramArray::try_from(harness.0.map_mut(UNDER_TEST).unwrap()).unwrap();
        programs.set(0, &under_test, 0).unwrap();
        harness
    }

    fn program(&mut self, before: Before) -> &mut Xdp {
        let name = match before {
            Before::Poison => "poison",
            Before::Crowd => "crowd",
        };
        match self.0.program_mut(name) {
            Some(Program::Xdp(program)) => program,
            other => panic!("{other:?}"),
        }
    }

    /// Runs the program on one packet from an interface; returns its verdict and the packet.
    pub(crate) fn run(&mut self, ingress: u32, frame: &[u8]) -> (u32, Vec<u8>) {
        self.run_after(Before::Poison, ingress, frame)
    }

    /// The same, with another change to the frame before.
    pub(super) fn run_after(&mut self, before: Before, ingress: u32, frame: &[u8]) -> (u32, Vec<u8>) {
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, frame.len() as u32, 0, ingress, 0, 0].map(u32::to_ne_bytes).concat();
        let mut out = vec![0; frame.len() + 256];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        options.ctx_in = Some(&context);
        let result = self.program(before).test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }
}
