//! What is set up wrong on a node or a backend: pure from facts to findings, each with its remedy and its page of the manual. It must
//! not know netlink, programs or the daemon; only [`gather`] reads files.
//!
//! ```text
//!  gather: /proc, /sys, modes of files ─┐
//!  the daemon: netlink, drivers, views ─┼─▶ facts ─▶ node, backend ─▶ findings
//!  configuration ───────────────────────┘
//! ```

mod backend;
mod daemon;
pub mod facts;
mod files;
pub mod gather;
mod host;
mod interface;
mod node;
mod paths;
mod report;
#[cfg(test)]
mod tests;

pub use backend::backend;
pub use node::node;
