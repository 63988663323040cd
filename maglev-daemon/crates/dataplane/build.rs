//! Builds the eBPF objects, the binaries of package `maglev-ebpf`: `OUT_DIR/maglev-xdp`, `OUT_DIR/maglev-captured` and
//! `OUT_DIR/maglev-backend`, which `maglevd` embeds.

use std::process::ExitCode;

#[path = "../../../xtask/src/linker.rs"]
mod linker;
#[path = "../../../maglev-ebpf/objects.rs"]
mod objects;

fn main() -> ExitCode {
    match objects::build("maglev-ebpf", &["maglev-xdp", "maglev-captured", "maglev-backend"]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}
