//! How eBPF objects are built: the binaries of a package, by a cargo of its own, with `core` built from source for the bpf
//! target. The build scripts of the crates that embed objects include this file and `xtask/src/linker.rs` by path. Nothing here
//! knows what is in the programs. (The aya project's build crate cannot choose a CPU level, which is why this stands here.)

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::linker;

/// Compiler flags of the eBPF object, beside `--cfg bpf_target_arch`.
const FLAGS: [&str; 4] = [
    // BTF is made from debug information.
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    // 32-bit jumps and ALU: every kernel since 5.1.
    "-Ctarget-cpu=v3",
    // Headers stand two bytes off an aligned address; without this one u64 is eight byte loads.
    "-Ctarget-feature=+allows-misaligned-mem-access",
];

/// Builds all binaries of a package, and copies these objects to `OUT_DIR`.
///
/// # Errors
/// One line that says what failed.
pub(crate) fn build(package: &str, objects: &[&str]) -> Result<(), String> {
    let folder = variable("CARGO_MANIFEST_DIR")?;
    let is_workspace = |folder: &&Path| folder.join("rust-toolchain.toml").is_file();
    let workspace = folder.ancestors().find(is_workspace).map(Path::to_owned).ok_or("no workspace folder")?;
    for source in [
        "maglev-ebpf/objects.rs",
        "maglev-ebpf/src",
        "maglev-ebpf/Cargo.toml",
        "maglev-common",
        "Cargo.lock",
        "Cargo.toml",
        "rust-toolchain.toml",
        "xtask/src/linker.rs",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    println!("cargo::rerun-if-changed=build.rs");

    let out = variable("OUT_DIR")?;
    let (cargo, rustc) = (variable("CARGO")?, variable("RUSTC")?);
    let linker = match linker::installed(&workspace).or_else(linker_in_path) {
        Some(linker) => linker,
        None => linker::install(&workspace, &rustc, &cargo)
            .map_err(|error| format!("no bpf-linker: {error}; run `cargo xtask setup`"))?,
    };
    println!("cargo::rerun-if-changed={}", linker.display());
    let built = compile(package, &workspace, &cargo, &rustc, &linker, &shared(&out))?;
    for name in objects {
        let object = built.join(name);
        fs::copy(&object, out.join(name)).map_err(|error| format!("cannot copy {}: {error}", object.display()))?;
    }
    Ok(())
}

/// Whatever the user provides.
fn linker_in_path() -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join("bpf-linker")).find(|file| file.is_file())
}

/// The inner cargo's target folder, which all profiles of the outer one share: the objects are the same in each, and `core`
/// is built once. `OUT_DIR` is `TARGET/PROFILE/build/PACKAGE/out`.
fn shared(out: &Path) -> PathBuf {
    out.ancestors().nth(4).unwrap_or(out).join("ebpf")
}

/// Runs the inner cargo; its target folder is its own, because the outer one holds the lock of the usual one.
fn compile(
    package: &str,
    workspace: &Path,
    cargo: &Path,
    rustc: &Path,
    linker: &Path,
    folder: &Path,
) -> Result<PathBuf, String> {
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let arch = env::var("CARGO_CFG_TARGET_ARCH").map_err(|_| "CARGO_CFG_TARGET_ARCH is not set")?;
    let mut flags = vec!["--cfg".to_owned(), format!("bpf_target_arch=\"{arch}\"")];
    flags.extend(FLAGS.map(str::to_owned));
    // The object's digest does not depend on the folder that it is built in.
    flags.extend(linker::remaps(workspace, rustc)?);

    let status = linker::without_cargo_environment(Command::new(cargo), rustc)
        .args(["build", "--package", package, "--bins", "--profile", "bpf"])
        .args(["-Zbuild-std=core", "--target", target, "--target-dir"])
        .arg(folder)
        .current_dir(workspace)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env(format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_")), linker)
        .status()
        .map_err(|error| format!("cannot run {}: {error}", cargo.display()))?;
    if status.success() {
        Ok(folder.join(target).join("bpf"))
    } else {
        Err(format!("the eBPF object did not build ({status}); its compiler's words are above"))
    }
}

fn variable(name: &str) -> Result<PathBuf, String> {
    env::var_os(name).map(PathBuf::from).ok_or_else(|| format!("{name} is not set"))
}
