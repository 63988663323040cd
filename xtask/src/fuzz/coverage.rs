//! `cargo xtask fuzz coverage`: builds the targets of coverage-guided fuzzing with LLVM's counters in the crates of the workspace, and
//! starts them. It must not know what they test.
//!
//! Cargo calls this program in the compiler's place for the crates of the workspace (`RUSTC_WORKSPACE_WRAPPER`): the others are built
//! as ever, and shared with every other build.

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{
    binaries::{self, Binary},
    program, setup,
};

/// Set for the compiler that this program stands in for.
const AS_COMPILER: &str = "MAGLEV_COUNT_EDGES";

/// The feature of an instrumented build. All of the workspace is selected, so that the crates of others have the features that they have
/// in every other build of tests, and are not built again.
const SELECTION: [&str; 3] = ["--workspace", "--features", "maglev-fuzz-targets/instrumented"];

/// A byte for each edge of the control flow, which counts how often it was taken.
const FLAGS: [&str; 4] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=3",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Ccodegen-units=1",
];

/// Sets up, builds the targets, and replaces this process by them. `cargo xtask fuzz coverage --help` shows what they take.
///
/// # Errors
/// They do not build or start.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    setup::run()?;
    let build = ["build", "--locked", "--bin", "maglev-coverage"];
    program::run(counting(program::command(program::cargo()).args(build).args(SELECTION))?)?;
    let program = program::workspace().join("target/debug/maglev-coverage");
    Err(Command::new(&program).args(arguments).exec()).with_context(|| format!("cannot start {}", program.display()))
}

/// The test binary of the suite.
///
/// # Errors
/// It does not build.
pub(crate) fn binaries() -> Result<Vec<Binary>> {
    let mut command = binaries::building(&SELECTION);
    binaries::named(&program::output(counting(command.args(["--test", "coverage"]))?)?)
}

/// A command of cargo that calls this program as the compiler.
fn counting(command: &mut Command) -> Result<&mut Command> {
    let own = program::own()?;
    Ok(command.env("RUSTC_WORKSPACE_WRAPPER", own).env(AS_COMPILER, "1"))
}

/// Compiles, if cargo calls this program to do so: the first argument is the compiler, the others are its own.
pub(crate) fn compile() -> Option<ExitCode> {
    env::var_os(AS_COMPILER)?;
    let mut arguments = env::args_os().skip(1);
    let mut command = Command::new(arguments.next()?);
    let arguments: Vec<OsString> = arguments.collect();
    let is_counted = is_counted(&arguments);
    command.args(arguments);
    if is_counted {
        command.args(FLAGS);
    }
    let error = command.exec();
    eprintln!("xtask: cannot start {}: {error}", command.get_program().display());
    Some(ExitCode::FAILURE)
}

/// Whether a crate's edges are counted: not those of build scripts, which have no counters to link to, nor a query.
fn is_counted(arguments: &[OsString]) -> bool {
    let name = arguments.iter().position(|argument| argument == "--crate-name").and_then(|at| arguments.get(at + 1));
    name.is_some_and(|name| name != "build_script_build" && name != "___")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_scripts_and_queries_are_compiled_as_ever() {
        let counted = |text: &str| is_counted(&text.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(counted("--crate-name maglev_model --edition=2024 src/lib.rs"));
        assert!(!counted("--crate-name build_script_build --edition=2024 build.rs"));
        assert!(!counted("- --crate-name ___ --print=file-names"));
        assert!(!counted("-vV"));
    }
}
