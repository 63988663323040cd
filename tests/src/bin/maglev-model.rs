//! `maglev-model`: what `cargo xtask model` starts.

use std::process::ExitCode;

use clap::Parser as _;
use maglev_e2e::model;

fn main() -> ExitCode {
    match model::run(&model::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("model: {error:#}");
            ExitCode::FAILURE
        }
    }
}
