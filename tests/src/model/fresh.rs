//! An open question: how long does a node that knows no history learn for members that it finds draining?

use std::fmt::Write as _;

use super::compare::at_once;
use super::design::{Design, Fresh};
use super::router::Ecmp;
use super::scenario;
use super::simulation::simulate;
use super::traffic::Traffic;

/// Seconds from the drain to the node's start.
const AFTER: [u32; 8] = [30, 60, 90, 120, 300, 600, 900, 1_500];
const WAYS: [(Fresh, &str); 3] =
    [(Fresh::FromStart, "from its start"), (Fresh::SinceTheDrain, "since the drain"), (Fresh::NotAtAll, "not at all")];

/// Breaks in either case, by the age of the drain.
pub(super) fn text(seed: u64, flows: u32) -> String {
    let traffic = Traffic::new(&scenario::shape(flows, false), seed);
    let learnings = [120, 600];
    let jobs: Vec<_> = AFTER
        .into_iter()
        .flat_map(|after| learnings.map(|learning| (after, learning)))
        .flat_map(|(after, learning)| WAYS.map(|(fresh, _)| (after, Design::Exception { learning, fresh })))
        .collect();
    let broken = at_once(&jobs, |&(after, design)| {
        let setting = scenario::setting(seed, Ecmp::Reshuffle, false);
        let acts = setting.fleet.acts(&scenario::fresh_node(after));
        simulate(&setting, &traffic, &acts, design, false).broken
    });
    let mut text = format!(
        "a backend is drained, later a node starts without its maps and learns: connections broken of {flows}, seed {seed}\n\n\
         {:24}",
        "seconds after the drain"
    );
    // Writing to a string cannot fail.
    for (learning, (_, way)) in learnings.iter().flat_map(|learning| WAYS.map(|way| (learning, way))) {
        let _ = write!(text, "{:>24}", format!("{learning} s {way}"));
    }
    for (after, broken) in AFTER.iter().zip(broken.chunks(learnings.len() * WAYS.len())) {
        let _ = write!(text, "\n{after:24}");
        for broken in broken {
            let _ = write!(text, "{broken:>24}");
        }
    }
    text.push('\n');
    text
}
