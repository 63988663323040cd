//! Predictions of what a program makes of a frame: plain functions of a world and the frame's bytes. They use nothing of the packet
//! path's crate.
//!
//! ```text
//!  link ──▶ ip ──▶ choice ──▶ balance ──▶ encap            the packet is sent on
//!                    │          ├───────▶ too_big, unserved  the node answers
//!                    │          └───────▶ icmp              errors, pings
//!                    └──────────▶ check                     packets that the node itself sends
//! ```

use std::collections::HashMap;
use std::net::IpAddr;

use crate::world::World;

mod affinity;
mod answer;
mod balance;
mod bytes;
mod check;
mod choice;
pub mod decap;
mod encap;
mod icmp;
mod ip;
mod link;
#[cfg(test)]
mod tests;
mod too_big;
mod unserved;

pub use balance::balance;
pub use check::{Origin, check};
pub use decap::decap;

/// The fate of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// The host's network stack gets it.
    Pass,
    /// It is dropped.
    Drop,
    /// It is sent out of the interface that it came in by.
    Transmit,
    /// It is sent out of another interface.
    Redirect,
}

/// The prediction for a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predicted {
    /// The program's verdict.
    pub verdict: Verdict,
    /// The whole frame after the program; `None` if it is not predicted, as of a dropped one.
    pub bytes: Option<Vec<u8>>,
    /// The names of the counters that are incremented by one, each as often as it stands here.
    pub counted: Vec<&'static str>,
}

impl Predicted {
    /// The frame is the host's, as it is.
    fn pass(frame: &[u8], reason: &'static str) -> Self {
        Self { verdict: Verdict::Pass, bytes: Some(frame.to_vec()), counted: vec![reason] }
    }

    fn drop(reason: &'static str) -> Self {
        Self { verdict: Verdict::Drop, bytes: None, counted: vec![reason] }
    }

    fn transmit(bytes: Vec<u8>, reason: &'static str) -> Self {
        Self { verdict: Verdict::Transmit, bytes: Some(bytes), counted: vec![reason] }
    }
}

/// The prediction for a frame that a load balancer receives or sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balanced {
    /// The frame's fate.
    pub predicted: Predicted,
    /// The VIP that counts the packet, by its place.
    pub vip: Option<usize>,
    /// The backend that counts the packet, by its number.
    pub backend: Option<u16>,
    /// The datagram whose first fragment this is, and where it goes from now on.
    pub noted: Option<(Datagram, Noted)>,
    /// The flow, by its hash, that goes to a backend from now on.
    pub recorded: Option<(u64, u16)>,
    /// Whether the node was about to answer, and asked how many answers are left.
    pub asked: bool,
    /// What may become of the frame instead.
    pub or: Option<Box<Self>>,
}

impl Balanced {
    /// The fate of no frame.
    #[cfg(feature = "loaded")]
    pub(crate) fn nothing() -> Self {
        Predicted { verdict: Verdict::Pass, bytes: None, counted: Vec::new() }.into()
    }
}

impl From<Predicted> for Balanced {
    fn from(predicted: Predicted) -> Self {
        Self { predicted, vip: None, backend: None, noted: None, recorded: None, asked: false, or: None }
    }
}

/// A datagram in fragments: addresses, identification and, over IPv4, the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Datagram {
    source: IpAddr,
    destination: IpAddr,
    identification: u32,
    protocol: Option<u8>,
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// The VIP that it is for, by its place.
    pub vip: usize,
    /// The backend, by its number.
    pub backend: u16,
}

/// A node in the moment in which a frame arrives.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    /// Its world.
    pub world: &'a World,
    /// The datagrams whose first fragments came within the last four seconds.
    pub datagrams: &'a HashMap<Datagram, Noted>,
    /// The backends of the flows that are recorded, by their hashes.
    pub flows: &'a HashMap<u64, u16>,
    /// Whether one of this second's answers is left.
    pub may_answer: bool,
}
