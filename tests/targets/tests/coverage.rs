//! Each target for a number of executions, guided by coverage; and that the guide finds what blind changes do not.

use maglev_fuzz_targets::coverage;
use maglev_fuzz_targets::fuzz::{Limits, Report, Target, run};
use maglev_fuzz_targets::targets::{ALL, MAZE};

fn short(target: &Target, executions: u64, guided: bool) -> Report {
    assert!(coverage::edges() > 0, "the compiler counts no edges");
    run(target, Limits { executions, time: None, seed: 1, guided })
}

/// Runs a target of this name.
fn holds(name: &str, executions: u64) {
    let target = ALL.iter().find(|target| target.name == name).unwrap();
    let report = short(target, executions, true);
    println!("{name}: {} edges, {} inputs kept", report.edges, report.kept);
    if let Some(failure) = report.failure {
        panic!("{name}: {failure}");
    }
    assert_eq!(report.executions, executions);
    assert!(report.seeds > 0 && report.kept > 0, "no input reached new code");
}

#[test]
fn coverage_leads_through_a_maze_in_which_blind_changes_get_lost() {
    const EXECUTIONS: u64 = 200_000;
    let blind = short(&MAZE, EXECUTIONS, false);
    assert!(blind.failure.is_none() && blind.executions == EXECUTIONS, "{blind:?}");
    let guided = short(&MAZE, EXECUTIONS, true);
    let Some(failure) = guided.failure else { panic!("lost: {} edges, {} inputs kept", guided.edges, guided.kept) };
    println!("found after {} executions", failure.execution);
    assert_eq!((failure.message.as_str(), failure.input.len()), ("the end of the maze", 12));
}

#[test]
fn frames_that_a_node_receives() {
    holds("forward", 40_000);
}

#[test]
fn frames_that_a_backend_receives() {
    holds("decap", 40_000);
}

#[test]
fn packets_that_a_node_sends() {
    holds("egress", 20_000);
}

#[test]
fn configurations_of_a_node() {
    holds("node", 10_000);
}

#[test]
fn files_of_services() {
    holds("services", 10_000);
}

#[test]
fn bgp_messages() {
    holds("bgp", 40_000);
}

#[test]
fn requests_to_the_api() {
    holds("api", 10_000);
}
