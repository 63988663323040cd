//! A transition as a daemon saves it for the next one: nothing for a pool that is settled, else a digit or two per slot. It
//! must not know where that is kept. Owners are not part of it: they follow from names and weights.

use std::collections::BTreeMap;
use std::time::Duration;

use maglev_common::backend::MemberId;
use maglev_common::table::{SLOTS, SlotWord};
use serde::{Deserialize, Serialize};

use super::{Deadlines, FIRST_DEADLINE, Moving, NO_OWNER, SETTLED, TRACKED, Transition};

/// A base-64 digit for each six bits of a slot's state: text that needs no escape.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The slots of a pool in transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedTransition {
    /// The states of slots in transition.
    states: Vec<SavedState>,
    /// Per slot one more than the position of its state, 0 if it is settled: as many digits for each slot as the number of
    /// states needs, the lowest first.
    slots: String,
}

/// The states of slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum SavedState {
    Learning {
        previous: u16,
        /// In the time base of the deadlines.
        until: Duration,
    },
    Tracked,
}

impl Transition {
    /// The state that the next daemon needs; `None` if every slot is settled.
    pub fn save(&self) -> Option<SavedTransition> {
        let Moving { phases, previous, deadlines } = self.moving.as_ref()?;
        let mut states = States::new(deadlines);
        let mut number = |(&phase, previous): (&u16, &SlotWord)| match phase {
            SETTLED => 0,
            phase => states.number(phase, previous.owner()),
        };
        let numbers: Vec<usize> = phases.iter().zip(previous).map(&mut number).collect();
        let States { states, .. } = states;
        let width = width(states.len());
        let mut slots = Vec::with_capacity(SLOTS * width);
        for number in numbers {
            slots.extend((0..width).map(|digit| DIGITS[number >> (6 * digit) & 63]));
        }
        // The digits are ASCII.
        Some(SavedTransition { states, slots: String::from_utf8(slots).ok()? })
    }

    /// The transition that a daemon saved, of slots with these owners. A previous owner that no longer lives is forgotten, as
    /// always. `None` if it is invalid.
    pub fn restore(
        owners: Vec<SlotWord>,
        saved: Option<&SavedTransition>,
        lives: &dyn Fn(MemberId) -> bool,
    ) -> Option<Self> {
        let Some(SavedTransition { states, slots }) = saved else { return Some(Self { owners, moving: None }) };
        let mut moving = Moving::new();
        let state = |state: &SavedState| match state {
            SavedState::Learning { previous, until } => {
                let previous = MemberId::new(*previous)?;
                Some(match lives(previous) {
                    true => (moving.deadline(*until), SlotWord::settled(previous)),
                    false => (TRACKED, NO_OWNER),
                })
            }
            SavedState::Tracked => Some((TRACKED, NO_OWNER)),
        };
        let states = states.iter().map(state).collect::<Option<Vec<_>>>()?;
        let width = width(states.len());
        if slots.len() != SLOTS * width || moving.deadlines.len() > usize::from(u16::MAX - FIRST_DEADLINE) {
            return None;
        }
        for (slot, digits) in slots.as_bytes().chunks_exact(width).enumerate() {
            if let Some(at) = number(digits)?.checked_sub(1) {
                (moving.phases[slot], moving.previous[slot]) = *states.get(at)?;
            }
        }
        Some(Self { owners, moving: moving.unless_settled() })
    }
}

/// The states met so far, and their numbers.
struct States<'a> {
    deadlines: &'a Deadlines,
    states: Vec<SavedState>,
    known: BTreeMap<(u16, MemberId), usize>,
    /// Recent ones, each in one place: most slots find theirs here.
    lately: [(u16, MemberId, usize); 256],
}

impl<'a> States<'a> {
    fn new(deadlines: &'a Deadlines) -> Self {
        Self { deadlines, states: Vec::new(), known: BTreeMap::new(), lately: [(SETTLED, MemberId::NOBODY, 0); 256] }
    }

    fn number(&mut self, phase: u16, previous: MemberId) -> usize {
        let place = usize::from(phase.wrapping_mul(31).wrapping_add(previous.get())) & 255;
        let (found, owner, number) = self.lately[place];
        if (found, owner) == (phase, previous) {
            return number;
        }
        let Self { deadlines, states, known, lately } = self;
        let number = *known.entry((phase, previous)).or_insert_with(|| {
            states.push(match deadlines.get(&phase) {
                Some(&until) => SavedState::Learning { previous: previous.get(), until },
                None => SavedState::Tracked,
            });
            states.len()
        });
        lately[place] = (phase, previous, number);
        number
    }
}

/// Digits that so many states and the settled one need.
fn width(states: usize) -> usize {
    match states {
        0..64 => 1,
        64..4_096 => 2,
        _ => 3,
    }
}

/// The number that digits stand for.
fn number(digits: &[u8]) -> Option<usize> {
    digits.iter().rev().try_fold(0, |number, &digit| Some(number << 6 | value(digit)?))
}

fn value(digit: u8) -> Option<usize> {
    let (start, from) = match digit {
        b'A'..=b'Z' => (0, b'A'),
        b'a'..=b'z' => (26, b'a'),
        b'0'..=b'9' => (52, b'0'),
        b'-' => return Some(62),
        b'_' => return Some(63),
        _ => return None,
    };
    Some(start + usize::from(digit - from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transition::Phase;

    fn id(id: u16) -> MemberId {
        MemberId::new(id).unwrap()
    }

    /// Slots that are settled, tracked, and learning for each of so many members until times of their own.
    fn transition(states: u16) -> Transition {
        let mut moving = Moving::new();
        for slot in (0..SLOTS).filter(|slot| slot % 3 != 0) {
            let state = (slot % usize::from(states)) as u16;
            if state == 0 {
                moving.phases[slot] = TRACKED;
            } else {
                moving.phases[slot] = moving.deadline(Duration::from_millis(u64::from(state / 2)));
                moving.previous[slot] = SlotWord::settled(id(state));
            }
        }
        Transition { owners: owners(), moving: moving.unless_settled() }
    }

    fn owners() -> Vec<SlotWord> {
        vec![SlotWord::settled(id(9)); SLOTS]
    }

    fn phases(transition: &Transition) -> Vec<Phase> {
        (0..SLOTS).map(|slot| transition.phase(slot)).collect()
    }

    #[test]
    fn what_is_saved_is_restored_slot_by_slot() {
        for (states, digits) in [(1, 1), (5, 1), (64, 2), (200, 2)] {
            let old = transition(states);
            let text = serde_json::to_string(&old.save().unwrap()).unwrap();
            assert!(text.len() < SLOTS * digits + 100 * usize::from(states), "{} bytes", text.len());
            let saved: SavedTransition = serde_json::from_str(&text).unwrap();
            let new = Transition::restore(old.owners.clone(), Some(&saved), &|_| true).unwrap();
            assert_eq!(phases(&new), phases(&old));
            assert!(new.words().eq(old.words()));
        }
    }

    #[test]
    fn a_settled_pool_costs_nothing_and_the_dead_are_forgotten() {
        assert_eq!(Transition::new().save(), None);
        let restored = Transition::restore(owners(), None, &|_| true).unwrap();
        assert!(restored.is_settled() && restored.owners() == owners());

        let saved = transition(5).save();
        let restored = Transition::restore(owners(), saved.as_ref(), &|member| member != id(2)).unwrap();
        assert!(
            phases(&restored)
                .iter()
                .any(|phase| matches!(phase, Phase::Learning { previous, .. } if *previous == id(1)))
        );
        assert!(phases(&restored).iter().zip(phases(&transition(5))).all(|(new, old)| match old {
            Phase::Learning { previous, .. } if previous == id(2) => *new == Phase::Tracked,
            old => *new == old,
        }));
    }

    #[test]
    fn what_cannot_be_a_transition_is_refused() {
        let saved = transition(5).save().unwrap();
        let restore = |saved: SavedTransition| Transition::restore(owners(), Some(&saved), &|_| true);
        assert!(restore(saved.clone()).is_some());
        assert!(restore(SavedTransition { slots: saved.slots[1..].to_owned(), ..saved.clone() }).is_none());
        assert!(restore(SavedTransition { slots: saved.slots.replace('B', "!"), ..saved.clone() }).is_none());
        assert!(restore(SavedTransition { states: Vec::new(), ..saved }).is_none());
    }
}
