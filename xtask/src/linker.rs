//! bpf-linker: its path, and its build against the pinned toolchain's own LLVM; and the compiler flags that keep this machine's paths out of
//! what is built.
//!
//! `maglev-daemon/crates/dataplane/build.rs` includes this file by path, so that a bare `cargo build` provides the linker exactly as
//! `cargo xtask setup` does. It must therefore not use the rest of xtask, and use the standard library alone.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// The release for LLVM 22, the version of the pinned toolchain.
pub(crate) const VERSION: &str = "0.13.0";

/// The folder, under the workspace, that holds the repository's own build tools.
pub(crate) const TOOLS: &str = "target/tools";

/// The workspace's own linker, if it exists, is the pinned release, and finds the LLVM it was linked to.
///
/// Running it checks all three: without its toolchain it has no LLVM.
pub(crate) fn installed(workspace: &Path) -> Option<PathBuf> {
    let own = own(workspace);
    is_version(&own, VERSION).then_some(own)
}

/// Whether a program runs, and names this version as its own.
pub(crate) fn is_version(program: &Path, version: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| {
        let printed = String::from_utf8_lossy(&output.stdout);
        output.status.success() && printed.split_whitespace().any(|word| word == version)
    })
}

/// Builds the linker into the workspace's `target/tools`.
///
/// `rustc` and `cargo` are the programs of the pinned toolchain. Cargo's output goes to this process's own output.
///
/// # Errors
/// One line with the failed step.
pub(crate) fn install(workspace: &Path, rustc: &Path, cargo: &Path) -> Result<PathBuf, String> {
    let tools = workspace.join(TOOLS);
    let library = sysroot(rustc)?.join("lib");
    let prefix = llvm_prefix(&tools, &library)
        .map_err(|error| format!("cannot prepare {}: {error}", tools.join("llvm").display()))?;
    // Avoids cargo's advice to add the folder to PATH.
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([tools.join("bin")].into_iter().chain(env::split_paths(&path)))
        .map_err(|error| format!("PATH cannot be extended: {error}"))?;
    let status = without_cargo_environment(Command::new(cargo), rustc)
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", "llvm-22"])
        .arg("--root")
        .arg(&tools)
        .arg("--target-dir")
        .arg(tools.join("build"))
        .current_dir(workspace)
        .env("LLVM_PREFIX", prefix)
        .env("PATH", path)
        .env("CARGO_ENCODED_RUSTFLAGS", format!("-Clink-arg=-Wl,-rpath,{}", library.display()))
        .status()
        .map_err(|error| format!("cannot run {}: {error}", cargo.display()))?;
    if !status.success() {
        return Err(format!("cargo install bpf-linker {VERSION} failed ({status})"));
    }
    Ok(own(workspace))
}

/// A command without an outer cargo's variables about its own build, so that an inner cargo starts afresh.
///
/// Network, registry and home settings are the user's, and stay.
pub(crate) fn without_cargo_environment(mut command: Command, rustc: &Path) -> Command {
    let of_the_outer_build = |name: &str| {
        ["CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_PROFILE_", "CARGO_TARGET_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            || matches!(
                name,
                "CARGO_BUILD_TARGET"
                    | "CARGO_ENCODED_RUSTFLAGS"
                    | "CARGO_MAKEFLAGS"
                    | "DEBUG"
                    | "HOST"
                    | "MAKEFLAGS"
                    | "MFLAGS"
                    | "NUM_JOBS"
                    | "OPT_LEVEL"
                    | "OUT_DIR"
                    | "PROFILE"
                    | "RUSTC_LINKER"
                    | "RUSTC_WORKSPACE_WRAPPER"
                    | "RUSTC_WRAPPER"
                    | "RUSTDOC"
                    | "RUSTFLAGS"
                    | "TARGET"
            )
    };
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(of_the_outer_build) {
            command.env_remove(name);
        }
    }
    command.env("RUSTC", rustc);
    command
}

/// Compiler flags that replace the folders of this machine in debug information and messages, so that a build in another folder has the same
/// bytes: the workspace, the toolchain's source of `core`, and cargo's folder with the sources of dependencies.
///
/// # Errors
/// One line, if rustc does not run.
pub(crate) fn remaps(workspace: &Path, rustc: &Path) -> Result<[String; 3], String> {
    let source = sysroot(rustc)?.join("lib/rustlib/src/rust");
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo = env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let flag = |folder: &Path, name: &str| format!("--remap-path-prefix={}={name}", folder.display());
    // Of several that match, rustc takes the last.
    Ok([flag(workspace, "/maglev"), flag(&source, "/rust"), flag(&cargo, "/cargo")])
}

fn own(workspace: &Path) -> PathBuf {
    workspace.join(TOOLS).join("bin/bpf-linker")
}

/// The folder of `rustc`'s toolchain.
///
/// # Errors
/// One line, if rustc does not run.
pub(crate) fn sysroot(rustc: &Path) -> Result<PathBuf, String> {
    let output = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .map_err(|error| format!("cannot run {}: {error}", rustc.display()))?;
    let printed = String::from_utf8(output.stdout).map_err(|_| "rustc's sysroot is not UTF-8".to_owned())?;
    Ok(PathBuf::from(printed.trim()))
}

/// A folder in the shape the linker's build expects of an LLVM: `lib/libLLVM.so`, a link to the toolchain's own.
fn llvm_prefix(tools: &Path, library: &Path) -> io::Result<PathBuf> {
    let prefix = tools.join("llvm");
    let folder = prefix.join("lib");
    fs::create_dir_all(&folder)?;
    let link = folder.join("libLLVM.so");
    if fs::symlink_metadata(&link).is_ok() {
        fs::remove_file(&link)?;
    }
    std::os::unix::fs::symlink(toolchain_llvm(library)?, link)?;
    Ok(prefix)
}

/// The toolchain's `libLLVM.so.22.1-rust-…`; the older name `libLLVM-22-rust-….so` is a linker script.
fn toolchain_llvm(library: &Path) -> io::Result<PathBuf> {
    let is_llvm = |name: OsString| name.to_str().is_some_and(|name| name.starts_with("libLLVM.so.22."));
    for entry in fs::read_dir(library)? {
        let entry = entry?;
        if is_llvm(entry.file_name()) {
            return Ok(entry.path());
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("no libLLVM.so.22.* in {}", library.display())))
}
