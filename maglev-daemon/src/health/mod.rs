//! Health: whether backends serve. What follows from checks is pure and stands in [`fsm`].

pub mod fsm;
