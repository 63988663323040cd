//! The recent events, for requests and for followers. Followers share one buffer: a slow one receives the number of lost events,
//! and costs no memory. It must not know the kinds of events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use maglev_api::view::{self, Event, What};

/// The number of kept events.
const KEPT: usize = 1_024;

/// The largest number of followers: each holds one of the API's connections, and the others are for requests.
const FOLLOWERS: usize = 16;

/// Records events, and gives access to recent ones.
#[derive(Clone, Debug)]
pub struct Journal {
    kept: watch::Sender<Kept>,
    seats: Arc<Semaphore>,
}

/// The last events.
#[derive(Debug)]
struct Kept {
    events: VecDeque<Arc<Event>>,
    /// The number of this daemon's first event.
    first: u64,
    /// The number of the next one.
    next: u64,
}

/// A reader of every event, as long as it keeps up.
#[derive(Debug)]
pub struct Follower {
    kept: watch::Receiver<Kept>,
    /// The last received or skipped event.
    after: Option<u64>,
    _seat: OwnedSemaphorePermit,
}

/// A message to a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// The next event.
    Event(Arc<Event>),
    /// The number of lost events.
    Missed(u64),
}

impl Journal {
    /// An empty journal. Numbers begin with the time, so that they grow from one daemon to the next.
    pub fn start() -> Self {
        let first = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_micros());
        Self::from(u64::try_from(first).unwrap_or(1))
    }

    /// The same journal for clients of another listener, with its own limit of followers.
    pub(super) fn with_own_followers(&self) -> Self {
        Self { kept: self.kept.clone(), seats: Arc::new(Semaphore::new(FOLLOWERS)) }
    }

    fn from(first: u64) -> Self {
        let kept = Kept { events: VecDeque::with_capacity(KEPT), first, next: first };
        Self { kept: watch::Sender::new(kept), seats: Arc::new(Semaphore::new(FOLLOWERS)) }
    }

    /// Records an event with the present time.
    pub fn record(&self, what: What) {
        let (text, level) = (what.to_string(), what.level());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let unix_milliseconds = u64::try_from(now).unwrap_or(u64::MAX);
        self.kept.send_modify(|kept| {
            kept.push(Event { sequence: kept.next, unix_milliseconds, level, text, what });
        });
    }

    /// The kept events, all or those after one.
    pub fn recent(&self, after: Option<u64>) -> view::Events {
        let kept = self.kept.borrow();
        let (missed, begin) = kept.after(after);
        let events = kept.events.iter().skip(begin).map(|event| Event::clone(event)).collect();
        view::Events { missed, events }
    }

    /// Follows events, beginning with the kept ones, or with those of them after one.
    ///
    /// # Errors
    /// Too many followers.
    pub fn follow(&self, after: Option<u64>) -> Result<Follower, view::Error> {
        let seat = Arc::clone(&self.seats).try_acquire_owned().map_err(|_| {
            view::Error::conflict(format!("{FOLLOWERS} others follow the events, no more can; end one of them first"))
        })?;
        Ok(Follower { kept: self.kept.subscribe(), after, _seat: seat })
    }
}

impl Kept {
    fn push(&mut self, event: Event) {
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        self.next = event.sequence + 1;
        self.events.push_back(Arc::new(event));
    }

    /// How many events after this one are lost, and the begin of the others. A number before this daemon's first, or after its
    /// last, is another daemon's: all kept events come after it.
    fn after(&self, sequence: Option<u64>) -> (u64, usize) {
        let oldest = self.next - self.events.len() as u64;
        let known = sequence.filter(|sequence| *sequence < self.next);
        let Some(begin) = known.map(|sequence| (sequence + 1).max(self.first)) else { return (0, 0) };
        (oldest.saturating_sub(begin), usize::try_from(begin.saturating_sub(oldest)).unwrap_or(usize::MAX))
    }
}

impl Follower {
    /// The next message.
    pub async fn next(&mut self) -> Option<Received> {
        loop {
            if let Some(received) = self.ready() {
                return Some(received);
            }
            self.kept.changed().await.ok()?;
        }
    }

    fn ready(&mut self) -> Option<Received> {
        let kept = self.kept.borrow_and_update();
        let (missed, begin) = kept.after(self.after);
        let event = kept.events.get(begin)?;
        if missed > 0 {
            self.after = Some(event.sequence - 1);
            return Some(Received::Missed(missed));
        }
        self.after = Some(event.sequence);
        Some(Received::Event(Arc::clone(event)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A journal with so many events, numbered from 100.
    fn filled(count: u64) -> Journal {
        let journal = Journal::from(100);
        (0..count).for_each(|n| journal.record(What::Started { version: n.to_string() }));
        journal
    }

    fn sequences(events: &view::Events) -> (u64, Option<u64>, Option<u64>, usize) {
        let view::Events { missed, events } = events;
        let sequence = |event: &Event| event.sequence;
        (*missed, events.first().map(sequence), events.last().map(sequence), events.len())
    }

    #[test]
    fn kept_events_are_bounded_and_lost_ones_are_counted() {
        assert_eq!(sequences(&filled(0).recent(None)), (0, None, None, 0));
        let few = filled(3);
        assert_eq!(sequences(&few.recent(None)), (0, Some(100), Some(102), 3));
        assert_eq!(sequences(&few.recent(Some(100))), (0, Some(101), Some(102), 2));
        assert_eq!(sequences(&few.recent(Some(102))), (0, None, None, 0));
        let many = filled(1_124);
        assert_eq!(sequences(&many.recent(None)), (0, Some(200), Some(1_223), KEPT));
        assert_eq!(sequences(&many.recent(Some(149))), (50, Some(200), Some(1_223), KEPT));
        assert_eq!(sequences(&many.recent(Some(199))), (0, Some(200), Some(1_223), KEPT));
        assert_eq!(sequences(&many.recent(Some(1_222))), (0, Some(1_223), Some(1_223), 1));
    }

    #[test]
    fn after_another_daemons_event_comes_all_that_is_kept() {
        for other in [0, 42, 99, 103, u64::MAX] {
            assert_eq!(sequences(&filled(3).recent(Some(other))), (0, Some(100), Some(102), 3), "{other}");
        }
        let (missed, ..) = sequences(&filled(1_124).recent(Some(42)));
        assert_eq!(missed, 100, "of this daemon's");
    }

    #[tokio::test]
    async fn a_follower_receives_all_events_in_order_or_the_number_of_lost_ones() {
        let journal = filled(2);
        let mut follower = journal.follow(Some(100)).unwrap();
        let sequence = |received| match received {
            Some(Received::Event(event)) => event.sequence,
            other => panic!("{other:?}"),
        };
        assert_eq!(sequence(follower.next().await), 101);
        assert_eq!(follower.ready(), None);
        let next = tokio::spawn(async move { (follower.next().await, follower) });
        journal.record(What::Stopping);
        let (received, mut follower) = next.await.unwrap();
        assert_eq!(sequence(received), 102);
        (0..KEPT + 7).for_each(|_| journal.record(What::Stopping));
        assert_eq!(follower.next().await, Some(Received::Missed(7)));
        for expected in 110..110 + KEPT as u64 {
            assert_eq!(sequence(follower.next().await), expected);
        }
        assert_eq!(follower.ready(), None);
    }

    #[test]
    fn followers_are_few_and_make_room_when_they_go() {
        let journal = filled(1);
        let mut followers: Vec<_> = (0..FOLLOWERS).map(|_| journal.follow(None).unwrap()).collect();
        let refused = journal.follow(None).unwrap_err();
        assert_eq!(refused.kind, view::ErrorKind::Conflict);
        assert_eq!(refused.to_string(), "16 others follow the events, no more can; end one of them first");
        let others = journal.with_own_followers();
        assert_eq!(others.recent(None).events.len(), 1);
        assert!(others.follow(None).is_ok(), "another listener has its own limit");
        followers.pop();
        assert!(journal.follow(None).is_ok());
    }
}
