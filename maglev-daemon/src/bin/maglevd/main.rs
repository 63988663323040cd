//! `maglevd`: the daemon, the check of its configuration, and the decapsulation a backend runs. One file per
//! subcommand; this one has the arguments and prints failures.

mod attach;
mod check;
mod decap;
#[cfg(test)]
mod docs;
mod doctor;
mod keygen;
mod log;
mod preflight;
mod uninstall;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use maglev_daemon::runtime::{self, Failure};
use maglev_model::parse_timeout;
use maglev_program::{Exit, manual, usage};

/// The node file by default.
const DEFAULT_CONFIG: &str = "/etc/maglev/maglev.yaml";

/// Where packages keep the binary of the release before.
const KEPT: &str = "/var/lib/maglev/previous/maglevd";

/// The L4 load balancer's daemon: an XDP program forwards packets by the tables that maglevd computes
#[derive(Debug, Parser)]
#[command(name = "maglevd", version = version(), arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done; 1 could not; 2 wrong usage or invalid configuration")]
struct Args {
    #[command(flatten)]
    log: log::LogArgs,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Balance: load the program, attach it, and serve the command line until stopped
    Run {
        /// The node file
        #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
        config: PathBuf,

        /// The binary of the release before, which runs in the place of this one if this one was started three times and was not
        /// ready for as long as --probation, or if its probation fails
        #[arg(long, value_name = "PATH", default_value = KEPT)]
        previous: PathBuf,

        /// How long a new release is watched after it is ready, before it counts as proven
        #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_timeout)]
        probation: Duration,

        /// Change the mode of an interface (native, generic) even if no program forwards there for a moment
        #[arg(long)]
        cut: bool,
    },
    /// Check the node file and the services file it names, and list every error
    Check {
        /// The node file
        #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Show what a start of this release would keep, continue, forget or refuse of what forwards now; change nothing
    Preflight(preflight::PreflightArgs),
    /// Examine this node or backend without a daemon: what is set up wrong, and the remedies
    Doctor(doctor::DoctorArgs),
    /// Detach every program that maglevd left, of this and other releases, and remove what is pinned
    Uninstall(uninstall::UninstallArgs),
    /// On a backend: remove the outer header of packets from load balancers, until stopped
    Decap(decap::DecapArgs),
    /// Pass every packet: for the peer of a veth that transmits, which needs any program
    #[command(hide = true)]
    Pass(attach::PassArgs),
    /// Print a new key for the flow hash, to be the same on every node of a fleet
    Keygen,
    /// Write the man pages into a folder
    #[command(hide = true)]
    Man {
        /// An existing folder
        folder: PathBuf,
    },
}

fn version() -> &'static str {
    format!("{} (eBPF object SHA-256 {})", env!("CARGO_PKG_VERSION"), maglev_dataplane::sha256()).leak()
}

fn main() -> ExitCode {
    let Args { log, command } = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage::report("maglevd", &error).into(),
    };
    log::start(&log);
    let outcome = match command {
        Command::Run { config, previous, probation, cut } => {
            runtime::run(&config, &runtime::Start { kept: previous, probation, cut })
        }
        Command::Check { config } => check::run(&config),
        Command::Preflight(args) => preflight::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Uninstall(args) => uninstall::run(&args),
        Command::Decap(args) => decap::run(args),
        Command::Pass(args) => attach::pass(&args),
        Command::Keygen => keygen::run(),
        Command::Man { folder } => {
            let written = manual::write(Args::command(), "8", &folder).context("cannot write man pages");
            written.map_err(Failure::from)
        }
    };
    match outcome {
        Ok(()) => Exit::Done.into(),
        Err(failure) => report(&failure).into(),
    }
}

/// Prints one line on standard error, or one for each mistake of the configuration.
fn report(failure: &Failure) -> Exit {
    match failure {
        Failure::Config(errors) => {
            for error in errors.iter() {
                eprintln!("maglevd: {error}");
            }
            Exit::Invalid
        }
        Failure::Other(error) => {
            eprintln!("maglevd: {}", causes(error));
            Exit::Refused
        }
    }
}

/// An error and its causes on one line, without repetition: some errors include their cause.
fn causes(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |line, cause| match line {
        line if line.is_empty() => cause,
        line if line.contains(&cause) => line,
        line => format!("{line}: {cause}"),
    })
}

/// Prints a line on standard output and flushes it: the parent process may be waiting for it. A closed pipe is no error.
fn say(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output").into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn causes_are_said_once() {
        let cause = || io::Error::other("the disk is full");
        let error = anyhow::Error::new(cause()).context("cannot write x");
        assert_eq!(causes(&error), "cannot write x: the disk is full");
        let error = anyhow::Error::new(cause()).context("cannot write x: the disk is full");
        assert_eq!(causes(&error), "cannot write x: the disk is full");
    }

    #[test]
    fn the_documented_forms_parse() {
        for line in [
            "maglevd run",
            "maglevd run --config /etc/maglev/maglev.yaml --log-format json --log debug",
            "maglevd run --previous /var/lib/maglev/previous/maglevd --probation 60s --cut",
            "maglevd check --config deploy/examples/broken.yaml",
            "maglevd preflight --config /etc/maglev/maglev.yaml --json",
            "maglevd doctor",
            "maglevd doctor --config /etc/maglev/maglev.yaml --strict --json",
            "maglevd doctor --backend --config /etc/maglev/decap.yaml",
            "maglevd uninstall",
            "maglevd uninstall --pin /run/maglev/bpf/node --decap-pin /run/maglev/bpf/decap",
            "maglevd decap --interface eth0 --from 10.64.0.0/16",
            "maglevd decap --interface a --interface b --from 10.64.0.1 --from 2001:db8::/64 --mode generic --counters /run/c",
            "maglevd decap --interface a --from 10.64.0.0/16 --to 203.0.113.0/24 --to 2001:db8::10 --pin /sys/fs/bpf/b --on-stop keep",
            "maglevd decap --interface a --from 10.64.0.0/16 --pin off",
            "maglevd decap --interface a --from 10.64.0.0/16 --mss auto",
            "maglevd decap --interface a --from 10.64.0.0/16 --mss 1400",
            "maglevd decap --config /etc/maglev/decap.yaml",
            "maglevd decap --config /etc/maglev/decap.yaml --check",
            "maglevd pass --interface veth1",
            "maglevd keygen",
        ] {
            let parsed = Args::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn an_mss_that_no_host_takes_is_refused_with_what_is_allowed() {
        for value in ["535", "65496", "1400b", "", "Auto"] {
            let line = ["maglevd", "decap", "--interface", "a", "--from", "10.64.0.0/16", "--mss", value];
            let error = Args::try_parse_from(line).unwrap_err();
            let said = error.to_string();
            assert!(said.contains("--mss") && said.contains("allowed: auto, or 536 to 65495 bytes"), "{said}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn a_file_and_options_of_decapsulation_exclude_each_other() {
        for option in [
            "--interface eth0",
            "--from 10.0.0.0/8",
            "--to 203.0.113.10",
            "--mode native",
            "--mss auto",
            "--counters /run/c",
            "--pin off",
            "--on-stop keep",
        ] {
            let line = format!("maglevd decap --config f {option}");
            let error = Args::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let (said, option) = (error.to_string(), option.split(' ').next().unwrap());
            assert!(
                said.contains("cannot be used with") && said.contains(option) && said.contains("--config"),
                "{said}"
            );
        }
        let error = Args::try_parse_from(["maglevd", "decap", "--check"]).unwrap_err().to_string();
        assert!(error.contains("--config <FILE>"), "{error}");
    }

    #[test]
    fn decapsulation_is_never_open_to_everyone_by_omission() {
        for line in [
            "maglevd decap",
            "maglevd decap --interface eth0",
            "maglevd decap --from 10.0.0.0/8",
            "maglevd decap --interface eth0 --from x",
            "maglevd decap --interface eth0 --from 10.0.0.1/8",
            "maglevd decap --interface eth0 --from 10.0.0.0/8 --to ff02::/16",
            "maglevd decap --interface eth0 --from 10.0.0.0/8 --to 127.0.0.1",
            "maglevd decap --interface eth0 --from 10.0.0.0/8 --pin here",
            "maglevd decap --interface eth0 --from 10.0.0.0/8 --pin /sys/fs/bpf/a.b",
        ] {
            assert!(Args::try_parse_from(line.split(' ')).is_err_and(|error| error.exit_code() == 2), "{line}");
        }
    }
}
