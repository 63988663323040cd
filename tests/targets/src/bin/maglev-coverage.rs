//! `cargo xtask fuzz coverage`: runs the targets, and prints a line for each.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use maglev_fuzz_targets::coverage;
use maglev_fuzz_targets::fuzz::{Limits, Report, run};
use maglev_fuzz_targets::targets::ALL;

/// Run inputs that reach new code, and changes to them, through what reads packets, files, BGP messages and requests.
#[derive(Parser)]
#[command(name = "cargo xtask fuzz coverage", bin_name = "cargo xtask fuzz coverage")]
struct Arguments {
    /// Run this target alone.
    #[arg(long, value_parser = ALL.map(|target| target.name))]
    target: Option<String>,

    /// The time for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,

    /// The seed of all choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let Arguments { target, seconds, seed } = Arguments::parse();
    if coverage::edges() == 0 {
        eprintln!("maglev-coverage: nothing counts edges: start it by `cargo xtask fuzz coverage`");
        return ExitCode::from(2);
    }
    // A panic is reported with its input.
    std::panic::set_hook(Box::new(|_| ()));
    let mut failed = false;
    for one in ALL.iter().filter(|one| target.as_ref().is_none_or(|name| name == one.name)) {
        let time = Some(Duration::from_secs(seconds));
        let began = Instant::now();
        let Report { executions, seeds, kept, edges, failure } =
            run(one, Limits { executions: u64::MAX, time, seed, guided: true });
        let took = began.elapsed().as_secs_f64();
        println!(
            "{:9} {executions:>10} executions in {took:.0} s, {edges} edges, {seeds} seeds, {kept} inputs kept",
            one.name
        );
        if let Some(failure) = failure {
            println!("{:9} FAILED: {failure}", one.name);
            failed = true;
        }
    }
    ExitCode::from(u8::from(failed))
}
