//! What tests of several crates share. It must not know what is tested.

mod directory;
pub mod docs;
pub mod matrix;
pub mod network;

pub use directory::TempDir;
