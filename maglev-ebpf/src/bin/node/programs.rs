//! One function per program: wrap the context, walk the path, translate the verdict.

use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use maglev_ebpf::path::egress::{Departure, depart};
use maglev_ebpf::path::forward::{Left, forward_plain, forward_transport};
use maglev_ebpf::verdict::Verdict;

use crate::egress::EgressMaps;
use crate::frame::Frame;
use crate::functions::{answer, maglev_abandoned, maglev_otherwise, maglev_tag, rest};
use crate::maps::{self, Maps};
use crate::skb::Skb;

/// The load balancer.
#[xdp(frags)]
fn maglev(ctx: XdpContext) -> u32 {
    let Some(maps) = Maps::<false>::new(&ctx) else { return XDP_ABORTED };
    balance(ctx, &maps)
}

/// The load balancer, as long as the daemon does not count as gone. A program of its own: without a watchdog, no packet pays for one.
#[xdp(frags)]
fn maglev_watched(ctx: XdpContext) -> u32 {
    let Some(maps) = Maps::<false>::new(&ctx) else { return XDP_ABORTED };
    if maps.is_abandoned() { maglev_abandoned(ctx.ctx) } else { balance(ctx, &maps) }
}

#[inline(always)]
fn balance(ctx: XdpContext, maps: &Maps<false>) -> u32 {
    let again = ctx.ctx;
    match forward_plain(&mut Frame::<true>::from(ctx), maps) {
        Ok(Verdict::Tag(slot)) => maglev_tag(again, u32::from(slot.0)),
        Ok(verdict) => maps::action(verdict),
        Err(Left::Otherwise) => rest(again, maglev_otherwise(again)),
        Err(left) => rest(again, answer(Err(left))),
    }
}

/// The load balancer with a watchdog, and it logs each decision.
#[xdp(frags)]
fn maglev_traced(ctx: XdpContext) -> u32 {
    let Some(maps) = Maps::<true>::new(&ctx) else { return XDP_ABORTED };
    let again = ctx.ctx;
    if maps.is_abandoned() {
        return maglev_abandoned(again);
    }
    rest(again, answer(forward_transport(&mut Frame::new(ctx), &maps)))
}

/// Encapsulates outgoing health checks. Packets that it does not drop or redirect to another interface go on to the next program or
/// filter there.
#[classifier]
fn maglev_egress(ctx: TcContext) -> i32 {
    let mut packet = Skb::new(ctx);
    let Some(maps) = EgressMaps::new(packet.interface()) else { return TC_ACT_UNSPEC };
    let origin = packet.origin();
    match depart(&mut packet, &maps, origin) {
        Departure::Pass => TC_ACT_UNSPEC,
        Departure::Drop => TC_ACT_SHOT,
        Departure::Encapsulated => {
            packet.unmark();
            TC_ACT_UNSPEC
        }
        Departure::Redirect(interface) => {
            packet.unmark();
            packet.redirect(interface)
        }
    }
}
