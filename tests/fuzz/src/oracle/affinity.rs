//! Which backend a flow goes to (docs/connections.md): the owner of its slot; where that changed, the flow table and the previous
//! owner have a say.
//!
//! ```text
//!                       settled        in transition, or always tracked: a flow that is
//!                                      known          not known, learning     not known, tracked
//! TCP SYN               owner          as known       owner, recorded         owner, recorded
//! any other TCP         owner          as known       previous, recorded ¹    owner ²
//! datagram              owner          as known       owner or, with `keep`,  owner ²
//!                                                     previous, recorded
//! ```
//!
//! ¹ Not by a RST. ² Recorded where every flow is.

use maglev_common::hash::FlowHash;

use super::Node;
use super::bytes::byte;
use super::choice;
use super::ip::{Packet, protocol};
use crate::world::Transition;

/// What a packet is to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    Syn,
    Rst,
    Other,
    Datagram,
}

impl Segment {
    /// Of a packet with a whole transport header.
    pub(crate) fn of(packet: &Packet<'_>) -> Self {
        let [fin, syn, rst, ack] = [1, 2, 4, 16];
        if packet.protocol != protocol::TCP {
            return Self::Datagram;
        }
        match byte(packet.bytes, packet.transport + 13).unwrap_or_default() {
            flags if flags & rst != 0 => Self::Rst,
            flags if flags & (fin | syn | ack) == syn => Self::Syn,
            _ => Self::Other,
        }
    }
}

/// A backend for a packet of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// The backend, if there is one.
    pub(crate) backend: Option<u16>,
    /// What is counted of the choice.
    pub(crate) counted: Vec<&'static str>,
    /// The flow goes to this backend from now on.
    pub(crate) recorded: Option<(u64, u16)>,
}

/// Chooses the backend of a packet of a VIP. No flow was silent for long, and none that was recorded was lost.
pub(crate) fn choose(node: &Node<'_>, vip: usize, hash: FlowHash, segment: Segment) -> Chosen {
    let (owner, previous) = owners(node, vip, hash);
    let transition = &node.world.pool_of(vip).transition;
    if !is_tracked(transition, hash) {
        return Chosen { backend: owner, ..Chosen::default() };
    }
    let known = node.flows.get(&hash.0).copied();
    let mut counted = Vec::new();
    if let Some(backend) = known {
        let is_unresolved = node.world.backend(backend).is_none_or(|(_, backend)| backend.next_hop.is_none());
        // What can begin anew at another backend does so while its own cannot be reached.
        let begins_anew = is_unresolved && matches!(segment, Segment::Syn | Segment::Datagram);
        if !begins_anew || owner.is_none() {
            if segment == Segment::Syn {
                counted.push("flow_hit");
            }
            return Chosen { backend: known, counted, recorded: None };
        }
    } else {
        counted.push("flow_miss");
    }
    let to_previous = match segment {
        Segment::Syn => None,
        Segment::Datagram => previous.filter(|_| transition.keeps_datagrams),
        Segment::Rst | Segment::Other => previous,
    };
    let backend = to_previous.or(owner);
    let is_recorded = previous.is_some() || transition.always || segment == Segment::Syn || known.is_some();
    let recorded = backend.filter(|_| is_recorded && segment != Segment::Rst).map(|backend| (hash.0, backend));
    if recorded.is_some() {
        counted.push("flow_written");
        counted.extend(to_previous.map(|_| "flow_previous"));
    }
    Chosen { backend, counted, recorded }
}

/// The backends that an ICMP error about a flow may go to: nothing is recorded. Those about TCP go to either of two in turn.
pub(crate) fn choose_for_error(node: &Node<'_>, vip: usize, hash: FlowHash, protocol: u8) -> Vec<Option<u16>> {
    let (owner, previous) = owners(node, vip, hash);
    let transition = &node.world.pool_of(vip).transition;
    let known = node.flows.get(&hash.0).copied();
    match (known.filter(|_| is_tracked(transition, hash)), previous) {
        (Some(backend), _) => vec![Some(backend)],
        (None, Some(_)) if protocol == protocol::TCP => vec![owner, previous],
        (None, Some(_)) if transition.keeps_datagrams => vec![previous],
        (None, _) => vec![owner],
    }
}

/// Whether the flow table is asked for a flow.
fn is_tracked(transition: &Transition, hash: FlowHash) -> bool {
    transition.always
        || transition.previous.get(hash.slot().index()).is_some_and(|previous| *previous != Transition::NONE)
}

/// The owner of a flow's slot, and its previous owner while the slot is learning.
fn owners(node: &Node<'_>, vip: usize, hash: FlowHash) -> (Option<u16>, Option<u16>) {
    let pool = node.world.pool_of(vip);
    let id = |place: u16| pool.backends.get(usize::from(place)).map(|backend| backend.id);
    let owner = choice::owner(node.world, vip, hash).map(|backend| backend.id);
    let previous = pool.transition.previous.get(hash.slot().index()).copied().filter(|_| pool.transition.learning);
    (owner, previous.and_then(id))
}
