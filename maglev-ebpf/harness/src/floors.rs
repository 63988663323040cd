//! The floors: programs that do a known part of a load balancer's work and nothing else, by which it is judged.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_PASS, XDP_TX};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use maglev_ebpf::env::Packet;
use maglev_harness::LINE_COUNT;
use zerocopy::byteorder::{LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::frame::Frame;
use crate::maps;

/// Bytes of an outer IPv4 header.
const OVERHEAD: usize = 20;

/// Ethernet and outer IPv4, 34 bytes: what `ipip::encapsulate4` writes, in the same stores.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Outer {
    words: [U64<LE>; 4],
    last: U16<LE>,
}

/// Both MAC addresses.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Macs {
    first: U64<LE>,
    last: U32<LE>,
}

/// Returns at once: what it takes is the harness's own.
#[xdp(frags)]
fn empty(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// Swaps the MAC addresses: the least that sends a packet back.
#[xdp(frags)]
fn transmit(ctx: XdpContext) -> u32 {
    let mut frame = Frame::<true>::from(ctx);
    let Some(macs) = frame.view_mut::<Macs>(0) else { return XDP_ABORTED };
    let (first, last) = (macs.first.get(), u64::from(macs.last.get()));
    macs.first.set(first >> 48 | last << 16 | first << 48);
    macs.last.set((first >> 16) as u32);
    XDP_TX
}

/// Makes room and writes a constant header: the least that encapsulates a packet.
#[xdp(frags)]
fn headers(ctx: XdpContext) -> u32 {
    encapsulate(Frame::<true>::from(ctx), 0)
}

/// The same, and the header depends on one random cache line.
#[xdp(frags)]
fn headers_line(ctx: XdpContext) -> u32 {
    let Some(rig) = maps::rig() else { return XDP_ABORTED };
    let Some(word) = maps::line(rig.random.get() >> 40 & u64::from(LINE_COUNT - 1)) else { return XDP_ABORTED };
    encapsulate(Frame::<true>::from(ctx), word)
}

/// The same, of as many lines as the flow table has.
#[xdp(frags)]
fn headers_flow_line(ctx: XdpContext) -> u32 {
    let Some(rig) = maps::rig() else { return XDP_ABORTED };
    let Some(word) = maps::line(rig.random.get() >> 40 & rig.flow_line_mask.get()) else { return XDP_ABORTED };
    encapsulate(Frame::<true>::from(ctx), word)
}

#[inline(always)]
fn encapsulate(mut frame: Frame<true>, word: u64) -> u32 {
    if !frame.grow(OVERHEAD) {
        return XDP_ABORTED;
    }
    let Some(outer) = frame.view_mut::<Outer>(0) else { return XDP_ABORTED };
    outer.words[0].set(0x0002_0900_0000_0002 ^ word);
    outer.words[1].set(0x0045_0008_0100_0000);
    outer.words[2].set(0x0440_0040_0000_4200);
    outer.words[3].set(0x000a_000b_400a_d14b);
    outer.last.set(0x0b01);
    XDP_TX
}
