//! The bytes of an outgoing packet in a socket buffer: the only code that turns pointers into one into references.

use core::ptr::NonNull;

use aya_ebpf::bindings::{
    BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP, bpf_adj_room_mode,
};
use aya_ebpf::programs::TcContext;
use maglev_common::backend::MemberRecord;
use maglev_common::template::Template;
use maglev_ebpf::encap::{gue, ipip};
use maglev_ebpf::env::{Chain, Header, Outer, Packet};
use maglev_ebpf::packet::ipv6;

/// A packet in a socket buffer, from its Ethernet header on.
pub(crate) struct Skb {
    pub(crate) ctx: TcContext,
}

impl Skb {
    /// A packet as it stands: only its first piece can be read.
    #[inline(always)]
    pub(crate) fn linear(ctx: TcContext) -> Self {
        Self { ctx }
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
    fn follow(&self, start: usize, length: usize, first: u8, quoted: bool) -> Chain {
        ipv6::follow(self, start, length, first, quoted)
    }

    /// Makes room after the Ethernet header, for outer headers of just this size. The kernel needs to know them: it
    /// finishes checksums that it had left to the network card by where the inner headers are.
    #[inline(always)]
    fn grow(&mut self, bytes: usize) -> bool {
        let outer = match bytes {
            ipip::OVERHEAD6 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
            gue::OVERHEAD4 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
            gue::OVERHEAD6 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
            _ => BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
        };
        self.ctx.adjust_room(bytes as i32, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, u64::from(outer)).is_ok()
    }

    #[inline(always)]
    fn encapsulate_in_gue(&mut self, outer: Outer, template: &Template, record: &MemberRecord) -> bool {
        gue::encapsulate(self, outer, template, record)
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
