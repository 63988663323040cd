//! The bytes of an XDP frame, read or changed with a fault.

use aya_ebpf::Global;
use aya_ebpf::programs::XdpContext;
use maglev_common::backend::MemberRecord;
use maglev_common::template::Template;
use maglev_ebpf::env::{Chain, Header, Outer, Packet};
use maglev_harness::Fault;

use crate::true_frame;

#[unsafe(no_mangle)]
static FAULT: Global<u32> = Global::new(0);

/// Whether the program has a fault.
#[inline(always)]
pub(crate) fn has(fault: Fault) -> bool {
    FAULT.load() == fault as u32
}

/// Where the first option of an IPv4 header behind an Ethernet header begins.
const OPTION: usize = 14 + 20;
/// Of an IPv4 header without options, and its place.
const PLAIN: (usize, u8) = (14, 0x45);
/// An option with the same layout as a source route (RFC 791).
const RECORD_ROUTE: u8 = 7;
/// The checksum of an outer IPv4 header behind an Ethernet header.
const CHECKSUM: usize = 14 + 10;

/// A frame as the load balancer has it, but for the fault.
pub(crate) struct Frame<const FIRST: bool>(true_frame::Frame<FIRST>);

impl Frame<false> {
    #[inline(always)]
    pub(crate) fn new(ctx: XdpContext) -> Self {
        Self(true_frame::Frame::new(ctx))
    }
}

impl From<XdpContext> for Frame<true> {
    #[inline(always)]
    fn from(ctx: XdpContext) -> Self {
        let mut frame = true_frame::Frame::from(ctx);
        let (start, plain) = PLAIN;
        if has(Fault::FollowsSourceRoute)
            && frame.view::<u8>(start).is_some_and(|first| *first > plain)
            && let Some(kind) = frame.view_mut::<u8>(OPTION)
            && (*kind == 131 || *kind == 137)
        {
            *kind = RECORD_ROUTE;
        }
        Self(frame)
    }
}

impl<const FIRST: bool> Packet for Frame<FIRST> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn reaches(&self, length: usize) -> bool {
        self.0.reaches(length) || has(Fault::BelievesLength)
    }

    #[inline(always)]
    fn view<T: Header>(&self, offset: usize) -> Option<&T> {
        self.0.view(offset)
    }

    #[inline(always)]
    fn view_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        self.0.view_mut(offset)
    }

    #[inline(always)]
    fn follow(&self, start: usize, length: usize, first: u8, quoted: bool) -> Chain {
        match self.0.follow(start, length, first, quoted) {
            // No next header.
            Chain::TooLong if has(Fault::ForgetsHeaderLimit) => Chain::Ends(59, 0),
            chain => chain,
        }
    }

    #[inline(always)]
    fn grow(&mut self, bytes: usize) -> bool {
        self.0.grow(bytes)
    }

    #[inline(always)]
    fn shrink(&mut self, bytes: usize) -> bool {
        self.0.shrink(bytes)
    }

    #[inline(always)]
    fn encapsulate_in_gue(&mut self, outer: Outer, template: &Template, record: &MemberRecord) -> bool {
        let done = self.0.encapsulate_in_gue(outer, template, record);
        if done
            && has(Fault::WrongOuterChecksum)
            && let Some(byte) = self.0.view_mut::<u8>(CHECKSUM)
        {
            *byte ^= 1;
        }
        done
    }

    #[inline(always)]
    fn trim(&mut self, length: usize) -> bool {
        has(Fault::KeepsTrailer) || self.0.trim(length)
    }
}
