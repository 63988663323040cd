//! Binaries that stand for other releases: `maglevd` with another eBPF object in it. It must not know how they are started.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::lab::binary;

/// How the embedded eBPF object differs from the one that ships.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// In a byte that no loader reads, this one: it is another object by its digest, and does the same.
    Digest(u8),
    /// In its instructions: the kernel refuses to load it.
    Instructions,
}

/// An ELF file of 64 bits, little-endian; then padding.
const IDENT: &[u8] = b"\x7fELF\x02\x01\x01\0";
/// The offset of the machine in an ELF header, and eBPF's number.
const MACHINE: usize = 18;
const BPF: [u8; 2] = [247, 0];
/// The last byte of `e_ident`, which is padding.
const PADDING: usize = 15;
/// `exit`, with which every program ends.
const EXIT: &[u8] = &[0x95, 0, 0, 0, 0, 0, 0, 0];
/// An instruction that there is not.
const INVALID: u8 = 0xff;

/// Writes a `maglevd` of another release to `path`.
///
/// # Errors
/// If it cannot be written, or has no eBPF object in it.
pub fn write(path: &Path, difference: Difference) -> Result<PathBuf> {
    write_from(&binary("maglevd")?, path, difference)
}

/// The same from this `maglevd`.
///
/// # Errors
/// As above.
pub fn write_from(original: &Path, path: &Path, difference: Difference) -> Result<PathBuf> {
    let mut bytes = fs::read(original).with_context(|| format!("cannot read {}", original.display()))?;
    let objects = objects(&bytes);
    ensure!(!objects.is_empty(), "maglevd has no eBPF object in it");
    for at in objects {
        match difference {
            Difference::Digest(byte) => bytes[at + PADDING] = byte,
            Difference::Instructions => spoil(&mut bytes[at..]),
        }
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(path.to_owned())
}

/// Where the embedded objects begin.
fn objects(bytes: &[u8]) -> Vec<usize> {
    let is_object = |at: &usize| bytes.get(at + MACHINE..at + MACHINE + 2) == Some(&BPF);
    let starts = bytes.windows(IDENT.len()).enumerate().filter(|(_, window)| *window == IDENT).map(|(at, _)| at);
    starts.filter(is_object).collect()
}

/// Makes the first program's end another instruction.
fn spoil(object: &mut [u8]) {
    let exit = object.windows(EXIT.len()).position(|window| window == EXIT);
    if let Some(at) = exit {
        object[at] = INVALID;
    }
}
