//! Places for checks under way, shared fairly: pools whose checks hang do not delay those of others. It must not know how a
//! check is made.
//!
//! A pool may hold twice as many places as are free: alone two thirds of all, two pools two fifths each. So there is
//! a free place for a pool that holds few, however long the checks of others take. A place that is given back goes to the
//! waiting pool that holds the fewest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use maglev_model::Name;

/// The places.
#[derive(Clone, Debug)]
pub(super) struct Slots(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    pools: BTreeMap<Name, Share>,
}

/// The places of one pool, and its waiting checks.
#[derive(Debug, Default)]
struct Share {
    held: usize,
    waiting: VecDeque<oneshot::Sender<Slot>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot(Option<(Slots, Name)>);

impl Slots {
    /// So many, all free.
    pub(super) fn new(free: usize) -> Self {
        Self(Arc::new(Mutex::new(State { free, pools: BTreeMap::new() })))
    }

    /// A place for a check of this pool, as soon as the pool may have one.
    pub(super) async fn take(&self, pool: &Name) -> Option<Slot> {
        let (place, given) = oneshot::channel();
        self.state().share(pool).waiting.push_back(place);
        self.give();
        // The sender stays in the queue until it is used.
        given.await.ok()
    }

    /// Gives free places to waiting checks.
    fn give(&self) {
        let mut state = self.state();
        while let Some((name, place)) = state.next() {
            let slot = Slot(Some((self.clone(), name)));
            if let Err(mut unwanted) = place.send(slot) {
                // The check was given up. The state is borrowed: the place goes back by hand.
                if let Some((_, name)) = unwanted.0.take() {
                    state.take_back(&name);
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn share(&mut self, pool: &Name) -> &mut Share {
        self.pools.entry(pool.clone()).or_default()
    }

    /// The check whose turn it is, if a place is due to one. Its pool holds that place from here on.
    fn next(&mut self) -> Option<(Name, oneshot::Sender<Slot>)> {
        let Self { free, pools } = self;
        let waiting = pools.iter_mut().filter(|(_, share)| !share.waiting.is_empty());
        let (name, share) = waiting.min_by_key(|(_, share)| share.held)?;
        if share.held >= *free * 2 {
            return None;
        }
        let place = share.waiting.pop_front()?;
        share.held += 1;
        *free -= 1;
        Some((name.clone(), place))
    }

    fn take_back(&mut self, pool: &Name) {
        self.free += 1;
        if let Some(share) = self.pools.get_mut(pool) {
            share.held -= 1;
            if share.held == 0 && share.waiting.is_empty() {
                self.pools.remove(pool);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some((slots, name)) = self.0.take() {
            slots.state().take_back(&name);
            slots.give();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    /// A place, if one is free now.
    async fn now(slots: &Slots, pool: &str) -> Option<Slot> {
        tokio::time::timeout(Duration::ZERO, slots.take(&name(pool))).await.ok().flatten()
    }

    async fn as_many_as_it_gets(slots: &Slots, pool: &str) -> Vec<Slot> {
        let mut held = Vec::new();
        while let Some(slot) = now(slots, pool).await {
            held.push(slot);
        }
        held
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_has_at_most_two_thirds_and_leaves_room_for_each_that_comes() {
        let slots = Slots::new(90);
        let first = as_many_as_it_gets(&slots, "a").await;
        let second = as_many_as_it_gets(&slots, "b").await;
        let third = as_many_as_it_gets(&slots, "c").await;
        assert_eq!([&first, &second, &third].map(Vec::len), [60, 20, 7]);
        drop((first, second, third));
        let state = slots.state();
        assert_eq!((state.free, state.pools.len()), (90, 0), "nothing is left of them");
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_goes_to_the_pool_that_holds_least_and_never_to_a_check_that_is_gone() {
        let slots = Slots::new(3);
        let mut held = as_many_as_it_gets(&slots, "a").await;
        assert_eq!(held.len(), 2);
        let other = now(&slots, "b").await;
        assert!(other.is_some());
        let (of_a, of_b) = (name("a"), name("b"));
        let (again, another) = (slots.take(&of_a), slots.take(&of_b));
        tokio::pin!(again, another);
        assert!(tokio::time::timeout(Duration::ZERO, &mut again).await.is_err());
        assert!(tokio::time::timeout(Duration::ZERO, &mut another).await.is_err());
        assert!(now(&slots, "a").await.is_none(), "given up");
        held.pop();
        let given = tokio::select! { biased; slot = &mut again => ("a", slot), slot = &mut another => ("b", slot) };
        assert_eq!(given.0, "a", "both hold one: the first in order");
        drop(other);
        assert!(another.await.is_some());
    }
}
