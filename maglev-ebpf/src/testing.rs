//! Stand-ins for the kernel's maps in host tests: tables in cells.

use core::cell::{Cell, RefCell};
use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet};
use std::vec;
use std::vec::Vec;

use maglev_common::backend::{InterfaceRecord, InterfaceSlot, MemberId, MemberRecord, MemberState, NextHop};
use maglev_common::counters::{Counter, DecapCounter, Sides, VipTraffic};
use maglev_common::encap::Encap;
use maglev_common::flow::{Bucket, Seconds};
use maglev_common::forwarding::{Forwarding, Table};
use maglev_common::fragment::{Datagram, Line};
use maglev_common::hash::{FlowHash, HashKey};
use maglev_common::pod::Word;
use maglev_common::settings::{Mss, Tracking, UdpPolicy, Unserved};
use maglev_common::syn::SynWord;
use maglev_common::table::{PoolIndex, PoolWord, Slot, SlotWord, TableIndex, TableStart};
use maglev_common::vip::{Contents, Key, Key4, Key6, Rule, VipId, VipWord};
use zerocopy::{FromZeros, IntoBytes};

use crate::affinity;
use crate::env::{
    self, Answers, Choice, Clock, Counters, DecapTables, Flow, Flows, Fragments, Ingress, Segment, Syns, Trace,
};
use crate::fixtures::{HOP_MAC, NODE_MAC, VIP4, VIP6};

/// The pool of all fake members.
pub(crate) const POOL: PoolIndex = PoolIndex(3);
/// Seconds for which confirmed entries are kept.
pub(crate) const IDLE: u16 = 15 * 60;
/// The interface packets come in by.
pub(crate) const INGRESS: u32 = 7;

pub(crate) fn member(id: u16) -> MemberId {
    MemberId::new(id).unwrap()
}

pub(crate) const BACKEND4: [u8; 4] = [10, 0, 1, 11];
pub(crate) const SOURCE4: [u8; 4] = [10, 64, 11, 0];
pub(crate) const BACKEND6: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
pub(crate) const SOURCE6: [u8; 16] = [0xfd, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Tables in cells: member 1…n in [`POOL`], every slot owned by member 1, one interface.
pub(crate) struct FakeTables {
    pub(crate) forwarding: Box<Forwarding>,
    pub(crate) tables: Vec<Table>,
    pub(crate) buckets: Vec<Bucket>,
    /// Of the flow table before, if it had another size.
    pub(crate) buckets_before: Vec<Bucket>,
    pub(crate) vip_bytes: Cell<u64>,
    pub(crate) member_bytes: Cell<u64>,
    /// How many packets may be answered.
    pub(crate) answers: Cell<u32>,
    pub(crate) sides: Sides,
    /// How many datagrams in fragments may begin.
    pub(crate) fragmented: Cell<u32>,
    /// One line of the fragment table, for all datagrams.
    line: Line,
    /// What VIPs that are added say of packets that no backend can be given, and their addresses too.
    pub(crate) unserved: Unserved,
    /// Whether addresses that are added answer no echo requests.
    pub(crate) silent: bool,
    now: Cell<u16>,
    counts: RefCell<BTreeMap<&'static str, u64>>,
}

impl FakeTables {
    pub(crate) fn with_members(n: u16) -> Self {
        let forwarding = Forwarding::new_box_zeroed().unwrap();
        forwarding.set_hash_key(HashKey::new(1, 2));
        forwarding.set_idle(POOL, IDLE);
        forwarding.set_interface(0, &InterfaceRecord::new(NODE_MAC, INGRESS, 1_600));
        for record in &forwarding.members[1..=usize::from(n)] {
            record.state.set(MemberState::alive(POOL, Encap::IpIp4, 0).0);
            record.next_hop.set(NextHop::new([2, 0, 0, 0, 0, 9], InterfaceSlot(0)).0);
        }
        let mut tables = Self {
            forwarding,
            tables: Table::new_vec_zeroed(3).unwrap(),
            buckets: vec![Bucket::default()],
            buckets_before: Vec::new(),
            vip_bytes: Cell::new(0),
            member_bytes: Cell::new(0),
            answers: Cell::new(2),
            sides: Sides::default(),
            fragmented: Cell::new(u32::MAX),
            line: Line::default(),
            unserved: Unserved::Drop,
            silent: false,
            now: Cell::new(65_530),
            counts: RefCell::default(),
        };
        tables.set_word(PoolWord::settled(TableIndex(1)).tracked(Tracking::Always, UdpPolicy::New));
        tables.set_owner(1);
        tables.renew(n);
        tables
    }

    /// Makes the templates of the members up to `n` anew.
    pub(crate) fn renew(&self, n: u16) {
        (1..=n).for_each(|id| self.forwarding.renew(member(id)));
    }

    /// The pool's word.
    pub(crate) fn word(&self) -> PoolWord {
        self.forwarding.pool(POOL)
    }

    /// Replaces the pool's word.
    pub(crate) fn set_word(&self, word: PoolWord) {
        self.forwarding.pools[usize::from(POOL.0)].set(word.0);
    }

    /// By exception: every slot is member `owner`'s, and in transition; learning if member `previous` owned it before.
    pub(crate) fn move_slots(&mut self, owner: u16, previous: u16, udp: UdpPolicy) {
        self.fill(1, SlotWord::moving(MemberId::from_low_bits(owner)).0);
        self.fill(2, previous);
        let word = PoolWord::settled(TableIndex(1)).tracked(Tracking::Exception, udp);
        self.set_word(if previous == 0 { word } else { word.learning(TableIndex(2)) });
    }

    /// Gives every slot to a member.
    pub(crate) fn set_owner(&mut self, id: u16) {
        self.fill(1, id);
    }

    fn fill(&mut self, table: usize, word: u16) {
        // As bytes: a store for each slot would take most of the tests' time.
        self.tables[table].as_mut_bytes().as_chunks_mut().0.fill(word.to_ne_bytes());
    }

    /// All that was counted.
    pub(crate) fn all_counted(&self) -> (BTreeMap<&'static str, u64>, u64, u64) {
        (self.counts.borrow().clone(), self.vip_bytes.get(), self.member_bytes.get())
    }

    /// The words of a VIP and of its address.
    fn words(&self) -> [VipWord; 2] {
        let [word, in_use] =
            [VipWord::vip(VipId(1), POOL), VipWord::ADDRESS_IN_USE].map(|word| word.with_unserved(self.unserved));
        [word, if self.silent { in_use.silent() } else { in_use }]
    }

    /// Serves one VIP of this family, address entry included, as the daemon does.
    pub(crate) fn serve4(&mut self, address: [u8; 4], port: u16, protocol: u8) {
        let key = Key4::new(u32::from_le_bytes(address), port.swap_bytes(), protocol);
        self.hold4(&Contents { keys: served(key, self.words()), ..Contents::default() });
    }

    /// The same for IPv6.
    pub(crate) fn serve6(&mut self, address: [u8; 16], port: u16, protocol: u8) {
        let key = Key6::new(address6(address), port.swap_bytes(), protocol);
        self.hold6(&Contents { keys: served(key, self.words()), ..Contents::default() });
    }

    /// Serves VIPs of both families by rules, of the prefixes of these lengths that the fixtures' addresses are in.
    pub(crate) fn serve_by_rules(&mut self, lengths: [u8; 2], rules: &[Rule]) {
        self.serve_by_source(lengths, rules, [0, 0]);
    }

    /// The same with flows that find their slots by so many bits of their IPv4 or IPv6 source.
    pub(crate) fn serve_by_source(&mut self, lengths: [u8; 2], rules: &[Rule], bits: [u8; 2]) {
        let (four, six) = (Key4::new(u32::from_le_bytes(VIP4), 0, 0), Key6::new(address6(VIP6), 0, 0));
        let word = VipWord::address(0, rules.len() as u16);
        let [rules4, rules6] = bits.map(|bits| {
            let vip = |id| VipWord::vip(VipId(id), POOL).by_source(bits);
            rules.iter().zip(1..).map(|(rule, id)| (*rule, vip(id))).collect::<Vec<_>>()
        });
        let [short4, short6] = lengths;
        let key4 = if short4 == 32 { four } else { four.prefix(short4) };
        let key6 = if short6 == 128 { six } else { six.prefix(short6) };
        self.hold4(&Contents { keys: vec![(key4, word)], rules: rules4, lengths: vec![short4] });
        self.hold6(&Contents { keys: vec![(key6, word)], rules: rules6, lengths: vec![short6] });
    }

    fn hold4(&mut self, contents: &Contents<Key4>) {
        let Forwarding { switch, directories4, annexes4, .. } = &mut *self.forwarding;
        let word = directories4[0].build(&mut annexes4[0], 0, contents).unwrap();
        switch.directory4.set(word.0);
    }

    fn hold6(&mut self, contents: &Contents<Key6>) {
        let Forwarding { switch, directories6, annexes6, .. } = &mut *self.forwarding;
        let word = directories6[0].build(&mut annexes6[0], 0, contents).unwrap();
        switch.directory6.set(word.0);
    }

    pub(crate) fn kill(&self, id: u16) {
        let state = &self.forwarding.members[usize::from(id)].state;
        state.set(MemberState(state.get()).dead().0);
        self.forwarding.renew(member(id));
    }

    pub(crate) fn move_to_pool(&self, id: u16, pool: PoolIndex) {
        self.forwarding.members[usize::from(id)].state.set(MemberState::alive(pool, Encap::IpIp4, 0).0);
        self.forwarding.renew(member(id));
    }

    pub(crate) fn advance(&self, seconds: u16) {
        self.now.set(self.now.get().wrapping_add(seconds));
    }

    pub(crate) fn counted(&self, counter: Counter) -> u64 {
        self.counts.borrow().get(counter.name()).copied().unwrap_or(0)
    }
}

impl env::Forwarding for FakeTables {
    fn forwarding(&self) -> &Forwarding {
        &self.forwarding
    }

    fn slot(&self, TableStart(start): TableStart, slot: Slot) -> SlotWord {
        let word = self.tables.as_flattened().get(start as usize + slot.index());
        word.map_or(SlotWord::default(), |word| SlotWord(word.get()))
    }
}

impl Ingress for FakeTables {
    fn ingress(&self) -> u32 {
        INGRESS
    }
}

impl Clock for FakeTables {
    fn now(&self) -> Seconds {
        Seconds(self.now.get())
    }
}

impl Flows for FakeTables {
    fn bucket(&self, hash: FlowHash) -> Option<&Bucket> {
        self.buckets.get(hash.set((self.buckets.len() as u32).wrapping_sub(1)) as usize)
    }

    fn bucket_before(&self, hash: FlowHash) -> Option<&Bucket> {
        self.buckets_before.get(hash.set((self.buckets_before.len() as u32).wrapping_sub(1)) as usize)
    }

    fn choose(&self, flow: Flow, segment: impl Fn() -> Segment) -> (MemberId, Choice) {
        affinity::choose(self, flow, segment)
    }

    fn resolve(&self, flow: Flow, segment: Segment) -> (MemberId, Choice) {
        affinity::resolve(self, flow, segment)
    }

    fn choose_for_error(&self, flow: Flow, segment: Segment) -> (MemberId, Choice) {
        affinity::choose_for_error(self, flow, segment)
    }
}

impl Trace for FakeTables {}

impl Answers for FakeTables {
    fn may_answer(&self) -> bool {
        let left = self.answers.get();
        self.answers.set(left.saturating_sub(1));
        left > 0
    }

    fn takes_turn(&self, flow: FlowHash) -> bool {
        self.sides.take_turn(flow)
    }
}

impl Fragments for FakeTables {
    fn may_begin(&self) -> bool {
        let left = self.fragmented.get();
        self.fragmented.set(left.saturating_sub(1));
        left > 0
    }

    fn line(&self, _datagram: Datagram) -> Option<&Line> {
        Some(&self.line)
    }
}

impl Counters for FakeTables {
    fn count(&self, counter: Counter) {
        *self.counts.borrow_mut().entry(counter.name()).or_default() += 1;
    }

    fn count_vip(&self, _vip: VipTraffic, bytes: u64) {
        self.vip_bytes.set(self.vip_bytes.get() + bytes);
    }

    fn count_member(&self, _member: MemberId, bytes: u64) {
        self.member_bytes.set(self.member_bytes.get() + bytes);
    }
}

/// A backend that accepts these sources and holds these VIPs.
#[derive(Default)]
pub(crate) struct FakeDecap {
    pub(crate) sources4: BTreeSet<u32>,
    pub(crate) sources6: BTreeSet<[u64; 2]>,
    pub(crate) vips4: BTreeSet<u32>,
    pub(crate) vips6: BTreeSet<[u64; 2]>,
    pub(crate) last: Cell<Option<DecapCounter>>,
    pub(crate) mss: Mss,
    pub(crate) mtu: u32,
    pub(crate) now: Cell<u16>,
    pub(crate) syns: Vec<Word>,
}

impl Clock for FakeDecap {
    fn now(&self) -> Seconds {
        Seconds(self.now.get())
    }
}

impl Syns for FakeDecap {
    fn syn(&self, hash: FlowHash) -> Option<&Word> {
        self.syns.get(SynWord::place(hash) as usize)
    }
}

impl DecapTables for FakeDecap {
    fn mss(&self) -> Mss {
        self.mss
    }

    fn mtu(&self) -> u32 {
        self.mtu
    }

    fn accepts4(&self, source: u32) -> bool {
        self.sources4.contains(&source)
    }

    fn accepts6(&self, source: [u64; 2]) -> bool {
        self.sources6.contains(&source)
    }

    fn serves4(&self, destination: u32) -> bool {
        self.vips4.contains(&destination)
    }

    fn serves6(&self, destination: [u64; 2]) -> bool {
        self.vips6.contains(&destination)
    }

    fn count(&self, counter: DecapCounter) {
        self.last.set(Some(counter));
    }
}

/// A VIP's key and its address's.
fn served<K: Key>(key: K, [vip, address]: [VipWord; 2]) -> Vec<(K, VipWord)> {
    vec![(key, vip), (key.bare_address(), address)]
}

fn address6(address: [u8; 16]) -> [u64; 2] {
    let address = u128::from_le_bytes(address);
    [address as u64, (address >> 64) as u64]
}

fn words(bytes: [u8; 16]) -> [Word; 2] {
    let [low, high] = [0, 8].map(|n| u64::from_le_bytes(bytes[n..n + 8].try_into().unwrap()));
    [Word::new(low), Word::new(high)]
}

fn words4(bytes: [u8; 4]) -> [Word; 2] {
    [Word::new(u32::from_le_bytes(bytes).into()), Word::new(0)]
}

/// The sum over the constant words of the outer header, by the book.
fn partial_checksum(source: [u8; 4], destination: [u8; 4]) -> u16 {
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 0, 0, 0];
    header.extend(source);
    header.extend(destination);
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_le_bytes([pair[0], pair[1]]))).sum();
    ((sum & 0xffff) + (sum >> 16)) as u16
}

pub(crate) fn backend4() -> MemberRecord {
    let checksum = partial_checksum(SOURCE4, BACKEND4);
    MemberRecord {
        next_hop: Word::new(NextHop::new(HOP_MAC, InterfaceSlot(0)).0),
        state: Word::new(MemberState::alive(POOL, Encap::IpIp4, checksum).0),
        destination: words4(BACKEND4),
        source: words4(SOURCE4),
        source_hash_mask: words4([0, 0, 0, 255]),
    }
}

pub(crate) fn backend6() -> MemberRecord {
    let mut mask = [0; 16];
    mask[8..].fill(255);
    MemberRecord {
        next_hop: Word::new(NextHop::new(HOP_MAC, InterfaceSlot(0)).0),
        state: Word::new(MemberState::alive(POOL, Encap::IpIp6, 0).0),
        destination: words(BACKEND6),
        source: words(SOURCE6),
        source_hash_mask: words(mask),
    }
}

/// Tables that serve port 80 over TCP and UDP port 53 nowhere else, on both addresses.
pub(crate) fn tables(record: MemberRecord) -> FakeTables {
    let mut tables = FakeTables::with_members(1);
    tables.forwarding.members[1] = record;
    tables.serve4(VIP4, 80, 6);
    tables.serve6(VIP6, 80, 6);
    tables
}
