//! `maglev completions`: a script that teaches a shell the command line.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Failure;
use super::output::print;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Args::command(), "maglev", &mut script);
    print(&String::from_utf8_lossy(&script))
}
