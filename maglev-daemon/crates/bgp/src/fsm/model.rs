//! Two of our speakers and a network that delays, cuts and breaks at will: once the network works again, both have a
//! session, and each has received the other's prefixes.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::wire::decode;

/// One TCP connection between speaker 0 and speaker 1.
#[derive(Debug, Default)]
struct Link {
    dialer: usize,
    up: bool,
    /// Octets that one has sent and the other has not received.
    queue: [Vec<u8>; 2],
    /// Which speakers do not know yet that all of it is sent.
    unflushed: [bool; 2],
    /// Which speakers have closed their end.
    closed: [bool; 2],
    /// Received octets of an incomplete message.
    received: [Vec<u8>; 2],
}

/// The next act of the network, the operators or time.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Let a link that is dialled come up.
    Connect(usize),
    /// Let it fail.
    Fail(usize),
    /// Deliver so many of a speaker's octets.
    Deliver(usize, usize, usize),
    Flush(usize, usize),
    /// Break a link for both.
    Break(usize),
    Wait(u32),
    Announce(usize, u8),
    Withdraw(usize, u8),
    Reset(usize),
}

struct World {
    peers: [Peer; 2],
    links: Vec<Link>,
    /// Which link each speaker has on which side.
    current: [BTreeMap<Side, usize>; 2],
    /// The prefixes that each has received.
    known: [BTreeMap<IpNet, ()>; 2],
    wanted: [BTreeMap<IpNet, ()>; 2],
    now: Duration,
}

fn prefix(n: u8) -> IpNet {
    format!("203.0.113.{n}/32").parse().unwrap()
}

impl World {
    fn new(dial: usize, hold_time: [u16; 2], seed: u64) -> Self {
        let peer = |me: u8| {
            let other = 1 - me;
            let mut neighbor = Neighbor::new([10, 0, 0, other].into(), 65_000 + u32::from(other));
            neighbor.hold_time = hold_time[usize::from(me)];
            neighbor.ipv6 = false;
            Peer::new(Settings {
                local_as: 65_000 + u32::from(me),
                router_id: [10, 0, 0, me + 1].into(),
                neighbor: Arc::new(neighbor),
                graceful_restart: None,
                restarted: false,
                forwarding_kept: false,
                on_drain: OnDrain::default(),
                dial: dial == usize::from(me),
                listen: dial != usize::from(me),
                seed: seed.wrapping_add(me.into()),
            })
        };
        let mut world = Self {
            peers: [peer(0), peer(1)],
            links: Vec::new(),
            current: Default::default(),
            known: Default::default(),
            wanted: Default::default(),
            now: Duration::from_secs(1),
        };
        for me in 0..2 {
            world.input(me, Input::Complete);
            world.input(me, Input::Start);
        }
        world
    }

    fn input(&mut self, me: usize, input: Input<'_>) {
        let outputs = self.peers[me].handle(input, self.now);
        for output in outputs {
            match output {
                Output::Dial => {
                    let link = self.links.len();
                    self.links.push(Link { dialer: me, ..Link::default() });
                    assert!(self.current[me].insert(Side::First, link).is_none(), "one at a time");
                }
                Output::Send(side, bytes) => {
                    let link = self.current[me][&side];
                    assert!(self.links[link].up);
                    self.links[link].queue[me].extend(bytes);
                    self.links[link].unflushed[me] = true;
                }
                Output::Close(side) => {
                    if let Some(link) = self.current[me].remove(&side) {
                        self.links[link].closed[me] = true;
                    }
                }
                Output::Up => {}
                Output::Down(_) => self.known[me].clear(),
                Output::Log(text) => panic!("{text}"),
            }
        }
    }

    fn side(&self, me: usize, link: usize) -> Option<Side> {
        self.current[me].iter().find(|(_, found)| **found == link).map(|(side, _)| *side)
    }

    fn connect(&mut self, link: usize) {
        let Some(&Link { dialer, up, closed, .. }) = self.links.get(link) else { return };
        if up || closed[dialer] {
            return;
        }
        self.links[link].up = true;
        let other = 1 - dialer;
        match self.peers[other].refusal() {
            Some(bytes) => {
                self.links[link].queue[other].extend(bytes);
                self.links[link].closed[other] = true;
            }
            None => {
                self.input(other, Input::Incoming);
                let side = self.peers[other].vacancy().unwrap();
                self.current[other].insert(side, link);
                self.input(other, Input::Accepted(side, [10, 0, 0, 1].into()));
            }
        }
        self.input(dialer, Input::Connected([10, 0, 0, 1].into()));
    }

    /// Ends a link for one speaker, if it has it still.
    fn lose(&mut self, me: usize, link: usize) {
        if let Some(side) = self.side(me, link) {
            self.input(me, Input::Closed(side, "closed".into()));
        }
    }

    fn deliver(&mut self, link: usize, from: usize, most: usize) {
        let (Some(found), to) = (self.links.get_mut(link), 1 - from) else { return };
        let count = most.min(found.queue[from].len());
        let bytes: Vec<u8> = found.queue[from].drain(..count).collect();
        let end = found.closed[from] && found.queue[from].is_empty();
        if let Some(side) = self.side(to, link) {
            self.learn(link, to, &bytes);
            self.input(to, Input::Bytes(side, &bytes));
        }
        if end {
            self.lose(to, link);
        }
    }

    /// Records the prefixes that a speaker has received.
    fn learn(&mut self, link: usize, me: usize, bytes: &[u8]) {
        let received = &mut self.links[link].received[me];
        received.extend(bytes);
        while let Some((message, length)) = decode(received).unwrap() {
            received.drain(..length);
            if let Message::Update(update) = message {
                self.known[me].retain(|prefix, ()| !update.withdrawn.contains(prefix));
                self.known[me].extend(update.announced.into_iter().map(|prefix| (prefix, ())));
            }
        }
    }

    fn flush(&mut self, link: usize, me: usize) {
        if self.links.get(link).is_some_and(|link| link.unflushed[me]) {
            self.links[link].unflushed[me] = false;
            if let Some(side) = self.side(me, link) {
                self.input(me, Input::Flushed(side));
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        (0..2).for_each(|me| self.input(me, Input::Tick));
    }

    fn act(&mut self, act: Act) {
        // The latest links are the interesting ones.
        let link = |back: usize, world: &Self| world.links.len().wrapping_sub(1 + back);
        match act {
            Act::Connect(back) => self.connect(link(back, self)),
            Act::Fail(back) => {
                let link = link(back, self);
                if self.links.get(link).is_some_and(|link| !link.up) {
                    self.lose(self.links[link].dialer, link);
                }
            }
            Act::Deliver(back, from, most) => self.deliver(link(back, self), from, most),
            Act::Flush(back, me) => self.flush(link(back, self), me),
            Act::Break(back) => {
                let link = link(back, self);
                if self.links.get(link).is_some_and(|link| link.up) {
                    (0..2).for_each(|me| self.lose(me, link));
                }
            }
            Act::Wait(milliseconds) => self.wait(Duration::from_millis(milliseconds.into())),
            Act::Announce(me, n) => {
                self.wanted[me].insert(prefix(n), ());
                self.input(me, Input::Announce(vec![(prefix(n), Arc::default())]));
            }
            Act::Withdraw(me, n) => {
                self.wanted[me].remove(&prefix(n));
                self.input(me, Input::Withdraw(vec![prefix(n)]));
            }
            Act::Reset(me) => self.input(me, Input::Reset("by hand".into())),
        }
    }

    /// The network works: dialled links come up, octets arrive.
    fn behave(&mut self) {
        let busy = |link: &Link| !link.up && !link.closed[link.dialer] || link.unflushed != [false; 2];
        let loud = |link: &Link| link.queue.iter().any(|queue| !queue.is_empty());
        while let Some(link) = self.links.iter().position(|link| busy(link) || loud(link)) {
            self.connect(link);
            for me in 0..2 {
                self.flush(link, me);
                self.deliver(link, me, usize::MAX);
            }
        }
        // A speaker that has sent everything and closed is noticed.
        (0..self.links.len()).for_each(|link| (0..2).for_each(|me| self.deliver(link, me, 0)));
    }

    fn is_settled(&self) -> bool {
        self.peers.iter().all(|peer| peer.state() == State::Established)
            && self.known[0] == self.wanted[1]
            && self.known[1] == self.wanted[0]
    }
}

fn any_act() -> impl Strategy<Value = Act> {
    let (link, me) = (0_usize..3, 0_usize..2);
    prop_oneof![
        4 => link.clone().prop_map(Act::Connect),
        1 => link.clone().prop_map(Act::Fail),
        8 => (link.clone(), me.clone(), prop_oneof![1_usize..60, Just(usize::MAX)])
            .prop_map(|(link, me, most)| Act::Deliver(link, me, most)),
        6 => (link.clone(), me.clone()).prop_map(|(link, me)| Act::Flush(link, me)),
        1 => link.prop_map(Act::Break),
        2 => (1_u32..4_000).prop_map(Act::Wait),
        2 => (me.clone(), 0_u8..20).prop_map(|(me, n)| Act::Announce(me, n)),
        1 => (me.clone(), 0_u8..20).prop_map(|(me, n)| Act::Withdraw(me, n)),
        1 => me.prop_map(Act::Reset),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn two_speakers_agree_in_the_end(
        acts in vec(any_act(), 0..150),
        dial in 0_usize..2,
        hold_time in any::<[bool; 2]>(),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(dial, hold_time.map(|short| if short { 3 } else { 9 }), seed);
        for act in acts {
            world.act(act);
        }
        // From now on the network behaves: the longest retry and the longest wait for an OPEN must suffice.
        let mut rounds = 0;
        world.behave();
        while !world.is_settled() {
            rounds += 1;
            prop_assert!(rounds < 400, "{:?} {:?}, known {:?} of {:?}", world.peers[0].state(), world.peers[1].state(), world.known, world.wanted);
            world.wait(Duration::from_millis(500));
            world.behave();
        }
        // And it lasts.
        for _ in 0..40 {
            world.wait(Duration::from_millis(500));
            world.behave();
            prop_assert!(world.is_settled());
        }
    }
}
