//! Health checks: made in [`probe`], at the times of [`scheduler`]. The consequences of their results are pure and stand in
//! `maglev-core`.

pub mod probe;
pub mod scheduler;
pub mod shortages;
mod slots;
