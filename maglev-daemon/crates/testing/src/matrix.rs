//! Rows of the matrices that `cargo xtask test bgp`, `health`, `store` and `faults` read off the tests' output.

use std::time::{Duration, Instant};

/// A row: the matrix, the subject, the case, `ok` or `FAILED`, milliseconds, and what there is to say, between tabs. It is
/// printed when the case is over.
pub struct Row {
    matrix: &'static str,
    subject: &'static str,
    case: String,
    began: Instant,
    said: String,
}

impl Row {
    /// A case with this daemon.
    pub fn bgp(daemon: &'static str, case: &str) -> Self {
        Self::begin("bgp", daemon, case)
    }

    /// A case of this: what is checked, or by what.
    pub fn health(subject: &'static str, case: &str) -> Self {
        Self::begin("health", subject, case)
    }

    /// A case of the fault with this number.
    pub fn fault(number: &'static str, case: &str) -> Self {
        Self::begin("fault", number, case)
    }

    /// A case of what is kept on the disk: what it is about.
    pub fn store(subject: &'static str, case: &str) -> Self {
        Self::begin("store", subject, case)
    }

    fn begin(matrix: &'static str, subject: &'static str, case: &str) -> Self {
        Self { matrix, subject, case: case.to_owned(), began: Instant::now(), said: String::new() }
    }

    /// Notes beside the time it took.
    pub fn says(&mut self, said: impl Into<String>) {
        self.said = said.into();
    }
}

/// Whether the case is to be run at its full size: in `cargo xtask test faults`, not in the suite.
pub fn is_full() -> bool {
    std::env::var_os("MAGLEV_FULL").is_some()
}

/// What something returns, and how long it takes: for tests of modules that know no clock.
pub fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    (what(), began.elapsed())
}

impl Drop for Row {
    fn drop(&mut self) {
        let Self { matrix, subject, case, began, said } = self;
        let (verdict, took) = (if std::thread::panicking() { "FAILED" } else { "ok" }, began.elapsed().as_millis());
        println!("{matrix}\t{subject}\t{case}\t{verdict}\t{took}\t{said}");
    }
}
