//! `maglev`, the command line: everything is in the crate's library.

use std::process::ExitCode;

fn main() -> ExitCode {
    maglev_cli::main(std::env::args_os()).into()
}
