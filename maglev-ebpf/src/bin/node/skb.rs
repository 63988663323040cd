//! The bytes of an outgoing packet in a socket buffer: the only code that turns pointers into one into references.

use core::ptr::NonNull;

use aya_ebpf::bindings::{BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, bpf_adj_room_mode};
use aya_ebpf::helpers::{bpf_redirect, bpf_skb_vlan_pop, bpf_skb_vlan_push};
use aya_ebpf::programs::TcContext;
use maglev_common::backend::Tag;
use maglev_common::mark::Mark;
use maglev_ebpf::encap::ipip::OVERHEAD6;
use maglev_ebpf::env::{Chain, Header, Packet, Tagged};
use maglev_ebpf::packet::{eth, ipv6};
use maglev_ebpf::path::egress::Origin;

/// Bytes that are asked to stand in one piece: Ethernet, IPv6, and TCP without options.
const HEADERS: u32 = 14 + 40 + 20;

/// A packet in a socket buffer, from its Ethernet header on.
pub(crate) struct Skb {
    ctx: TcContext,
}

impl Skb {
    /// A packet whose headers stand in one piece, if the kernel has the memory: else it is as good as cut short.
    #[inline(always)]
    pub(crate) fn new(ctx: TcContext) -> Self {
        let wanted = if ctx.len() < HEADERS { ctx.len() } else { HEADERS };
        if ctx.data() + wanted as usize > ctx.data_end() {
            let _ = ctx.pull_data(wanted);
        }
        Self { ctx }
    }

    /// The outgoing interface.
    #[inline(always)]
    pub(crate) fn interface(&self) -> u32 {
        // SAFETY: the context this program was called with, which the kernel leaves to it until it ends.
        unsafe { (*self.ctx.skb.skb).ifindex }
    }

    /// Where it comes from.
    #[inline(always)]
    pub(crate) fn origin(&self) -> Origin {
        // SAFETY: as for `interface`.
        let (mark, ingress) = unsafe { ((*self.ctx.skb.skb).mark, (*self.ctx.skb.skb).ingress_ifindex) };
        Origin { mark: Mark(mark), forwarded: ingress != 0 }
    }

    /// Takes its mark away: from here on it is as a client's.
    #[inline(always)]
    pub(crate) fn unmark(&mut self) {
        self.ctx.set_mark(0);
    }

    /// Hands it to another interface, which sends it.
    #[inline(always)]
    pub(crate) fn redirect(&self, interface: u32) -> i32 {
        // SAFETY: the helper takes two numbers.
        unsafe { bpf_redirect(interface, 0) as i32 }
    }

    /// The address of a header that lies whole within the first piece.
    #[inline(always)]
    fn address<T>(&self, offset: usize) -> Option<NonNull<T>> {
        let start = self.ctx.data() + offset;
        if start + size_of::<T>() > self.ctx.data_end() {
            return None;
        }
        // SAFETY: no packet lies at address 0.
        Some(unsafe { NonNull::new_unchecked(start as *mut T) })
    }
}

impl Packet for Skb {
    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.len() as usize
    }

    #[inline(always)]
    fn view<T: Header>(&self, offset: usize) -> Option<&T> {
        let address = self.address(offset)?;
        // SAFETY: the header lies within the packet (`address`), any bytes are a valid one and it needs no alignment
        // (`Header`), and the kernel leaves the packet to this program until it ends or makes room, which takes `&mut self`.
        Some(unsafe { address.as_ref() })
    }

    #[inline(always)]
    fn view_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        let mut address = self.address(offset)?;
        // SAFETY: as for `view`; `&mut self` makes the reference the only one.
        Some(unsafe { address.as_mut() })
    }

    #[inline(always)]
    fn follow(&self, start: usize, first: u8, quoted: bool) -> Chain {
        ipv6::follow(self, start, first, quoted)
    }

    /// Makes room after the Ethernet header, for an outer IP header of just this size. The kernel needs to know it: it
    /// finishes checksums that it had left to the network card by where the inner headers are.
    #[inline(always)]
    fn grow(&mut self, bytes: usize) -> bool {
        let outer = if bytes == OVERHEAD6 { BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 } else { BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 };
        self.ctx.adjust_room(bytes as i32, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, u64::from(outer)).is_ok()
    }

    /// Nothing that leaves is made shorter.
    #[inline(always)]
    fn shrink(&mut self, _bytes: usize) -> bool {
        false
    }

    /// Sockets send no trailers.
    #[inline(always)]
    fn trim(&mut self, _length: usize) -> bool {
        false
    }
}

impl Tagged for Skb {
    /// The kernel takes the tag beside the bytes or, without one, the first of them.
    #[inline(always)]
    fn remove_tag(&mut self) -> bool {
        // SAFETY: as for `interface`.
        let beside = unsafe { (*self.ctx.skb.skb).vlan_present } != 0;
        // SAFETY: the context is this program's, and no reference into the packet is alive: they borrow `self`.
        !(beside || eth::is_tagged(self)) || unsafe { bpf_skb_vlan_pop(self.ctx.skb.skb) } == 0
    }

    #[inline(always)]
    fn add_tag(&mut self, tag: Tag) -> bool {
        // SAFETY: as for `remove_tag`. The protocol is in network order.
        unsafe { bpf_skb_vlan_push(self.ctx.skb.skb, tag.protocol().to_be(), tag.vlan()) == 0 }
    }
}
