//! The units in which both sides share memory: aligned 64-bit words, and 16-bit ones, read and written whole.

use core::cell::UnsafeCell;
use core::fmt;

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

/// One aligned 64-bit word of a map, shared between the kernel's CPUs and user space.
///
/// A word is never torn: it is loaded and stored by one instruction on every supported machine. Ordering between
/// words is not promised by a word itself. Where it matters, user space publishes through a single word after a release
/// fence, and the XDP program finds everything else through that word; what was published before is used again only after
/// every packet that could still read it has ended (`membarrier(MEMBARRIER_CMD_GLOBAL)`).
// A cell rather than an `AtomicU64`: the bpf target has no compare-and-swap, and zerocopy knows atomics only where one
// exists.
#[derive(Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C, align(8))]
pub struct Word(UnsafeCell<u64>);

// SAFETY: every access through a shared reference goes through `access`, whose accesses are single whole loads and stores.
unsafe impl Sync for Word {}

impl Word {
    /// A word that holds `value`.
    pub const fn new(value: u64) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Reads the word.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        access::load(&self.0)
    }

    /// Replaces the word.
    #[inline(always)]
    pub fn set(&self, value: u64) {
        access::store(&self.0, value);
    }

    /// Adds to a word that only this CPU writes: a load and a store, no locked instruction.
    #[inline(always)]
    pub fn add_unshared(&self, value: u64) {
        self.set(self.get().wrapping_add(value));
    }

    /// Replaces the word if it still holds `old`; returns whether it did. For user space, which clears words that the
    /// kernel may be rewriting at the same moment.
    #[cfg(not(target_arch = "bpf"))]
    pub fn replace(&self, old: u64, new: u64) -> bool {
        access::compare_exchange(&self.0, old, new)
    }
}

/// The same in 16 bits: what tables are made of.
#[derive(Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C, align(2))]
pub struct Short(UnsafeCell<u16>);

// SAFETY: as for `Word`.
unsafe impl Sync for Short {}

impl Short {
    /// Reads it.
    #[inline(always)]
    pub fn get(&self) -> u16 {
        access::load_short(&self.0)
    }

    /// Replaces it.
    #[inline(always)]
    pub fn set(&self, value: u16) {
        access::store_short(&self.0, value);
    }
}

impl fmt::Debug for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.get())
    }
}

#[cfg(not(target_arch = "bpf"))]
mod access {
    //! Both as atomics.

    use core::cell::UnsafeCell;
    use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};

    fn atomic(cell: &UnsafeCell<u64>) -> &AtomicU64 {
        // SAFETY: the pointer is aligned to eight bytes (`Word` is) and valid for as long as the cell is borrowed, and
        // nothing but this module reads or writes the cell.
        unsafe { AtomicU64::from_ptr(cell.get()) }
    }

    fn atomic_short(cell: &UnsafeCell<u16>) -> &AtomicU16 {
        // SAFETY: as for `atomic`, aligned to two bytes (`Short` is).
        unsafe { AtomicU16::from_ptr(cell.get()) }
    }

    #[inline(always)]
    pub(super) fn load(cell: &UnsafeCell<u64>) -> u64 {
        atomic(cell).load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn store(cell: &UnsafeCell<u64>, value: u64) {
        atomic(cell).store(value, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn load_short(cell: &UnsafeCell<u16>) -> u16 {
        atomic_short(cell).load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn store_short(cell: &UnsafeCell<u16>, value: u16) {
        atomic_short(cell).store(value, Ordering::Relaxed);
    }

    pub(super) fn compare_exchange(cell: &UnsafeCell<u64>, old: u64, new: u64) -> bool {
        atomic(cell).compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

#[cfg(target_arch = "bpf")]
mod access {
    //! Both as the kernel's READ_ONCE and WRITE_ONCE treat them: LLVM selects no relaxed atomics for bpf.

    use core::cell::UnsafeCell;

    #[inline(always)]
    pub(super) fn load(cell: &UnsafeCell<u64>) -> u64 {
        // SAFETY: the cell is valid and aligned while borrowed. A volatile access of an aligned word is one load, which
        // is what makes it whole under concurrent stores of other CPUs and of user space.
        unsafe { cell.get().read_volatile() }
    }

    #[inline(always)]
    pub(super) fn store(cell: &UnsafeCell<u64>, value: u64) {
        // SAFETY: as for `load`.
        unsafe { cell.get().write_volatile(value) }
    }

    #[inline(always)]
    pub(super) fn load_short(cell: &UnsafeCell<u16>) -> u16 {
        // SAFETY: as for `load`.
        unsafe { cell.get().read_volatile() }
    }

    #[inline(always)]
    pub(super) fn store_short(cell: &UnsafeCell<u16>, value: u16) {
        // SAFETY: as for `load`.
        unsafe { cell.get().write_volatile(value) }
    }
}

impl Clone for Word {
    fn clone(&self) -> Self {
        Self::new(self.get())
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.get())
    }
}

impl PartialEq for Word {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Word {}

#[cfg(test)]
mod tests {
    use super::Word;

    #[test]
    fn replace_refuses_a_word_that_changed() {
        let word = Word::new(7);
        assert!(!word.replace(8, 9));
        assert_eq!(word.get(), 7);
        assert!(word.replace(7, 9));
        assert_eq!(word.get(), 9);
    }
}
