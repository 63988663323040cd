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

/// Options that do nothing (RFC 791), in place of those that are not seen.
static NO_OPERATIONS: [u8; 2] = [1; 2];
/// Types of the options loose and strict source route.
const SOURCE_ROUTES: [u8; 2] = [131, 137];
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
        Self(true_frame::Frame::from(ctx))
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
        if size_of::<T>() <= NO_OPERATIONS.len()
            && has(Fault::FollowsSourceRoute)
            && let Some(&kind) = self.0.view::<u8>(offset)
            && SOURCE_ROUTES.contains(&kind)
        {
            return T::ref_from_bytes(NO_OPERATIONS.get(..size_of::<T>())?).ok();
        }
        self.0.view(offset)
    }

    #[inline(always)]
    fn view_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        self.0.view_mut(offset)
    }

    #[inline(always)]
    fn follow(&self, start: usize, first: u8, quoted: bool) -> Chain {
        // A first header of options counts for nothing.
        if has(Fault::FollowsNinthHeader)
            && (first == 0 || first == 60)
            && let Some(&[next, 0]) = self.0.view::<[u8; 2]>(start)
        {
            return match self.0.follow(start + 8, next, quoted) {
                Chain::Ends(protocol, at) => Chain::Ends(protocol, at + 8),
                Chain::Fragment(at) => Chain::Fragment(at + 8),
                other => other,
            };
        }
        self.0.follow(start, first, quoted)
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
