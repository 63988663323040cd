//! Health: whether backends serve. Checks are made in [`probe`], when [`scheduler`] says; what follows from their results is
//! pure and stands in [`fsm`].

pub mod fsm;
pub mod probe;
pub mod scheduler;
pub mod shortages;
mod slots;
