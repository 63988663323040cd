//! `cargo xtask docs`: has the tests that compare the manual's pages with the code write them instead. It must not know what they
//! write.

use anyhow::Result;

use crate::{program, setup};

/// Crates with tests of pages; their modules `docs` hold these.
const CRATES: [&str; 3] = ["maglev-cli", "maglev-config", "maglev-daemon"];

/// Sets up, and writes the pages.
///
/// # Errors
/// If a test does not build, or a page is wrong in a way that writing does not mend, such as a command that does not parse.
pub(crate) fn run() -> Result<()> {
    setup::run()?;
    let mut command = program::command(program::cargo());
    command.args(["test", "--quiet", "--locked", "--no-fail-fast", "--lib", "--bins"]);
    command.args(CRATES.iter().flat_map(|name| ["--package", name]));
    program::run(command.arg("docs::").env("MAGLEV_WRITE_DOCS", "1"))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};
    use maglev_testing::docs::{fenced, manual, mentioned};

    use crate::Arguments;

    const PROGRAM: [&str; 2] = ["cargo", "xtask"];

    #[test]
    fn every_command_of_the_pages_parses() {
        let commands: Vec<_> = fenced().into_iter().filter(|command| command.is(&PROGRAM)).collect();
        assert!(commands.len() >= 4, "{commands:?}");
        for command in commands {
            let parsed = Arguments::try_parse_from(&command.words[1..]).map(drop);
            assert!(parsed.is_ok(), "{}: {}: {}", command.place, command.words.join(" "), parsed.unwrap_err());
        }
    }

    #[test]
    fn every_command_in_a_sentence_exists() {
        // What demo, bench, model and soak take is known to them alone.
        let apart = |command: &&str| ["demo", "bench", "model", "soak"].contains(command);
        for command in mentioned(&PROGRAM) {
            let words = &command.words[1..];
            let words = if apart(&&*words[1]) { &words[..2] } else { words };
            let known = manual::check_mention(&Arguments::command(), words);
            assert_eq!(known, Ok(()), "{}: `{}`", command.place, command.words.join(" "));
        }
    }
}
