//! The traffic: flows, and when each of their packets comes. All designs see the same. It must not know backends or nodes.
//!
//! A connection opens with a SYN, once more after a second and after three if no answer came; the handshake's third
//! segment follows a round trip later, then whatever its owner has to say, and at the end of its life a last word. A
//! fifth of all flows is long-lived.

use maglev_common::hash::{FlowHash, HashKey, Transport, Tuple4};

use super::random::{Random, mix};
use super::{Millis, SECOND};

/// The properties of flows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// How many there are.
    pub(super) flows: u32,
    /// Within this time all of them begin, and nothing happens after it.
    pub(super) horizon: Millis,
    /// The longest silence of a flow.
    pub(super) silence: Millis,
    /// How long a long-lived flow lives.
    pub(super) long_life: (Millis, Millis),
    /// Whether one long-lived flow in ten falls silent for longer, again and again, and for how long.
    pub(super) silent_tail: Option<(Millis, Millis)>,
    /// Whether there are odd ones among them, and many on each slot: of a second pool, datagrams, ports used again, equal
    /// hashes, late answers and stray SYNs.
    pub(super) odd: bool,
}

/// A flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    /// Its hash: slot, set and tag.
    pub(super) hash: FlowHash,
    /// The input of routers' and network cards' hashes.
    pub(super) route: u64,
    /// The pool that it is for.
    pub(super) pool: u8,
    /// Whether it is a flow of datagrams.
    pub(super) datagram: bool,
    /// Whether the answer to its first SYN comes, later than the SYN is sent again: the connection is with the backend that the
    /// first one reached.
    pub(super) late_answer: bool,
    /// Whether a flow of another service has the same hash.
    pub(super) twin: bool,
    /// Whether a connection with the same ports was there before.
    pub(super) again: bool,
}

/// A packet: when it comes, of which flow it is, and whether it is a SYN. They sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Packet(u64);

/// Flows and their packets.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    /// The flows, by number.
    pub(super) flows: Vec<Flow>,
    /// Their packets in the order of time.
    pub(super) packets: Vec<Packet>,
}

const KEY: HashKey = HashKey::new(0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344);

impl Packet {
    const SYN: u64 = 1 << 31;

    const fn new(at: Millis, flow: u32, syn: bool) -> Self {
        Self((at as u64) << 32 | if syn { Self::SYN } else { 0 } | flow as u64)
    }

    /// When it comes.
    pub(super) const fn at(self) -> Millis {
        (self.0 >> 32) as Millis
    }

    /// The number of its flow.
    pub(super) const fn flow(self) -> usize {
        (self.0 & (Self::SYN - 1)) as usize
    }

    /// Whether it opens a connection.
    pub(super) const fn is_syn(self) -> bool {
        self.0 & Self::SYN != 0
    }
}

impl Traffic {
    /// The traffic of this shape that a seed stands for.
    pub(super) fn new(shape: &Shape, seed: u64) -> Self {
        let mut traffic = Self { flows: Vec::with_capacity(shape.flows as usize), packets: Vec::new() };
        let mut last_end = 0;
        for number in 0..shape.flows {
            let mut random = Random::new(seed, u64::from(number));
            let mut flow = Flow::new(number, &mut random);
            let mut birth = random.below(shape.horizon);
            if shape.odd {
                birth = traffic.make_odd(&mut flow, birth, last_end, &mut random);
            }
            traffic.flows.push(flow);
            last_end = traffic.speak(shape, birth, &mut random);
        }
        traffic.packets.retain(|packet| packet.at() < shape.horizon);
        traffic.packets.sort_unstable();
        traffic
    }

    /// The same flows, of which only these packets come.
    pub(super) fn only(&self, packets: Vec<Packet>) -> Self {
        Self { flows: self.flows.clone(), packets }
    }

    /// Makes one flow in a few odd. Returns when it begins.
    fn make_odd(&mut self, flow: &mut Flow, birth: Millis, last_end: Millis, random: &mut Random) -> Millis {
        /// Slots that they share.
        const SLOTS: u32 = 48;
        let slot = mix(random.below(SLOTS).into()) << 48;
        flow.hash = FlowHash(slot | random.next() >> 16);
        flow.pool = u8::from(random.once_in(3));
        flow.datagram = random.once_in(6);
        flow.late_answer = random.once_in(20);
        let Some((last, others)) = self.flows.split_last_mut() else { return birth };
        let is_again = others.last().is_some_and(|other| other.hash == last.hash);
        match random.below(24) {
            // The same client, port and VIP again, some time after the last connection ended.
            0..6 if !last.twin => {
                *flow = Flow { late_answer: flow.late_answer, again: true, ..*last };
                last_end + random.between(100, 60 * SECOND)
            }
            6 if !last.twin && !is_again => {
                last.twin = true;
                *flow = Flow { pool: 1 - last.pool, ..*last };
                birth
            }
            _ => birth,
        }
    }

    /// Adds the packets of the flow that was added last. Returns when it ends.
    fn speak(&mut self, shape: &Shape, birth: Millis, random: &mut Random) -> Millis {
        let number = self.flows.len() as u32 - 1;
        let Flow { datagram, late_answer, .. } = self.flows[number as usize];
        let mut say = |at, syn| self.packets.push(Packet::new(at, number, syn));
        let (long, tail) = (random.once_in(5), random.once_in(10));
        let (least, most) = shape.long_life;
        let life = if long { random.between(least, most) } else { random.wait(2 * SECOND, 60 * SECOND) };
        let round_trip = random.between(10, 200);
        let mut at = birth;
        say(at, !datagram);
        let again =
            if datagram { 0 } else { u32::from(late_answer || random.once_in(100)) + u32::from(random.once_in(1_000)) };
        for wait in [SECOND, 2 * SECOND].into_iter().take(again as usize) {
            at += wait;
            say(at, true);
        }
        at += round_trip;
        let end = at + life;
        while at < end {
            say(at, false);
            if shape.odd && !datagram && random.once_in(30) {
                say(at + random.between(100, 1_900), true);
            }
            let tail = shape.silent_tail.filter(|_| long && tail && random.once_in(10));
            at += match tail {
                Some((least, most)) => random.between(least, most),
                None if long => shape.pause(random),
                None => random.wait(SECOND / 2, shape.silence),
            }
            .max(1);
        }
        // The last silence is no longer than it would have been.
        say(end, false);
        end
    }
}

impl Shape {
    /// Of four pauses of a long-lived flow one is long.
    fn pause(&self, random: &mut Random) -> Millis {
        if random.once_in(5) {
            random.between(self.silence / 12, self.silence)
        } else {
            random.wait(self.silence / 15, self.silence)
        }
    }
}

impl Flow {
    fn new(number: u32, random: &mut Random) -> Self {
        // Clients in 10.0.0.0/8, a new port for every flow.
        let client = u64::from(10_u32 | random.below(1 << 24) << 8);
        let addresses = client | u64::from(u32::from_le_bytes([203, 0, 113, 10])) << 32;
        let transport = Transport::new(0x5000_0000 | (1_024 + number % 64_000), 6);
        let hash = FlowHash::of4(KEY, Tuple4 { addresses, transport });
        let late_answer = random.once_in(5_000);
        Self { hash, route: random.next(), pool: 0, datagram: false, late_answer, twin: false, again: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        flows: 3_000,
        horizon: 2_400 * SECOND,
        silence: 60 * SECOND,
        long_life: (120 * SECOND, 1_800 * SECOND),
        silent_tail: None,
        odd: false,
    };

    fn longest_silence(traffic: &Traffic) -> Millis {
        let mut last = vec![None; traffic.flows.len()];
        let mut longest = 0;
        for packet in &traffic.packets {
            let before = last[packet.flow()].replace(packet.at());
            longest = longest.max(packet.at() - before.unwrap_or(packet.at()));
        }
        longest
    }

    #[test]
    fn silences_are_as_long_as_said() {
        let longest = longest_silence(&Traffic::new(&SHAPE, 1));
        assert!((50 * SECOND..=60 * SECOND).contains(&longest), "{longest}");
        let tail = Shape { silent_tail: Some((200 * SECOND, 400 * SECOND)), ..SHAPE };
        let longest = longest_silence(&Traffic::new(&tail, 1));
        assert!((350 * SECOND..=400 * SECOND).contains(&longest), "{longest}");
    }

    #[test]
    fn connections_open_with_syns_and_come_in_the_order_of_time() {
        let traffic = Traffic::new(&SHAPE, 1);
        assert!(traffic.packets.is_sorted());
        let mut spoke = vec![false; traffic.flows.len()];
        let mut again = 0;
        for packet in &traffic.packets {
            let spoke = &mut spoke[packet.flow()];
            assert!(packet.is_syn() || *spoke, "{packet:?}");
            again += u32::from(packet.is_syn() && *spoke);
            *spoke = true;
        }
        assert!((10..60).contains(&again), "{again} of 3,000 were sent again");
    }

    #[test]
    fn one_in_five_is_long_lived() {
        let traffic = Traffic::new(&Shape { horizon: 100_000 * SECOND, ..SHAPE }, 3);
        let mut life = vec![(Millis::MAX, 0); traffic.flows.len()];
        for packet in &traffic.packets {
            let (first, last) = &mut life[packet.flow()];
            (*first, *last) = (packet.at().min(*first), packet.at());
        }
        let long = life.iter().filter(|(first, last)| last.saturating_sub(*first) > 100 * SECOND).count();
        assert!((540..660).contains(&long), "{long} of 3,000");
    }
}
