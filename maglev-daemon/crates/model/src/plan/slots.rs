//! The contents of a table. It must not know which table that is.

use std::borrow::Cow;
use std::sync::Arc;

use maglev_common::table::SlotWord;

use crate::transition::Transition;

/// All slots of a table. A plan shares them with the planner, and they are written out where one table after the other is
/// filled: the first plan of a full node would hold 8 MB of words.
#[derive(Clone, Debug, PartialEq)]
pub struct Slots(Source);

#[derive(Clone, Debug, PartialEq)]
enum Source {
    Owners(Arc<Transition>),
    PreviousOwners(Arc<Transition>),
    Words(Arc<[SlotWord]>),
}

impl Slots {
    /// The owners, and which slots are in transition.
    pub fn owners(of: &Arc<Transition>) -> Self {
        Self(Source::Owners(Arc::clone(of)))
    }

    /// The previous owners of those that are learning; `None` while none is.
    pub fn previous_owners(of: &Arc<Transition>) -> Option<Self> {
        of.is_learning().then(|| Self(Source::PreviousOwners(Arc::clone(of))))
    }

    /// The slots as the packet path reads them.
    pub fn words(&self) -> Cow<'_, [SlotWord]> {
        match &self.0 {
            Source::Owners(transition) => transition.words().collect(),
            Source::PreviousOwners(transition) => transition.previous_words().collect(),
            Source::Words(words) => Cow::Borrowed(words),
        }
    }
}

impl From<Arc<[SlotWord]>> for Slots {
    fn from(words: Arc<[SlotWord]>) -> Self {
        Self(Source::Words(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transition::Change;
    use maglev_common::backend::MemberId;
    use maglev_common::table::SLOTS;
    use std::time::Duration;

    fn all(id: u16) -> Vec<SlotWord> {
        vec![SlotWord::settled(MemberId::from_low_bits(id)); SLOTS]
    }

    #[test]
    fn slots_are_those_of_the_time_of_the_plan() {
        let (now, learning) = (Duration::ZERO, Duration::from_secs(120));
        let mut transition = Arc::new(Transition::new());
        let mut give = |owners: &[SlotWord]| {
            let change = Change { owners, lives: &|_| true, now, learning, stand_ins: false };
            Arc::make_mut(&mut transition).change(change);
            (Slots::owners(&transition), Slots::previous_owners(&transition))
        };
        let (first, none) = give(&all(1));
        let (second, previous) = give(&all(2));
        assert_eq!((first.words().as_ref(), none), (&all(1)[..], None));
        assert!(second.words().iter().all(|word| *word == SlotWord::moving(MemberId::from_low_bits(2))));
        assert_eq!(previous.unwrap().words().as_ref(), all(1));
    }
}
