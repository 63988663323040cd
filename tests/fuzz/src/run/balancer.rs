//! The load balancer's programs as a fuzzer's subjects: what they do with a packet, and what they count.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use maglev_common::counters::{Counter, Counts, Traffic};
use maglev_common::hash::HashKey;
use maglev_dataplane::rig::{Balancer, Fault};
use maglev_model::Limits;

use super::{Case, Got, Program};
use crate::oracle::{self, Balanced, Datagram, Node, Noted, Verdict};
use crate::world::{World, interface_records, steps};

/// For so long a noted datagram is certainly known, and after so long certainly forgotten: entries count in their own step of four
/// seconds and the next.
const KNOWN: Duration = Duration::from_millis(3_500);

/// A loaded load balancer, and what it must have counted.
pub(super) struct Subject<'a> {
    pub(super) world: &'a World,
    program: Program,
    balancer: Balancer,
    cpu: usize,
    counters: Vec<u64>,
    vips: Vec<[u64; 2]>,
    backends: Vec<[u64; 2]>,
    datagrams: HashMap<Datagram, Noted>,
    since: Instant,
    out: Vec<u8>,
}

impl<'a> Subject<'a> {
    /// Loads the programs and publishes a world. For the thread that stays on this CPU.
    pub(super) fn load(world: &'a World, program: Program, cpu: usize, fault: Option<Fault>) -> Result<Self> {
        let settings = maglev_dataplane::Settings {
            limits: Limits { vips: 64, pools: 16, backends: 64 },
            flow_sets: 64,
            answers: world.answers.unwrap_or(u32::MAX),
            fragmented: u32::MAX,
            hash_key: HashKey::from_bytes(world.hash_key),
            trace: false,
            interfaces: Vec::new(),
        };
        let balancer = Balancer::load(&settings, &interface_records(world), &steps(world), fault)?;
        let backends = world.pools.iter().map(|pool| pool.backends.len()).sum::<usize>() + 1;
        Ok(Self {
            world,
            program,
            balancer,
            cpu,
            counters: vec![0; Counter::ALL.len()],
            vips: vec![[0; 2]; world.vips.len()],
            backends: vec![[0; 2]; backends],
            datagrams: HashMap::new(),
            since: Instant::now(),
            out: Vec::new(),
        })
    }

    /// Forgets all datagrams that have begun.
    pub(super) fn forget(&mut self) {
        self.balancer.forget_fragments();
        self.datagrams.clear();
        self.since = Instant::now();
    }

    /// Whether datagrams that have begun are soon forgotten by the program.
    pub(super) fn is_stale(&self) -> bool {
        self.since.elapsed() > KNOWN
    }

    /// What is predicted of a packet, and the mark it has after.
    pub(super) fn predict(&self, case: &Case, may_answer: bool) -> (Balanced, u32) {
        match self.program {
            Program::Egress => {
                let mut balanced = oracle::check(self.world, case.origin, &case.frame);
                let is_sent = balanced.predicted.counted.contains(&"check_sent");
                // The kernel keeps the tag beside the bytes, where a test run does not show it.
                if let Some(bytes) = balanced.predicted.bytes.as_mut().filter(|_| is_sent)
                    && matches!(bytes.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8]))
                {
                    bytes.drain(12..16);
                }
                (balanced, if is_sent { 0 } else { case.origin.mark })
            }
            _ => {
                let node = Node { world: self.world, datagrams: &self.datagrams, may_answer };
                (oracle::balance(&node, &case.frame), 0)
            }
        }
    }

    /// Runs the program; `predicted` says which counts are to move.
    pub(super) fn run(&mut self, case: &Case, predicted: &Balanced) -> Result<Got> {
        let (verdict, mark) = match self.program {
            Program::Egress => {
                let departed = self.balancer.send(case.origin.mark, case.origin.forwarded, &case.frame, &mut self.out);
                match departed {
                    Ok(departed) => (departed_as(departed.action), departed.mark),
                    Err(error) => (Err(error.to_string()), 0),
                }
            }
            _ => match self.balancer.receive(&case.frame, &mut self.out) {
                Ok(action) => (received_as(action), 0),
                Err(error) => (Err(error.to_string()), 0),
            },
        };
        let counts = self.balancer.counts(self.cpu).context("no counters of this CPU")?;
        let mut counted = BTreeMap::new();
        for (counter, before) in Counter::ALL.iter().zip(&mut self.counters) {
            let now = counts.counters[*counter as usize].get();
            if now != *before {
                counted.insert(counter.name(), now.wrapping_sub(*before));
                *before = now;
            }
        }
        let mut miscounted = Vec::new();
        let bytes = case.frame.len() as u64;
        if let Some(vip) = predicted.vip
            && !moved(&mut self.vips[vip], &counts.vips[vip], bytes)
        {
            miscounted.push(format!("VIP {vip}"));
        }
        if let Some(backend) = predicted.backend
            && !moved(&mut self.backends[usize::from(backend)], &counts.members[usize::from(backend)], bytes)
        {
            miscounted.push(format!("backend {backend}"));
        }
        Ok(Got { verdict, bytes: self.out.clone(), mark, counted, miscounted })
    }

    /// Takes over what a packet changed.
    pub(super) fn note(&mut self, predicted: &Balanced) {
        if let Some((datagram, noted)) = predicted.noted {
            self.datagrams.insert(datagram, noted);
        }
    }

    /// The VIPs and backends whose counts are not as predicted, though no single packet was seen to change them; from here on they are
    /// taken to be right.
    pub(super) fn audit(&mut self) -> Result<Vec<String>> {
        let Counts { vips, members, .. } = self.balancer.counts(self.cpu).context("no counters of this CPU")?;
        let mut wrong = Vec::new();
        for (what, expected, counted) in
            [("VIP", &mut self.vips, &vips[..]), ("backend", &mut self.backends, &members[..])]
        {
            for (n, traffic) in counted.iter().enumerate() {
                let is = [traffic.packets.get(), traffic.bytes.get()];
                if is != expected.get(n).copied().unwrap_or_default() {
                    wrong.push(format!("{what} {n}"));
                }
                if let Some(expected) = expected.get_mut(n) {
                    *expected = is;
                }
            }
        }
        Ok(wrong)
    }
}

/// Whether traffic moved by one packet of so many bytes.
fn moved(before: &mut [u64; 2], traffic: &Traffic, bytes: u64) -> bool {
    let now = [traffic.packets.get(), traffic.bytes.get()];
    let is_right = now == [before[0] + 1, before[1] + bytes];
    *before = now;
    is_right
}

/// `XDP_DROP`, `XDP_PASS`, `XDP_TX` and `XDP_REDIRECT`.
pub(super) fn received_as(action: u32) -> Result<Verdict, String> {
    match action {
        1 => Ok(Verdict::Drop),
        2 => Ok(Verdict::Pass),
        3 => Ok(Verdict::Transmit),
        4 => Ok(Verdict::Redirect),
        other => Err(format!("action {other}")),
    }
}

/// `TC_ACT_UNSPEC`, `TC_ACT_SHOT` and `TC_ACT_REDIRECT`.
fn departed_as(action: u32) -> Result<Verdict, String> {
    match action {
        u32::MAX => Ok(Verdict::Pass),
        2 => Ok(Verdict::Drop),
        7 => Ok(Verdict::Redirect),
        other => Err(format!("action {other}")),
    }
}
