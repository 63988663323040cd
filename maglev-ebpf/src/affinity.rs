//! Which member a flow goes to: *affinity by exception*. A slot whose owner has not changed sends every packet to it by
//! arithmetic, on every node, and nothing is remembered. A slot whose owner changed while the old owner lives is *in
//! transition*: its flows are looked up and recorded.
//!
//! ```text
//!                       in transition           entry      no entry,             no entry,
//!                       stable                  found      learning              tracked
//! TCP SYN               owner                   owner ¹    owner, written ²      owner, written
//! any other TCP         owner                   entry's    previous, written     owner
//! datagram              owner                   entry's    owner, written        owner
//! datagram, udp: keep   owner                   entry's    previous, written     owner
//! ```
//!
//! ¹ Kept where it is if it was active within 3 s. ² The previous owner if nothing can be written: what follows would be
//! sent there.
//!
//! An entry that was not seen within the pool's idle time counts as none, but where every flow is tracked.
//!
//! The flow table is set-associative, one cache line a set, and belongs to one CPU. An entry that was seen in one
//! second only is *unconfirmed* and never takes the place of a confirmed, recently active one: floods of first packets
//! displace each other, the oldest first. A flow table of another size than the one before it reads that one too, for as long as
//! flows may be idle, and takes over what it finds: no entry can be copied to its place, which takes more of the hash than it
//! holds. It must not know how slots come to be in transition.

use core::hint::cold_path;

use maglev_common::backend::MemberId;
use maglev_common::counters::Counter;
use maglev_common::flow::{Bucket, FlowEntry, Seconds, WAYS, WayTags};
use maglev_common::hash::FlowHash;
use maglev_common::settings::{Tracking, UdpPolicy};
use maglev_common::table::{PoolIndex, PoolWord, TableStart};
use maglev_common::template::Template;

use crate::env::{Choice, Counters, Flow, Flows, Forwarding, Segment};

/// A SYN moves a flow to the slot's owner only if the flow was silent for this many seconds: a retransmitted or
/// spoofed SYN must not move a live flow, while a reused port starts afresh.
pub const SYN_GUARD: u16 = 3;

/// The members that a slot may send a flow to.
#[derive(Clone, Copy, Debug)]
struct Owners {
    /// The slot's owner, if it has one.
    owner: MemberId,
    /// Its living previous owner while the slot is learning, else no member.
    previous: MemberId,
}

/// The member of a flow without an entry, and whether the flow is to be recorded.
#[derive(Clone, Copy, Debug)]
struct Ruling {
    to_previous: bool,
    written: bool,
}

/// Chooses a flow's member, if there is one, and keeps the flow table. Nearly every packet is decided here; the rest, by
/// [`resolve`], which is a function of its own in the kernel.
#[inline(always)]
pub fn choose<T: Flows + Counters>(tables: &T, flow: Flow, segment: impl Fn() -> Segment) -> (MemberId, Choice) {
    if flow.word.tracking() == Tracking::Exception {
        let slot = tables.slot(flow.word.current(), flow.hash.slot());
        if !slot.in_transition() {
            return (slot.owner(), Choice::Table);
        }
    }
    // The compiler lays the other path out straight.
    cold_path();
    // Read before the flow table is: what is known of the packet's bounds is forgotten by then.
    let segment = segment();
    match first_look(tables, flow, segment) {
        Some(member) => (member, Choice::FlowTable),
        None => tables.resolve(flow, segment),
    }
}

/// The member of a flow whose entry is found at a first look, unless there is something to it.
#[inline(always)]
fn first_look<T: Flows>(tables: &T, flow: Flow, segment: Segment) -> Option<MemberId> {
    if segment.is_syn() {
        return None;
    }
    let bucket = tables.bucket(flow.hash)?;
    let (way, entry) = at_home(bucket, flow.hash).or_else(|| first_candidate(bucket, flow.hash))?;
    let (template, now) = (tables.forwarding().template(entry.member()), tables.now());
    if !template.state().serves(flow.pool) || segment.is_datagram() && !template.exit().exists() {
        return None;
    }
    if !is_recent(tables, entry, flow, now) {
        return None;
    }
    renew(bucket, way, entry, now);
    Some(entry.member())
}

/// The entry of a flow that is at home.
#[inline(always)]
fn at_home(bucket: &Bucket, hash: FlowHash) -> Option<(usize, FlowEntry)> {
    let (way, entry) = (hash.home_way(), bucket.entry(hash.home_way()));
    entry.is_of(hash.tag()).then_some((way, entry))
}

/// The entry of a flow that is where the way tags say first.
#[inline(always)]
fn first_candidate(bucket: &Bucket, hash: FlowHash) -> Option<(usize, FlowEntry)> {
    let candidates = bucket.tags().candidates(hash.way_tag());
    let (way, entry) = (WayTags::lowest(candidates), bucket.entry(WayTags::lowest(candidates)));
    (candidates != 0 && entry.is_of(hash.tag())).then_some((way, entry))
}

/// Chooses the member of a flow whose slot is in transition, or whose pool is always tracked: by its entry, or by the
/// rules above. A RST never makes an entry: its sender has no flow to keep.
#[inline(always)]
pub fn resolve<T: Flows + Counters>(tables: &T, flow: Flow, segment: Segment) -> (MemberId, Choice) {
    let Some(bucket) = tables.bucket(flow.hash) else {
        tables.count(Counter::FlowTableMissing);
        let owners = Owners::look_up(tables, flow);
        return owners.unwritten(rule(flow.word, owners, segment), segment);
    };
    let now = tables.now();
    let found = find(bucket, flow.hash);
    let known = found.map_or_else(|| peek_before(tables, flow.hash), |way| Some(bucket.entry(way)));
    if let Some(entry) = known {
        if binds(tables, entry, flow, segment, now) {
            tables.count(Counter::FlowHit);
            match found {
                Some(way) => renew(bucket, way, entry, now),
                None => promote(tables, bucket, entry, (flow, segment), now),
            }
            return (entry.member(), Choice::FlowTable);
        }
    } else {
        tables.count(Counter::FlowMiss);
    }
    let owners = Owners::look_up(tables, flow);
    let ruling = rule(flow.word, owners, segment);
    let (member, choice) = owners.ruled(ruling);
    // An entry that binds no more is written over, or the flow would go back once its member can be reached.
    let written = ruling.written || known.is_some() && !segment.is_rst();
    if !written || member.is_nobody() {
        return (member, choice);
    }
    let Some(way) = found.or_else(|| free_way(tables, bucket, flow, segment, now)) else {
        tables.count(Counter::FlowTableFull);
        return owners.unwritten(ruling, segment);
    };
    bucket.put(way, FlowEntry::new(flow.hash.tag(), member, now), flow.hash.way_tag());
    tables.count(Counter::FlowWritten);
    if choice == Choice::Previous {
        tables.count(Counter::FlowPrevious);
    }
    (member, choice)
}

impl Owners {
    #[inline(always)]
    fn look_up<T: Forwarding>(tables: &T, Flow { pool, word, hash }: Flow) -> Self {
        let owner = owner(tables, Flow { pool, word, hash });
        if word.previous() == TableStart::EMPTY {
            return Self { owner, previous: MemberId::NOBODY };
        }
        let previous = tables.slot(word.previous(), hash.slot()).owner();
        let lives = tables.forwarding().template(previous).state().serves(pool);
        Self { owner, previous: if lives { previous } else { MemberId::NOBODY } }
    }

    #[inline(always)]
    fn ruled(self, ruling: Ruling) -> (MemberId, Choice) {
        if ruling.to_previous { (self.previous, Choice::Previous) } else { (self.owner, Choice::Table) }
    }

    /// The same of a flow that cannot be recorded: a connection that begins goes to the member of its later segments.
    #[inline(always)]
    fn unwritten(self, ruling: Ruling, segment: Segment) -> (MemberId, Choice) {
        let to_previous = ruling.to_previous || segment.is_syn() && !self.previous.is_nobody();
        self.ruled(Ruling { to_previous, ..ruling })
    }
}

/// The owner of a flow's slot, if it has one.
#[inline(always)]
pub fn owner<T: Forwarding>(tables: &T, flow: Flow) -> MemberId {
    tables.slot(flow.word.current(), flow.hash.slot()).owner()
}

/// The rules for a flow that no entry binds.
#[inline(always)]
fn rule(word: PoolWord, owners: Owners, segment: Segment) -> Ruling {
    let (learning, always) = (!owners.previous.is_nobody(), word.tracking() == Tracking::Always);
    let to_previous = learning && if segment.is_datagram() { word.udp() == UdpPolicy::Keep } else { !segment.is_syn() };
    Ruling { to_previous, written: (learning || always || segment.is_syn()) && !segment.is_rst() }
}

/// Whether an entry is of a flow that was seen within its pool's idle time.
///
/// A slot is settled once no younger entry names another member than its owner. An older one may be of a connection that had the
/// same ports, and the present one began while nothing was looked up. Where every flow is tracked, each begins an entry of its own.
#[inline(always)]
fn is_recent<T: Forwarding>(tables: &T, entry: FlowEntry, flow: Flow, now: Seconds) -> bool {
    let age = now.since(entry.last_seen());
    // What another clock saw a moment after this one is recent too.
    age <= tables.forwarding().idle(flow.pool) || age > u16::MAX / 2 || flow.word.tracking() == Tracking::Always
}

/// Whether an entry decides where its flow goes: it is recent, its member lives and serves the pool, so that a collision can never
/// cross services, and the packet does not begin the flow anew.
#[inline(always)]
fn binds<T: Forwarding + Counters>(tables: &T, entry: FlowEntry, flow: Flow, segment: Segment, now: Seconds) -> bool {
    if !is_recent(tables, entry, flow, now) {
        return false;
    }
    let template = tables.forwarding().template(entry.member());
    if !template.state().serves(flow.pool) {
        tables.count(Counter::FlowMemberDead);
        return false;
    }
    !begins_anew(segment, entry, template, now) || owner(tables, flow).is_nobody()
}

/// Whether a packet of a known flow is to be treated as the first of a new one.
///
/// While its member cannot be reached, a flow that can begin anew elsewhere does so. An established TCP connection
/// cannot: another backend would reset it, while what is dropped is sent again.
#[inline(always)]
fn begins_anew(segment: Segment, entry: FlowEntry, template: &Template, now: Seconds) -> bool {
    let unreachable = || !template.exit().exists();
    (segment.is_syn() && (now.since(entry.last_seen()) >= SYN_GUARD || unreachable()))
        || (segment.is_datagram() && unreachable())
}

/// The member that an ICMP error about a flow goes to, perhaps none: by the same rules, but nothing is written, not even that
/// the flow was seen. `segment`: [`Segment::DATAGRAM`]; or of TCP, [`Segment::SYN`] for the owner of a slot that is learning and
/// [`Segment::RST`] for the previous one.
#[inline(always)]
pub fn choose_for_error<T: Flows>(tables: &T, flow: Flow, segment: Segment) -> (MemberId, Choice) {
    let slot = tables.slot(flow.word.current(), flow.hash.slot());
    if flow.word.tracking() == Tracking::Exception && !slot.in_transition() {
        return (slot.owner(), Choice::Table);
    }
    let entry = tables.bucket(flow.hash).and_then(|bucket| peek(tables, bucket, flow.pool, flow.hash));
    let entry = entry.or_else(|| bound_before(tables, flow.pool, flow.hash));
    if let Some(entry) = entry.filter(|entry| is_recent(tables, *entry, flow, tables.now())) {
        return (entry.member(), Choice::FlowTable);
    }
    let owners = Owners::look_up(tables, flow);
    owners.ruled(rule(flow.word, owners, segment))
}

/// What the flow table says of a flow: reads only.
#[inline(always)]
pub fn peek<T: Forwarding>(tables: &T, bucket: &Bucket, pool: PoolIndex, hash: FlowHash) -> Option<FlowEntry> {
    let entry = bucket.entry(find(bucket, hash)?);
    tables.forwarding().template(entry.member()).state().serves(pool).then_some(entry)
}

/// What the flow table of another size before this one says of a flow that this one does not know: reads only.
#[inline(always)]
pub fn bound_before<T: Flows>(tables: &T, pool: PoolIndex, hash: FlowHash) -> Option<FlowEntry> {
    let entry = peek_before(tables, hash)?;
    tables.forwarding().template(entry.member()).state().serves(pool).then_some(entry)
}

/// The same, whether or not the member serves the flow's pool. Nothing is written there any more, so an entry is of use for as long
/// as its flow may be idle.
#[inline(always)]
fn peek_before<T: Flows>(tables: &T, hash: FlowHash) -> Option<FlowEntry> {
    let bucket = tables.bucket_before(hash)?;
    let entry = bucket.entry(find(bucket, hash)?);
    (tables.now().since(entry.last_seen()) <= tables.forwarding().longest_idle()).then_some(entry)
}

/// Takes over an entry from the flow table before this one, unless the flow's bucket is full: then it is found there again.
#[inline(always)]
fn promote<T: Forwarding + Counters>(
    tables: &T,
    bucket: &Bucket,
    entry: FlowEntry,
    (flow, segment): (Flow, Segment),
    now: Seconds,
) {
    let Some(way) = free_way(tables, bucket, flow, segment, now) else { return };
    let seen = if entry.last_seen() == now { entry } else { entry.seen_again(now) };
    bucket.put(way, seen, flow.hash.way_tag());
    tables.count(Counter::FlowPromoted);
}

/// Notes that a flow was seen: once a second.
#[inline(always)]
fn renew(bucket: &Bucket, way: usize, entry: FlowEntry, now: Seconds) {
    if entry.last_seen() != now {
        bucket.renew(way, entry.seen_again(now));
    }
}

/// The way that holds a flow. Nearly always the first candidate is the one, or there is none.
#[inline(always)]
fn find(bucket: &Bucket, hash: FlowHash) -> Option<usize> {
    let mut candidates = bucket.tags().candidates(hash.way_tag());
    for _ in 0..WAYS {
        if candidates == 0 {
            return None;
        }
        let way = WayTags::lowest(candidates);
        let entry = bucket.entry(way);
        if entry.is_of(hash.tag()) && !entry.is_empty() {
            return Some(way);
        }
        candidates &= candidates - 1;
    }
    None
}

/// The way a new flow may take: its home or another that never held a flow; else, of those whose flow may go, the one whose flow
/// was silent for the longest, the home among equals. A connection that began a moment ago is unconfirmed as well: it is not
/// evicted by the next one while there are flows that ended long ago.
#[inline(always)]
fn free_way<T: Forwarding + Counters>(
    tables: &T,
    bucket: &Bucket,
    flow: Flow,
    segment: Segment,
    now: Seconds,
) -> Option<usize> {
    let (home, idle) = (flow.hash.home_way(), tables.forwarding().longest_idle());
    if bucket.entry(home).is_empty() {
        return Some(home);
    }
    let empty = bucket.tags().empty();
    if empty != 0 {
        return Some(WayTags::lowest(empty));
    }
    let (mut way, mut longest) = (home, bucket.entry(home).silence(now, idle));
    for other in 0..WAYS {
        let silence = bucket.entry(other).silence(now, idle);
        if silence > longest {
            (way, longest) = (other, silence);
        }
    }
    if longest == 0 {
        return None;
    }
    note_eviction(tables, bucket.entry(way), flow.word, segment, now);
    Some(way)
}

/// Counts an entry that is evicted although its flow may live, if the flow goes elsewhere without it. Where every flow is
/// tracked, a later packet of a flow without an entry has lost its entry before: the flows displace each other. First
/// packets do so in any flood, nearly always of the same pool: one comparison shows that its owner is the entry's member.
#[inline(always)]
fn note_eviction<T: Forwarding + Counters>(
    tables: &T,
    entry: FlowEntry,
    word: PoolWord,
    segment: Segment,
    now: Seconds,
) {
    let (forwarding, member) = (tables.forwarding(), entry.member());
    let first = segment.is_syn() || segment.is_datagram();
    if first && tables.slot(word.current(), entry.slot()).owner() == member {
        return;
    }
    let state = forwarding.template(member).state();
    let word = forwarding.pool(state.pool());
    if !state.is_alive() || now.since(entry.last_seen()) > forwarding.longest_idle() {
        return;
    }
    let displaced = word.tracking() == Tracking::Always && !first;
    if displaced || tables.slot(word.current(), entry.slot()).owner() != member {
        tables.count(Counter::FlowEvicted);
    }
}

#[cfg(test)]
mod tests;
