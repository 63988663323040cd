//! One-line messages for wrong usage, for both programs. It must not know their arguments.

use std::io::Write as _;

use super::Exit;

/// Prints the argument parser's output: help and version in full, an error as one line `PROGRAM: …`.
pub fn report(program: &str, error: &clap::Error) -> Exit {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    match error.kind() {
        DisplayHelp | DisplayVersion => {
            // A closed pipe is no error.
            let _ = write!(std::io::stdout(), "{}", error.render());
            Exit::Done
        }
        DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = write!(std::io::stderr(), "{}", error.render());
            Exit::Invalid
        }
        _ => {
            eprintln!("{program}: {}", one_line(&error.render().to_string()));
            Exit::Invalid
        }
    }
}

/// The parser's message without its label and its usage: paragraphs up to the usage, on one line.
fn one_line(message: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let until_usage = message.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let mut line = String::new();
    for part in until_usage.map(str::trim).filter(|part| !part.is_empty()) {
        if !line.is_empty() {
            line.push_str(if line.ends_with(':') || part.starts_with('[') { " " } else { "; " });
        }
        line.push_str(part);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn messages_of_several_lines_become_one() {
        let message = "error: the following required arguments were not provided:\n  --port <PORT>\n  --pool <POOL>\n\n\
                       Usage: maglev vip add\n\nFor more information, try '--help'.\n";
        let line = "the following required arguments were not provided: --port <PORT>; --pool <POOL>";
        assert_eq!(one_line(message), line);
        assert_eq!(one_line("error: invalid value 'x'\n\nFor more information, try '--help'.\n"), "invalid value 'x'");
    }
}
