//! The pages of the manual as tests see them: generated parts, samples of output, commands in fences and in sentences. It must not
//! know the content of any of them.

mod commands;
mod fences;
#[cfg(test)]
mod links;
pub mod manual;
mod pages;
#[cfg(test)]
mod tests;

pub use commands::{Command, fenced, mentioned};
pub use fences::{Fence, fences};
pub use pages::{Page, hold, hold_samples, pages, root};
