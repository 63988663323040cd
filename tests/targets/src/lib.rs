//! Coverage-guided fuzzing. A target runs on bytes and says what it did wrong; the loop keeps inputs that reach code that no other
//! has reached, and changes them further.
//!
//! ```text
//!  seeds ──▶ corpus ──▶ change ──▶ target ──▶ failure: shrink, report
//!               ▲                    │
//!               └── new coverage ◀───┘
//! ```

pub mod change;
pub mod coverage;
pub mod fuzz;
pub mod targets;
