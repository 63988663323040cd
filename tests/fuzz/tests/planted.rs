//! The fuzzer finds every planted fault within a short run, and none in the programs that ship. Needs root.

use maglev_common::counters::Counter;
use maglev_dataplane::rig::Fault;
use maglev_fuzz::report::Report;
use maglev_fuzz::run::{Program, Settings, run};

/// Counters of what no packet of a short run can cause: full tables, full headroom, members that end, a daemon that is gone.
const NEVER: [Counter; 8] = [
    Counter::DaemonGone,
    Counter::NoHeadroom,
    Counter::FragmentLimit,
    Counter::FlowPromoted,
    Counter::FlowTableFull,
    Counter::FlowEvicted,
    Counter::FlowTableMissing,
    Counter::FlowMemberDead,
];

/// Packets of a short run.
const SHORT: u64 = 200_000;

#[test]
fn programs_and_oracle_agree_on_every_packet_of_a_short_run() {
    let settings = Settings { packets: SHORT, seed: 7, only: None, fault: None, stops: false };
    let report = Report::new(settings.seed, run(&settings).unwrap());
    assert!(Program::ALL.iter().map(|program| report.packets(*program)).sum::<u64>() >= SHORT);
    assert_eq!(report.disagreements(), 0, "{report}");
    let unmet = |counter: &&Counter| !NEVER.contains(counter) && report.counted(counter.name()) < 5;
    let unmet: Vec<_> = Counter::ALL.iter().filter(unmet).map(|counter| counter.name()).collect();
    assert_eq!(unmet, Vec::<&str>::new(), "every fate is met: {report}");
}

#[test]
fn every_planted_fault_is_found() {
    let found = |fault: Fault| {
        let only = if fault == Fault::RedirectsChecks { Program::Egress } else { Program::Balancer };
        let settings = Settings { packets: SHORT, seed: 7, only: Some(only), fault: Some(fault), stops: true };
        Report::new(settings.seed, run(&settings).unwrap()).disagreements() > 0
    };
    let missed: Vec<_> = Fault::ALL.into_iter().filter(|fault| !found(*fault)).collect();
    assert_eq!(missed, []);
}
