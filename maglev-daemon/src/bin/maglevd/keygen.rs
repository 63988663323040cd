//! `maglevd keygen`: a new key for the flow hash.

use std::fs::File;
use std::io::Read as _;

use anyhow::Context as _;
use maglev_daemon::runtime::Failure;

use crate::say;

/// Prints 128 bits from the kernel's random number generator, as 32 hexadecimal digits.
pub(super) fn run() -> Result<(), Failure> {
    let mut key = [0; 16];
    let source = "/dev/urandom";
    File::open(source)
        .and_then(|mut file| file.read_exact(&mut key))
        .with_context(|| format!("cannot read {source}"))?;
    say(&format!("{:032x}", u128::from_be_bytes(key)))
}
