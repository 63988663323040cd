//! Settings: load-time globals, which are constants to the verifier, and what a pool's word carries.

/// Sets of a CPU's flow table, a power of two (`u32`).
pub const FLOW_SETS: &str = "FLOW_SETS";
/// Sets of a CPU's region of [`crate::maps::FLOWS_BEFORE`], a power of two, or 0 (`u32`).
pub const FLOW_SETS_BEFORE: &str = "FLOW_SETS_BEFORE";
/// Slots of all tables, padding included (`u32`): what the packet path reads of them.
pub const TABLE_WORDS: &str = "TABLE_WORDS";
/// Packets that a CPU may answer in a second, ICMP among them (`u32`).
pub const ANSWERS_PER_SECOND: &str = "ANSWERS_PER_SECOND";
/// Datagrams in fragments that may begin on a CPU in a second (`u32`).
pub const FRAGMENTED_PER_SECOND: &str = "FRAGMENTED_PER_SECOND";
/// Seconds per jiffy as a fraction of 2^32 (`u64`): HZ is asked of the kernel at start, not assumed.
pub const SECONDS_PER_JIFFY: &str = "SECONDS_PER_JIFFY";
/// [`Mss::bits`] of a backend (`u32`).
pub const DECAP_MSS: &str = "DECAP_MSS";

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

/// How the MSS in a backend's answers to encapsulated SYNs is lowered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mss {
    /// Not at all.
    #[default]
    Off,
    /// So that a client's packet fits, with its outer header, the interface that the SYN came in by.
    Auto,
    /// To this for IPv4, and to 20 less for IPv6, so that packets of both have the same length: [`Self::LEAST`] to
    /// [`Self::MOST`].
    Limit(u16),
}

impl Mss {
    /// The least limit: the MSS that every IPv4 host takes (RFC 9293 section 3.7.1).
    pub const LEAST: u16 = 536;
    /// The largest: the longest IPv4 packet, less the IP and TCP headers.
    pub const MOST: u16 = u16::MAX - 40;

    /// As a load-time constant.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Off => 0,
            Self::Auto => 1,
            Self::Limit(limit) => limit as u32,
        }
    }

    /// The reverse of [`Self::bits`].
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        match bits {
            0 => Self::Off,
            1 => Self::Auto,
            limit => Self::Limit(limit as u16),
        }
    }
}
