//! The one owner of the daemon's mutable state: a pure function from events to effects. It must not know tasks,
//! sockets, files or a clock.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::{Change, Services};
use crate::plan::Step;

/// Names the caller that awaits an answer; chosen by the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What is known of the way to a backend's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Packets leave by this interface to the neighbour with this MAC address.
    Resolved {
        /// The outgoing interface's index.
        interface: u32,
        /// The neighbour's MAC address.
        mac: [u8; 6],
        /// The gateway, if the backend is not on-link.
        gateway: Option<IpAddr>,
    },
    /// Nothing can be sent yet; the text says what is awaited ("no route to 10.0.1.11", "neighbour 10.0.0.1 on eth1
    /// does not answer").
    Unresolved(String),
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// An operator asks for a change.
    Change {
        /// Who awaits the answer.
        request: RequestId,
        /// The change.
        change: Change,
    },
    /// The services file was read again: the whole desired state.
    Reload {
        /// Who awaits the answer.
        request: RequestId,
        /// All services; already valid in themselves.
        services: Services,
    },
    /// The burst is over: act on what was collected.
    Flush,
    /// The services were written to disk, or the reason they could not be.
    Persisted(Result<(), String>),
    /// The last plan was carried out, or the reason it could not be.
    Published(Result<(), String>),
    /// The way to an address changed.
    NextHop {
        /// A backend's address.
        address: IpAddr,
        /// What is known now.
        resolution: Resolution,
    },
}

/// Something to do.
#[derive(Debug)]
pub enum Effect {
    /// Write the services to disk, atomically and durably, then report [`Event::Persisted`].
    Persist(Services),
    /// Carry out a plan, then report [`Event::Published`].
    Publish(Vec<Step>),
    /// Follow the ways to exactly these addresses.
    Follow(BTreeSet<IpAddr>),
    /// Answer a request; an error is one line for the operator.
    Reply {
        /// Who asked.
        request: RequestId,
        /// What became of it.
        outcome: Result<(), Refusal>,
    },
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The input can never be right (exit code 2).
    #[error("{0}")]
    Invalid(String),
    /// Not possible as things stand: unknown, taken, in use, full (exit code 1).
    #[error("{0}")]
    Conflict(String),
    /// The daemon failed to do it (exit code 1).
    #[error("{0}")]
    Failed(String),
}
