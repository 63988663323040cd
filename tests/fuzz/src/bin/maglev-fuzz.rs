//! `maglev-fuzz`: runs the fuzzer and prints its report. `cargo xtask fuzz` builds and starts it.

use std::process::ExitCode;

use clap::Parser;
use maglev_dataplane::rig::Fault;
use maglev_fuzz::report::Report;
use maglev_fuzz::run::{Program, Settings, run};

/// Give the loaded eBPF programs packets, and compare what they do with what an oracle predicts.
#[derive(Parser)]
#[command(name = "cargo xtask fuzz", bin_name = "cargo xtask fuzz")]
struct Arguments {
    /// Packets over all programs.
    #[arg(long, default_value_t = 1_000_000)]
    packets: u64,

    /// The same seed makes the same packets.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// One program alone.
    #[arg(long)]
    only: Option<Program>,

    /// The number of a planted fault, from 1: how it is found.
    #[arg(long, hide = true)]
    fault: Option<u32>,
}

fn main() -> ExitCode {
    let Arguments { packets, seed, only, fault } = Arguments::parse();
    let fault = Fault::ALL.into_iter().find(|known| Some(*known as u32) == fault);
    match run(&Settings { packets, seed, only, fault, stops: false }) {
        Ok(results) => {
            let report = Report::new(seed, results);
            println!("{report}");
            if report.disagreements() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("fuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}
