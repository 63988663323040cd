//! `cargo xtask`: the repository's own commands, one file each. They share running programs (`program`) and the
//! eBPF linker (`linker`).

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod against;
mod bench;
mod binaries;
mod build;
mod cargo_deny;
mod demo;
mod dist;
mod docs;
mod fuzz;
mod kernels;
mod lab;
mod linker;
mod lint;
mod machines;
mod matrix;
mod model;
mod object;
mod program;
mod setup;
mod soak;
mod test;
mod tidy;
mod totals;

/// The repository's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install the needs of the build and the lab: rust-src, bpf-linker, Debian packages.
    Setup,
    /// Build the release binaries.
    Build,
    /// Send requests through load balancers whose backends change, in network namespaces. Needs root.
    #[command(disable_help_flag = true)]
    Demo(demo::Arguments),
    /// Measure the packet path against its floors, and the control plane. Needs root.
    #[command(disable_help_flag = true)]
    Bench(bench::Arguments),
    /// Change, restart, upgrade and scrape load balancers under connections, in a cycle, and check that nothing grows. Needs root.
    #[command(disable_help_flag = true)]
    Soak(soak::Arguments),
    /// Compare designs in simulated fleets, and search random histories for one that breaks a connection.
    #[command(disable_help_flag = true)]
    Model(model::Arguments),
    /// Give the loaded eBPF programs packets, and compare what they do with what an oracle predicts. Needs root.
    #[command(disable_help_flag = true)]
    Fuzz(fuzz::Arguments),
    /// Write the generated parts and the samples of the manual's pages.
    Docs,
    /// Run every test and print the total. As root, a skipped test is a failure.
    Test(test::Arguments),
    /// Build a release in target/dist: static programs, packages, sums; the same bytes wherever it is built.
    Dist(dist::Arguments),
    /// Check format, lints, the invariants of architecture and wording, the eBPF object and the dependencies.
    Lint,
}

fn main() -> ExitCode {
    if let Some(done) = fuzz::coverage::compile() {
        return done;
    }
    if let Err(error) = program::own() {
        eprintln!("xtask: {error:#}");
        return ExitCode::FAILURE;
    }
    let done = match Arguments::parse().command {
        Command::Setup => setup::run(),
        Command::Build => build::run(),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
        Command::Model(arguments) => model::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Docs => docs::run(),
        Command::Test(arguments) => test::run(&arguments),
        Command::Dist(arguments) => dist::run(&arguments),
        Command::Lint => lint::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
