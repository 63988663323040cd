//! Numbers to allocate: member ids in a cycle, so that a freed one rests long; the lowest free pool, VIP and table number. It
//! must not know their users.

use std::collections::BTreeSet;

use maglev_common::backend::MemberId;

/// Member ids, 1 to a limit.
#[derive(Clone, Debug)]
pub(super) struct MemberIds {
    /// By id; 0 is always taken.
    taken: Vec<bool>,
    free: usize,
    cursor: usize,
}

impl MemberIds {
    pub(super) fn new(limit: u32) -> Self {
        let limit = limit.min(u32::from(MemberId::MAX)) as usize;
        let mut taken = vec![false; limit + 1];
        taken[0] = true;
        Self { taken, free: limit, cursor: 0 }
    }

    pub(super) fn free(&self) -> usize {
        self.free
    }

    /// The next free id after the one allocated last.
    pub(super) fn take(&mut self) -> Option<MemberId> {
        let count = self.taken.len();
        let id = (1..=count).map(|step| (self.cursor + step) % count).find(|&id| !self.taken[id])?;
        self.taken[id] = true;
        self.free -= 1;
        self.cursor = id;
        MemberId::new(u16::try_from(id).ok()?)
    }

    /// The id allocated last; 0 before the first.
    pub(super) fn last(&self) -> u16 {
        u16::try_from(self.cursor).unwrap_or(0)
    }

    /// Continues after this id, as if it had been allocated last.
    pub(super) fn go_on_after(&mut self, last: u16) {
        self.cursor = usize::from(last) % self.taken.len();
    }

    /// Allocates this id. Returns whether it was free.
    pub(super) fn claim(&mut self, id: MemberId) -> bool {
        match self.taken.get_mut(usize::from(id.get())).filter(|taken| !**taken) {
            Some(taken) => {
                *taken = true;
                self.free -= 1;
                true
            }
            None => false,
        }
    }

    pub(super) fn release(&mut self, id: MemberId) {
        if let Some(taken) = self.taken.get_mut(usize::from(id.get())).filter(|taken| **taken) {
            *taken = false;
            self.free += 1;
        }
    }
}

/// The free numbers of a range; the lowest is allocated first.
#[derive(Clone, Debug)]
pub(super) struct Numbers(BTreeSet<u16>);

impl Numbers {
    pub(super) fn new(range: std::ops::Range<u32>) -> Self {
        Self(range.filter_map(|number| u16::try_from(number).ok()).collect())
    }

    pub(super) fn free(&self) -> usize {
        self.0.len()
    }

    pub(super) fn take(&mut self) -> Option<u16> {
        self.0.pop_first()
    }

    /// Allocates this number. Returns whether it was free.
    pub(super) fn claim(&mut self, number: u16) -> bool {
        self.0.remove(&number)
    }

    pub(super) fn release(&mut self, number: u16) {
        self.0.insert(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_round_before_one_comes_again() {
        let mut ids = MemberIds::new(3);
        let first = ids.take().unwrap();
        ids.release(first);
        let given: Vec<_> = (0..3).map(|_| ids.take().unwrap().get()).collect();
        assert_eq!((given, ids.take(), ids.free()), (vec![2, 3, 1], None, 0));
    }

    #[test]
    fn ids_that_are_claimed_are_not_given_out() {
        let mut ids = MemberIds::new(4);
        let second = MemberId::new(2).unwrap();
        assert_eq!((ids.claim(second), ids.claim(second), ids.claim(MemberId::new(9).unwrap())), (true, false, false));
        ids.go_on_after(1);
        assert_eq!((ids.take().unwrap().get(), ids.last(), ids.free()), (3, 3, 2));
    }

    #[test]
    fn the_lowest_number_comes_first() {
        let mut numbers = Numbers::new(1..4);
        assert_eq!((numbers.take(), numbers.take()), (Some(1), Some(2)));
        numbers.release(1);
        assert_eq!((numbers.take(), numbers.take(), numbers.take()), (Some(1), Some(3), None));
    }
}
