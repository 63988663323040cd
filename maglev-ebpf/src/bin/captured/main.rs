//! The load balancer's entry point while packets are captured: the same path over the same maps, and it puts those packets that a
//! filter takes into a ring. An object of its own, so that no other program pays for it. On the host this binary is empty.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
#[path = "../frame.rs"]
mod frame;
#[cfg(target_arch = "bpf")]
#[path = "../node/functions.rs"]
mod functions;
#[cfg(target_arch = "bpf")]
#[path = "../node/maps.rs"]
mod maps;
#[cfg(target_arch = "bpf")]
mod program;
#[cfg(target_arch = "bpf")]
mod tap;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // No path leads here; were one left, the object would hold it and the lint would say so.
    loop {}
}

/// Ring buffers are available only to GPL-compatible programs.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
