//! The comparison: every scenario, with and without the silent tail, by every design.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde::Serialize;

use super::design::Design;
use super::router::Ecmp;
use super::scenario::{self, Scenario};
use super::simulation::{Outcome, simulate};
use super::traffic::Traffic;

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) design: Design,
    /// Whether flow tables are so large that nothing is ever short.
    pub(super) unlimited: bool,
}

/// One scenario by one design.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    pub(super) scenario: &'static str,
    pub(super) design: String,
    pub(super) silent_tail: bool,
    /// Connections broken while their backend lived.
    pub(super) broken: u32,
    /// Connections that ended with their backend.
    pub(super) ended: u32,
    /// Connections broken that the guarantee covers, and what else must not be.
    pub(super) faults: u32,
    /// Flows that found their bucket full.
    pub(super) flow_table_full: u32,
    /// Recent entries that were evicted though their flows went elsewhere without them.
    pub(super) flow_evicted: u32,
}

/// The compared designs.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    pub(super) seed: u64,
    pub(super) flows: u32,
    pub(super) ecmp: Ecmp,
    pub(super) scenarios: Vec<Scenario>,
    pub(super) columns: Vec<Column>,
    /// Without and with the silent tail.
    pub(super) tails: Vec<bool>,
}

impl Column {
    /// The name of the column.
    pub(super) fn name(&self) -> String {
        if self.unlimited { format!("{}, unlimited", self.design) } else { self.design.to_string() }
    }
}

impl Comparison {
    /// All figures, in the order of tails, scenarios and columns. As many are made at once as there are cores: each is a
    /// function of its own input.
    pub(super) fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        for &tail in &self.tails {
            let traffic = Traffic::new(&scenario::shape(self.flows, tail), self.seed);
            let jobs: Vec<_> =
                self.scenarios.iter().flat_map(|scenario| self.columns.iter().map(move |c| (scenario, c))).collect();
            figures.extend(at_once(&jobs, |&(scenario, column)| self.figure(scenario, *column, &traffic, tail)));
        }
        figures
    }

    fn figure(&self, scenario: &Scenario, column: Column, traffic: &Traffic, silent_tail: bool) -> Figure {
        let mut setting = scenario::setting(self.seed, self.ecmp, column.unlimited);
        setting.covered_silence = column.design.learning();
        let acts = setting.fleet.acts(&scenario.events);
        let Outcome { broken, ended, full, evicted, faults, .. } =
            simulate(&setting, traffic, &acts, column.design, false);
        Figure {
            scenario: scenario.title,
            design: column.name(),
            silent_tail,
            broken,
            ended,
            faults,
            flow_table_full: full,
            flow_evicted: evicted,
        }
    }
}

/// Does jobs, as many at once as there are cores. Results are in the order of the jobs.
pub(super) fn at_once<J: Sync, R: Send>(jobs: &[J], work: impl Fn(&J) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(jobs.len()));
    let worker = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(number) else { return };
            let result = work(job);
            done.lock().expect("no worker panics").push((number, result));
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(worker))));
    let mut done = done.into_inner().expect("no worker panics");
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}
