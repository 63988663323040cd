//! `docs/cli.md` and the commands in all pages, compared with the arguments of `maglev`; `cargo xtask docs` writes them.

use clap::CommandFactory as _;
use maglev_model::runbook::{self, Remedy};
use maglev_testing::docs::{self, manual};

use super::*;

mod samples;

const PROGRAM: [&str; 1] = ["maglev"];

#[test]
fn the_reference_is_that_of_the_arguments() {
    docs::hold("docs/cli.md", "maglev", &manual::reference(Args::command(), 3));
}

#[test]
fn the_page_has_every_drop_reason() {
    for (name, entries) in [
        ("drop reasons", runbook::balancer().collect::<Vec<_>>()),
        ("drop reasons of a backend", runbook::backend().collect()),
    ] {
        let rows = entries.iter().filter_map(|entry| {
            let Remedy { check, action } = entry.remedy?;
            Some(format!("| `{}` | {check} | {action} |\n", entry.name))
        });
        let rows: String = rows.collect();
        docs::hold("docs/debug.md", name, &format!("| counter | check | action |\n|---|---|---|\n{rows}"));
    }
}

#[test]
fn every_command_of_the_pages_parses() {
    let commands: Vec<_> = docs::fenced().into_iter().filter(|command| command.is(&PROGRAM)).collect();
    assert!(commands.len() > 20, "{commands:?}");
    let wrong = commands.iter().filter_map(|command| {
        let error = parse(command.words.iter().map(OsString::from)).err()?;
        Some(format!("{}: {}: {error}", command.place, command.words.join(" ")))
    });
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_command_in_a_sentence_exists() {
    let wrong = docs::mentioned(&PROGRAM).into_iter().filter_map(|command| {
        let unknown = manual::check_mention(&Args::command(), &command.words).err()?;
        Some(format!("{}: `{}`: {unknown}", command.place, command.words.join(" ")))
    });
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
