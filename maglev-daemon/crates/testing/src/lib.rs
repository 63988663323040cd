//! Helpers that tests of several crates share. It must not know the tested code.

mod directory;
pub mod docs;
pub mod matrix;
pub mod network;

pub use directory::TempDir;
