//! The programs of a backend: decapsulation, lowering the MSS of answers, and passing for the peer of a transmitting veth. On the
//! host this binary is empty.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
#[path = "../frame.rs"]
mod frame;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod segment;
#[cfg(target_arch = "bpf")]
#[path = "../node/skb.rs"]
mod skb;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod programs {
    //! One function per program.

    use aya_ebpf::bindings::TC_ACT_UNSPEC;
    use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
    use aya_ebpf::macros::{classifier, xdp};
    use aya_ebpf::programs::{TcContext, XdpContext};
    use maglev_common::counters::DecapCounter;
    use maglev_ebpf::path::decap::decapsulate;
    use maglev_ebpf::path::mss::lower;
    use maglev_ebpf::verdict::Verdict;

    use crate::frame::Frame;
    use crate::maps::{self, DecapMaps, SynMap};
    use crate::skb::Skb;

    /// Decapsulation.
    #[xdp(frags)]
    fn decap(ctx: XdpContext) -> u32 {
        let maps = DecapMaps::new(ctx.ctx);
        match decapsulate(&mut Frame::new(ctx), &maps) {
            Verdict::Drop => XDP_DROP,
            Verdict::Pass | Verdict::Transmit | Verdict::Redirect(_) | Verdict::Tag(_) => XDP_PASS,
        }
    }

    /// Lowers the MSS in answers to SYNs that came encapsulated. All packets go on to the next program or filter there.
    #[classifier]
    fn decap_egress(ctx: TcContext) -> i32 {
        let mut packet = Skb::linear(ctx);
        if let Some(change) = lower(&packet, &SynMap)
            && packet.replace(&change)
        {
            maps::count(DecapCounter::MssLowered);
        }
        TC_ACT_UNSPEC
    }

    /// Passes every packet: a veth drops what is transmitted to it unless it runs some XDP program.
    #[xdp(frags)]
    fn pass(_ctx: XdpContext) -> u32 {
        XDP_PASS
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // No path leads here; were one left, the object would hold it and the lint would say so.
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
