//! What the packet path needs of its surroundings, one trait per capability, and the plain values that pass between the path's
//! parts. A part names the capabilities it uses. It must not know the parts.

mod chain;
pub mod decision;
mod packet;
mod tables;

pub use chain::Chain;
pub use decision::{Choice, Decision, Ends, Flow, Segment};
pub use packet::{Header, Outer, Packet, Tagged};
pub use tables::{
    Answers, Balancing, Clock, Counters, DecapTables, Flows, Forwarding, Fragments, Ingress, Syns, Trace,
};
