//! Rows of the matrices that `cargo xtask test bgp`, `health`, `store`, `packets`, `hitless`, `machines` and `faults` read off the
//! tests' output.

use std::time::Instant;

use anyhow::Result;

/// One of the matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrix {
    /// The subject of a row is the other implementation.
    Bgp,
    /// The subject of a row is what is checked, or where.
    Health,
    /// The subject of a row is the fault's number.
    Fault,
    /// The subject of a row is what is done to what is kept.
    Store,
    /// The subject of a row is the kind of packet, or of link.
    Packets,
    /// The subject of a row is what happens to the daemon.
    Hitless,
    /// The subject of a row is what happens to the package or the machine.
    Machines,
}

/// Whether the case is to be run at its full size, which may take minutes: in `cargo xtask test faults`, not in the suite.
pub fn is_full() -> bool {
    std::env::var_os("MAGLEV_FULL").is_some()
}

impl Matrix {
    /// Runs one case and prints its row: the matrix, the subject, the case, `ok` or `FAILED`, milliseconds, and what `case`
    /// has to say, between tabs.
    ///
    /// # Errors
    /// The result of `case`.
    pub fn row(self, subject: &str, name: &str, case: impl FnOnce() -> Result<String>) -> Result<()> {
        let began = Instant::now();
        let done = case();
        let took = began.elapsed().as_millis();
        let (verdict, said) = match &done {
            Ok(said) => ("ok", said.as_str()),
            Err(_) => ("FAILED", "see the test's message"),
        };
        let matrix = self.name();
        println!("{matrix}\t{subject}\t{name}\t{verdict}\t{took}\t{said}");
        done.map(drop)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Bgp => "bgp",
            Self::Health => "health",
            Self::Fault => "fault",
            Self::Store => "store",
            Self::Packets => "packets",
            Self::Hitless => "hitless",
            Self::Machines => "machines",
        }
    }
}
