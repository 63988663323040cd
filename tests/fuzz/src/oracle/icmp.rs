//! ICMP and ICMPv6 messages to a VIP's address (RFC 792, RFC 4443): errors follow the flow that they quote, echo requests are
//! answered.

use super::balance::Received;
use super::bytes::{adjusted, array, be16, byte, put};
use super::choice::{self, Flow, Wanted};
use super::ip::{self, Packet};
use super::link::{Family, turned};
use super::{Balanced, Predicted, affinity, unserved};

/// Bytes of a message's header.
const HEADER: usize = 8;

/// Handles a message without IP options or extension headers.
pub(crate) fn receive(received: Received<'_>) -> Balanced {
    let Packet { family, bytes, transport, .. } = received.packet;
    let Some(message) = bytes.get(transport..).filter(|message| message.len() >= HEADER) else {
        return Predicted::drop("malformed").into();
    };
    let (errors, request, reply): (&[u8], _, _) = match family {
        Family::V4 => (&[3, 11, 12], 8, 0),
        Family::V6 => (&[1, 2, 3, 4], 128, 129),
    };
    match message[0] {
        kind if errors.contains(&kind) => deliver(received, &message[HEADER..]),
        kind if kind == request => echo(received, reply),
        _ => Predicted::drop("icmp").into(),
    }
}

/// Sends an error to the backend of the flow that it quotes.
fn deliver(received: Received<'_>, quote: &[u8]) -> Balanced {
    let world = received.node.world;
    let stray = || Predicted::drop("icmp_stray").into();
    let Some(quoted) = quoted(quote, received.packet.family) else { return stray() };
    let flow = quoted.reversed();
    let Wanted::Vip(vip) = choice::wanted(world, flow) else { return stray() };
    if flow.destination != received.packet.destination {
        return stray();
    }
    let hash = choice::hash(world, vip, flow);
    let sent = |backend: Option<u16>| {
        let mut balanced = match backend {
            Some(_) => received.send(vip, backend, hash.0),
            None => Balanced { vip: Some(vip), ..Predicted::drop("no_backend").into() },
        };
        balanced.predicted.counted.push("icmp_error");
        balanced
    };
    let backends = affinity::choose_for_error(received.node, vip, hash, flow.protocol);
    let mut balanced = sent(backends.first().copied().flatten());
    balanced.or = backends.get(1).map(|backend| Box::new(sent(*backend)));
    balanced
}

/// The flow of a quoted packet, of which eight bytes behind the IP header suffice (RFC 792); of these, the four of its ports.
fn quoted(quote: &[u8], family: Family) -> Option<Flow> {
    let [source, destination] = ip::addresses(quote, family)?;
    let (protocol, transport) = match family {
        Family::V4 => {
            let (version_ihl, flags) = (byte(quote, 0)?, be16(quote, 6)?);
            let header = usize::from(version_ihl & 0xf) * 4;
            if version_ihl >> 4 != 4 || header < 20 || header > quote.len() || flags & 0x1fff != 0 {
                return None;
            }
            (byte(quote, 9)?, header)
        }
        Family::V6 => {
            if byte(quote, 0)? >> 4 != 6 {
                return None;
            }
            let chain = ip::follow(quote, byte(quote, 6)?).ok()?;
            if chain.fragment.is_some_and(|fragment| fragment.offset != 0) {
                return None;
            }
            (chain.protocol, chain.transport)
        }
    };
    let has_ports = ip::protocol::least_with_ports(protocol).is_some();
    let ports = if has_ports { array(quote, transport)? } else { [0; 4] };
    Some(Flow { source, destination, ports, protocol })
}

/// Answers an echo request: all of it goes back, trailers included, with other addresses, all hops and another type.
fn echo(received: Received<'_>, reply: u8) -> Balanced {
    let Received { node, frame, l3, packet } = received;
    if !choice::echoes(node.world, packet.destination) {
        return Predicted::drop("echo_off").into();
    }
    if let Some(balanced) = unserved::refused(received) {
        return balanced;
    }
    let mut rest = frame[l3..].to_vec();
    let ttl = match packet.family {
        Family::V4 => {
            let hops = u16::from_be_bytes([byte(&rest, 8).unwrap_or_default(), 0]);
            let sum = adjusted(be16(&rest, 10).unwrap_or_default(), hops, 64 << 8);
            put(&mut rest, 10, &sum.to_be_bytes());
            8
        }
        Family::V6 => 7,
    };
    put(&mut rest, ttl, &[64]);
    let (start, size) = match packet.family {
        Family::V4 => (12, 4),
        Family::V6 => (8, 16),
    };
    let (source, destination) = (rest[start..start + size].to_vec(), rest[start + size..start + 2 * size].to_vec());
    put(&mut rest, start, &[destination, source].concat());
    let at = packet.transport;
    let before = u16::from_be_bytes([byte(&rest, at).unwrap_or_default(), 0]);
    let sum = adjusted(be16(&rest, at + 2).unwrap_or_default(), before, u16::from_be_bytes([reply, 0]));
    put(&mut rest, at, &[reply]);
    put(&mut rest, at + 2, &sum.to_be_bytes());
    let answered = [turned(frame, l3), rest].concat();
    Balanced { asked: true, ..Predicted::transmit(answered, "echo_reply").into() }
}
