//! Faults that were found by reading: closing steps that fail.

use maglev_common::backend::MemberId;
use maglev_common::table::PoolIndex;
use maglev_model::plan::Step;
use maglev_testing::matrix::Row;

use super::*;

/// A data plane that fails at these steps while `failing` is set.
#[derive(Default)]
struct Worker {
    fails: Option<fn(&Step) -> bool>,
    done: Vec<Step>,
    attempts: usize,
}

impl Worker {
    fn carry(&mut self, steps: &[Step]) -> Result<(), String> {
        self.attempts += 1;
        if self.fails.is_some_and(|fails| steps.iter().any(fails)) {
            return Err("no memory".to_owned());
        }
        self.done.extend_from_slice(steps);
        Ok(())
    }

    /// The reports when the remaining steps are carried out at this time.
    fn run(&mut self, plans: &mut Plans, milliseconds: u64) -> Vec<String> {
        let mut reports = Vec::new();
        let report = |event: Event| reports.push(format!("{event:?}"));
        plans.carry_out(Duration::from_millis(milliseconds), |steps| self.carry(steps), report);
        reports
    }
}

fn removal(id: MemberId) -> Vec<Step> {
    let ids = vec![id];
    let idle = Step::SetIdle { pool: PoolIndex(0), seconds: 10 };
    vec![idle, Step::Barrier, Step::KillMember { id }, Step::Barrier, Step::PurgeFlows { ids }]
}

const PUBLISHED: &str = "Published(Ok(()))";

#[test]
fn closing_steps_that_fail_are_tried_again_until_they_are_done() {
    for (case, fails) in [
        ("a barrier", (|step| *step == Step::Barrier) as fn(&Step) -> bool),
        ("a member's end", |step| matches!(step, Step::KillMember { .. })),
        ("its flow entries' removal", |step| matches!(step, Step::PurgeFlows { .. })),
    ] {
        let _row = Row::fault("R6", &format!("{case} fails after a plan and is tried again"));
        let (mut plane, mut plans) = (Worker { fails: Some(fails), ..Worker::default() }, Plans::default());
        plans.begin(&removal(id(7)));
        assert_eq!(plane.run(&mut plans, 0), [PUBLISHED, "Closed(Err(\"no memory\"))"]);
        assert_eq!(plans.deadline(), Some(Duration::from_millis(100)));
        assert_eq!(plane.run(&mut plans, 100), ["Closed(Err(\"no memory\"))"]);
        assert_eq!(plans.deadline(), Some(Duration::from_millis(300)));
        plane.fails = None;
        assert_eq!(plane.run(&mut plans, 300), ["Closed(Ok(()))"]);
        assert_eq!((plans.deadline(), &plane.done[..]), (None, &removal(id(7))[..]));
        assert!(plane.run(&mut plans, 400).is_empty());
    }
}

#[test]
fn no_plan_begins_before_removed_members_are_cleared() {
    let _row = Row::fault("R6", "the ids of members that are not cleared are given to no other member");
    let fails: fn(&Step) -> bool = |step| matches!(step, Step::PurgeFlows { .. });
    let (mut plane, mut plans) = (Worker { fails: Some(fails), ..Worker::default() }, Plans::default());
    plans.begin(&removal(id(7)));
    plane.run(&mut plans, 0);
    let next = [Step::ReviveMember { id: id(7) }];
    plans.begin(&next);
    let reports = plane.run(&mut plans, 50);
    assert_eq!(reports[1], "Published(Err(\"cannot finish removing members: no memory\"))");
    assert!(!plane.done.contains(&next[0]));
    plane.fails = None;
    plans.begin(&next);
    assert_eq!(plane.run(&mut plans, 100), ["Closed(Ok(()))", PUBLISHED]);
    assert_eq!(plane.done.last(), Some(&next[0]));
}

#[test]
fn the_closing_steps_of_a_plan_that_failed_are_not_carried_out() {
    let _row = Row::fault("R6", "a plan that fails before its closing steps clears nothing");
    let fails: fn(&Step) -> bool = |step| matches!(step, Step::SetIdle { .. });
    let (mut plane, mut plans) = (Worker { fails: Some(fails), ..Worker::default() }, Plans::default());
    plans.begin(&removal(id(7)));
    assert_eq!(plane.run(&mut plans, 0), ["Published(Err(\"no memory\"))"]);
    assert_eq!((plane.done.len(), plane.attempts, plans.deadline()), (0, 1, None));
}

fn id(number: u16) -> MemberId {
    MemberId::new(number).unwrap()
}
