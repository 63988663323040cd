//! The packet path on the host: balancing, decapsulation, and outgoing packets.

use std::cell::RefCell;

use maglev_ebpf::fixtures;
use maglev_ebpf::fuzzing::{Backend, Node, Outcome, Ran};

use crate::fuzz::Target;

/// A frame that a node receives.
pub const FORWARD: Target = Target { name: "forward", seeds: frames, words: WORDS, run: forward };

/// A frame that a backend receives, and its answer.
pub const DECAP: Target = Target { name: "decap", seeds: wrapped, words: WORDS, run: decap };

/// A packet that a node or a backend sends.
pub const EGRESS: Target = Target { name: "egress", seeds: frames, words: WORDS, run: egress };

const WORDS: &[&[u8]] = &[
    &[8, 0, 0x45],
    &[0x86, 0xdd, 0x60],
    &[0x81, 0, 0, 100],
    &[203, 0, 113, 10],
    &[0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10],
    &[0, 0, 0x40, 0, 64, 4],
    &[0xc0, 0, 0x17, 0xc0, 0, 40, 0, 0],
    &[0, 4, 0, 0],
    &[60, 0, 1, 4, 0, 0, 0, 0],
    &[44, 0, 0, 1],
    &[58, 0],
    &[2, 4, 0x05, 0xb4],
];

thread_local! {
    static NODES: RefCell<Vec<Node>> = const { RefCell::new(Vec::new()) };
    static BACKENDS: RefCell<Vec<Backend>> = const { RefCell::new(Vec::new()) };
}

/// An input's first byte chooses the tables.
fn with_choice(frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    frames.into_iter().zip((0..Node::KINDS as u8).cycle()).map(|(frame, choice)| [vec![choice], frame].concat()).collect()
}

fn frames() -> Vec<Vec<u8>> {
    use fixtures::{VIP4, echoes, errors, fragmented, misaddressed, passed, peculiar, tcp4, tcp6, udp4, udp6, unbalanced4, unbalanced6};
    let named = [peculiar(), errors(), echoes()].into_iter().flatten().map(|(_, frame)| frame);
    let refused = [unbalanced4(), unbalanced6(), misaddressed(), passed()].into_iter().flatten().map(|row| row.frame);
    let parts = fragmented().into_iter().flat_map(|datagram| datagram.parts());
    with_choice([tcp4(b"hello"), tcp6(b"hello"), udp4(VIP4, 80), udp6(80)].into_iter().chain(named).chain(refused).chain(parts))
}

fn wrapped() -> Vec<Vec<u8>> {
    with_choice(maglev_ebpf::fuzzing::wrapped())
}

/// The tables that the first byte chooses, and the frame: as long as the shortest that a driver hands over.
fn split(input: &[u8]) -> Option<(usize, &[u8])> {
    let (choice, frame) = input.split_first()?;
    (frame.len() >= 14).then_some((usize::from(*choice) % Node::KINDS, frame))
}

fn forward(input: &[u8]) -> Result<(), String> {
    let Some((choice, frame)) = split(input) else { return Ok(()) };
    NODES.with_borrow_mut(|nodes| {
        if nodes.is_empty() {
            nodes.extend((0..Node::KINDS).map(Node::new));
        }
        check(&nodes[choice].receive(frame), frame)
    })
}

fn egress(input: &[u8]) -> Result<(), String> {
    let Some((choice, frame)) = split(input) else { return Ok(()) };
    NODES.with_borrow_mut(|nodes| {
        if nodes.is_empty() {
            nodes.extend((0..Node::KINDS).map(Node::new));
        }
        let ran = nodes[choice].send(frame);
        if ran.counted.len() > 1 {
            return Err(format!("counted more than once: {:?}", ran.counted));
        }
        match ran.outcome {
            Outcome::Sent => holds(&ran.bytes, frame),
            Outcome::Passed | Outcome::Dropped => unchanged(&ran.bytes, frame),
            Outcome::Answered => Err("an outgoing packet was answered".to_owned()),
        }
    })
}

fn decap(input: &[u8]) -> Result<(), String> {
    let Some((choice, frame)) = split(input) else { return Ok(()) };
    BACKENDS.with_borrow_mut(|backends| {
        if backends.is_empty() {
            backends.extend((0..Node::KINDS).map(Backend::new));
        }
        let backend = &mut backends[choice];
        let ran = backend.receive(frame);
        let [counter] = ran.counted[..] else { return Err(format!("not counted once: {:?}", ran.counted)) };
        match (ran.outcome, counter) {
            // The inner packet's second and third byte, and its checksum, may have changed.
            (Outcome::Passed, "decapsulated") if ran.bytes.len() < frame.len() => {}
            (Outcome::Passed, "not_encapsulated" | "foreign_source") | (Outcome::Dropped, _) => unchanged(&ran.bytes, frame)?,
            other => return Err(format!("{other:?}")),
        }
        let answer = backend.lower(frame);
        if answer.len() == frame.len() && answer.iter().zip(frame).filter(|(after, before)| after != before).count() <= 4 {
            return Ok(());
        }
        Err("more of an answer changed than MSS and checksum".to_owned())
    })
}

/// The rules for a frame that a node received.
fn check(ran: &Ran, frame: &[u8]) -> Result<(), String> {
    let Ran { outcome, bytes, counted } = ran;
    let outcomes: Vec<_> = counted.iter().filter_map(|name| Node::outcome_of(name)).collect();
    if outcomes[..] != [*outcome] {
        return Err(format!("{outcome:?}, counted as {counted:?}"));
    }
    match outcome {
        Outcome::Sent => holds(bytes, frame),
        // The shortest frame has 60 bytes, without its checksum.
        Outcome::Answered if bytes.len() > frame.len().max(60) => {
            Err(format!("an answer of {} bytes to {}", bytes.len(), frame.len()))
        }
        Outcome::Answered => Ok(()),
        Outcome::Passed | Outcome::Dropped => unchanged(bytes, frame),
    }
}

/// A packet that is sent holds the one that came, from its IP header on.
fn holds(bytes: &[u8], frame: &[u8]) -> Result<(), String> {
    let tags = frame[12..].chunks_exact(4).take_while(|tag| matches!(tag[..2], [0x81, 0] | [0x88, 0xa8])).count();
    let packet = &frame[14 + 4 * tags.min(2)..];
    if bytes.ends_with(packet) { Ok(()) } else { Err("the packet inside has changed".to_owned()) }
}

fn unchanged(bytes: &[u8], frame: &[u8]) -> Result<(), String> {
    if bytes == frame { Ok(()) } else { Err("a packet that is not sent has changed".to_owned()) }
}
