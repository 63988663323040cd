//! The figures for people and for programs, and what must be reached. It must not know how figures come about.

use std::fmt::Write as _;

use serde::Serialize;

use super::compare::{Column, Comparison, Figure};
use super::design::Design;
use super::scenario::{BACKENDS, Bound, CPUS, NODES, Scenario};

/// The design to which the promise applies.
pub(super) const PROMISED: Design = Design::exception(120);

/// All that a comparison found.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    seed: u64,
    flows: u32,
    backends: u16,
    nodes: usize,
    cpus_per_node: u32,
    ecmp: String,
    figures: &'a [Figure],
}

/// A bound and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) held: bool,
    /// One line: what was found, and what was wanted.
    pub(super) line: String,
}

impl<'a> Report<'a> {
    /// The result of a comparison.
    pub(super) fn new(comparison: &Comparison, figures: &'a [Figure]) -> Self {
        let Comparison { seed, flows, ecmp, .. } = comparison;
        let ecmp = format!("{ecmp:?}").to_lowercase();
        let (backends, nodes, cpus_per_node) = (BACKENDS, NODES, CPUS);
        Self { seed: *seed, flows: *flows, backends, nodes, cpus_per_node, ecmp, figures }
    }
}

/// The table: a line for each scenario, a column for each design; with the silent tail in brackets. A star marks where
/// `always` breaks fewer connections than the design that ships.
pub(super) fn table(comparison: &Comparison, figures: &[Figure]) -> String {
    let Comparison { seed, flows, ecmp, scenarios, columns, tails } = comparison;
    let mut text = format!(
        "connections broken while their backend lived, of {flows}; {BACKENDS} backends, {NODES} nodes of {CPUS} CPUs, \
         ECMP: {}, seed {seed}\n",
        format!("{ecmp:?}").to_lowercase()
    );
    if tails.len() > 1 {
        text.push_str("in brackets: with one long-lived flow in ten silent for 200-400 s, again and again\n");
    }
    // Writing to a string cannot fail.
    let _ = write!(text, "\n{:61}", "");
    for column in columns {
        let _ = write!(text, "{:>19}", column.name());
    }
    text.push('\n');
    for scenario in scenarios {
        let stars = tails.iter().any(|&tail| always_wins(figures, scenario, tail));
        let _ = write!(text, "{:61}", format!("{}{}", scenario.title, if stars { " *" } else { "" }));
        for column in columns {
            let broken = |tail| find(figures, scenario, *column, tail).map(|figure| figure.broken);
            let cell = match (broken(false), broken(true)) {
                (Some(broken), Some(tail)) => format!("{broken} ({tail})"),
                (broken, tail) => broken.or(tail).map_or_else(String::new, |broken| broken.to_string()),
            };
            let _ = write!(text, "{cell:>19}");
        }
        text.push('\n');
    }
    let _ = writeln!(text, "\n* always breaks fewer than {PROMISED} here");
    text.push_str(&shortages(figures));
    text
}

/// The required result of the comparison.
pub(super) fn judge(comparison: &Comparison, figures: &[Figure]) -> Vec<Judged> {
    let bounds = comparison.scenarios.iter().filter_map(|scenario| bound(scenario, figures));
    bounds.chain([no_faults(figures)]).collect()
}

/// The judgements for people.
pub(super) fn judgements(judged: &[Judged]) -> String {
    judged.iter().fold(String::new(), |text, Judged { held, line }| {
        format!("{text}{} {line}\n", if *held { "held  " } else { "MISSED" })
    })
}

fn bound(scenario: &Scenario, figures: &[Figure]) -> Option<Judged> {
    let of = |design| Some(find(figures, scenario, Column { design, unlimited: false }, false)?.broken);
    let (broken, always) = (of(PROMISED)?, of(Design::Always)?);
    let (held, wanted) = match scenario.bound {
        Bound::None => (broken == 0, "none may be".to_owned()),
        Bound::HalfOfAlways => (2 * broken <= always, format!("at most half of the {always} that always breaks")),
        Bound::Shown => return None,
    };
    Some(Judged { held, line: format!("{}: {broken} broken by {PROMISED}; {wanted}", scenario.title) })
}

/// Flows that kept to the rules must be kept, in every scenario.
fn no_faults(figures: &[Figure]) -> Judged {
    let of_one = |figure: &Figure| figure.design == PROMISED.to_string() && figure.flow_evicted == 0;
    let faults: u32 = figures.iter().filter(|figure| of_one(figure)).map(|figure| figure.faults).sum();
    let line = format!("all scenarios: {faults} broken that the guarantee covers by {PROMISED}; none may be");
    Judged { held: faults == 0, line }
}

fn always_wins(figures: &[Figure], scenario: &Scenario, tail: bool) -> bool {
    let of = |design| find(figures, scenario, Column { design, unlimited: false }, tail).map(|figure| figure.broken);
    matches!((of(Design::Always), of(PROMISED)), (Some(always), Some(promised)) if always < promised)
}

fn find<'a>(figures: &'a [Figure], scenario: &Scenario, column: Column, silent_tail: bool) -> Option<&'a Figure> {
    let is_it = |figure: &&Figure| {
        figure.scenario == scenario.title && figure.design == column.name() && figure.silent_tail == silent_tail
    };
    figures.iter().find(is_it)
}

/// Flow tables that were too small would explain figures.
fn shortages(figures: &[Figure]) -> String {
    let short = |figure: &&Figure| figure.flow_table_full + figure.flow_evicted > 0;
    figures.iter().filter(short).fold(String::new(), |text, figure| {
        let Figure { scenario, design, flow_table_full, flow_evicted, .. } = figure;
        format!("{text}{scenario}, {design}: {flow_table_full} flows found their bucket full, {flow_evicted} entries were evicted\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::router::Ecmp;

    fn comparison(bound: Bound) -> Comparison {
        let column = |design| Column { design, unlimited: false };
        Comparison {
            seed: 1,
            flows: 10,
            ecmp: Ecmp::Reshuffle,
            scenarios: vec![Scenario { title: "a change", bound, events: Vec::new() }],
            columns: vec![column(Design::Always), column(PROMISED)],
            tails: vec![false, true],
        }
    }

    fn figures(always: u32, promised: u32) -> Vec<Figure> {
        let figure = |design: Design, silent_tail, broken| Figure {
            scenario: "a change",
            design: design.to_string(),
            silent_tail,
            broken,
            ended: 0,
            faults: 0,
            flow_table_full: 0,
            flow_evicted: 0,
        };
        let tails = [false, true].into_iter();
        tails.flat_map(|tail| [figure(Design::Always, tail, always), figure(PROMISED, tail, promised)]).collect()
    }

    fn held(bound: Bound, always: u32, promised: u32) -> bool {
        judge(&comparison(bound), &figures(always, promised)).iter().all(|judged| judged.held)
    }

    #[test]
    fn bounds_are_what_they_say() {
        assert!(held(Bound::None, 0, 0));
        assert!(!held(Bound::None, 9, 1));
        assert!(held(Bound::HalfOfAlways, 9, 4));
        assert!(!held(Bound::HalfOfAlways, 9, 5));
        assert!(held(Bound::Shown, 0, 5));
    }

    #[test]
    fn a_broken_promise_is_no_matter_of_taste() {
        let mut figures = figures(9, 4);
        figures[1].faults = 1;
        let judged = judge(&comparison(Bound::Shown), &figures);
        assert_eq!(judged.iter().map(|judged| judged.held).collect::<Vec<_>>(), [false]);
    }

    #[test]
    fn the_table_shows_where_always_wins() {
        let text = table(&comparison(Bound::Shown), &figures(3, 4));
        assert!(text.contains("a change *") && text.contains("3 (3)") && text.contains("4 (4)"), "{text}");
        let text = table(&comparison(Bound::Shown), &figures(4, 4));
        assert!(!text.contains("a change *"), "{text}");
    }
}
