//! Packets that do not fit the path to their backend (RFC 1191, RFC 4443 section 3.2).

use super::balance::Received;
use super::bytes::{be16, sum};
use super::ip::{Packet, protocol};
use super::link::Family;
use super::{Balanced, Predicted, answer};

/// Answers a packet that is longer than `longest`, all that fits; or drops it.
pub(crate) fn answer(received: Received<'_>, longest: usize) -> Balanced {
    let Received { node, frame, l3, packet } = received;
    let Packet { family, bytes, protocol, fragment, .. } = packet;
    // The least MTU that hosts know, and the length of an answer, which quotes as much as fits (RFC 1812 section 4.3.2.3).
    let (least, headers, kind, may) = match family {
        Family::V4 => {
            let is_to_be_whole = be16(bytes, 6).unwrap_or_default() & 0x4000 != 0;
            (576, 20 + 8, [3, 4], is_to_be_whole && protocol != protocol::ICMP)
        }
        Family::V6 => (1_280, 40 + 8, [2, 0], protocol != protocol::ICMPV6),
    };
    let mtu = longest.max(least);
    let is_first = fragment.is_none_or(|fragment| fragment.offset == 0);
    // The sender of a packet that is no longer than the answer's MTU would change nothing.
    if !may || !is_first || bytes.len() <= mtu || !answer::is_answerable(node, &packet) {
        return Predicted::drop("too_big").into();
    }
    if !node.may_answer {
        return Balanced { asked: true, ..Predicted::drop("answer_limit").into() };
    }
    let quote = &bytes[..least - headers];
    let [high, low] = (mtu as u16).to_be_bytes();
    let start = [kind[0], kind[1], 0, 0, 0, 0, high, low];
    let answered = answer::error(frame, l3, &packet, start, quote, sum(&[quote]));
    Balanced { asked: true, ..Predicted::transmit(answered, "packet_too_big").into() }
}
