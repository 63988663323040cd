//! Packets that no backend can be given: dropped, or answered with a RST or *port unreachable* (docs/packets.md, "No backend").

use super::balance::Received;
use super::bytes::{array, be32, byte, put, sum};
use super::ip::{Packet, protocol};
use super::link::Family;
use super::{Balanced, Predicted, answer, choice};

/// The least bytes of an Ethernet frame, without its check sequence.
const SHORTEST: usize = 60;

/// Answers or drops a packet of a VIP without a backend, or of no VIP.
pub(crate) fn answer(received: Received<'_>, vip: Option<usize>) -> Balanced {
    let Packet { protocol, fragment, .. } = received.packet;
    let reason = if vip.is_some() { "no_backend" } else { choice::unknown(protocol) };
    if !choice::is_reset(received.node.world, vip) || fragment.is_some() || received.packet.is_icmp() {
        return Predicted::drop(reason).into();
    }
    match protocol {
        protocol::TCP => reset(received, reason),
        protocol::UDP => unreachable(received),
        _ => Predicted::drop(reason).into(),
    }
}

/// RFC 9293 section 3.10.7.1: every segment but a RST is answered with one that its sender accepts.
fn reset(received: Received<'_>, reason: &'static str) -> Balanced {
    let [fin, syn, rst, ack] = [1, 2, 4, 16];
    let Received { frame, l3, packet, .. } = received;
    let segment = packet.bytes.get(packet.transport..).unwrap_or_default();
    let header = byte(segment, 12).map_or(0, |offset| usize::from(offset >> 4) * 4);
    let (Some(flags), Some(sequence), Some([a, b, c, d])) = (byte(segment, 13), be32(segment, 4), array(segment, 0))
    else {
        return Predicted::drop(reason).into();
    };
    if flags & rst != 0 || header < 20 || header > segment.len() {
        return Predicted::drop(reason).into();
    }
    if let Some(balanced) = refused(received) {
        return balanced;
    }
    let mut answer = [0; 20];
    put(&mut answer, 0, &[c, d, a, b]);
    if flags & ack != 0 {
        put(&mut answer, 4, &segment[8..12]);
        put(&mut answer, 12, &[5 << 4, rst]);
    } else {
        let count = segment.len() - header + usize::from(flags & syn != 0) + usize::from(flags & fin != 0);
        put(&mut answer, 8, &sequence.wrapping_add(count as u32).to_be_bytes());
        put(&mut answer, 12, &[5 << 4, rst | ack]);
    }
    let mut answered = answer::segment(frame, l3, &packet, answer);
    // Padded as Ethernet wants it, but never longer than what it answers.
    if frame.len() >= SHORTEST && answered.len() < SHORTEST {
        answered.resize(SHORTEST, 0);
    }
    Balanced { asked: true, ..Predicted::transmit(answered, "reset").into() }
}

/// RFC 792 and RFC 4443 section 3.1: *port unreachable*, with the IP header and eight bytes.
fn unreachable(received: Received<'_>) -> Balanced {
    let Received { frame, l3, packet, .. } = received;
    let Packet { family, bytes, transport, .. } = packet;
    let quote = &bytes[..transport + 8];
    let (least, kind, sum) = match family {
        // The sum of the quoted header is taken to be that of a right one.
        Family::V4 => (20 + 8, [3, 3], {
            let datagram = sum(&[&bytes[transport..transport + 8]]);
            sum(&[&[0xff, 0xff], &datagram.to_be_bytes()])
        }),
        Family::V6 => (40 + 8, [1, 4], sum(&[quote])),
    };
    let has_extensions = family == Family::V6 && transport != 40;
    if bytes.len() < least + quote.len() || has_extensions {
        return Predicted::drop("unanswerable").into();
    }
    if let Some(balanced) = refused(received) {
        return balanced;
    }
    let answered = answer::error(frame, l3, &packet, [kind[0], kind[1], 0, 0, 0, 0, 0, 0], quote, sum);
    Balanced { asked: true, ..Predicted::transmit(answered, "port_unreachable").into() }
}

/// Why a packet is not answered, if it is not.
pub(crate) fn refused(received: Received<'_>) -> Option<Balanced> {
    let Received { node, packet, .. } = received;
    if !answer::is_answerable(node, &packet) {
        return Some(Predicted::drop("unanswerable").into());
    }
    (!node.may_answer).then(|| Balanced { asked: true, ..Predicted::drop("answer_limit").into() })
}
