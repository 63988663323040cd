//! The unit in which both sides share memory: one aligned 64-bit word, read and written whole.

use core::sync::atomic::{AtomicU64, Ordering};

use zerocopy::{FromBytes, IntoBytes};

/// One aligned 64-bit word of a map, shared between the kernel's CPUs and user space.
///
/// A word is never torn: it is loaded and stored by one instruction on every supported machine. Ordering between
/// words is not promised. Where it matters, user space publishes through a single word after a
/// `membarrier(MEMBARRIER_CMD_GLOBAL)`, and the XDP program reads that word first.
#[derive(Debug, Default, FromBytes, IntoBytes)]
#[repr(transparent)]
pub struct Word(AtomicU64);

impl Word {
    /// A word that holds `value`.
    pub const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// Reads the word.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Replaces the word.
    #[inline(always)]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
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
        self.0.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
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
