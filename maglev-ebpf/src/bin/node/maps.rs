//! The maps and load-time globals as the programs see them: the only code that turns map values into references.
//!
//! Capacities are set by the loader; the ones written here only have to be valid.

use aya_ebpf::Global;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_jiffies64};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, DevMap};
use aya_ebpf::programs::XdpContext;
use maglev_common::backend::{InterfaceSlot, MemberId};
use maglev_common::counters::{Counter, Counts, VipTraffic};
use maglev_common::flow::{Bucket, Seconds};
use maglev_common::forwarding::{Forwarding, TABLES_OFFSET};
use maglev_common::fragment::{self, Datagram, Line};
use maglev_common::hash::FlowHash;
use maglev_common::maps::{MAX_INTERFACES, MMAPABLE};
use maglev_common::pod::Short;
use maglev_common::table::{PoolIndex, PoolWord, Slot, SlotWord, TableStart};
use maglev_common::vip::{Key4, Key6, VipWord};
use maglev_ebpf::affinity;
use maglev_ebpf::env::{
    self, Answers, Choice, Clock, Counters, Decision, Ends, Flow, Flows, Fragments, Ingress, Segment, Trace,
};
use maglev_ebpf::verdict::Verdict;

use crate::tap::Tap;

#[unsafe(no_mangle)]
static TABLE_WORDS: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static FLOW_SETS: Global<u32> = Global::new(1);
#[unsafe(no_mangle)]
static FLOW_SETS_BEFORE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static ANSWERS_PER_SECOND: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static FRAGMENTED_PER_SECOND: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SECONDS_PER_JIFFY: Global<u64> = Global::new(0);

#[map]
pub(crate) static FORWARDING: Array<Forwarding> = Array::with_max_entries(1, MMAPABLE);
#[map]
static DEVICES: DevMap = DevMap::with_max_entries(MAX_INTERFACES, 0);
#[map]
static FLOWS: Array<Bucket> = Array::with_max_entries(1, MMAPABLE);
#[map]
static FLOWS_BEFORE: Array<Bucket> = Array::with_max_entries(1, MMAPABLE);
#[map]
static FRAGMENTS: Array<Line> = Array::with_max_entries(fragment::LINES, MMAPABLE);
#[map]
pub(crate) static COUNTS: Array<Counts> = Array::with_max_entries(1, MMAPABLE);

/// Instead of an action, an interface slot in the low half: the frame is to be given a tag first.
pub(crate) const TAG: u32 = 0x8_0000;

/// What the kernel is answered, or [`TAG`].
#[inline(always)]
pub(crate) fn action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Tag(slot) => TAG | u32::from(slot.0),
        Verdict::Pass => XDP_PASS,
        Verdict::Drop => XDP_DROP,
        Verdict::Transmit => XDP_TX,
        Verdict::Redirect(interface) => redirect(interface),
    }
}

/// Sends the frame out of an interface; a slot without a device drops it.
#[inline(always)]
fn redirect(interface: InterfaceSlot) -> u32 {
    DEVICES.redirect(u32::from(interface.0), u64::from(XDP_DROP)).unwrap_or(XDP_DROP)
}

/// A slot of a table. `forwarding` is the value of [`FORWARDING`].
#[inline(always)]
pub(crate) fn slot_of(forwarding: &'static Forwarding, TableStart(start): TableStart, slot: Slot) -> SlotWord {
    let word = start as usize + slot.index();
    if word >= TABLE_WORDS.load() as usize {
        return SlotWord::default();
    }
    let value = core::ptr::from_ref(forwarding).cast::<u8>();
    // SAFETY: the loader makes the map's value as long as `TABLE_WORDS` needs, and the verifier, which knows both numbers, confirms it
    // of each program that it takes.
    let word = unsafe { &*value.add(TABLES_OFFSET + word * size_of::<Short>()).cast::<Short>() };
    SlotWord(word.get())
}

#[inline(always)]
pub(crate) fn cpu() -> u32 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_get_smp_processor_id() as u32 }
}

#[inline(always)]
fn jiffies() -> u64 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_jiffies64() }
}

/// The load balancer's tables, as the CPU that handles the packet sees them. Decisions are logged if `TRACED`.
pub(crate) struct Maps<const TRACED: bool> {
    ctx: XdpContext,
    forwarding: &'static Forwarding,
    counts: &'static Counts,
    /// The notes for a capture.
    pub(crate) tap: Tap,
}

impl<const TRACED: bool> Maps<TRACED> {
    /// Looks up, once, what every packet needs; `None` on a CPU that the maps have no room for.
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Option<Self> {
        let (forwarding, cpu) = (FORWARDING.get(0)?, cpu());
        let (counts, tap) = (COUNTS.get(cpu)?, Tap::new(cpu)?);
        Some(Self { ctx: XdpContext::new(ctx.ctx), forwarding, counts, tap })
    }

    /// Whether the daemon counts as gone.
    #[inline(always)]
    pub(crate) fn is_abandoned(&self) -> bool {
        let deadline = self.forwarding.deadline.get();
        deadline != 0 && jiffies() >= deadline
    }

    /// The same for a decision that needs no frame: its context is not read, or the verifier would refuse the program.
    #[inline(always)]
    fn without_frame() -> Option<Self> {
        let (forwarding, cpu) = (FORWARDING.get(0)?, cpu());
        let (counts, tap) = (COUNTS.get(cpu)?, Tap::new(cpu)?);
        Some(Self { ctx: XdpContext::new(core::ptr::null_mut()), forwarding, counts, tap })
    }
}

impl<const TRACED: bool> env::Forwarding for Maps<TRACED> {
    #[inline(always)]
    fn forwarding(&self) -> &Forwarding {
        self.forwarding
    }

    #[inline(always)]
    fn slot(&self, start: TableStart, slot: Slot) -> SlotWord {
        slot_of(self.forwarding, start, slot)
    }

    #[inline(always)]
    fn find_by_rules4(&self, address: u32, service: u64) -> VipWord {
        VipWord(find_by_rules4(address, service))
    }

    #[inline(always)]
    fn find_by_rules6(&self, [high, low]: [u64; 2], service: u64) -> VipWord {
        VipWord(find_by_rules6(high, low, service))
    }
}

impl<const TRACED: bool> Ingress for Maps<TRACED> {
    #[inline(always)]
    fn ingress(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn owns(&self, mac: u64) -> bool {
        owns(self.ingress(), mac) != 0
    }
}

impl<const TRACED: bool> Clock for Maps<TRACED> {
    #[inline(always)]
    fn now(&self) -> Seconds {
        Seconds((jiffies().wrapping_mul(SECONDS_PER_JIFFY.load()) >> 32) as u16)
    }
}

impl<const TRACED: bool> Flows for Maps<TRACED> {
    #[inline(always)]
    fn bucket(&self, hash: FlowHash) -> Option<&Bucket> {
        let sets = FLOW_SETS.load();
        FLOWS.get(cpu() * sets + hash.set(sets - 1))
    }

    #[inline(always)]
    fn bucket_before(&self, hash: FlowHash) -> Option<&Bucket> {
        match FLOW_SETS_BEFORE.load() {
            0 => None,
            sets => FLOWS_BEFORE.get(cpu() * sets + hash.set(sets - 1)),
        }
    }

    #[inline(always)]
    fn choose(&self, flow: Flow, segment: impl Fn() -> Segment) -> (MemberId, Choice) {
        affinity::choose(self, flow, segment)
    }

    #[inline(always)]
    fn resolve(&self, Flow { pool, word, hash }: Flow, segment: Segment) -> (MemberId, Choice) {
        let answer = resolve(hash.0, word.0, u32::from(pool.0), u32::from(segment.bits()));
        (MemberId::from_low_bits(answer as u16), Choice::from_number(answer >> 16))
    }

    #[inline(always)]
    fn choose_for_error(&self, Flow { pool, word, hash }: Flow, segment: Segment) -> (MemberId, Choice) {
        let answer = choose_for_error(hash.0, word.0, u32::from(pool.0), u32::from(segment.bits()));
        (MemberId::from_low_bits(answer as u16), Choice::from_number(answer >> 16))
    }
}

impl<const TRACED: bool> Answers for Maps<TRACED> {
    #[inline(always)]
    fn may_answer(&self) -> bool {
        self.counts.answers.take(self.now(), ANSWERS_PER_SECOND.load())
    }

    #[inline(always)]
    fn takes_turn(&self, flow: FlowHash) -> bool {
        self.counts.sides.take_turn(flow)
    }
}

impl<const TRACED: bool> Fragments for Maps<TRACED> {
    #[inline(always)]
    fn may_begin(&self) -> bool {
        self.counts.fragmented.take(self.now(), FRAGMENTED_PER_SECOND.load())
    }

    #[inline(always)]
    fn line(&self, datagram: Datagram) -> Option<&Line> {
        FRAGMENTS.get(datagram.line())
    }
}

impl<const TRACED: bool> Trace for Maps<TRACED> {
    #[inline(always)]
    fn received(&self, ends: Ends) {
        self.tap.received(ends);
    }

    #[inline(always)]
    fn decided(&self, decision: &Decision) {
        self.tap.decided(decision);
        if TRACED {
            log_decision(&self.ctx, decision, decision.slot_word(self).owner());
        }
    }
}

impl<const TRACED: bool> Counters for Maps<TRACED> {
    #[inline(always)]
    fn count(&self, counter: Counter) {
        self.tap.counted(counter);
        self.counts.count(counter);
    }

    #[inline(always)]
    fn count_vip(&self, vip: VipTraffic, bytes: u64) {
        self.counts.count_vip(vip, bytes);
    }

    #[inline(always)]
    fn count_member(&self, member: MemberId, bytes: u64) {
        self.counts.count_member(member, bytes);
    }
}

/// [`affinity::resolve`] as a function of the kernel's kind: numbers in, one number out, the member in its low half. Functions with a
/// name of their own are verified once, however many functions call them.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn resolve(hash: u64, word: u64, pool: u32, segment: u32) -> u32 {
    let Some(maps) = Maps::<false>::without_frame() else { return 0 };
    let flow = Flow { pool: PoolIndex(pool as u16), word: PoolWord(word), hash: FlowHash(hash) };
    let (member, choice) = affinity::resolve(&maps, flow, Segment::from_bits(segment as u8));
    u32::from(member.get()) | choice.number() << 16
}

/// [`affinity::choose_for_error`] likewise.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn choose_for_error(hash: u64, word: u64, pool: u32, segment: u32) -> u32 {
    let Some(maps) = Maps::<false>::without_frame() else { return 0 };
    let flow = Flow { pool: PoolIndex(pool as u16), word: PoolWord(word), hash: FlowHash(hash) };
    let (member, choice) = affinity::choose_for_error(&maps, flow, Segment::from_bits(segment as u8));
    u32::from(member.get()) | choice.number() << 16
}

/// [`env::Forwarding::find_by_rules4`] likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_by_rules4(address: u32, service: u64) -> u64 {
    let Some(forwarding) = FORWARDING.get(0) else { return 0 };
    forwarding.directory4().find_by_rules(Key4::from_service(address, service)).0
}

/// [`env::Forwarding::find_by_rules6`] likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_by_rules6(high: u64, low: u64, service: u64) -> u64 {
    let Some(forwarding) = FORWARDING.get(0) else { return 0 };
    forwarding.directory6().find_by_rules(Key6::from_service([high, low], service)).0
}

/// [`Forwarding::owns`] as a function of the kernel's kind.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn owns(ingress: u32, mac: u64) -> u32 {
    FORWARDING.get(0).map_or(0, |forwarding| u32::from(forwarding.owns(ingress, mac)))
}

/// Logs where a flow goes and why.
#[inline(never)]
fn log_decision(ctx: &XdpContext, decision: &Decision, owner: MemberId) {
    aya_log_ebpf::info!(
        ctx,
        "vip={} pool={} table={} slot={} owner={} member={} choice={}",
        decision.vip.0,
        decision.flow.pool.0,
        decision.flow.word.current().table().0,
        decision.slot().index() as u32,
        owner.get(),
        decision.member.get(),
        decision.choice.name()
    );
}
