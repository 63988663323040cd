//! Health: whether backends serve. Checks are made in [`probe`]; what
//! follows from their results is pure and stands in [`fsm`].

pub mod fsm;
pub mod probe;
