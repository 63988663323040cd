//! Settings: load-time globals, which are constants to the verifier, and what a pool's word carries.

/// Sets of a CPU's flow table, a power of two (`u32`).
pub const FLOW_SETS: &str = "FLOW_SETS";
/// The words of the flow hash's expanded key (`u64`, [`crate::hash::KEY_WORDS`] of them).
pub const HASH_KEY: &str = "HASH_KEY";
/// Packets that a CPU may answer in a second, ICMP among them (`u32`).
pub const ANSWERS_PER_SECOND: &str = "ANSWERS_PER_SECOND";
/// Seconds per jiffy as a fraction of 2^32 (`u64`): HZ is asked of the kernel at start, not assumed.
pub const SECONDS_PER_JIFFY: &str = "SECONDS_PER_JIFFY";

/// When the flow table is consulted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tracking {
    /// For packets of slots in transition alone: *affinity by exception*.
    #[default]
    Exception,
    /// For every packet; every flow is recorded. The Maglev paper's design (section 3.1).
    Always,
}

/// The handling of a packet to a VIP's address that no backend can be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Unserved {
    /// It is dropped: its sender waits, and tries again.
    #[default]
    Drop,
    /// TCP is answered with a RST, UDP with an ICMP *port unreachable*: its sender fails at once.
    Reset,
}

/// Which echo requests to a VIP's address are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Echo {
    /// All.
    #[default]
    Always,
    /// Those to an address of which at least one VIP has a backend that takes new flows.
    Serving,
    /// None.
    Off,
}

/// The handling of a datagram without an entry while its slot is learning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UdpPolicy {
    /// It goes to the slot's owner: each request stands for itself, as DNS's do.
    #[default]
    New,
    /// It goes to the previous owner, as a TCP segment does: datagrams make up connections, as QUIC's do.
    Keep,
}
