//! What a load balancer makes of a frame that it receives (docs/packets.md, "How packets are handled").

use super::affinity::{self, Chosen, Segment};
use super::choice::{self, Flow, Wanted};
use super::encap::{self, Inner};
use super::ip::{self, Fragment, Packet, protocol};
use super::link::{Link, link};
use super::{Balanced, Datagram, Node, Noted, Predicted, Verdict, icmp, link as ethernet, too_big, unserved};
use crate::world::{Backend, INGRESS, Pool};

/// Predicts the fate of a frame.
pub fn balance(node: &Node<'_>, frame: &[u8]) -> Balanced {
    let (family, l3) = match link(frame) {
        Link::Truncated => return Predicted::pass(frame, "truncated").into(),
        Link::Other => return Predicted::pass(frame, "not_ip").into(),
        Link::Ip(family, l3) => (family, l3),
    };
    let Some([_, destination]) = ip::addresses(&frame[l3..], family) else {
        return Predicted::pass(frame, "truncated").into();
    };
    if !choice::is_vip_address(node.world, destination) {
        return Predicted::pass(frame, "not_vip").into();
    }
    if !is_own(node, frame) {
        return Predicted::pass(frame, "other_mac").into();
    }
    match ip::parse(&frame[l3..], family) {
        Err(reason) => Predicted::drop(reason).into(),
        Ok(packet) => Received { node, frame, l3, packet }.decide(),
    }
}

/// Whether a frame is addressed to the node: to the interface that it came in by, a VLAN device on that, or one of its `also`. An
/// interface that is not configured is part of one that is.
fn is_own(node: &Node<'_>, frame: &[u8]) -> bool {
    let Some(destination) = ethernet::destination(frame) else { return false };
    let interfaces = &node.world.interfaces;
    let is_known = interfaces.iter().any(|interface| interface.index == INGRESS);
    interfaces
        .iter()
        .filter(|interface| !is_known || interface.index == INGRESS)
        .any(|interface| interface.mac == destination || interface.also.contains(&destination))
}

/// A packet for a VIP's address, to this node.
#[derive(Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) node: &'a Node<'a>,
    pub(crate) frame: &'a [u8],
    /// Where in the frame the packet begins.
    pub(crate) l3: usize,
    pub(crate) packet: Packet<'a>,
}

impl Received<'_> {
    fn decide(self) -> Balanced {
        let Packet { protocol, transport, fragment, .. } = self.packet;
        if let Some(fragment) = fragment {
            return self.decide_fragment(fragment);
        }
        let is_plain = transport == ip::least_header(self.packet.family);
        match (self.packet.is_icmp(), protocol) {
            (true, _) if is_plain => icmp::receive(self),
            (true, _) => Predicted::drop("icmp").into(),
            (false, protocol::IPV4 | protocol::IPV6) => Predicted::drop("nested").into(),
            (false, _) => match self.flow() {
                Some(flow) => self.decide_flow(flow),
                None => Predicted::drop("malformed").into(),
            },
        }
    }

    /// The packet's flow; `None` if its transport header is cut short.
    pub(crate) fn flow(&self) -> Option<Flow> {
        let Packet { bytes, source, destination, protocol, transport, .. } = self.packet;
        Some(Flow { source, destination, ports: ip::ports(bytes, protocol, transport)?, protocol })
    }

    fn decide_flow(self, flow: Flow) -> Balanced {
        let world = self.node.world;
        match choice::wanted(world, flow) {
            Wanted::Vip(vip) => {
                let hash = choice::hash(world, vip, flow);
                let chosen = affinity::choose(self.node, vip, hash, Segment::of(&self.packet));
                self.send(vip, chosen.backend, hash.0).chosen(chosen)
            }
            Wanted::AddressAlone => unserved::answer(self, None),
            Wanted::Nowhere => Predicted::pass(self.frame, "not_vip").into(),
        }
    }

    /// A fragment: the first one as a whole packet is, the others to where it went.
    fn decide_fragment(self, fragment: Fragment) -> Balanced {
        let Packet { source, destination, .. } = self.packet;
        if !is_sound(fragment) {
            return Predicted::drop("malformed").into();
        }
        let is_v4 = source.is_ipv4();
        let datagram = Datagram {
            source,
            destination,
            identification: fragment.identification,
            protocol: is_v4.then_some(fragment.protocol),
        };
        // All fragments of a datagram have the same outer source: the hash of what they have in common.
        let common = if is_v4 { fragment.protocol } else { 44 };
        let hash = Flow { source, destination, ports: [0; 4], protocol: common }.hash(self.node.world).0;
        if fragment.offset == 0 {
            return self.decide_first(datagram, hash);
        }
        match self.node.datagrams.get(&datagram) {
            Some(Noted { vip, backend }) => self.send(*vip, Some(*backend), hash),
            None => Predicted::drop("fragment_unknown").into(),
        }
    }

    fn decide_first(self, datagram: Datagram, hash: u64) -> Balanced {
        let world = self.node.world;
        let Some(flow) = self.flow() else { return Predicted::drop("malformed").into() };
        match flow.protocol {
            protocol::ICMP | protocol::ICMPV6 => return Predicted::drop("icmp").into(),
            protocol::IPV4 | protocol::IPV6 => return Predicted::drop("nested").into(),
            _ => {}
        }
        let vip = match choice::wanted(world, flow) {
            Wanted::Vip(vip) => vip,
            Wanted::AddressAlone => return Predicted::drop(choice::unknown(flow.protocol)).into(),
            Wanted::Nowhere => return Predicted::pass(self.frame, "not_vip").into(),
        };
        let chosen = affinity::choose(self.node, vip, choice::hash(world, vip, flow), Segment::of(&self.packet));
        let mut balanced = self.send(vip, chosen.backend, hash);
        if let Some(backend) = chosen.backend {
            balanced.noted = Some((datagram, Noted { vip, backend }));
            balanced.predicted.counted.push("fragment_noted");
        }
        balanced.chosen(chosen)
    }

    /// Sends the packet to a backend of its VIP, if there is one.
    pub(crate) fn send(self, vip: usize, backend: Option<u16>, hash: u64) -> Balanced {
        let mut balanced = match backend.and_then(|id| self.node.world.backend(id)) {
            None => unserved::answer(self, Some(vip)),
            Some((pool, backend)) => self.encapsulate(pool, backend, hash),
        };
        balanced.vip = Some(vip);
        balanced
    }

    fn encapsulate(self, pool: &Pool, backend: &Backend, hash: u64) -> Balanced {
        let (world, Packet { family, class, bytes, .. }) = (self.node.world, self.packet);
        let Some(hop) = backend.next_hop else { return Predicted::drop("next_hop_unresolved").into() };
        let longest = encap::longest(world, pool, backend, hop);
        if bytes.len() > longest {
            return too_big::answer(self, longest);
        }
        // What follows the packet in its frame stays there if it fits too.
        let rest = &self.frame[self.l3..];
        let carried = if rest.len() > longest { bytes } else { rest };
        let inner = Inner { family, class, length: bytes.len(), bytes: carried, hash };
        let frame = encap::frame(world, pool, backend, hop, &inner);
        let (verdict, counter) = if world.interfaces[hop.slot].index == INGRESS {
            (Verdict::Transmit, "transmitted")
        } else {
            (Verdict::Redirect, "redirected")
        };
        let predicted = Predicted { verdict, bytes: Some(frame), counted: vec![counter] };
        Balanced { backend: Some(backend.id), ..predicted.into() }
    }
}

impl Balanced {
    /// The same, once this was chosen. A flow that is known may be found at a second look, which is counted.
    fn chosen(mut self, Chosen { backend, counted, recorded }: Chosen) -> Self {
        let is_known_alone = backend.is_some() && counted.is_empty();
        self.predicted.counted.extend(counted);
        self.recorded = recorded;
        if is_known_alone {
            let mut other = self.clone();
            other.predicted.counted.push("flow_hit");
            self.or = Some(Box::new(other));
        }
        self
    }
}

impl Packet<'_> {
    /// Whether it holds a message of the ICMP of its version of IP.
    pub(crate) fn is_icmp(&self) -> bool {
        match self.source.is_ipv4() {
            true => self.protocol == protocol::ICMP,
            false => self.protocol == protocol::ICMPV6,
        }
    }
}

/// Whether a sender makes such a fragment: not empty, all but the last in whole units of eight bytes (RFC 791 section 3.2, RFC 8200
/// section 4.5), within a datagram's length, and none that begins in TCP's header (RFC 1858 section 4).
fn is_sound(Fragment { offset, more, payload, protocol, identification: _ }: Fragment) -> bool {
    let in_units = !more || payload.is_multiple_of(8);
    payload != 0 && in_units && offset + payload <= 65_535 && !(offset == 8 && protocol == protocol::TCP)
}
