//! The gateways of routes with several paths: when each is probed, and which are preferred. Pure; times are
//! parameters. It must not know how a gateway is probed.
//!
//! The kernel takes most of a minute to notice that a gateway died silently. Where another path exists, that is too long: each
//! gateway is asked every second, and one that left two questions unanswered is avoided. It is preferred again once it has
//! answered for a while, longer each time it dies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::decide::{Neighbour, Place, Proof};

/// How often each gateway is asked, if there are few.
const EVERY: Duration = Duration::from_secs(1);
/// Questions a second, at most: with more gateways each is asked less often.
const MOST_A_SECOND: u32 = 64;
/// A gateway that has not answered for this time after it was asked is avoided. The kernel asks a second time after one
/// second (`retrans_time_ms`).
const SILENT: Duration = Duration::from_millis(1_500);
/// How long a gateway that died has to answer before it is preferred again: this at first, then twice as long each time …
const TRIAL: Duration = Duration::from_secs(3);
/// … up to this time. One that lived for as long begins anew.
const TRIAL_AT_MOST: Duration = Duration::from_secs(60);

/// How far a gateway is to be trusted; the less, the later in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// It answers.
    Lives,
    /// It answers again, but died a moment ago.
    OnTrial,
    /// It left questions unanswered.
    Silent,
}

/// How a gateway is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Its known MAC address is to be confirmed.
    Confirm,
    /// Its MAC address is not known.
    Find,
    /// It has not answered in time: only the kernel's table says for certain.
    Look,
}

#[derive(Debug)]
struct Gateway {
    /// When it is asked next.
    due: Instant,
    /// Since when a question is unanswered.
    asked: Option<Instant>,
    silent: bool,
    /// From when on it is preferred, after it died.
    trial: Option<Instant>,
    /// How long its next trial takes.
    next_trial: Duration,
    /// Since when it is preferred, after its last trial.
    since: Instant,
}

/// The gateways that are kept known.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    all: BTreeMap<Place, Gateway>,
}

impl Gateways {
    /// Keeps exactly these; a new one is due now.
    pub(super) fn keep(&mut self, wanted: &BTreeSet<Place>, now: Instant) {
        self.all.retain(|place, _| wanted.contains(place));
        for place in wanted {
            self.all.entry(*place).or_insert_with(|| Gateway::new(now));
        }
    }

    pub(super) fn contains(&self, place: &Place) -> bool {
        self.all.contains_key(place)
    }

    /// How far a gateway is to be trusted; one that is not kept lives.
    pub(super) fn trust(&self, place: &Place) -> Trust {
        match self.all.get(place) {
            Some(Gateway { silent: true, .. }) => Trust::Silent,
            Some(Gateway { trial: Some(_), .. }) => Trust::OnTrial,
            Some(_) | None => Trust::Lives,
        }
    }

    /// The earliest time at which something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let times = |gateway: &Gateway| [Some(gateway.next()), gateway.trial].into_iter().flatten();
        self.all.values().flat_map(times).min()
    }

    /// The gateways to ask now, and how. `state` returns each one's state.
    pub(super) fn take_due(
        &mut self,
        now: Instant,
        state: impl Fn(&Place) -> Option<Neighbour>,
    ) -> Vec<(Place, Question)> {
        let every = EVERY.max(EVERY * self.all.len().try_into().unwrap_or(u32::MAX) / MOST_A_SECOND);
        let due = self.all.iter_mut().filter(|(_, gateway)| gateway.next() <= now);
        let questions = due.filter_map(|(place, gateway)| Some((*place, gateway.ask(now, every, state(place))?)));
        questions.collect()
    }

    /// Ends trials whose time has come; returns whether there were any.
    pub(super) fn end_trials(&mut self, now: Instant) -> bool {
        let over = self.all.values_mut().filter(|gateway| gateway.trial.is_some_and(|until| until <= now));
        over.map(|gateway| (gateway.trial, gateway.since) = (None, now)).count() > 0
    }

    /// A notice of the kernel with a gateway's state. Returns whether its trust changed.
    pub(super) fn changed(&mut self, place: &Place, state: Option<Neighbour>, now: Instant) -> bool {
        let before = self.trust(place);
        let Some(gateway) = self.all.get_mut(place) else { return false };
        match state {
            Some(Neighbour::Usable { proof: Proof::Answered | Proof::Permanent, .. }) => gateway.answered(now),
            Some(Neighbour::Failed) => gateway.died(now),
            Some(Neighbour::Usable { proof: Proof::Old, .. } | Neighbour::Incomplete) | None => {}
        }
        self.trust(place) != before
    }

    /// A gateway did not answer in time. Returns whether that is news.
    pub(super) fn fell_silent(&mut self, place: &Place, now: Instant) -> bool {
        let before = self.trust(place);
        self.all.get_mut(place).into_iter().for_each(|gateway| gateway.died(now));
        self.trust(place) != before
    }
}

impl Gateway {
    const fn new(now: Instant) -> Self {
        Self { due: now, asked: None, silent: false, trial: None, next_trial: TRIAL, since: now }
    }

    /// When it is to be asked, or checked if it has not answered.
    fn next(&self) -> Instant {
        match self.asked {
            Some(asked) if !self.silent => self.due.min(asked + SILENT),
            _ => self.due,
        }
    }

    fn ask(&mut self, now: Instant, every: Duration, state: Option<Neighbour>) -> Option<Question> {
        let overdue = self.asked.is_some_and(|asked| asked + SILENT <= now) && !self.silent;
        if overdue {
            return Some(Question::Look);
        }
        self.due = now + every;
        match state {
            Some(Neighbour::Usable { proof: Proof::Permanent, .. }) => None,
            // The kernel asks again on its own until it gives up.
            Some(Neighbour::Usable { .. }) if self.asked.is_some() => None,
            Some(Neighbour::Usable { .. }) => {
                self.asked = Some(now);
                Some(Question::Confirm)
            }
            Some(Neighbour::Incomplete | Neighbour::Failed) | None => Some(Question::Find),
        }
    }

    fn answered(&mut self, now: Instant) {
        self.asked = None;
        if std::mem::take(&mut self.silent) {
            self.trial = Some(now + self.next_trial);
            self.next_trial = (self.next_trial * 2).min(TRIAL_AT_MOST);
        }
    }

    fn died(&mut self, now: Instant) {
        self.asked = None;
        if std::mem::replace(&mut self.silent, true) {
            return;
        }
        self.due = now;
        if self.trial.take().is_none() && self.since + TRIAL_AT_MOST <= now {
            self.next_trial = TRIAL;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2; 6];
    const OLD: Option<Neighbour> = Some(Neighbour::Usable { mac: MAC, proof: Proof::Old });
    const ANSWERED: Option<Neighbour> = Some(Neighbour::Usable { mac: MAC, proof: Proof::Answered });

    fn place(last: u8) -> Place {
        (3, [10, 9, 1, last].into())
    }

    fn one(now: Instant) -> Gateways {
        let mut gateways = Gateways::default();
        gateways.keep(&BTreeSet::from([place(1)]), now);
        gateways
    }

    #[test]
    fn a_gateway_that_answers_is_asked_each_second() {
        let mut now = Instant::now();
        let mut gateways = one(now);
        for _ in 0..3 {
            assert_eq!(gateways.take_due(now, |_| OLD), [(place(1), Question::Confirm)]);
            assert!(!gateways.changed(&place(1), ANSWERED, now));
            assert_eq!(gateways.next(), Some(now + EVERY));
            now += EVERY;
        }
    }

    #[test]
    fn a_gateway_that_does_not_answer_is_avoided_before_the_kernel_gives_up() {
        let start = Instant::now();
        let mut gateways = one(start);
        gateways.take_due(start, |_| OLD);
        assert!(gateways.take_due(start + EVERY, |_| OLD).is_empty(), "the kernel asks a second time by itself");
        let late = start + SILENT;
        assert_eq!(gateways.next(), Some(late));
        assert_eq!(gateways.take_due(late, |_| OLD), [(place(1), Question::Look)]);
        assert!(gateways.fell_silent(&place(1), late) && gateways.trust(&place(1)) == Trust::Silent);
        assert!(!gateways.fell_silent(&place(1), late), "no news");
        assert_eq!(gateways.take_due(late, |_| Some(Neighbour::Failed)), [(place(1), Question::Find)]);
        assert_eq!(gateways.next(), Some(late + EVERY));
    }

    #[test]
    fn a_gateway_that_dies_again_and_again_waits_longer_each_time() {
        let mut now = Instant::now();
        let mut gateways = one(now);
        let mut trial = |now: &mut Instant| {
            assert!(gateways.changed(&place(1), Some(Neighbour::Failed), *now));
            assert!(gateways.changed(&place(1), ANSWERED, *now) && gateways.trust(&place(1)) == Trust::OnTrial);
            let began = *now;
            while gateways.trust(&place(1)) == Trust::OnTrial {
                *now += Duration::from_millis(500);
                gateways.end_trials(*now);
            }
            (*now - began).as_secs()
        };
        assert_eq!([(); 7].map(|()| trial(&mut now)), [3, 6, 12, 24, 48, 60, 60]);
        now += TRIAL_AT_MOST;
        assert_eq!(trial(&mut now), 3);
    }

    #[test]
    fn many_gateways_share_the_questions() {
        let now = Instant::now();
        let mut gateways = Gateways::default();
        gateways.keep(&(0..=255).map(place).collect(), now);
        let asked = |gateways: &mut Gateways, at| gateways.take_due(at, |_| Some(Neighbour::Failed)).len();
        assert_eq!(asked(&mut gateways, now), 256);
        assert_eq!(asked(&mut gateways, now + Duration::from_millis(3_999)), 0);
        assert_eq!(asked(&mut gateways, now + Duration::from_secs(4)), 256);
    }
}
