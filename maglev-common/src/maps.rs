//! The maps: names, capacities and flags, once for both sides.
//!
//! All but the device map are memory-mapped arrays, so user space reads and writes them without a system call, and the
//! kernel looks them up without a function call. What is per CPU is one array with a value, or a region, for each possible
//! CPU.

/// `BPF_F_MMAPABLE`: user space maps the array into its memory.
pub const MMAPABLE: u32 = 1 << 10;

/// VIPs a node can have.
pub const MAX_VIPS: u32 = 4_096;
/// VIPs a node can have by default: with so few, no look-up of a VIP takes a second memory access.
pub const DEFAULT_VIPS: u32 = 512;
/// Pools a node can have.
pub const MAX_POOLS: u32 = 2_048;
/// Pools a node can have by default. Each takes the memory of a table, 131 KB.
pub const DEFAULT_POOLS: u32 = 512;
/// Members a node can have: one less than the ids that fit fifteen bits, because 0 is no member.
pub const MAX_MEMBERS: u32 = 32_767;
/// Tables beyond one for each pool: the empty one, the previous owners of as many pools as learn at once, and what is built
/// aside while the old one is still in use.
pub const SPARE_TABLES: u32 = 136;
/// Interfaces through which packets can leave.
pub const MAX_INTERFACES: u32 = 64;
/// Sets of each CPU's flow table by default: 2^16 of seven flows, 4 MiB per CPU.
pub const DEFAULT_FLOW_SETS: u32 = 1 << 16;

/// One [`crate::forwarding::Forwarding`], and the node's tables behind it.
pub const FORWARDING: &str = "FORWARDING";
/// The device map: an interface index per interface slot.
pub const DEVICES: &str = "DEVICES";
/// [`crate::flow::Bucket`]s: a region of as many sets for each possible CPU.
pub const FLOWS: &str = "FLOWS";
/// The same of a flow table of another size that this one follows: read only. Without such a one, a set that nothing reads.
pub const FLOWS_BEFORE: &str = "FLOWS_BEFORE";
/// [`crate::fragment::Line`]s: one table for all CPUs.
pub const FRAGMENTS: &str = "FRAGMENTS";
/// [`crate::counters::Counts`] for each possible CPU, and one more: what was counted in a map of another layout.
pub const COUNTS: &str = "COUNTS";

/// One [`crate::capture::Filters`]: of the program that captures alone, as the next two are.
pub const CAPTURE_FILTERS: &str = "CAPTURE_FILTERS";
/// [`crate::capture::CaptureState`] for each possible CPU.
pub const CAPTURE_STATE: &str = "CAPTURE_STATE";
/// A ring of [`crate::capture::Record`]s and the bytes behind them.
pub const CAPTURED: &str = "CAPTURED";

/// The source prefixes that `decap` accepts: longest-prefix-match trie of IPv4 addresses. A value of 0 rejects part of a
/// shorter prefix.
pub const DECAP_SOURCES4: &str = "DECAP_SOURCES4";
/// The source prefixes that `decap` accepts: longest-prefix-match trie of IPv6 addresses.
pub const DECAP_SOURCES6: &str = "DECAP_SOURCES6";
/// The prefixes that the VIPs' IPv4 addresses are of: like [`DECAP_SOURCES4`].
pub const DECAP_VIPS4: &str = "DECAP_VIPS4";
/// The same for IPv6.
pub const DECAP_VIPS6: &str = "DECAP_VIPS6";
/// A word per [`crate::counters::DecapCounter`]: a region of [`COUNTER_REGION`] for each possible CPU.
pub const DECAP_COUNTERS: &str = "DECAP_COUNTERS";
/// [`crate::syn::SynWord`]s: an array of one map that all interfaces of a process share. It is not pinned: its content is worth
/// nothing a minute later.
pub const DECAP_SYNS: &str = "DECAP_SYNS";
/// The maps of `decap` that are pinned.
pub const DECAP_MAPS: [&str; 5] = [DECAP_SOURCES4, DECAP_SOURCES6, DECAP_VIPS4, DECAP_VIPS6, DECAP_COUNTERS];
/// Source prefixes per family that `decap` can be given.
pub const MAX_DECAP_SOURCES: u32 = 256;
/// Entries in a trie of sources: new ones are written before old ones are removed.
pub const DECAP_SOURCES_ROOM: u32 = 2 * MAX_DECAP_SOURCES;
/// Prefixes per family that `decap` serves.
pub const MAX_DECAP_VIPS: u32 = 4_096;
/// Entries in a trie of VIPs: an IPv4 prefix takes two, the second one for its broadcast address; and new ones are written
/// before old ones are removed.
pub const DECAP_VIPS_ROOM: u32 = 4 * MAX_DECAP_VIPS;

/// Words in a CPU's region of the counters: whole cache lines, with room to grow.
pub const COUNTER_REGION: u32 = 64;

/// The program that balances.
pub const PROGRAM: &str = "maglev";
/// The same, and it drops packets for VIPs once the daemon counts as gone.
pub const WATCHED_PROGRAM: &str = "maglev_watched";
/// The same as that, and it logs each decision.
pub const TRACED_PROGRAM: &str = "maglev_traced";
/// The program that balances while packets are captured; it has a watchdog.
pub const CAPTURED_PROGRAM: &str = "maglev_captured";
/// The program at the interfaces' egress, which encapsulates health checks.
pub const EGRESS_PROGRAM: &str = "maglev_egress";
/// The program that decapsulates on a backend.
pub const DECAP_PROGRAM: &str = "decap";
/// The program at the egress of a backend's interfaces, which lowers the MSS.
pub const DECAP_EGRESS_PROGRAM: &str = "decap_egress";
/// A program that passes every packet: for the peer of a transmitting veth.
pub const PASS_PROGRAM: &str = "pass";
