//! The part of `docs/cli.md` about `maglevd`, and its commands in all pages, compared with its arguments; `cargo xtask docs` writes
//! them.

use clap::CommandFactory as _;
use maglev_common::counters::DecapCounter;
use maglev_testing::docs::{self, manual};

use super::*;

const PROGRAM: [&str; 1] = ["maglevd"];

#[test]
fn the_reference_is_that_of_the_arguments() {
    docs::hold("docs/cli.md", "maglevd", &manual::reference(Args::command(), 3));
}

#[test]
fn every_command_of_the_pages_parses() {
    let commands: Vec<_> = docs::fenced().into_iter().filter(|command| command.is(&PROGRAM)).collect();
    assert!(commands.len() >= 3, "{commands:?}");
    for command in commands {
        let parsed = Args::try_parse_from(&command.words);
        assert!(parsed.is_ok(), "{}: {}: {}", command.place, command.words.join(" "), parsed.unwrap_err());
    }
}

#[test]
fn every_command_in_a_sentence_exists() {
    for command in docs::mentioned(&PROGRAM) {
        let known = manual::check_mention(&Args::command(), &command.words);
        assert_eq!(known, Ok(()), "{}: `{}`", command.place, command.words.join(" "));
    }
}

#[test]
fn the_table_of_counters_on_a_backend_has_each_of_them() {
    let page = docs::pages().into_iter().find(|page| page.path == "docs/packets.md").unwrap();
    let (_, table) = page.text.split_once("## On the backend").unwrap();
    let names = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let (mut listed, mut known) =
        (names.collect::<Vec<_>>(), DecapCounter::ALL.iter().map(|c| c.name()).collect::<Vec<_>>());
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(listed, known);
}
