//! Orders that cannot be saved: a full or read-only disk must not keep a node in service, or out of it.

use maglev_testing::matrix::Row;

use super::*;

#[test]
fn a_drain_that_cannot_be_saved_is_carried_out_and_saved_later() {
    let _row = Row::fault("C16", "a drain on a full disk: carried out, said, saved once there is room");
    let mut drain = Drain::new(settings(), true);
    drain.handle(Event::Drain { request: ONE, order: ordered() }, Duration::ZERO);
    let effects = drain.handle(Event::Saved(Err("disk full".into())), Duration::ZERO);
    assert!(effects.contains(&accepted(ONE)), "{effects:?}");
    assert_eq!((drain.stage(), drain.unsaved()), (Some(Stage::Leaving), Some("disk full")));
    drain.handle(Event::Counted(traffic(0)), Duration::ZERO);
    let saves = |effects: &[Effect]| effects.contains(&Effect::Save(Some(record(false))));
    assert!(!saves(&drain.handle(Event::Tick, SAVE_AGAIN - SECOND)), "not at once, and not without end");
    assert!(saves(&drain.handle(Event::Tick, SAVE_AGAIN)));
    assert!(!saves(&drain.handle(Event::Tick, SAVE_AGAIN + SECOND)), "the disk has not answered yet");
    drain.handle(Event::Saved(Ok(())), SAVE_AGAIN + SECOND);
    assert_eq!(drain.unsaved(), None);
}

#[test]
fn an_undrain_that_cannot_be_saved_is_carried_out_and_saved_later() {
    let _row = Row::fault("C16", "an undrain on a read-only disk: carried out, said, saved later");
    let mut drain = leaving();
    drain.handle(Event::Undrain { request: TWO }, SECOND);
    let effects = drain.handle(Event::Saved(Err("read-only".into())), SECOND);
    assert_eq!(effects, [Effect::Ended, accepted(TWO)]);
    assert_eq!((drain.stage(), drain.unsaved()), (None, Some("read-only")));
    assert_eq!(drain.deadline(), Some(SECOND + SAVE_AGAIN), "a node that serves retries too");
    assert_eq!(drain.handle(Event::Tick, SECOND + SAVE_AGAIN), [Effect::Save(None)]);
    drain.handle(Event::Saved(Ok(())), SECOND + SAVE_AGAIN);
    assert_eq!((drain.unsaved(), drain.deadline()), (None, None));
}

#[test]
fn a_stage_that_cannot_be_saved_is_said_and_saved_later() {
    let _row = Row::fault("C16", "the disk fills in the midst of a drain: said, the stage is saved later");
    let mut drain = leaving();
    drain.handle(Event::Counted(traffic(0)), Duration::ZERO);
    drain.handle(Event::Tick, LEAD);
    drain.handle(Event::Saved(Err("disk full".into())), LEAD);
    assert_eq!((drain.stage(), drain.unsaved()), (Some(Stage::Withdrawing), Some("disk full")));
    let effects = drain.handle(Event::Tick, LEAD + SAVE_AGAIN);
    assert!(effects.contains(&Effect::Save(Some(record(true)))), "{effects:?}");
}
