//! The packets: valid ones of every kind that a world knows or refuses, changes to them, and random bytes. The same seed makes the
//! same packets.

use std::collections::VecDeque;

use fastrand::Rng;

use crate::world::World;

mod addresses;
mod build;
pub mod decap;
mod ethernet;
mod icmp;
mod ipv4;
mod ipv6;
mod mutate;
mod transport;

/// The least bytes of a frame that the kernel runs a program on.
pub const LEAST: usize = 14;
/// The most bytes that a frame gets: they fit a page with its headroom.
const MOST: usize = 3_000;
/// Frames that may be spliced into others.
const KEPT: usize = 64;

/// What the packets are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The load balancer receives them.
    Balance,
    /// The load balancer's node sends them.
    Check,
}

/// Makes packets for a world.
#[derive(Debug)]
pub struct Generator<'a> {
    world: &'a World,
    purpose: Purpose,
    rng: Rng,
    /// Fragments of datagrams that have begun.
    pending: VecDeque<Vec<u8>>,
    kept: Vec<Vec<u8>>,
}

impl<'a> Generator<'a> {
    /// Packets for a purpose, by a seed.
    pub fn new(world: &'a World, purpose: Purpose, seed: u64) -> Self {
        Self { world, purpose, rng: Rng::with_seed(seed), pending: VecDeque::new(), kept: Vec::new() }
    }

    /// The next frame.
    pub fn next_frame(&mut self) -> Vec<u8> {
        let mut frame = match self.rng.u8(..) {
            0..4 => random(&mut self.rng),
            4..40 if !self.pending.is_empty() => self.pending.pop_front().unwrap_or_default(),
            // Again: flows have several packets.
            40..72 if !self.kept.is_empty() => {
                let place = self.rng.usize(..self.kept.len());
                again(&mut self.rng, self.kept[place].clone())
            }
            _ => self.valid(),
        };
        let changes = match self.rng.u8(..) {
            0..110 => 0,
            110..190 => 1,
            190..225 => 2,
            225..243 => 3,
            _ => 4,
        };
        for _ in 0..changes {
            mutate::change(&mut self.rng, &mut frame, &self.kept);
        }
        frame.truncate(MOST);
        frame.resize(frame.len().max(LEAST), 0);
        frame.resize(frame.len().max(least(self.purpose, &frame)), 0);
        self.keep(&frame);
        frame
    }

    fn valid(&mut self) -> Vec<u8> {
        let (rng, world) = (&mut self.rng, self.world);
        let mut frames = build::frames(rng, world, self.purpose == Purpose::Check).into_iter();
        let first = frames.next().unwrap_or_default();
        self.pending.extend(frames);
        // A random order of those that wait, and some are lost.
        while self.pending.len() > 8 {
            self.pending.pop_front();
        }
        let waiting = self.pending.len();
        if waiting > 1 && self.rng.u8(..) < 40 {
            let (a, b) = (self.rng.usize(..waiting), self.rng.usize(..waiting));
            self.pending.swap(a, b);
        }
        first
    }

    fn keep(&mut self, frame: &[u8]) {
        if self.kept.len() < KEPT {
            self.kept.push(frame.to_vec());
        } else if self.rng.u8(..) < 8 {
            let place = self.rng.usize(..KEPT);
            self.kept[place] = frame.to_vec();
        }
    }
}

/// The least bytes of a frame that the kernel runs a program on: of one that leaves, an IP header belongs to it.
fn least(purpose: Purpose, frame: &[u8]) -> usize {
    match (purpose, frame.get(12..14)) {
        (Purpose::Balance, _) => LEAST,
        (Purpose::Check, Some([0x08, 0x00])) => LEAST + 20,
        (Purpose::Check, Some([0x86, 0xdd])) => LEAST + 40,
        (Purpose::Check, _) => LEAST + 1,
    }
}

/// Another packet of a flow: of a plain TCP segment, often with other flags.
fn again(rng: &mut Rng, mut frame: Vec<u8>) -> Vec<u8> {
    let flags = match frame.get(12..24) {
        Some([8, 0, 0x45, _, _, _, _, _, _, _, _, 6]) => 14 + 20 + 13,
        Some([0x86, 0xdd, _, _, _, _, _, _, 6, ..]) => 14 + 40 + 13,
        _ => return frame,
    };
    if let Some(flags) = frame.get_mut(flags).filter(|_| one_in(rng, 2)) {
        *flags = choose(rng, &[0x02, 0x02, 0x10, 0x18, 0x11, 0x04, 0x12]);
    }
    frame
}

fn random(rng: &mut Rng) -> Vec<u8> {
    let length = rng.usize(LEAST..2_000);
    (0..length).map(|_| rng.u8(..)).collect()
}

/// One of some values.
fn choose<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())]
}

/// True in one of so many cases.
fn one_in(rng: &mut Rng, cases: u32) -> bool {
    rng.u32(..cases) == 0
}
