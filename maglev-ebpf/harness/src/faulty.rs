//! The load balancer as it ships, with one fault of several: an object of its own, with the same maps, by which the fuzzer is tested.
//! On the host this binary is empty.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
#[path = "faulty/egress.rs"]
mod egress;
#[cfg(target_arch = "bpf")]
#[path = "faulty/frame.rs"]
mod frame;
#[cfg(target_arch = "bpf")]
#[path = "../../src/bin/node/functions.rs"]
mod functions;
#[cfg(target_arch = "bpf")]
#[path = "faulty/maps.rs"]
mod maps;
#[cfg(target_arch = "bpf")]
#[path = "../../src/bin/node/outgoing.rs"]
mod outgoing;
#[cfg(target_arch = "bpf")]
#[path = "../../src/bin/node/programs.rs"]
mod programs;
#[cfg(target_arch = "bpf")]
#[path = "../../src/bin/node/skb.rs"]
mod skb;
#[cfg(target_arch = "bpf")]
#[path = "../../src/bin/node/tap.rs"]
mod tap;
#[cfg(target_arch = "bpf")]
#[path = "../../src/bin/node/egress.rs"]
mod true_egress;
#[cfg(target_arch = "bpf")]
#[path = "../../src/bin/frame.rs"]
mod true_frame;
#[cfg(target_arch = "bpf")]
#[path = "../../src/bin/node/maps.rs"]
mod true_maps;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
