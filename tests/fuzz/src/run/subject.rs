//! The programs under test, whichever they are: what is predicted of a packet, what they do with it, and what they count.

use anyhow::Result;

use super::{Case, Got, backend, balancer};
use crate::oracle::Balanced;

/// A loaded program in its world.
pub(super) enum Subject<'a> {
    /// One of the load balancer's.
    Balancer(Box<balancer::Subject<'a>>),
    /// The backend's.
    Backend(Box<backend::Subject<'a>>),
}

impl Subject<'_> {
    /// The world's name.
    pub(super) fn world(&self) -> &'static str {
        match self {
            Self::Balancer(subject) => subject.world.name,
            Self::Backend(_) => "backend",
        }
    }

    /// Answers that a CPU may give in a second, if they are limited.
    pub(super) fn answers(&self) -> Option<u32> {
        match self {
            Self::Balancer(subject) => subject.world.answers,
            Self::Backend(_) => None,
        }
    }

    /// Forgets what earlier packets left.
    pub(super) fn forget(&mut self) {
        if let Self::Balancer(subject) = self {
            subject.forget();
        }
    }

    /// Whether what earlier packets left is soon forgotten by the program.
    pub(super) fn is_stale(&self) -> bool {
        match self {
            Self::Balancer(subject) => subject.is_stale(),
            Self::Backend(_) => false,
        }
    }

    /// What is predicted of a packet, and the mark it has after.
    pub(super) fn predict(&self, case: &Case, may_answer: bool) -> (Balanced, u32) {
        match self {
            Self::Balancer(subject) => subject.predict(case, may_answer),
            Self::Backend(subject) => (subject.predict(case), 0),
        }
    }

    /// Whether a program did what was predicted; the counts of VIPs and backends included, of which those that differ are noted.
    pub(super) fn judge(&mut self, got: &mut Got, case: &Case, predicted: &Balanced, mark: u32) -> bool {
        let Self::Balancer(subject) = self else { return got.agrees(predicted, mark) };
        got.miscounted = subject.miscounted(case, predicted);
        let agrees = got.agrees(predicted, mark);
        if agrees {
            subject.count(case, predicted);
        }
        agrees
    }

    /// Runs the program.
    pub(super) fn run(&mut self, case: &Case) -> Result<Got> {
        match self {
            Self::Balancer(subject) => subject.run(case),
            Self::Backend(subject) => Ok(subject.run(case)),
        }
    }

    /// Takes over what a packet changed.
    pub(super) fn note(&mut self, predicted: &Balanced) {
        if let Self::Balancer(subject) = self {
            subject.note(predicted);
        }
    }

    /// The counts that are not as predicted, though no single packet was seen to change them; from here on they are taken to be right.
    pub(super) fn audit(&mut self) -> Result<Vec<String>> {
        match self {
            Self::Balancer(subject) => subject.audit(),
            Self::Backend(_) => Ok(Vec::new()),
        }
    }
}
