//! The measuring harness: each run undoes the last encapsulation, makes the packet one of another flow, and hands over
//! to the program whose turn it is. The clock is read every few thousand runs, and every packet that grew is counted.

use core::hint::black_box;

use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use maglev_ebpf::env::{Header, Packet};
use maglev_harness::{MOST_PROGRAMS, READINGS, Rig};
use zerocopy::byteorder::{LE, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::frame::Frame;
use crate::maps;

/// The headers a run writes. Stores have the widths of the packet path's loads, so that none of these waits for two.
pub(crate) trait Headers: Header {
    /// Writes all but the ports.
    fn write(&mut self, rig: &Rig, flow: u64);
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Headers4 {
    head: [U64<LE>; 2],
    untouched: [u8; 10],
    addresses: U64<LE>,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Headers6 {
    head: [U64<LE>; 2],
    untouched: [u8; 14],
    source: U64<LE>,
    untouched_too: [u8; 8],
    destination: U64<LE>,
}

impl Headers for Headers4 {
    #[inline(always)]
    fn write(&mut self, rig: &Rig, flow: u64) {
        self.head[0].set(rig.head[0].get());
        self.head[1].set(rig.head[1].get());
        let source = rig.source.get() | host(flow) << 16;
        let destination = rig.destination.get() | vip(rig, flow) << 16;
        self.addresses.set(source | destination << 32);
    }
}

impl Headers for Headers6 {
    #[inline(always)]
    fn write(&mut self, rig: &Rig, flow: u64) {
        self.head[0].set(rig.head[0].get());
        self.head[1].set(rig.head[1].get());
        self.source.set(rig.source.get() | host(flow) << 48);
        self.destination.set(rig.destination.get() | vip(rig, flow) << 48);
    }
}

/// A flow's host number: two bytes of its source address, the last one first.
#[inline(always)]
fn host(flow: u64) -> u64 {
    (flow & 0xff) << 8 | (flow >> 24) & 0xff
}

/// Its source port.
#[inline(always)]
fn ports(rig: &Rig, flow: u64) -> u32 {
    rig.ports.get() as u32 | (flow >> 8) as u32 & 0xffff
}

/// Its VIP's number, as the last two bytes of an address.
#[inline(always)]
fn vip(rig: &Rig, flow: u64) -> u64 {
    let vip = flow & rig.vip_mask.get();
    (vip & 0xff) << 8 | (vip >> 8) & 0xff
}

/// Varies IPv4 packets.
#[xdp(frags)]
fn vary4(ctx: XdpContext) -> u32 {
    vary::<Headers4>(ctx)
}

/// Varies IPv6 packets.
#[xdp(frags)]
fn vary6(ctx: XdpContext) -> u32 {
    vary::<Headers6>(ctx)
}

#[inline(always)]
fn vary<H: Headers>(ctx: XdpContext) -> u32 {
    let next = XdpContext::new(ctx.ctx);
    let mut frame = Frame::new(ctx);
    let Some(rig) = maps::rig() else { return XDP_ABORTED };

    // Opaque, or the compiler subtracts from a packet pointer, which the verifier refuses.
    let length = black_box(frame.len() as u64);
    let grown = length.wrapping_sub(rig.length.get());
    let turn = rig.turn.get();
    rig.grown.add_unshared(u64::from(grown == overhead(rig, turn)));
    // Asked of the kernel even if there is nothing to undo: the same work before every program under test.
    if !frame.shrink(grown as usize) {
        return XDP_ABORTED;
    }
    if !write::<H>(&mut frame, rig, flow(rig)) {
        return XDP_ABORTED;
    }

    let run = rig.run.get();
    rig.run.set(run + 1);
    let turn = if run == rig.due.get() { read_clock(rig, run, turn) } else { turn };
    maps::run_program_under_test(&next, turn as u32);
    XDP_ABORTED
}

/// Makes the frame one of this flow. False if it is too short.
#[inline(always)]
pub(crate) fn write<H: Headers>(frame: &mut impl Packet, rig: &Rig, flow: u64) -> bool {
    let tags = black_box(rig.tags.get()) as usize & 15;
    if tags != 0 {
        let Some(start) = frame.view_mut::<U64<LE>>(0) else { return false };
        start.set(rig.start.get());
    }
    let Some(headers) = frame.view_mut::<H>(tags) else { return false };
    headers.write(rig, flow);
    let at = tags + size_of::<H>() + (black_box(rig.gap.get()) as usize & 63);
    let Some(to) = frame.view_mut::<U32<LE>>(at) else { return false };
    to.set(ports(rig, flow));
    true
}

/// Reads the clock: every second time, a turn ends. Returns whose turn it is now.
#[inline(always)]
fn read_clock(rig: &Rig, run: u64, turn: u64) -> u64 {
    let reading = rig.readings.get();
    rig.readings.set(reading + 1);
    if let Some(word) = rig.clock.get(reading as usize & (READINGS - 1)) {
        word.set(maps::now());
    }
    if reading & 1 == 0 {
        rig.due.set(run + rig.timed.get());
        return turn;
    }
    rig.due.set(run + rig.warming.get());
    let next = if turn + 1 == rig.programs.get() { 0 } else { turn + 1 };
    rig.turn.set(next);
    next
}

/// Bytes that a program adds.
#[inline(always)]
fn overhead(rig: &Rig, turn: u64) -> u64 {
    rig.overheads[turn as usize & (MOST_PROGRAMS - 1)].get()
}

/// The next flow's number. (The generator is xorshift64, Marsaglia 2003.)
#[inline(always)]
pub(crate) fn flow(rig: &Rig) -> u64 {
    let mut random = rig.random.get();
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    rig.random.set(random);
    let counted = rig.flow.get() + rig.flow_step.get();
    rig.flow.set(counted);
    (random >> 16 & rig.flow_mask.get()) + counted
}
