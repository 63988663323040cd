//! `maglev`, the command line: everything is in [`maglev_daemon::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    maglev_daemon::cli::main(std::env::args_os()).into()
}
