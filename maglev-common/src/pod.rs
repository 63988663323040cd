//! The unit in which both sides share memory: one aligned 64-bit word, read and written whole.

#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::{AtomicU64, Ordering};
use core::{cell::UnsafeCell, fmt};

use zerocopy::{FromBytes, IntoBytes};

/// One aligned 64-bit word of a map, shared between the kernel's CPUs and user space.
///
/// A word is never torn: it is loaded and stored by one instruction on every supported machine. Ordering between
/// words is not promised. Where it matters, user space publishes through a single word after a
/// `membarrier(MEMBARRIER_CMD_GLOBAL)`, and the XDP program reads that word first.
///
/// On the host it is an atomic. The bpf target's compiler selects no atomic load or store below CPU level 4, and there
/// an aligned volatile access is what one is: a single instruction that is neither torn, repeated nor left out.
#[derive(Default, FromBytes, IntoBytes)]
#[repr(C, align(8))]
pub struct Word(UnsafeCell<u64>);

// SAFETY: the cell is reached through the methods below alone, and each access there is one whole load or store.
unsafe impl Sync for Word {}

impl Word {
    /// A word that holds `value`.
    pub const fn new(value: u64) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Reads the word.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        #[cfg(not(target_arch = "bpf"))]
        return self.atomic().load(Ordering::Relaxed);
        // SAFETY: the pointer comes from a reference to a word, hence is valid and aligned.
        #[cfg(target_arch = "bpf")]
        unsafe {
            self.0.get().read_volatile()
        }
    }

    /// Replaces the word.
    #[inline(always)]
    pub fn set(&self, value: u64) {
        #[cfg(not(target_arch = "bpf"))]
        self.atomic().store(value, Ordering::Relaxed);
        // SAFETY: the pointer comes from a reference to a word, hence is valid and aligned; a cell may be written.
        #[cfg(target_arch = "bpf")]
        unsafe {
            self.0.get().write_volatile(value);
        }
    }

    /// Adds to a word that only this CPU writes: a load and a store, no locked instruction.
    #[inline(always)]
    pub fn add_unshared(&self, value: u64) {
        self.set(self.get().wrapping_add(value));
    }

    /// Replaces the word if it still holds `old`; tells whether it did. For user space, which clears what the
    /// kernel may be rewriting at the same moment.
    #[cfg(not(target_arch = "bpf"))]
    pub fn replace(&self, old: u64, new: u64) -> bool {
        self.atomic().compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    #[cfg(not(target_arch = "bpf"))]
    #[inline(always)]
    fn atomic(&self) -> &AtomicU64 {
        // SAFETY: the pointer comes from a reference, so it is valid as long as `self` is; the type is aligned to
        // eight bytes; and on the host nothing but this function reaches the cell, so every access is atomic.
        unsafe { AtomicU64::from_ptr(self.0.get()) }
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Word").field(&self.get()).finish()
    }
}

impl Clone for Word {
    fn clone(&self) -> Self {
        Self::new(self.get())
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
