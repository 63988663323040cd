//! The load balancer's programs as a fuzzer's subjects: what they do with a packet, and what they count.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use maglev_common::counters::{Counter, Traffic};
use maglev_common::hash::HashKey;
use maglev_dataplane::rig::{Balancer, Fault};
use maglev_model::Limits;

use super::{Case, Got, Program};
use crate::oracle::{self, Balanced, Datagram, Node, Noted, Verdict};
use crate::world::{World, interface_records, steps};

/// For so long, datagrams that have begun are certainly known, for at least four seconds; and a SYN moves no flow, for at least two:
/// three of which the last one may have just begun.
const KNOWN: Duration = Duration::from_millis(1_900);
/// Sets of the flow table: so many that no flow of a batch finds its set full.
const SETS: u32 = 4_096;

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
    flows: HashMap<u64, u16>,
    since: Instant,
    out: Vec<u8>,
}

impl<'a> Subject<'a> {
    /// Loads the programs and publishes a world. For the thread that stays on this CPU.
    pub(super) fn load(world: &'a World, program: Program, cpu: usize, fault: Option<Fault>) -> Result<Self> {
        let settings = maglev_dataplane::Settings {
            limits: Limits { vips: 64, pools: 16, backends: 64 },
            flow_sets: SETS,
            answers: world.answers.unwrap_or(u32::MAX),
            fragmented: u32::MAX,
            hash_key: HashKey::from_bytes(world.hash_key),
            trace: false,
            watchdog: None,
            cut: false,
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
            flows: HashMap::new(),
            since: Instant::now(),
            out: Vec::new(),
        })
    }

    /// Forgets all flows, and all datagrams that have begun.
    pub(super) fn forget(&mut self) {
        self.balancer.forget();
        self.datagrams.clear();
        self.flows.clear();
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
                let node = Node { world: self.world, datagrams: &self.datagrams, flows: &self.flows, may_answer };
                (oracle::balance(&node, &case.frame), 0)
            }
        }
    }

    /// Runs the program.
    pub(super) fn run(&mut self, case: &Case) -> Result<Got> {
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
            let now = counts.counter(*counter).get();
            if now != *before {
                counted.insert(counter.name(), now.wrapping_sub(*before));
                *before = now;
            }
        }
        Ok(Got { verdict, bytes: self.out.clone(), mark, counted, miscounted: Vec::new() })
    }

    /// Of the VIP and the backend that a packet was to be counted by, those that did not count it so.
    pub(super) fn miscounted(&self, case: &Case, predicted: &Balanced) -> Vec<String> {
        let Some(counts) = self.balancer.counts(self.cpu) else { return vec!["no counters of this CPU".to_owned()] };
        let wrong = |before: &[u64; 2], traffic: &Traffic| {
            [traffic.packets.get(), traffic.bytes.get()] != counted(*before, case)
        };
        let vip = predicted.vip.filter(|vip| wrong(&self.vips[*vip], &counts.vips()[*vip]));
        let backend = predicted.backend.filter(|id| {
            let id = usize::from(*id);
            wrong(&self.backends[id], &counts.members()[id])
        });
        let vip = vip.map(|vip| format!("VIP {vip}"));
        vip.into_iter().chain(backend.map(|id| format!("backend {id}"))).collect()
    }

    /// Takes over the counts of a packet with which the program did what was predicted.
    pub(super) fn count(&mut self, case: &Case, predicted: &Balanced) {
        let vip = predicted.vip.map(|vip| &mut self.vips[vip]);
        let backend = predicted.backend.map(|id| &mut self.backends[usize::from(id)]);
        vip.into_iter().chain(backend).for_each(|before| *before = counted(*before, case));
    }

    /// Takes over what a packet changed.
    pub(super) fn note(&mut self, predicted: &Balanced) {
        if let Some((datagram, noted)) = predicted.noted {
            self.datagrams.insert(datagram, noted);
        }
        if let Some((flow, backend)) = predicted.recorded {
            self.flows.insert(flow, backend);
        }
    }

    /// The VIPs and backends whose counts are not as predicted, though no single packet was seen to change them; from here on they are
    /// taken to be right.
    pub(super) fn audit(&mut self) -> Result<Vec<String>> {
        let counts = self.balancer.counts(self.cpu).context("no counters of this CPU")?;
        let (vips, members) = (counts.vips(), counts.members());
        let mut wrong = Vec::new();
        for (what, expected, counted) in [("VIP", &mut self.vips, vips), ("backend", &mut self.backends, members)] {
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

/// Packets and bytes with one more packet.
fn counted([packets, bytes]: [u64; 2], case: &Case) -> [u64; 2] {
    [packets + 1, bytes + case.frame.len() as u64]
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
