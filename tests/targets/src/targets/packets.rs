//! The packet path on the host: balancing, decapsulation, and outgoing packets.

use std::cell::RefCell;

use maglev_ebpf::fixtures;
use maglev_ebpf::fuzzing::{self, Backend, KINDS, Node, Outcome, Ran};

use crate::fuzz::Target;

/// A frame that a node receives.
pub(super) const FORWARD: Target = Target { name: "forward", seeds: frames, words: WORDS, run: forward };

/// A frame that a backend receives, and its answer.
pub(super) const DECAP: Target = Target { name: "decap", seeds: wrapped, words: WORDS, run: decap };

/// A packet that a node or a backend sends.
pub(super) const EGRESS: Target = Target { name: "egress", seeds: frames, words: WORDS, run: egress };

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
    frames.into_iter().zip((0..KINDS as u8).cycle()).map(|(frame, choice)| [vec![choice], frame].concat()).collect()
}

fn frames() -> Vec<Vec<u8>> {
    use fixtures::{
        VIP4, echoes, errors, fragmented, misaddressed, passed, peculiar, tcp4, tcp6, udp4, udp6, unbalanced4,
        unbalanced6,
    };
    let named = [peculiar(), errors(), echoes()].into_iter().flatten().map(|(_, frame)| frame);
    let refused = [unbalanced4(), unbalanced6(), misaddressed(), passed()].into_iter().flatten().map(|row| row.frame);
    let parts = fragmented().into_iter().flat_map(|(_, _, parts)| parts);
    with_choice(
        [tcp4(b"hello"), tcp6(b"hello"), udp4(VIP4, 80), udp6(80)].into_iter().chain(named).chain(refused).chain(parts),
    )
}

fn wrapped() -> Vec<Vec<u8>> {
    with_choice(fuzzing::wrapped().into_iter().chain(fuzzing::answers()))
}

/// The tables that the first byte chooses, and the frame: as long as the shortest that a driver hands over.
fn split(input: &[u8]) -> Option<(usize, &[u8])> {
    let (choice, frame) = input.split_first()?;
    (frame.len() >= 14).then_some((usize::from(*choice) % KINDS, frame))
}

fn forward(input: &[u8]) -> Result<(), String> {
    let Some((choice, frame)) = split(input) else { return Ok(()) };
    with_nodes(|nodes| {
        let ran = nodes[choice].receive(frame);
        if ran.counted != [ran.outcome] {
            return Err(format!("{:?}, counted as {:?}", ran.outcome, ran.counted));
        }
        check_bytes(&ran, frame)
    })
}

fn egress(input: &[u8]) -> Result<(), String> {
    let Some((choice, frame)) = split(input) else { return Ok(()) };
    with_nodes(|nodes| {
        // A check of a member, one of a member that does not exist, and other packets.
        for id in [1, 3, 0] {
            let ran = nodes[choice].send(id, frame);
            let passes = ran.outcome == Outcome::Passed && ran.counted.is_empty();
            if !passes && ran.counted != [ran.outcome] {
                return Err(format!("{:?}, counted as {:?}", ran.outcome, ran.counted));
            }
            check_bytes(&ran, frame)?;
        }
        Ok(())
    })
}

fn decap(input: &[u8]) -> Result<(), String> {
    let Some((choice, frame)) = split(input) else { return Ok(()) };
    BACKENDS.with_borrow_mut(|backends| {
        if backends.is_empty() {
            backends.extend((0..KINDS).map(Backend::new));
        }
        let backend = &backends[choice];
        let ran = backend.receive(frame);
        if ran.counted != [ran.outcome] {
            return Err(format!("{:?}, counted as {:?}", ran.outcome, ran.counted));
        }
        match ran.outcome {
            Outcome::Sent => unwrapped(&ran.bytes, frame)?,
            Outcome::Passed => unchanged(&ran.bytes, frame)?,
            Outcome::Dropped | Outcome::Answered => {}
        }
        let answer = backend.lower(frame)?;
        let changed = answer.iter().zip(frame).filter(|(after, before)| after != before).count();
        // Of the MSS and of the checksum.
        if answer.len() == frame.len() && changed <= 4 { Ok(()) } else { Err(format!("{changed} bytes changed")) }
    })
}

fn with_nodes<T>(run: impl FnOnce(&[Node]) -> T) -> T {
    NODES.with_borrow_mut(|nodes| {
        if nodes.is_empty() {
            nodes.extend((0..KINDS).map(Node::new));
        }
        run(nodes)
    })
}

/// The rules for the bytes after.
fn check_bytes(ran: &Ran, frame: &[u8]) -> Result<(), String> {
    match ran.outcome {
        Outcome::Sent => holds(&ran.bytes, frame),
        // The shortest frame has 60 bytes, without its checksum.
        Outcome::Answered if ran.bytes.len() > frame.len().max(60) => {
            Err(format!("an answer of {} bytes to {}", ran.bytes.len(), frame.len()))
        }
        Outcome::Passed => unchanged(&ran.bytes, frame),
        Outcome::Answered | Outcome::Dropped => Ok(()),
    }
}

/// What comes out of a tunnel is the end of the frame, with another ECN at most.
fn unwrapped(bytes: &[u8], frame: &[u8]) -> Result<(), String> {
    let (packet, inner) = (bytes.get(14..).unwrap_or_default(), frame.len().checked_sub(bytes.len()));
    let Some(inner) = inner.filter(|removed| *removed >= 20).and_then(|removed| frame.get(14 + removed..)) else {
        return Err(format!("{} bytes came out of {}", bytes.len(), frame.len()));
    };
    let changed = packet.iter().zip(inner).filter(|(after, before)| after != before).count();
    // The traffic class, which lies in one byte or two, and a checksum.
    if packet.len() == inner.len() && changed <= 3 { Ok(()) } else { Err(format!("{changed} bytes changed")) }
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
