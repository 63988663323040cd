//! The text of each view. It must not know how a view is requested.

pub(crate) mod backend;
pub(crate) mod bgp;
mod check;
mod decap;
mod history;
pub(crate) mod node;
pub(crate) mod pool;
mod runbook;
mod services;
mod status;
mod vip;

use maglev_api::view::DiffLine;

/// A line for each object in which two versions of the services differ.
fn difference(lines: &[DiffLine]) -> String {
    lines.iter().map(|DiffLine { added, object }| format!("{} {object}\n", if *added { '+' } else { '-' })).collect()
}

/// A count that may not be known yet.
pub(crate) fn count(count: Option<u32>) -> String {
    count.map_or_else(|| "?".to_owned(), |count| count.to_string())
}
