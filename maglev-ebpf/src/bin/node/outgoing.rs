//! Outgoing packets of the node: where they come from, and where else they may be sent.

use aya_ebpf::helpers::{bpf_redirect, bpf_skb_vlan_pop, bpf_skb_vlan_push};
use aya_ebpf::programs::TcContext;
use maglev_common::backend::Tag;
use maglev_common::mark::Mark;
use maglev_ebpf::env::Tagged;
use maglev_ebpf::packet::eth;
use maglev_ebpf::path::egress::Origin;

use crate::skb::Skb;

/// Bytes that are asked to stand in one piece: Ethernet, IPv6, and TCP without options.
const HEADERS: u32 = 14 + 40 + 20;

impl Skb {
    /// A packet whose headers stand in one piece, if the kernel has the memory: else it is as good as cut short.
    #[inline(always)]
    pub(crate) fn new(ctx: TcContext) -> Self {
        let wanted = if ctx.len() < HEADERS { ctx.len() } else { HEADERS };
        if ctx.data() + wanted as usize > ctx.data_end() {
            let _ = ctx.pull_data(wanted);
        }
        Self::linear(ctx)
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
}

impl Tagged for Skb {
    #[inline(always)]
    fn has_tag(&self) -> bool {
        // SAFETY: as for `interface`.
        let beside = unsafe { (*self.ctx.skb.skb).vlan_present } != 0;
        beside || eth::is_tagged(self)
    }

    /// The kernel takes the tag beside the bytes or, without one, the first of them.
    #[inline(always)]
    fn remove_tag(&mut self) -> bool {
        // SAFETY: the context is this program's, and no reference into the packet is alive: they borrow `self`.
        !self.has_tag() || unsafe { bpf_skb_vlan_pop(self.ctx.skb.skb) } == 0
    }

    #[inline(always)]
    fn add_tag(&mut self, tag: Tag) -> bool {
        // SAFETY: as for `remove_tag`. The protocol is in network order.
        unsafe { bpf_skb_vlan_push(self.ctx.skb.skb, tag.protocol().to_be(), tag.vlan()) == 0 }
    }
}
