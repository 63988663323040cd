//! The lab: client, router, load balancers and backends in network namespaces, joined by veth pairs; the servers and
//! clients that use it; and the demo. It drives the shipped binaries from outside and knows nothing of their insides.

pub mod addresses;
#[cfg(feature = "bench")]
pub mod bench;
pub mod bytes;
pub mod checks;
pub mod client;
pub mod demo;
pub mod lab;
#[cfg(feature = "machine")]
pub mod machine;
pub mod matrix;
#[cfg(feature = "model")]
pub mod model;
pub mod netns;
pub mod packets;
pub mod release;
pub mod server;
pub mod soak;
pub mod trial;
pub mod wire;
