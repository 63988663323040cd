//! The consequences of check results: pure state machines; results and times are parameters. They must not know
//! how a check is made, nor what a table is.
//!
//! ```text
//!              the first result                 `rise` successes, damped
//!   checking ─────────────────────▶ healthy ◀────────────────────────────┐
//!      │                               │                                 │
//!      │                               └── `fall` failures ──▶ unhealthy ┘
//!      └───────────────────────────────────────────────────▶ unhealthy
//! ```
//!
//! A target that is in use while it is being checked, after a restart or anew, becomes unhealthy by `fall` failures too.

mod all_dead;
mod check;
mod damping;
#[cfg(test)]
mod faults;
mod fleet;
mod member;
mod panic;
mod path;
mod pool;
mod tally;
mod target;

pub use check::Check;
pub use fleet::{Fleet, News};
pub use member::{Counts, Failure, Last, MemberHealth};
pub use panic::Panic;
pub use path::{CheckPath, NoPath, Order, Orders};
pub use target::{Target, Targets, targets};

#[cfg(test)]
mod tests;
