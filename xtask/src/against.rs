//! The benchmark of another revision, for `cargo xtask bench --against REVISION`, which alternates with it: checked out and built
//! once into `target/against`, and kept there.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::program;

/// The option whose value may be a revision.
const OPTION: &str = "--against";
/// The patch that adds the command for measuring the load balancer to revisions without it.
const PATCH: &str = "tests/bench/prepare.patch";
/// The file with this command.
const COMMAND: &str = "tests/src/bench/prepare.rs";

/// The sources of the programs, in whatever folder of it a revision has them.
const PROGRAMS: &str = "maglev-ebpf/src";
/// An XDP program that takes packets in one piece only.
const PLAIN_XDP: &str = "#[xdp]";

/// The benchmark's arguments, a revision replaced by the benchmark that was built from it.
///
/// # Errors
/// The revision is unknown, or does not build.
pub(crate) fn built(arguments: &[OsString]) -> Result<Vec<OsString>> {
    let mut built = arguments.to_vec();
    for (n, argument) in arguments.iter().enumerate() {
        let joined = argument.to_str().and_then(|text| text.strip_prefix("--against="));
        if let Some(value) = joined {
            built[n] = format!("{OPTION}={}", benchmark(OsStr::new(value))?.display()).into();
        } else if argument == OPTION
            && let Some(value) = arguments.get(n + 1)
        {
            built[n + 1] = benchmark(value)?.into();
        }
    }
    Ok(built)
}

/// A file as it is; of a revision, its benchmark.
fn benchmark(value: &OsStr) -> Result<PathBuf> {
    let file = Path::new(value);
    if file.is_file() {
        return fs::canonicalize(file).with_context(|| format!("cannot find {}", file.display()));
    }
    let name = value.to_string_lossy();
    let commit =
        program::output(git().args(["rev-parse", "--verify", "--end-of-options", &format!("{name}^{{commit}}")]))
            .with_context(|| format!("{name} is neither a file nor a revision"))?;
    let folder = program::workspace().join("target/against").join(commit.trim());
    if !folder.is_dir() {
        check_out(commit.trim(), &folder)?;
    }
    eprintln!("bench: building the benchmark of {name} in {}", folder.display());
    let mut build = program::command("cargo");
    build.current_dir(&folder).stdout(std::io::stderr()).env("PATH", path()?);
    // It is built by its own toolchain, regardless of the environment of this process.
    for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR"] {
        build.env_remove(name);
    }
    program::run(
        build
            .args(["build", "--release", "--locked", "--package", "maglev-e2e", "--bin", "maglev-bench"])
            .args(["--features", "bench"]),
    )?;
    Ok(folder.join("target/release/maglev-bench"))
}

/// Checks a commit out into a folder, which is there only if all of it is.
fn check_out(commit: &str, folder: &Path) -> Result<()> {
    let failed = || format!("cannot check out {commit}");
    let (partial, archive) = (folder.with_extension("partial"), folder.with_extension("tar"));
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(failed)?;
    }
    fs::create_dir_all(&partial).with_context(failed)?;
    program::run(git().args(["archive", "--format=tar", "--output"]).arg(&archive).arg(commit))?;
    program::run(program::command("tar").arg("-xf").arg(&archive).arg("-C").arg(&partial))?;
    fs::remove_file(&archive).with_context(failed)?;
    if !partial.join(COMMAND).exists() {
        // Outside of this repository: git ignores files that are not in it.
        let mut apply = git();
        apply.current_dir(&partial).env("GIT_CEILING_DIRECTORIES", folder.parent().unwrap_or(folder));
        program::run(apply.arg("apply").arg(program::workspace().join(PATCH)))?;
    }
    take_pieces(&partial.join(PROGRAMS)).with_context(failed)?;
    fs::rename(&partial, folder).with_context(failed)
}

/// Marks XDP programs as taking packets in several pieces, in revisions that did not: the kernel does not call programs of both kinds
/// through one map. The programs' instructions are the same.
fn take_pieces(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            take_pieces(&path)?;
            continue;
        }
        let text = fs::read_to_string(&path)?;
        if text.contains(PLAIN_XDP) {
            fs::write(&path, text.replace(PLAIN_XDP, "#[xdp(frags)]"))?;
        }
    }
    Ok(())
}

/// PATH with this workspace's eBPF linker, for a revision without one.
fn path() -> Result<OsString> {
    let own = program::workspace().join("target/tools/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths([own].into_iter().chain(env::split_paths(&path))).context("PATH cannot be extended")
}

fn git() -> std::process::Command {
    program::command("git")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_as_it_is_and_other_options_are_left_alone() {
        let own = fs::canonicalize(program::workspace().join("Cargo.toml")).unwrap();
        let text = own.to_string_lossy().into_owned();
        let given = ["--rounds", "31", OPTION, text.as_str()].map(OsString::from);
        assert_eq!(built(&given).unwrap(), given);
        let joined = [OsString::from(format!("{OPTION}={text}"))];
        assert_eq!(built(&joined).unwrap(), joined);
        let error = built(&[OPTION.into(), "no-such-revision".into()]).unwrap_err();
        assert!(error.to_string().contains("neither a file nor a revision"), "{error}");
        assert_eq!(built(&[OPTION.into()]).unwrap(), [OsString::from(OPTION)]);
    }
}
