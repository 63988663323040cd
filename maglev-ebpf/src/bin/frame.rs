//! The bytes of an XDP frame: the only code that turns packet pointers into references.
//!
//! A jumbo frame is in several pieces (`xdp.frags`), and only the first one can be read in place: it holds the headers, since
//! drivers fill a piece before they begin the next.

use core::ptr::NonNull;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len};
use aya_ebpf::programs::XdpContext;
use maglev_common::backend::MemberRecord;
use maglev_common::template::Template;
use maglev_ebpf::encap;
use maglev_ebpf::env::{Chain, Header, Outer, Packet};
use maglev_ebpf::packet::ipv6;

/// Where extension headers may begin, one less than a power of two: headers of a frame, and of a packet that it quotes.
const MOST_START: usize = 127;

/// A frame in the kernel's buffer. `FIRST`: only its first piece counts, so that a packet in several is not plain, and of others
/// the kernel need not be asked.
pub(crate) struct Frame<const FIRST: bool> {
    ctx: XdpContext,
}

impl Frame<false> {
    /// A frame with all its pieces.
    #[inline(always)]
    pub(crate) fn new(ctx: XdpContext) -> Self {
        Self { ctx }
    }
}

/// A frame that is in one piece, or the first one of several.
impl From<XdpContext> for Frame<true> {
    #[inline(always)]
    fn from(ctx: XdpContext) -> Self {
        Self { ctx }
    }
}

impl<const FIRST: bool> Frame<FIRST> {
    /// Bytes in its first piece.
    #[inline(always)]
    fn first_length(&self) -> usize {
        self.ctx.data_end() - self.ctx.data()
    }

    /// The address of a header that lies whole within the frame.
    #[inline(always)]
    fn address<T>(&self, offset: usize) -> Option<NonNull<T>> {
        let start = self.ctx.data() + offset;
        if start + size_of::<T>() > self.ctx.data_end() {
            return None;
        }
        // SAFETY: no frame lies at address 0.
        Some(unsafe { NonNull::new_unchecked(start as *mut T) })
    }

    /// Bytes in all pieces.
    #[inline(always)]
    fn whole_length(&self) -> usize {
        // SAFETY: the helper reads the context this program was called with.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) as usize }
    }

    #[inline(always)]
    fn adjust(&mut self, delta: i32) -> bool {
        // SAFETY: `ctx` is the context this program was called with, and no reference into the packet is alive: views
        // borrow `self`, which is borrowed mutably here.
        unsafe { bpf_xdp_adjust_head(self.ctx.ctx, delta) == 0 }
    }
}

impl<const FIRST: bool> Packet for Frame<FIRST> {
    #[inline(always)]
    fn len(&self) -> usize {
        if FIRST { self.first_length() } else { self.whole_length() }
    }

    #[inline(always)]
    fn reaches(&self, length: usize) -> bool {
        length <= self.first_length() || !FIRST && length <= self.len()
    }

    #[inline(always)]
    fn view<T: Header>(&self, offset: usize) -> Option<&T> {
        let address = self.address(offset)?;
        // SAFETY: the header lies within the frame (`address`), any bytes are a valid one and it needs no alignment
        // (`Header`), and the kernel leaves the frame to this program until it ends or moves its start, which takes
        // `&mut self`.
        Some(unsafe { address.as_ref() })
    }

    #[inline(always)]
    fn view_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        let mut address = self.address(offset)?;
        // SAFETY: as for `view`; `&mut self` makes the reference the only one.
        Some(unsafe { address.as_mut() })
    }

    #[inline(always)]
    fn follow(&self, start: usize, length: usize, first: u8, quoted: bool) -> Chain {
        Chain::from_bits(follow(self.ctx.ctx, start as u32, length as u32, u32::from(first), u32::from(quoted)))
    }

    #[inline(always)]
    fn grow(&mut self, bytes: usize) -> bool {
        self.adjust(-(bytes as i32))
    }

    #[inline(always)]
    fn shrink(&mut self, bytes: usize) -> bool {
        self.adjust(bytes as i32)
    }

    #[inline(always)]
    fn encapsulate_in_gue(&mut self, outer: Outer, template: &Template, record: &MemberRecord) -> bool {
        let Outer { protocol, l3, length, hash } = outer;
        let packet = u64::from(length) | u64::from(protocol) << 32 | (l3 as u64) << 40;
        gue(self.ctx.ctx, packet, hash, template, record) != 0
    }

    #[inline(always)]
    fn trim(&mut self, length: usize) -> bool {
        let surplus = self.whole_length().wrapping_sub(length);
        // SAFETY: a local variable. Read back from memory, the difference of two packet pointers is worked out in 64 bits:
        // in 32, the verifier refuses it.
        let surplus = unsafe { (&raw const surplus).read_volatile() };
        cut(self.ctx.ctx, surplus as u32) == 0
    }
}

/// [`ipv6::follow`] as a function of the kernel's kind: numbers in, a number out. It has a name of its own, so that it is verified
/// once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn follow(ctx: *mut xdp_md, start: u32, length: u32, first: u32, quoted: u32) -> u32 {
    let frame = Frame::new(XdpContext::new(ctx));
    ipv6::follow(&frame, start as usize & MOST_START, length as usize, first as u8, quoted != 0).bits()
}

/// [`encap::gue::encapsulate`] likewise; `packet` are the packet's length, its protocol and where it begins, in 32, 8 and 8 bits.
#[inline(never)]
fn gue(ctx: *mut xdp_md, packet: u64, hash: u64, template: &Template, record: &MemberRecord) -> u32 {
    let mut frame = Frame::new(XdpContext::new(ctx));
    let outer =
        Outer { protocol: (packet >> 32) as u8, l3: (packet >> 40) as usize & MOST_START, length: packet as u32, hash };
    u32::from(encap::gue::encapsulate(&mut frame, outer, template, record))
}

/// Takes bytes off a frame's end: a function of its own, so that it takes no registers from the frames that keep theirs.
#[inline(never)]
fn cut(ctx: *mut xdp_md, bytes: u32) -> i64 {
    // SAFETY: `ctx` is the context this program was called with, and no reference into the packet is alive: `trim` borrows
    // the frame mutably.
    unsafe { bpf_xdp_adjust_tail(ctx, -(bytes as i32)) as i64 }
}
