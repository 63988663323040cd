//! The rig of live frames: packets are sent into one end of a veth, the program under test runs natively on the other
//! and sends them back, and a sink counts them. The kernel's statistics show how long the program took.
//!
//! The veth lives in a network namespace without a name, of the thread that made it: it goes with the thread, however
//! that ends.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use aya::programs::{TestRun, TestRunAttrs, TestRunOptions};
use aya::sys::{Stats, enable_stats};
use maglev_harness as names;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};

use super::{Batch, Rig, Turn, clone, program};
use crate::bpf;
use crate::error::DataplaneError;

/// The end that the generator sends into, and that the sink is attached to.
const NEAR: &str = "gen";
/// The end that the program under test is attached to.
const FAR: &str = "lb";
/// The setting that keeps IPv6 silent on new interfaces of the namespace.
const DISABLE_IPV6: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
/// Frames in flight at once: a veth's ring holds 256.
const IN_FLIGHT: u32 = 64;

/// A rig whose programs are attached to a veth.
#[derive(Debug)]
pub struct VethRig {
    rig: Rig,
    far: u32,
    _sink: OwnedFd,
    _stats: OwnedFd,
}

/// The result of a run.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// Nanoseconds that the program under test took for a packet, as the kernel's statistics have it: they add a reading
    /// of the clock.
    pub nanoseconds: f64,
    /// How long the run took from end to end.
    pub duration: Duration,
    /// Packets sent.
    pub sent: u64,
    /// Packets that came back.
    pub returned: u64,
    /// Of them, those that had grown by as much as they should.
    pub grown: u64,
}

impl VethRig {
    /// Moves the calling thread into a network namespace of its own and makes a veth there.
    ///
    /// # Errors
    /// One line: not root, no `ip`, or the kernel refuses something.
    pub fn new() -> Result<Self, DataplaneError> {
        let failed =
            |what: &str, error: &dyn std::fmt::Display| DataplaneError::Load(format!("veth rig: {what}: {error}"));
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| failed("no network namespace", &errno))?;
        // No other frames are wanted: IPv6 would look for neighbors.
        if fs::exists(DISABLE_IPV6).is_ok_and(|exists| exists) {
            fs::write(DISABLE_IPV6, "1").map_err(|error| failed(DISABLE_IPV6, &error))?;
        }
        for line in [
            format!("link add {NEAR} mtu 3000 type veth peer name {FAR} mtu 3000"),
            format!("link set {NEAR} up"),
            format!("link set {FAR} up"),
        ] {
            let output = Command::new("ip").args(line.split(' ')).output().map_err(|error| failed("ip", &error))?;
            if !output.status.success() {
                return Err(failed(&format!("ip {line}"), &String::from_utf8_lossy(&output.stderr).trim()));
            }
        }
        let index = |name| if_nametoindex(name).map_err(|errno| failed(name, &errno));
        let (near, far) = (index(NEAR)?, index(FAR)?);
        let mut rig = Rig::load()?;
        for name in [names::GENERATE4, names::GENERATE6, names::SINK] {
            program(&mut rig.harness, name)?.load().map_err(|error| DataplaneError::program(name, &error))?;
        }
        rig.words.first().interface.set(near.into());
        let sink = program(&mut rig.harness, names::SINK)?;
        let sink = sink.fd().map_err(|error| DataplaneError::program(names::SINK, &error))?;
        let sink = bpf::link_xdp(sink.as_fd(), near, bpf::DRIVER_MODE).map_err(|errno| failed("the sink", &errno))?;
        let stats = enable_stats(Stats::RunTime).map_err(|error| failed("the kernel's statistics", &error))?;
        Ok(Self { rig, far, _sink: sink, _stats: stats })
    }

    /// Runs one program over so many packets.
    ///
    /// # Errors
    /// The kernel refuses the program, or sends no live frames.
    pub fn run(&mut self, batch: &Batch<'_>, turn: &mut Turn<'_>, packets: u32) -> Result<Live, DataplaneError> {
        let ipv6 = self.rig.describe(batch, std::slice::from_ref(turn))?;
        let fd = clone(self.rig.fd(turn)?)?;
        let attached = bpf::link_xdp(fd.as_fd(), self.far, bpf::DRIVER_MODE);
        let attached = attached.map_err(|errno| DataplaneError::Load(format!("veth rig: cannot attach: {errno}")))?;
        let words = self.rig.words.first();
        words.returned.set(0);
        let before = self.rig.statistics(turn)?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(batch.frame);
        options.repeat = packets;
        options.attrs = TestRunAttrs::new().xdp_live_frames(IN_FLIGHT);
        let name = if ipv6 { names::GENERATE6 } else { names::GENERATE4 };
        let generator = program(&mut self.rig.harness, name)?;
        let start = Instant::now();
        generator
            .test_run(options)
            .map_err(|error| DataplaneError::Load(format!("this kernel sends no live frames (needs 5.18): {error}")))?;
        let duration = start.elapsed();
        let after = self.rig.statistics(turn)?;
        drop(attached);
        let runs = after.1 - before.1;
        let nanoseconds = (after.0 - before.0).as_nanos() as f64 / runs.max(1) as f64;
        let words = self.rig.words.first();
        let (returned, grown) = (words.returned.get(), words.grown.get());
        Ok(Live { nanoseconds, duration, sent: packets.into(), returned, grown })
    }
}

impl Rig {
    /// Time and runs of a program so far.
    fn statistics(&mut self, turn: &mut Turn<'_>) -> Result<(Duration, u64), DataplaneError> {
        let (name, program) = match turn {
            Turn::Held(held, _) => {
                let info = held.info()?;
                return Ok((info.run_time(), info.run_count()));
            }
            Turn::Candidate(candidate, _) => (maglev_common::maps::PROGRAM, candidate.program()?),
            Turn::Floor(floor) => (floor.program(), program(&mut self.harness, floor.program())?),
        };
        let info = program.info().map_err(|error| DataplaneError::program(name, &error))?;
        Ok((info.run_time(), info.run_count()))
    }
}
