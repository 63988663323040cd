//! `cargo xtask lint`: all automatic checks of the source and the eBPF object. All checks run; the failed
//! ones are named at the end.

use std::{env, path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{linker, object, program, setup, tidy};

/// A check's name on the screen, and the check.
type Check = (&'static str, fn() -> Result<()>);

/// The feature of the benchmark.
const BENCH: &str = "maglev-e2e/bench";
/// The feature of the model.
const MODEL: &str = "maglev-e2e/model";
/// The feature of the emulated machines.
const MACHINES: &str = "maglev-e2e/machines";
/// The feature of the fuzzer.
const FUZZ: &str = "maglev-fuzz/loaded";
/// And one with the test whose edges are counted.
const COVERAGE: &str = "maglev-fuzz-targets/instrumented";

const CHECKS: [Check; 7] = [
    ("format", format),
    ("clippy", clippy),
    ("clippy of the eBPF programs", clippy_of_programs),
    ("invariants", tidy::run),
    ("eBPF objects", ebpf_objects),
    ("verifier", verifier),
    ("dependencies", dependencies),
];

/// Sets up, and runs every check.
///
/// # Errors
/// Naming the checks that failed.
pub(crate) fn run() -> Result<()> {
    setup::run()?;
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        println!("lint: {name}");
        if let Err(error) = check() {
            println!("lint: {name} failed: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    println!("lint: ok");
    Ok(())
}

fn format() -> Result<()> {
    program::run(cargo().args(["fmt", "--all", "--", "--check"]))
}

fn clippy() -> Result<()> {
    program::run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--features",
        BENCH,
        "--features",
        MODEL,
        "--features",
        MACHINES,
        "--features",
        FUZZ,
        "--features",
        COVERAGE,
        "--locked",
        "--",
        "--deny",
        "warnings",
    ]))
}

/// The halves of `maglev-ebpf` and its harness that only the bpf target compiles, with the unsafe code of the packet path.
fn clippy_of_programs() -> Result<()> {
    let flags = format!("--cfg\x1fbpf_target_arch=\"{}\"", env::consts::ARCH);
    let rustc = program::rustc();
    let mut command = linker::without_cargo_environment(cargo(), &rustc);
    command.env_remove("RUSTC").env("RUSTC_BOOTSTRAP", "1").env("CARGO_ENCODED_RUSTFLAGS", flags);
    command.args([
        "clippy",
        "--package",
        "maglev-ebpf",
        "--package",
        "maglev-harness",
        "--bins",
        "--profile",
        "bpf",
        "--locked",
    ]);
    command.args(["-Zbuild-std=core", "--target", "bpfel-unknown-none", "--target-dir", "target/lint"]);
    program::run(command.args(["--", "--deny", "warnings"]))
}

/// Checks the objects that `maglevd` embeds, in the folder of its build script.
fn ebpf_objects() -> Result<()> {
    let folder = build_script_folder()?;
    for name in ["maglev-xdp", "maglev-captured", "maglev-backend"] {
        object::check(&folder.join(name))?;
    }
    Ok(())
}

/// Loads the load balancer's program, so that the running kernel's verifier checks it.
fn verifier() -> Result<()> {
    if !program::is_root() {
        println!("lint: not root: the program is not loaded, so the verifier does NOT check it");
        return Ok(());
    }
    let run = ["run", "--quiet", "--locked", "--package", "maglev-e2e", "--features", BENCH, "--bin", "maglev-bench"];
    program::run(cargo().args(run).args(["--", "verify"]))
}

/// The `OUT_DIR` of maglev-dataplane's build script: cargo names it only in its JSON messages.
fn build_script_folder() -> Result<PathBuf> {
    let mut command = cargo();
    command.args([
        "check",
        "--quiet",
        "--locked",
        "--package",
        "maglev-dataplane",
        "--lib",
        "--message-format",
        "json",
    ]);
    let output = command.stderr(Stdio::inherit()).output().context("cannot run cargo check")?;
    if !output.status.success() {
        bail!("maglev-dataplane does not build");
    }
    out_dir(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| anyhow!("maglev-dataplane's build script did not run"))
}

fn out_dir(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut scripts = messages.filter(|message| message["reason"] == "build-script-executed");
    let ours = |message: &serde_json::Value| {
        message["package_id"].as_str().is_some_and(|id| id.contains("#maglev-dataplane@"))
    };
    scripts.find(ours)?["out_dir"].as_str().map(PathBuf::from)
}

/// Checks licences, sources and duplicate versions of the dependencies. Advisories are left out: their database is read from the
/// network, and the same commit must get the same answer everywhere.
fn dependencies() -> Result<()> {
    let cargo_deny = setup::cargo_deny()?;
    let arguments = ["--config", "deploy/deny.toml", "--locked", "check", "licenses", "bans", "sources"];
    program::run(program::command(cargo_deny).args(arguments))
}

fn cargo() -> std::process::Command {
    program::command(program::cargo())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_scripts_folder_is_read_from_cargos_messages() {
        let messages = r#"
{"reason":"compiler-artifact","package_id":"path+file:///w/maglev-daemon/crates/dataplane#maglev-dataplane@0.1.0"}
{"reason":"build-script-executed","package_id":"registry+https://example.org#zerocopy@0.8.0","out_dir":"/t/zerocopy"}
{"reason":"build-script-executed","package_id":"path+file:///w/maglev-daemon/crates/dataplane#maglev-dataplane@0.1.0","out_dir":"/t/maglev"}
"#;
        assert_eq!(out_dir(messages), Some(PathBuf::from("/t/maglev")));
        assert_eq!(out_dir(""), None);
    }
}
