//! `maglev-bench`: what `cargo xtask bench` starts.

use std::process::ExitCode;

use clap::Parser as _;
use maglev_e2e::bench;

fn main() -> ExitCode {
    match bench::run(&bench::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
