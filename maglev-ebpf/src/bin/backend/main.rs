//! The XDP programs of a backend: decapsulation, and passing for the peer of a transmitting veth. On the host this binary
//! is empty.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
#[path = "../frame.rs"]
mod frame;
#[cfg(target_arch = "bpf")]
mod maps;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod programs {
    //! One function per program.

    use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
    use aya_ebpf::macros::xdp;
    use aya_ebpf::programs::XdpContext;
    use maglev_ebpf::path::decap::decapsulate;
    use maglev_ebpf::verdict::Verdict;

    use crate::frame::Frame;
    use crate::maps::DecapMaps;

    /// Decapsulation.
    #[xdp(frags)]
    fn decap(ctx: XdpContext) -> u32 {
        match decapsulate(&mut Frame::new(ctx), &DecapMaps) {
            Verdict::Drop => XDP_DROP,
            Verdict::Pass | Verdict::Transmit | Verdict::Redirect(_) | Verdict::Tag(_) => XDP_PASS,
        }
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
