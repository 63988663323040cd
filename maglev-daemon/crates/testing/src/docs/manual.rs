//! A program's arguments as a page, and whether a command in a page could be one of the program's. It must not know any program.

use std::fmt::Write as _;

use clap::{Arg, Command};

/// The reference of a program: each command with its help, its usage and its arguments. `level` is the depth of its headings.
pub fn reference(mut program: Command, level: usize) -> String {
    program.build();
    let mut text = String::new();
    write_command(&mut text, &program, level, true);
    text
}

fn write_command(text: &mut String, command: &Command, level: usize, is_root: bool) {
    let name = name_of(command);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{} {name}\n", "#".repeat(level));
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(text, "{}.\n", about.trim_end_matches('.'));
    let children: Vec<_> = command.get_subcommands().filter(|child| is_shown(child)).collect();
    if children.is_empty() || command.get_arguments().any(|argument| is_own(argument, is_root)) {
        let usage = command.clone().render_usage().to_string();
        let _ = writeln!(text, "`{}`\n", usage.trim_start_matches("Usage: ").lines().next().unwrap_or_default());
    }
    let rows: Vec<_> = command.get_arguments().filter(|argument| is_own(argument, is_root)).map(row).collect();
    if !rows.is_empty() {
        let _ = writeln!(text, "| argument | meaning |\n|---|---|\n{}", rows.concat());
    }
    if let Some(after) = command.get_after_help() {
        let _ = writeln!(text, "{after}\n");
    }
    for child in children {
        write_command(text, child, level + 1, false);
    }
}

/// With the commands that it belongs to.
fn name_of(command: &Command) -> &str {
    command.get_bin_name().filter(|name| !name.is_empty()).unwrap_or(command.get_name())
}

fn is_shown(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

/// Help and version are everywhere, and what is for every command is described once.
fn is_own(argument: &Arg, is_root: bool) -> bool {
    let everywhere = matches!(argument.get_id().as_str(), "help" | "version");
    !everywhere && !argument.is_hide_set() && (is_root || !argument.is_global_set())
}

fn row(argument: &Arg) -> String {
    let names = argument.get_value_names().and_then(|names| names.first());
    let value = || names.map_or_else(|| argument.get_id().to_string(), ToString::to_string);
    let takes_value = argument.get_action().takes_values();
    let options =
        [argument.get_short().map(|short| format!("-{short}")), argument.get_long().map(|long| format!("--{long}"))];
    let options: Vec<_> = options.into_iter().flatten().collect();
    let name = match (options.join(", "), takes_value.then(value)) {
        (options, None) => options,
        (options, Some(value)) if options.is_empty() => value,
        (options, Some(value)) => format!("{options} {value}"),
    };
    let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut parts = vec![help.split_whitespace().collect::<Vec<_>>().join(" ")];
    if takes_value {
        let allowed = argument.get_possible_values();
        let allowed: Vec<_> =
            allowed.iter().filter(|value| !value.is_hide_set()).map(|value| code(value.get_name())).collect();
        parts.extend((!allowed.is_empty()).then(|| format!("allowed: {}", allowed.join(", "))));
        let default: Vec<_> =
            argument.get_default_values().iter().map(|value| code(&value.to_string_lossy())).collect();
        parts.extend((!default.is_empty()).then(|| format!("default: {}", default.join(", "))));
        parts.extend(argument.get_env().map(|name| format!("environment: {}", code(&name.to_string_lossy()))));
    }
    format!("| {} | {} |\n", code(&cell(&name)), cell(&parts.join("; ")))
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// A text that does not end its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Whether words in a sentence name a command of this program, and options that it takes: values may be missing.
///
/// # Errors
/// The word that the program does not know.
pub fn check_mention(program: &Command, words: &[String]) -> Result<(), String> {
    let mut program = program.clone();
    program.build();
    let mut command = &program;
    for word in words.iter().skip(1) {
        if let Some(option) = word.strip_prefix("--").filter(|option| !option.is_empty()) {
            let option = option.split('=').next().unwrap_or_default();
            let known = command.get_arguments().any(|argument| argument.get_long() == Some(option));
            if !known {
                return Err(format!("{} does not take --{option}", name_of(command)));
            }
        } else if let Some(child) = command.find_subcommand(word) {
            command = child;
        } else if command.get_positionals().next().is_none() && is_word(word) && command.has_subcommands() {
            return Err(format!("{} has no command {word}", name_of(command)));
        }
    }
    Ok(())
}

/// Not a placeholder (`NAME`), a short option or an ellipsis.
fn is_word(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Command {
        let pool = Arg::new("pool").help("Its pool");
        let mode = Arg::new("mode").long("mode").value_parser(["a", "b"]).default_value("a").help("Which|way");
        let drain = Command::new("drain").about("Drain it.").arg(pool).arg(mode);
        let secret = Command::new("secret").hide(true);
        let socket = Arg::new("socket").long("socket").value_name("PATH").global(true).help("The socket");
        let group = Command::new("backend").about("Backends").subcommand(drain);
        Command::new("maglev").about("Shows").arg(socket).subcommand(group).subcommand(secret)
    }

    #[test]
    fn each_command_has_its_help_its_usage_and_its_arguments() {
        let expected = "\
## maglev

Shows.

`maglev [OPTIONS] [COMMAND]`

| argument | meaning |
|---|---|
| `--socket PATH` | The socket |

### maglev backend

Backends.

#### maglev backend drain

Drain it.

`maglev backend drain [OPTIONS] [pool]`

| argument | meaning |
|---|---|
| `pool` | Its pool |
| `--mode mode` | Which\\|way; allowed: `a`, `b`; default: `a` |

";
        assert_eq!(reference(program(), 2), expected);
    }

    #[test]
    fn a_mention_names_what_there_is() {
        let check = |line: &str| {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            check_mention(&program(), &words)
        };
        for line in
            ["maglev backend", "maglev backend drain", "maglev backend drain web --mode", "maglev COMMAND --help"]
        {
            assert_eq!(check(line), Ok(()), "{line}");
        }
        assert_eq!(check("maglev backends"), Err("maglev has no command backends".to_owned()));
        assert_eq!(
            check("maglev backend drain web --wait"),
            Err("maglev backend drain does not take --wait".to_owned())
        );
    }
}
