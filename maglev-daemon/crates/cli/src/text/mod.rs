//! How answers read: the text of each view. It must not know how an answer was asked for.

mod backend;
mod bgp;
mod check;
mod history;
pub(crate) mod node;
mod pool;
mod status;
mod vip;

/// A count that may not be known yet.
fn count(count: Option<u32>) -> String {
    count.map_or_else(|| "?".to_owned(), |count| count.to_string())
}
