//! The load balancer as it ships, but that it minds the load-time global `MODE`: an object of its own, with the same maps. On the
//! host this binary is empty.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
#[path = "../../src/bin/frame.rs"]
mod frame;
#[cfg(target_arch = "bpf")]
#[expect(dead_code, reason = "the node's maps as they are: what its other programs use stands idle")]
#[path = "../../src/bin/node/maps.rs"]
mod maps;
#[cfg(target_arch = "bpf")]
mod mode;
#[cfg(target_arch = "bpf")]
#[path = "../../src/bin/node/tap.rs"]
mod tap;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod programs {
    //! One function per program.

    use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
    use aya_ebpf::bindings::xdp_md;
    use aya_ebpf::macros::xdp;
    use aya_ebpf::programs::XdpContext;
    use maglev_ebpf::path::forward::{Left, forward_plain, forward_transport};

    use maglev_ebpf::verdict::Verdict;

    use crate::frame::Frame;
    use crate::maps::{self, Maps};
    use crate::mode::Measured;

    /// The load balancer, measured.
    #[xdp(frags)]
    fn maglev_measured(ctx: XdpContext) -> u32 {
        let Some(maps) = Measured::new(&ctx) else { return XDP_ABORTED };
        let again = ctx.ctx;
        match forward_plain(&mut Frame::<true>::from(ctx), &maps) {
            Ok(Verdict::Tag(_)) => XDP_ABORTED,
            Ok(verdict) => maps::action(verdict),
            Err(Left::Otherwise) => maglev_otherwise(again),
            // Nothing that is measured.
            Err(_) => XDP_ABORTED,
        }
    }

    /// As the program that ships has it.
    #[inline(never)]
    fn maglev_otherwise(ctx: *mut xdp_md) -> u32 {
        let ctx = XdpContext::new(ctx);
        let Some(maps) = Maps::<false>::new(&ctx) else { return XDP_ABORTED };
        match forward_transport(&mut Frame::new(ctx), &maps) {
            Ok(verdict) => maps::action(verdict),
            Err(_) => XDP_ABORTED,
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
