//! Settings: load-time globals, which are constants to the verifier, and what a pool's word carries.

/// Sets of a CPU's flow table, a power of two (`u32`).
pub const FLOW_SETS: &str = "FLOW_SETS";
/// Whether each packet costs one call of a helper more than it has to (`u32`, 0 or 1): for the tests of the benchmark.
pub const SLOWED: &str = "SLOWED";
/// Seconds per jiffy as a fraction of 2^32 (`u64`): HZ is asked of the kernel at start, not assumed.
pub const SECONDS_PER_JIFFY: &str = "SECONDS_PER_JIFFY";

/// When the flow table is consulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// Never: the table alone decides. For measurement.
    None,
    /// For every packet; every flow is recorded.
    Always,
}
