//! The edges of the control flow that a run has taken, as LLVM's SanitizerCoverage counts them (`inline-8bit-counters`): a byte for
//! each edge of the instrumented crates. It must not know what runs.

use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// The counters' first byte, and how many there are.
static FIRST: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Called by each instrumented module before `main`: all name the same counters, those of the whole program.
///
/// # Safety
/// The bytes between the pointers are counters, which live as long as the program.
#[unsafe(no_mangle)]
unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(first: *mut u8, end: *mut u8) {
    FIRST.store(first, Ordering::Relaxed);
    COUNT.store((end as usize).saturating_sub(first as usize), Ordering::Relaxed);
}

/// How many edges the compiler counts: 0 if it was not asked to.
pub fn edges() -> usize {
    COUNT.load(Ordering::Relaxed)
}

/// Forgets what was counted.
pub fn reset() {
    let (first, count) = (FIRST.load(Ordering::Relaxed), edges());
    if count > 0 {
        // SAFETY: the program's counters, as it reported them. Other threads may count meanwhile: a count may be lost.
        unsafe { first.write_bytes(0, count) };
    }
}

/// Calls `taken` with the number and the count of each edge that was taken since [`reset`].
pub fn each_taken(mut taken: impl FnMut(usize, u8)) {
    let (first, count) = (FIRST.load(Ordering::Relaxed), edges());
    let mut at = 0;
    while at < count {
        if at + 8 <= count {
            // SAFETY: eight of the program's counters, at any address.
            let eight = unsafe { first.add(at).cast::<u64>().read_unaligned() };
            if eight == 0 {
                at += 8;
                continue;
            }
        }
        for n in at..count.min(at + 8) {
            // SAFETY: one of the program's counters.
            let times = unsafe { first.add(n).read() };
            if times > 0 {
                taken(n, times);
            }
        }
        at += 8;
    }
}
