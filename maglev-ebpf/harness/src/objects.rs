//! The objects, as this crate's build script made them. A loader reads ELF headers in place, so they stand aligned.

/// Bytes that begin where any ELF header may.
#[repr(C, align(32))]
struct Aligned<T: ?Sized>(T);

static ALIGNED_HARNESS: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/maglev-harness")));
static ALIGNED_MEASURED: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/maglev-measured")));
static ALIGNED_FAULTY: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/maglev-faulty")));
static ALIGNED_EARLIER: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/maglev-earlier")));

/// The harness and its floors.
pub static HARNESS: &[u8] = &ALIGNED_HARNESS.0;
/// The load balancer that minds [`MODE`](crate::MODE).
pub static MEASURED: &[u8] = &ALIGNED_MEASURED.0;
/// The load balancer with a [`Fault`](crate::Fault).
pub static FAULTY: &[u8] = &ALIGNED_FAULTY.0;
/// A backend's program of another release, on the same maps: it counts each packet as `mss_lowered` too.
pub static EARLIER: &[u8] = &ALIGNED_EARLIER.0;
