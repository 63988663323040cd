//! A drain, event by event: each stage, each exit from it, and the invariants under any order of events.

mod faults;

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
const LEAD: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_secs(4);
const ONE: RequestId = RequestId(1);
const TWO: RequestId = RequestId(2);

fn seconds(count: f64) -> Duration {
    Duration::from_secs_f64(count)
}

fn settings() -> Settings {
    Settings { lead: LEAD, quiet: QUIET, last_node: false }
}

fn ordered() -> Order {
    Order { since: UnixTime(1_700_000_000), reason: Some("disk".into()), last_node: false }
}

fn record(withdrawn: bool) -> Record {
    Record { order: ordered(), withdrawn }
}

fn traffic(www: u64) -> Traffic {
    Traffic { vips: [(Name::parse("www").unwrap(), www)].into(), forwarded: www }
}

fn accepted(request: RequestId) -> Effect {
    Effect::Reply { request, outcome: Ok(()) }
}

/// The refusal among effects.
fn refusal(effects: &[Effect]) -> &str {
    match effects {
        [Effect::Reply { outcome: Err(Refusal::Conflict(line) | Refusal::Failed(line)), .. }] => line,
        other => panic!("{other:?}"),
    }
}

/// A node that was ordered to drain at time zero, and whose order is saved.
fn leaving() -> Drain {
    let mut drain = Drain::new(settings(), true);
    drain.handle(Event::Drain { request: ONE, order: ordered() }, Duration::ZERO);
    drain.handle(Event::Saved(Ok(())), Duration::ZERO);
    assert_eq!(drain.stage(), Some(Stage::Leaving));
    drain
}

/// The same node once all prefixes are withdrawn, at this time.
fn waiting() -> (Drain, Duration) {
    let mut drain = leaving();
    drain.handle(Event::Counted(traffic(100)), Duration::ZERO);
    drain.handle(Event::Tick, LEAD);
    drain.handle(Event::Saved(Ok(())), LEAD);
    drain.handle(Event::Counted(traffic(200)), LEAD);
    drain.handle(Event::Sent, LEAD);
    assert_eq!(drain.stage(), Some(Stage::Waiting));
    (drain, LEAD)
}

/// Ticks at its deadlines until a time; packets come in for `www` as `count` says. Returns when each stage was entered.
fn run(drain: &mut Drain, from: Duration, until: Duration, count: impl Fn(Duration) -> u64) -> Vec<(Stage, Duration)> {
    let mut entered = Vec::new();
    let mut now = from;
    // The counters were asked for before and are there now.
    let mut events = vec![Event::Counted(traffic(count(now)))];
    loop {
        while let Some(event) = events.pop() {
            for effect in drain.handle(event, now) {
                match effect {
                    Effect::Count => events.push(Event::Counted(traffic(count(now)))),
                    Effect::AwaitSent => events.push(Event::Sent),
                    Effect::Save(_) => events.push(Event::Saved(Ok(()))),
                    Effect::Entered(stage) => entered.push((stage, now)),
                    Effect::Ended | Effect::Reply { .. } => {}
                }
            }
        }
        match drain.deadline().filter(|at| *at <= until) {
            Some(at) => now = now.max(at),
            None => return entered,
        }
        events.push(Event::Tick);
    }
}

#[test]
fn a_node_passes_through_every_stage() {
    let mut drain = Drain::new(settings(), true);
    assert_eq!((drain.stage(), drain.deadline()), (None, None));
    let effects = drain.handle(Event::Drain { request: ONE, order: ordered() }, Duration::ZERO);
    assert_eq!(
        effects,
        [Effect::Save(Some(record(false)))],
        "nothing changes, and no neighbor is sent anything, before it is saved"
    );
    assert_eq!(drain.stage(), None);

    let effects = drain.handle(Event::Saved(Ok(())), Duration::ZERO);
    let stages = [Stage::Marked, Stage::Leaving].map(Effect::Entered);
    assert_eq!(effects[..2], stages);
    assert_eq!(effects[2..], [accepted(ONE), Effect::Count]);

    drain.handle(Event::Counted(traffic(100)), Duration::ZERO);
    assert_eq!(drain.handle(Event::Sent, SECOND), [Effect::Count], "that routers know means nothing yet");
    assert_eq!(drain.stage(), Some(Stage::Leaving));
    drain.handle(Event::Counted(traffic(3_100)), SECOND);
    assert_eq!(drain.progress().unwrap().receiving, [(Name::parse("www").unwrap(), 3_000)]);

    let effects = drain.handle(Event::Tick, LEAD);
    let expected =
        [Effect::Entered(Stage::Withdrawing), Effect::Save(Some(record(true))), Effect::AwaitSent, Effect::Count];
    assert_eq!(effects, expected);
    drain.handle(Event::Counted(traffic(30_100)), LEAD);
    drain.handle(Event::Saved(Ok(())), LEAD);
    assert_eq!(drain.handle(Event::Sent, LEAD), [Effect::Entered(Stage::Waiting), Effect::Count]);

    // Packets come in for two seconds more; then a quiet time, by the counters, ends it.
    let last = LEAD + SECOND * 2;
    let count = |now: Duration| 30_100 + now.min(last).saturating_sub(LEAD).as_millis() as u64;
    let entered = run(&mut drain, LEAD, LEAD * 4, count);
    let [(Stage::Drained, at)] = entered[..] else { panic!("{entered:?}") };
    assert!((last + QUIET..=last + QUIET + SECOND * 2).contains(&at), "{at:?}");
    let progress = drain.progress().unwrap();
    assert_eq!((progress.forwarded, progress.resumed), (32_000, false));
    let stages: Vec<Stage> = progress.stages.iter().map(|(stage, _)| *stage).collect();
    assert_eq!(stages, Stage::ALL);
    assert_eq!(progress.last_words(), "the node is out of service: disk");
}

#[test]
fn a_node_that_announces_nothing_only_waits() {
    let mut drain = Drain::new(settings(), false);
    drain.handle(Event::Drain { request: ONE, order: ordered() }, Duration::ZERO);
    let effects = drain.handle(Event::Saved(Ok(())), Duration::ZERO);
    assert!(!effects.contains(&Effect::AwaitSent), "{effects:?}");
    assert_eq!(drain.stage(), Some(Stage::Waiting));
    let entered = run(&mut drain, Duration::ZERO, LEAD, |_| 7);
    assert_eq!(entered, [(Stage::Drained, QUIET)]);
}

#[test]
fn routers_that_take_nothing_are_waited_for_no_longer() {
    let mut drain = leaving();
    drain.handle(Event::Counted(traffic(0)), Duration::ZERO);
    drain.handle(Event::Tick, LEAD);
    assert_eq!(drain.stage(), Some(Stage::Withdrawing));
    drain.handle(Event::Counted(traffic(0)), LEAD);
    assert!(drain.deadline().unwrap() <= LEAD + SENT);
    drain.handle(Event::Tick, LEAD + SENT);
    assert_eq!(drain.stage(), Some(Stage::Waiting));
}

#[test]
fn quiet_is_measured_from_one_count_to_another() {
    let (mut drain, now) = waiting();
    // Asked at `now`, answered a second later: the time without packets begins then.
    drain.handle(Event::Counted(traffic(200)), now + SECOND);
    drain.handle(Event::Tick, now + QUIET);
    // Asked before it was over, answered late: not known for long enough.
    drain.handle(Event::Counted(traffic(200)), now + QUIET * 2);
    assert_eq!(drain.stage(), Some(Stage::Waiting));
    drain.handle(Event::Tick, now + QUIET * 2);
    drain.handle(Event::Counted(traffic(201)), now + QUIET * 2 + SECOND);
    assert_eq!(drain.stage(), Some(Stage::Waiting), "one packet, and it begins anew");
    let progress = drain.progress().unwrap();
    assert_eq!((progress.quiet_for, progress.receiving.len()), (Duration::ZERO, 1));
    // No counters, no evidence.
    for later in [3, 10, 100] {
        drain.handle(Event::Tick, now + QUIET * later);
        assert_eq!(drain.stage(), Some(Stage::Waiting));
    }
}

#[test]
fn packets_that_come_again_are_waited_for_again() {
    let (mut drain, now) = waiting();
    let again = now + QUIET * 4;
    let entered = run(&mut drain, now, now + QUIET * 8, |now| 200 + u64::from(now >= again));
    let stages: Vec<Stage> = entered.iter().map(|(stage, _)| *stage).collect();
    assert_eq!(stages, [Stage::Drained, Stage::Waiting, Stage::Drained]);
    assert!((again..=again + SECOND).contains(&entered[1].1), "{entered:?}");
    let stages: Vec<Stage> = drain.progress().unwrap().stages.iter().map(|(stage, _)| *stage).collect();
    assert_eq!(stages, Stage::ALL, "each once");
}

#[test]
fn undrain_ends_every_stage_at_once() {
    let stages: [fn() -> Drain; 4] = [
        leaving,
        || {
            let mut drain = leaving();
            drain.handle(Event::Tick, LEAD);
            drain.handle(Event::Saved(Ok(())), LEAD);
            drain
        },
        || waiting().0,
        || {
            let (mut drain, now) = waiting();
            run(&mut drain, now, now + QUIET * 2, |_| 200);
            drain
        },
    ];
    for (stage, make) in Stage::ALL[1..].iter().zip(stages) {
        let mut drain = make();
        let now = LEAD * 4;
        assert_eq!(drain.stage(), Some(*stage));
        let ordered_at = if *stage == Stage::Leaving { SECOND } else { seconds(10.1) };
        let effects = drain.handle(Event::Undrain { request: TWO }, ordered_at);
        assert_eq!(
            effects.iter().filter(|effect| **effect != Effect::Count).collect::<Vec<_>>(),
            [&Effect::Save(None)]
        );
        let effects = drain.handle(Event::Saved(Ok(())), now);
        assert_eq!(effects, [Effect::Ended, accepted(TWO)], "{stage}");
        assert_eq!((drain.stage(), drain.deadline()), (None, None));
        // A result that was under way comes too late.
        for late in [Event::Sent, Event::Counted(traffic(9)), Event::Saved(Ok(())), Event::Tick] {
            assert_eq!(drain.handle(late, now), []);
        }
        assert_eq!(drain.handle(Event::Drain { request: ONE, order: ordered() }, now).len(), 1);
    }
}

#[test]
fn undrain_while_the_order_is_being_saved_wins() {
    let mut drain = Drain::new(settings(), true);
    drain.handle(Event::Drain { request: ONE, order: ordered() }, Duration::ZERO);
    let effects = drain.handle(Event::Undrain { request: TWO }, Duration::ZERO);
    assert_eq!(effects, [Effect::Save(None)]);
    assert!(drain.handle(Event::Saved(Ok(())), Duration::ZERO).contains(&accepted(ONE)));
    assert_eq!(drain.handle(Event::Saved(Ok(())), Duration::ZERO), [Effect::Ended, accepted(TWO)]);
    assert_eq!(drain.stage(), None);
}

#[test]
fn a_stage_that_passes_while_undrain_is_saved_is_not_saved_after_it() {
    let mut drain = leaving();
    drain.handle(Event::Undrain { request: TWO }, SECOND);
    let effects = drain.handle(Event::Tick, LEAD);
    assert!(effects.contains(&Effect::Entered(Stage::Withdrawing)), "{effects:?}");
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Save(_))), "{effects:?}");
    assert_eq!(drain.handle(Event::Saved(Ok(())), LEAD), [Effect::Ended, accepted(TWO)]);
}

#[test]
fn draining_twice_and_undraining_a_serving_node_are_refused_with_the_state() {
    let mut drain = Drain::new(settings(), true);
    let undrain = |drain: &mut Drain| drain.handle(Event::Undrain { request: TWO }, Duration::ZERO);
    let again = |drain: &mut Drain| drain.handle(Event::Drain { request: TWO, order: ordered() }, Duration::ZERO);
    assert_eq!(refusal(&undrain(&mut drain)), "the node is not draining: it serves");
    drain.handle(Event::Drain { request: ONE, order: ordered() }, Duration::ZERO);
    assert_eq!(refusal(&again(&mut drain)), "the node is about to drain already");
    drain.handle(Event::Saved(Ok(())), Duration::ZERO);
    let line = "the node is draining already, since 2023-11-14T22:13:20Z (disk): leaving";
    assert_eq!(refusal(&again(&mut drain)), line);
    undrain(&mut drain);
    assert_eq!(refusal(&undrain(&mut drain)), "the node is not draining: it serves", "it will not, once that is saved");
    let (mut drain, now) = waiting();
    run(&mut drain, now, now + QUIET * 2, |_| 200);
    let line = "the node is drained already, ordered at 2023-11-14T22:13:20Z (disk)";
    assert_eq!(refusal(&again(&mut drain)), line);
}

#[test]
fn a_daemon_goes_on_where_routers_still_rely_on_the_last_one() {
    let now = SECOND * 1_000;
    for (withdrawn, kept, announces, stage) in [
        (false, true, true, Stage::Leaving),
        (false, false, true, Stage::Withdrawing),
        (true, true, true, Stage::Withdrawing),
        (true, false, true, Stage::Withdrawing),
        (false, true, false, Stage::Waiting),
        (true, false, false, Stage::Waiting),
    ] {
        let mut drain = Drain::new(settings(), announces);
        let effects = drain.handle(Event::Resume { record: record(withdrawn), kept }, now);
        assert_eq!(drain.stage(), Some(stage), "withdrawn {withdrawn}, kept {kept}, announces {announces}");
        let saves = effects.iter().any(|effect| matches!(effect, Effect::Save(Some(Record { withdrawn: true, .. }))));
        assert_eq!(saves, !withdrawn && stage != Stage::Leaving, "{effects:?}");
        let progress = drain.progress().unwrap();
        assert_eq!((progress.order, progress.resumed), (&ordered(), true));
        if saves {
            drain.handle(Event::Saved(Ok(())), now);
        }
        if stage != Stage::Leaving && announces {
            drain.handle(Event::Sent, now);
        }
        let entered = run(&mut drain, now, now + LEAD * 2, |_| 5);
        assert_eq!(entered.last().map(|(stage, _)| *stage), Some(Stage::Drained), "{entered:?}");
    }
}

#[test]
fn vips_that_are_added_removed_and_begin_anew_are_counted_correctly() {
    let count = |vips: &[(&str, u64)]| Traffic {
        vips: vips.iter().map(|(name, count)| (Name::parse(name).unwrap(), *count)).collect(),
        forwarded: 0,
    };
    let before = count(&[("a", 10), ("b", 10), ("c", 10)]);
    let after = count(&[("a", 10), ("b", 3), ("d", 99)]);
    let found = received(&before, &after, SECOND);
    assert_eq!(found, [(Name::parse("b").unwrap(), 3)]);
    assert_eq!(received(&before, &count(&[("a", 11)]), SECOND * 10), [(Name::parse("a").unwrap(), 1)], "not none");
}

#[test]
fn the_saved_drain_does_not_outlive_an_order_to_end_it() {
    let mut drain = Drain::new(settings(), true);
    drain.handle(Event::Drain { request: RequestId(1), order: ordered() }, Duration::ZERO);
    drain.handle(Event::Saved(Ok(())), Duration::ZERO);
    // Two writes under way, in this order, while the stage ends: the node serves again, and then it does not.
    drain.handle(Event::Undrain { request: RequestId(2) }, SECOND);
    drain.handle(Event::Drain { request: RequestId(3), order: ordered() }, SECOND);
    let effects = drain.handle(Event::Tick, LEAD);
    assert!(effects.contains(&Effect::Entered(Stage::Withdrawing)), "{effects:?}");
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Save(_))), "{effects:?}");
    drain.handle(Event::Saved(Ok(())), LEAD);
    drain.handle(Event::Saved(Err("full".into())), LEAD);
    assert_eq!(drain.stage(), Some(Stage::Leaving), "the last order holds, saved or not");
}

/// Events of the outside world during a drain.
#[derive(Clone, Copy, Debug)]
enum Move {
    Drain,
    Undrain,
    Saved(bool),
    Sent,
    Count(u64),
    Wait(u64),
}

fn any_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        Just(Move::Drain),
        Just(Move::Undrain),
        (0..4_u8).prop_map(|n| Move::Saved(n > 0)),
        Just(Move::Sent),
        (0..2_u64).prop_map(Move::Count),
        (0..6_000_u64).prop_map(Move::Wait),
    ]
}

proptest! {
    /// For any order of events: a node reported as drained was quiet for so long, every order is answered
    /// once, and the disk holds a drain exactly while the node is in one, once all is saved: a failure to save is reported.
    #[test]
    fn no_order_of_events_breaks_the_promise(moves in vec(any_move(), 1..200)) {
        let mut drain = Drain::new(settings(), true);
        let (mut now, mut packets, mut last_packet) = (Duration::ZERO, 0_u64, Duration::ZERO);
        let (mut asked, mut disk) = (0, None);
        let mut to_save = VecDeque::new();
        let mut open = std::collections::BTreeSet::new();
        for (n, step) in (1..).zip(moves) {
            let event = match step {
                Move::Drain => Event::Drain { request: RequestId(n), order: ordered() },
                Move::Undrain => Event::Undrain { request: RequestId(n) },
                Move::Saved(holds) => {
                    let Some(record) = to_save.pop_front() else { continue };
                    if holds {
                        disk = record;
                    }
                    Event::Saved(if holds { Ok(()) } else { Err("no".into()) })
                }
                Move::Sent => Event::Sent,
                Move::Count(more) => {
                    if asked == 0 {
                        continue;
                    }
                    asked -= 1;
                    // They arrive just before the counters are read.
                    packets += more;
                    if more > 0 {
                        last_packet = now;
                    }
                    Event::Counted(traffic(packets))
                }
                Move::Wait(milliseconds) => {
                    now += Duration::from_millis(milliseconds);
                    Event::Tick
                }
            };
            if matches!(event, Event::Drain { .. } | Event::Undrain { .. }) {
                open.insert(RequestId(n));
            }
            for effect in drain.handle(event, now) {
                match effect {
                    Effect::Save(record) => to_save.push_back(record),
                    Effect::Count => asked += 1,
                    Effect::Reply { request, .. } => prop_assert!(open.remove(&request), "answered twice"),
                    Effect::Entered(Stage::Drained) => prop_assert!(now >= last_packet + QUIET),
                    Effect::AwaitSent | Effect::Entered(_) | Effect::Ended => {}
                }
            }
            prop_assert!(asked <= 1, "asked for counters that are being read");
            if to_save.is_empty() {
                prop_assert!(open.is_empty());
                prop_assert!(drain.unsaved().is_some() || disk.is_some() == drain.stage().is_some());
            }
        }
    }
}
