//! A backend's program of another release than the one that ships, on the same maps: an upgrade is tested with it. On the host this
//! binary is empty.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
#[path = "../../src/bin/frame.rs"]
mod frame;
#[cfg(target_arch = "bpf")]
#[path = "../../src/bin/backend/maps.rs"]
mod maps;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod programs {
    //! The program.

    use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
    use aya_ebpf::macros::xdp;
    use aya_ebpf::programs::XdpContext;
    use maglev_common::counters::DecapCounter;
    use maglev_ebpf::path::decap::decapsulate;
    use maglev_ebpf::verdict::Verdict;

    use crate::frame::Frame;
    use crate::maps::{self, DecapMaps};

    /// Decapsulation, which counts each packet once more: a test sees by that which program a packet met.
    #[xdp(frags)]
    fn decap(ctx: XdpContext) -> u32 {
        maps::count(DecapCounter::MssLowered);
        let maps = DecapMaps::new(ctx.ctx);
        match decapsulate(&mut Frame::new(ctx), &maps) {
            Verdict::Drop => XDP_DROP,
            Verdict::Pass | Verdict::Transmit | Verdict::Redirect(_) | Verdict::Tag(_) => XDP_PASS,
        }
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
