//! The test harness's programs: they make the frame of a test run look like one from a real driver, then hand over to
//! the program under test; and the floors by which its speed is judged. On the host this binary
//! is empty.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod floors;
#[cfg(target_arch = "bpf")]
#[path = "../../src/bin/frame.rs"]
mod frame;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod vary;
#[cfg(target_arch = "bpf")]
mod veth;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod programs {
    //! One function per program.

    use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
    use aya_ebpf::macros::xdp;
    use aya_ebpf::programs::XdpContext;
    use maglev_ebpf::env::Packet;
    use zerocopy::byteorder::{LE, U64};

    use crate::frame::Frame;
    use crate::maps;

    /// Words in front of the frame that are filled: more than any outer header needs.
    const WORDS: usize = 16;

    /// Words of the frame that [`crowd`] keeps: the headers of an IPv4 packet.
    const KEPT: usize = 7;

    /// By how much [`crowd`] grows the frame: of the 256 bytes of headroom the kernel keeps 40 for itself.
    const CROWDED: usize = 208;

    /// Leaves no room for an outer header: moves the frame's headers to the start of the headroom.
    #[xdp(frags)]
    fn crowd(ctx: XdpContext) -> u32 {
        let next = XdpContext::new(ctx.ctx);
        let mut frame = Frame::new(ctx);
        let Some(&headers) = frame.view::<[U64<LE>; KEPT]>(0) else { return XDP_ABORTED };
        if !frame.grow(CROWDED) {
            return XDP_ABORTED;
        }
        let Some(words) = frame.view_mut::<[U64<LE>; KEPT]>(0) else { return XDP_ABORTED };
        *words = headers;
        maps::run_program_under_test(&next, 0);
        XDP_ABORTED
    }

    /// Fills the headroom with ones and runs the program under test: a test run's headroom is zero, a driver's garbage.
    #[xdp(frags)]
    fn poison(ctx: XdpContext) -> u32 {
        let next = XdpContext::new(ctx.ctx);
        let mut frame = Frame::new(ctx);
        if !frame.grow(WORDS * 8) {
            return XDP_ABORTED;
        }
        let Some(words) = frame.view_mut::<[U64<LE>; WORDS]>(0) else { return XDP_ABORTED };
        for word in words {
            word.set(u64::MAX);
        }
        if !frame.shrink(WORDS * 8) {
            return XDP_ABORTED;
        }
        maps::run_program_under_test(&next, 0);
        XDP_ABORTED
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
