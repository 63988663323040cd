//! Health checks: made in [`probe`], when [`scheduler`] says. What follows from their results is pure and stands in
//! `maglev-core`.

pub mod probe;
pub mod scheduler;
pub mod shortages;
mod slots;
