//! The program: the load balancer with a watchdog, and a capture behind it.

use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use maglev_ebpf::path::forward::{Left, forward_plain};
use maglev_ebpf::verdict::Verdict;

use crate::frame::Frame;
use crate::functions::{answer, maglev_abandoned, maglev_otherwise, maglev_tag, rest};
use crate::maps::{self, Maps};
use crate::tap::{maglev_capture, maglev_keep};

/// The load balancer, whose packets are captured.
#[xdp(frags)]
fn maglev_captured(ctx: XdpContext) -> u32 {
    let Some(maps) = Maps::<false>::new(&ctx) else { return XDP_ABORTED };
    let again = ctx.ctx;
    maps.tap.begin(again);
    let action = if maps.is_abandoned() { maglev_abandoned(again) } else { balance(ctx, &maps) };
    if maps.tap.may_match() {
        maglev_capture(again);
    }
    action
}

#[inline(always)]
fn balance(ctx: XdpContext, maps: &Maps<false>) -> u32 {
    let again: *mut xdp_md = ctx.ctx;
    match forward_plain(&mut Frame::<true>::from(ctx), maps) {
        Ok(Verdict::Tag(slot)) => maglev_tag(again, u32::from(slot.0)),
        Ok(verdict) => maps::action(verdict),
        Err(left) => {
            // What follows may rewrite it.
            maglev_keep(again);
            match left {
                Left::Otherwise => rest(again, maglev_otherwise(again)),
                left => rest(again, answer(Err(left))),
            }
        }
    }
}
