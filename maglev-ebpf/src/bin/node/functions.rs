//! The parts of the load balancer's programs that are functions of their own in the kernel: each wraps the context, walks its part of
//! the path, and translates the verdict.

use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use maglev_common::backend::InterfaceSlot;
use maglev_common::hash::{Tuple4, Tuple6};
use maglev_ebpf::path::forward::{Left, abandon, forward_transport};
use maglev_ebpf::path::fragment::forward_fragment;
use maglev_ebpf::path::icmp::forward_icmp;
use maglev_ebpf::path::unserved::{self, Answerable};
use maglev_ebpf::path::{tag, too_big};
use maglev_ebpf::verdict::Verdict;

use crate::frame::Frame;
use crate::maps::{self, Maps};

/// Drops a packet for a VIP, because the daemon is gone.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn maglev_abandoned(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(maps) = Maps::<false>::new(&ctx) else { return XDP_ABORTED };
    maps::action(abandon(&Frame::new(ctx), &maps))
}

/// What a function answers of a packet that it leaves to another one: no action of XDP. The
/// last ones have a number in their low half: an MTU, or an [`Answerable`].
const ICMP4: u32 = 0x100;
const ICMP6: u32 = 0x101;
const FRAGMENT4: u32 = 0x102;
const FRAGMENT6: u32 = 0x103;
const UNSERVED: u32 = 0x108;
const TOO_BIG: u32 = 0x1_0000;
const RESET: u32 = 0x2_0000;
const UNREACHABLE: u32 = 0x4_0000;

/// The action, or what is left to do.
#[inline(always)]
pub(crate) fn answer(done: Result<Verdict, Left>) -> u32 {
    match done {
        Ok(verdict) => maps::action(verdict),
        Err(Left::Icmp4) => ICMP4,
        Err(Left::Icmp6) => ICMP6,
        Err(Left::Fragment4) => FRAGMENT4,
        Err(Left::Fragment6) => FRAGMENT6,
        Err(Left::Unserved) => UNSERVED,
        Err(Left::Reset(Answerable(number))) => RESET | u32::from(number),
        Err(Left::Unreachable(Answerable(number))) => UNREACHABLE | u32::from(number),
        Err(Left::TooBig(mtu)) => TOO_BIG | u32::from(mtu),
        Err(Left::Otherwise) => XDP_ABORTED,
    }
}

/// The action for a packet of which another function has answered this. Functions call each other no deeper than they must:
/// all that are under way share 512 bytes of stack.
#[inline(always)]
pub(crate) fn rest(ctx: *mut xdp_md, answer: u32) -> u32 {
    let answer = match answer {
        FRAGMENT4 => maglev_fragment4(ctx),
        FRAGMENT6 => maglev_fragment6(ctx),
        answer => answer,
    };
    let answer = if answer == UNSERVED { maglev_unserved(ctx) } else { answer };
    match answer {
        ICMP4 => tagged(ctx, maglev_icmp4(ctx)),
        ICMP6 => tagged(ctx, maglev_icmp6(ctx)),
        answer if answer & TOO_BIG != 0 => maglev_too_big(ctx, answer),
        answer if answer & RESET != 0 => maglev_reset(ctx, answer),
        answer if answer & UNREACHABLE != 0 => maglev_unreachable(ctx, answer),
        answer => tagged(ctx, answer),
    }
}

/// The action for a frame that may have to be given a tag first.
#[inline(always)]
fn tagged(ctx: *mut xdp_md, answer: u32) -> u32 {
    if answer & maps::TAG == 0 { answer } else { maglev_tag(ctx, answer) }
}

/// Sends a frame with the tag of an interface, whose slot is in the number's low half.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn maglev_tag(ctx: *mut xdp_md, slot: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(maps) = Maps::<false>::new(&ctx) else { return XDP_ABORTED };
    maps::action(tag::send(&mut Frame::new(ctx), &maps, InterfaceSlot(slot as u16)))
}

/// Answers a packet that is too long for the path to its backend; the MTU is in the number's low half.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn maglev_too_big(ctx: *mut xdp_md, mtu: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(maps) = Maps::<false>::new(&ctx) else { return XDP_ABORTED };
    maps::action(too_big::answer(&mut Frame::new(ctx), &maps, mtu as u16))
}

/// Drops a packet that no backend can be given, or leaves it to be answered.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn maglev_unserved(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(maps) = Maps::<false>::new(&ctx) else { return XDP_ABORTED };
    answer(unserved::decide(&Frame::new(ctx), &maps))
}

/// Answers a segment that no backend can be given; the [`Answerable`] is in the number's low half.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn maglev_reset(ctx: *mut xdp_md, number: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(maps) = Maps::<false>::new(&ctx) else { return XDP_ABORTED };
    maps::action(unserved::reset(&mut Frame::new(ctx), &maps, Answerable(number as u16)))
}

/// Answers a datagram, likewise.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn maglev_unreachable(ctx: *mut xdp_md, number: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(maps) = Maps::<false>::new(&ctx) else { return XDP_ABORTED };
    maps::action(unserved::unreachable(&mut Frame::new(ctx), &maps, Answerable(number as u16)))
}

/// The load balancer for whatever is not a plain packet to a VIP: a function of its own, so that its branches take
/// no registers from those that are.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn maglev_otherwise(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(maps) = Maps::<false>::new(&ctx) else { return XDP_ABORTED };
    answer(forward_transport(&mut Frame::new(ctx), &maps))
}

/// The load balancer for ICMP messages.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn maglev_icmp4(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(maps) = Maps::<false>::new(&ctx) else { return XDP_ABORTED };
    maps::action(forward_icmp::<Tuple4, _, _>(&mut Frame::new(ctx), &maps))
}

/// The load balancer for ICMPv6 messages.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn maglev_icmp6(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(maps) = Maps::<false>::new(&ctx) else { return XDP_ABORTED };
    maps::action(forward_icmp::<Tuple6, _, _>(&mut Frame::new(ctx), &maps))
}

/// The load balancer for fragments.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn maglev_fragment4(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(maps) = Maps::<false>::new(&ctx) else { return XDP_ABORTED };
    answer(forward_fragment::<Tuple4, _, _>(&mut Frame::new(ctx), &maps))
}

/// The load balancer for fragments of IPv6 packets.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn maglev_fragment6(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(maps) = Maps::<false>::new(&ctx) else { return XDP_ABORTED };
    answer(forward_fragment::<Tuple6, _, _>(&mut Frame::new(ctx), &maps))
}
