//! The live frames' two ends: one program sends packets of many flows into a veth, another counts what comes back and
//! ends them.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use maglev_ebpf::env::Packet;

use crate::frame::Frame;
use crate::maps;
use crate::vary::{Headers, Headers4, Headers6, flow, write};

/// Sends IPv4 packets.
#[xdp(frags)]
fn generate4(ctx: XdpContext) -> u32 {
    generate::<Headers4>(ctx)
}

/// Sends IPv6 packets.
#[xdp(frags)]
fn generate6(ctx: XdpContext) -> u32 {
    generate::<Headers6>(ctx)
}

#[inline(always)]
fn generate<H: Headers>(ctx: XdpContext) -> u32 {
    let mut frame = Frame::<true>::from(ctx);
    let Some(rig) = maps::rig() else { return XDP_ABORTED };
    if !write::<H>(&mut frame, rig, flow(rig)) {
        return XDP_ABORTED;
    }
    maps::redirect(rig.interface.get() as u32)
}

/// Counts what came back: all of it, and what had grown by as much as it should.
#[xdp(frags)]
fn sink(ctx: XdpContext) -> u32 {
    let frame = Frame::<true>::from(ctx);
    let Some(rig) = maps::rig() else { return XDP_ABORTED };
    rig.returned.add_unshared(1);
    let expected = rig.length.get() + rig.overheads[0].get();
    rig.grown.add_unshared(u64::from(frame.len() as u64 == expected));
    XDP_DROP
}
