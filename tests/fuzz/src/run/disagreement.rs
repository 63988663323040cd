//! What a program did, and how it differs from the prediction.

use std::collections::BTreeMap;

use super::{Case, Program};
use crate::oracle::{Balanced, Predicted, Verdict};

/// What a program did with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// Its verdict; else the number that it returned, or the kernel's error.
    pub verdict: Result<Verdict, String>,
    /// The frame after.
    pub bytes: Vec<u8>,
    /// The mark of an outgoing packet after.
    pub mark: u32,
    /// By how much counters moved that moved.
    pub counted: BTreeMap<&'static str, u64>,
    /// Other counts that moved, and were not to, or not so.
    pub miscounted: Vec<String>,
}

/// A packet of which program and oracle make different things.
#[derive(Clone, Debug)]
pub struct Disagreement {
    /// The program.
    pub program: Program,
    /// The world's name.
    pub world: &'static str,
    /// The packet that came before, if it matters: the first fragment of the same datagram.
    pub before: Option<Case>,
    /// The packet.
    pub case: Case,
    /// The prediction.
    pub predicted: Balanced,
    /// What the program did.
    pub got: Got,
}

/// A kind of disagreement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signature {
    program: Program,
    predicted: (Verdict, Vec<&'static str>),
    got: (Result<Verdict, String>, Vec<&'static str>),
    bytes_differ: bool,
    miscounted: bool,
}

impl Disagreement {
    /// The kind that it is of.
    pub fn signature(&self) -> Signature {
        let Predicted { verdict, bytes, counted } = &self.predicted.predicted;
        let mut counted = counted.clone();
        counted.sort_unstable();
        Signature {
            program: self.program,
            predicted: (*verdict, counted),
            got: (self.got.verdict.clone(), self.got.counted.keys().copied().collect()),
            bytes_differ: bytes.as_ref().is_some_and(|bytes| *bytes != self.got.bytes),
            miscounted: !self.got.miscounted.is_empty(),
        }
    }
}

impl Got {
    /// Whether this is what was predicted.
    pub(super) fn agrees(&self, predicted: &Balanced, mark: u32) -> bool {
        let Predicted { verdict, bytes, counted } = &predicted.predicted;
        self.verdict.as_ref() == Ok(verdict)
            && bytes.as_ref().is_none_or(|bytes| *bytes == self.bytes)
            && self.counted.values().sum::<u64>() == counted.len() as u64
            && counted.iter().all(|name| {
                let times = counted.iter().filter(|other| other == &name).count() as u64;
                self.counted.get(name) == Some(&times)
            })
            && self.miscounted.is_empty()
            && self.mark == mark
    }
}
