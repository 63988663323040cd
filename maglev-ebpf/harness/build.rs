//! Builds the objects of the harness, the binaries of this package: `OUT_DIR/maglev-harness` and the like.
//! For the bpf target, which it is built for on the way, there is nothing to do.

use std::{env, process::ExitCode};

#[path = "../../xtask/src/linker.rs"]
mod linker;
#[path = "../objects.rs"]
mod objects;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=src");
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("bpf") {
        return ExitCode::SUCCESS;
    }
    match objects::build("maglev-harness", &["maglev-harness", "maglev-measured", "maglev-faulty", "maglev-earlier"]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}
