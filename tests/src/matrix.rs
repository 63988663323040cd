//! Rows of the interop matrix, as `cargo xtask test bgp` reads them off the tests' output.

use std::time::Instant;

use anyhow::Result;

/// Runs one case with one daemon and prints its row: `bgp`, the daemon, the case, `ok` or `FAILED`, milliseconds, and what
/// `case` has to say, between tabs.
///
/// # Errors
/// What `case` returns.
pub fn row(daemon: &str, name: &str, case: impl FnOnce() -> Result<String>) -> Result<()> {
    let began = Instant::now();
    let done = case();
    let took = began.elapsed().as_millis();
    let (verdict, said) = match &done {
        Ok(said) => ("ok", said.as_str()),
        Err(_) => ("FAILED", "see the test's message"),
    };
    println!("bgp\t{daemon}\t{name}\t{verdict}\t{took}\t{said}");
    done.map(drop)
}
