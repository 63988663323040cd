//! What a capture takes: notes about the packet in hand, and records of those that a filter takes. The only code that turns its maps'
//! values into references.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::helpers::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, RingBuf};
use aya_ebpf::programs::XdpContext;
use maglev_common::capture::{
    CAPTURES, CaptureCounts, CaptureState, DecisionWord, Filter, Filters, MOST_KEPT, Note, RING_BYTES, Record,
};
use maglev_common::counters::{Counter, Outcome};
use maglev_common::flow::Seconds;
use maglev_common::maps::MMAPABLE;
use maglev_ebpf::env::{Decision, Ends, Packet as _};
use maglev_ebpf::path::capture;
use zerocopy::byteorder::{LE, U64};

use crate::frame::Frame;

#[map]
static CAPTURE_FILTERS: Array<Filters> = Array::with_max_entries(1, MMAPABLE);
#[map]
static CAPTURE_STATE: Array<CaptureState> = Array::with_max_entries(1, MMAPABLE);
#[map]
static CAPTURED: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Takes notes about the packet in hand.
pub(crate) struct Tap(&'static CaptureState);

impl Tap {
    #[inline(always)]
    pub(crate) fn new(cpu: u32) -> Option<Self> {
        CAPTURE_STATE.get(cpu).map(Self)
    }

    /// Begins with a packet as it comes in.
    #[inline(always)]
    pub(crate) fn begin(&self, ctx: *mut xdp_md) {
        let Note { link, length, decision, counter, copied, headers, .. } = &self.0.note;
        let frame = Frame::from(XdpContext::new(ctx));
        if let Some(start) = frame.view::<[U64<LE>; 2]>(0) {
            link[0].set(start[0].get());
            link[1].set(start[1].get());
        }
        length.set(frame.len() as u64);
        decision.set(DecisionWord::NONE.0);
        counter.set(0);
        copied.set(0);
        headers.transport.set(0);
    }

    /// Whether a filter may take the packet: what can be known without a call.
    #[inline(always)]
    pub(crate) fn may_match(&self) -> bool {
        CAPTURE_FILTERS.get(0).is_some_and(|filters| filters.may_take(&self.0.note))
    }

    #[inline(always)]
    pub(crate) fn received(&self, ends: Ends) {
        let Ends { source, destination, family, ports } = ends;
        self.0.note.headers.set(source, destination, family, ports);
    }

    #[inline(always)]
    pub(crate) fn decided(&self, made: &Decision) {
        let Decision { vip, flow, member, choice } = made;
        let Note { decision, hash, .. } = &self.0.note;
        decision.set(DecisionWord::new(*vip, flow.pool, *member, choice.number()).0);
        hash.set(flow.hash.0);
    }

    #[inline(always)]
    pub(crate) fn counted(&self, what: Counter) {
        if what.outcome() as u32 != Outcome::Noted as u32 {
            self.0.note.counter.set(what as u64 + 1);
        }
    }
}

/// What the CPU has to capture with.
#[inline(always)]
fn state() -> Option<&'static CaptureState> {
    // SAFETY: the helper takes nothing and cannot fail.
    CAPTURE_STATE.get(unsafe { bpf_get_smp_processor_id() as u32 })
}

/// The length of a frame with all its pieces.
#[inline(always)]
fn whole_length(ctx: *mut xdp_md) -> u32 {
    // SAFETY: the context that the program was called with.
    unsafe { bpf_xdp_get_buff_len(ctx) as u32 }
}

/// Copies so many of a frame's first bytes behind those that are there; returns how many: all, or none.
#[inline(always)]
fn copy(ctx: *mut xdp_md, state: &'static CaptureState, behind: u32, bytes: u32) -> u32 {
    if bytes == 0 {
        return 0;
    }
    // The verifier of Linux 6.1 does not learn from the comparison that there is one at least.
    let bytes = (core::hint::black_box(bytes - 1) & MOST_KEPT) + 1;
    let behind = core::hint::black_box(behind) & MOST_KEPT;
    let start = core::ptr::from_ref(&state.bytes).cast::<u8>().cast_mut();
    // SAFETY: `behind` is at most `MOST_KEPT` and `bytes` one more, and the field has room for twice that; only this CPU uses it. The
    // verifier confirms it.
    let copied = unsafe { bpf_xdp_load_bytes(ctx, 0, start.add(behind as usize).cast(), bytes) };
    if copied == 0 { bytes } else { 0 }
}

/// Keeps a packet that what follows may rewrite: its headers, and its bytes.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn maglev_keep(ctx: *mut xdp_md) -> u32 {
    let Some(state) = state() else { return 0 };
    capture::read(&Frame::new(XdpContext::new(ctx)), false, &state.note.headers);
    let length = whole_length(ctx);
    state.note.length.set(u64::from(length));
    let copied = copy(ctx, state, 0, if length < MOST_KEPT { length } else { MOST_KEPT });
    state.note.copied.set(u64::from(copied) + 1);
    0
}

/// Reads the headers of the packet in hand, as it is now.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn maglev_headers(ctx: *mut xdp_md, encapsulated: u32) -> u32 {
    let Some(state) = state() else { return 0 };
    capture::read(&Frame::new(XdpContext::new(ctx)), encapsulated != 0, &state.note.headers);
    0
}

/// Whether the path sent the packet on with an outer header.
#[inline(always)]
fn is_encapsulated(note: &Note) -> bool {
    let counter = note.counter.get().wrapping_sub(1);
    counter == Counter::Transmitted as u64 || counter == Counter::Redirected as u64
}

/// Whether the path rewrote the packet in place.
#[inline(always)]
fn is_rewritten(note: &Note) -> bool {
    let counter = note.counter.get().wrapping_sub(1);
    counter == Counter::EchoReply as u64
        || counter == Counter::PacketTooBig as u64
        || counter == Counter::Reset as u64
        || counter == Counter::PortUnreachable as u64
}

/// Finds the captures that take the packet in hand, and the most bytes that one of them keeps of it. Both are kept in memory: of
/// numbers there the verifier follows no values, which each turn would double.
#[inline(always)]
fn find_captures(ctx: *mut xdp_md, state: &'static CaptureState) {
    let Some(filters) = CAPTURE_FILTERS.get(0) else { return };
    let (count, headers) = (filters.count.get(), &state.note.headers);
    headers.captures.set(0);
    headers.kept.set(0);
    for n in 0..CAPTURES {
        if n as u64 >= count {
            break;
        }
        let filter = &filters.filters[n];
        if !filter.takes_outcome(&state.note) {
            continue;
        }
        if filter.reads_headers(&state.note) {
            if !headers.suffice(filter) {
                maglev_headers(ctx, u32::from(is_encapsulated(&state.note)));
            }
            if !filter.takes_headers(&state.note) {
                continue;
            }
        }
        if is_taken(filter, &state.counts[n]) {
            headers.captures.set(headers.captures.get() | 1 << n);
            let kept = filter.kept.get();
            if kept > headers.kept.get() {
                headers.kept.set(kept);
            }
        }
    }
}

/// Whether a packet that fulfils all conditions is taken: by chance, by time, and by the rate.
#[inline(always)]
fn is_taken(filter: &Filter, counts: &CaptureCounts) -> bool {
    // SAFETY: the helpers take nothing and cannot fail.
    let (chance, now) = unsafe { (u64::from(bpf_get_prandom_u32()), bpf_ktime_get_ns()) };
    if chance >= filter.sampled.get() || now >= filter.until.get() {
        return false;
    }
    counts.matched.add_unshared(1);
    // An allowance lasts for its unit of time, whatever that is: 2^30 ns.
    if counts.allowance.take(Seconds((now >> 30) as u16), filter.rate.get() as u32) {
        return true;
    }
    counts.limited.add_unshared(1);
    false
}

/// Puts the packet in hand into the ring, if a filter takes it. To be called once the path is done with it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn maglev_capture(ctx: *mut xdp_md) -> u32 {
    let Some(state) = state() else { return 0 };
    find_captures(ctx, state);
    let note = &state.note;
    let (captures, most) = (note.headers.captures.get(), note.headers.kept.get() as u32);
    if captures == 0 {
        return 0;
    }
    let least = |a: u32, b: u32| if a < b { a } else { b };
    let copied = note.copied.get() as u32;
    let length = whole_length(ctx);
    let kept = if copied != 0 {
        least(copied - 1, most)
    } else if is_encapsulated(note) {
        0
    } else {
        copy(ctx, state, 0, least(length, most))
    };
    let changes = is_encapsulated(note) || is_rewritten(note);
    // Room for the outer headers, behind which are as many bytes of the packet.
    let left_most = least(most + OUTER, MOST_KEPT);
    let left_kept = if changes { copy(ctx, state, kept, least(length, left_most)) } else { 0 };
    let record = Record {
        // SAFETY: the helper takes nothing and cannot fail.
        time: unsafe { bpf_ktime_get_ns() },
        captures,
        link: [note.link[0].get(), note.link[1].get()],
        decision: note.decision.get(),
        hash: note.hash.get(),
        counter: note.counter.get().wrapping_sub(1) as u32,
        ingress: XdpContext::new(ctx).ingress_ifindex() as u32,
        length: note.length.get() as u32,
        kept,
        left_length: if changes { length } else { 0 },
        left_kept,
    };
    if !put(state, &record, kept + left_kept) {
        for n in 0..CAPTURES {
            if captures >> n & 1 != 0 {
                state.counts[n].lost.add_unshared(1);
            }
        }
    }
    0
}

/// Bytes of the longest outer headers: an Ethernet header with a tag, IPv6, UDP and GUE.
const OUTER: u32 = 14 + 4 + 40 + 12;

/// Puts a record and so many bytes into the ring; returns whether there was room.
#[inline(always)]
fn put(state: &'static CaptureState, record: &Record, bytes: u32) -> bool {
    let start = core::ptr::from_ref(&state.record).cast_mut();
    // SAFETY: the field is as long as a record and aligned to eight bytes; only this CPU uses it.
    unsafe { start.cast::<Record>().write(record.clone()) };
    let length = size_of::<Record>() + (core::hint::black_box(bytes as usize) & (2 * MOST_KEPT as usize + 1));
    // SAFETY: the bytes follow the record in memory, and have room for so many. The verifier confirms it.
    let whole = unsafe { core::slice::from_raw_parts(start.cast::<u8>(), length) };
    CAPTURED.output::<[u8]>(whole, 0).is_ok()
}
