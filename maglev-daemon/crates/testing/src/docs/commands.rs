//! Commands in the pages: the lines of shell blocks, the prompts of console blocks, and code within sentences. It must not know what
//! any program takes.

use super::fences::fences;
use super::pages::pages;

/// A command with its words, as a shell would split them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Page and line.
    pub place: String,
    /// The program and its arguments.
    pub words: Vec<String>,
}

impl Command {
    /// Whether it begins with these words.
    pub fn is(&self, program: &[&str]) -> bool {
        self.words.len() >= program.len() && self.words.iter().zip(program).all(|(word, known)| word == known)
    }
}

/// The commands of all shell blocks, and those behind a prompt in console blocks.
pub fn fenced() -> Vec<Command> {
    let mut found = Vec::new();
    for fence in fences() {
        let prompt = match &*fence.language {
            "sh" => "",
            "console" => "# ",
            _ => continue,
        };
        for (line, text) in (fence.line + 1..).zip(fence.text.lines()) {
            let place = || format!("{}:{line}", fence.page);
            let commands = text.strip_prefix(prompt).into_iter().flat_map(split);
            found.extend(commands.map(|words| Command { place: place(), words }));
        }
    }
    found
}

/// Code within sentences, but for generated parts, that begins with these words and has more: ``see `maglev status` ``. Alternatives (`vip add|set`) are
/// commands of their own.
pub fn mentioned(program: &[&str]) -> Vec<Command> {
    let mut found = Vec::new();
    for page in pages() {
        let (mut fenced, mut generated) = (false, false);
        for (number, line) in (1..).zip(page.text.lines()) {
            generated = line.starts_with("<!-- generated: ") || generated && !line.starts_with("<!-- end of ");
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if !fenced && !generated {
                // Every second part stands between backticks.
                let code = line.split('`').skip(1).step_by(2);
                let commands = code.flat_map(split).flat_map(|words| alternatives(&words));
                let commands = commands.map(|words| Command { place: format!("{}:{number}", page.path), words });
                found.extend(commands.filter(|command| command.is(program) && command.words.len() > program.len()));
            }
        }
    }
    found
}

/// The simple commands of a line: split at `&&`, `|` and `;`, without its comment.
fn split(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words, mut word, mut quote) = (Vec::new(), Vec::new(), None::<String>, None);
    for character in line.chars() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ') => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    for part in words.split(|word| matches!(&**word, "&&" | "|" | ";")) {
        if !part.is_empty() {
            commands.push(part.to_vec());
        }
    }
    commands
}

/// The commands that a form such as `vip add|set` stands for.
fn alternatives(words: &[String]) -> Vec<Vec<String>> {
    let mut forms = vec![Vec::new()];
    for word in words {
        let choices: Vec<&str> = word.split('|').collect();
        forms = forms
            .into_iter()
            .flat_map(|form: Vec<String>| {
                choices.iter().map(move |choice| [&form[..], &[(*choice).to_owned()]].concat())
            })
            .collect();
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<String>> {
        line.split(';').map(|command| command.split(' ').map(str::to_owned).collect()).collect()
    }

    #[test]
    fn a_line_is_split_as_a_shell_does() {
        assert_eq!(split("a b && c 'd e' # f"), [vec!["a", "b"], vec!["c", "d e"]]);
        assert_eq!(split("  a \"x #y\"#z | b"), [vec!["a", "x #y#z"], vec!["b"]]);
        assert!(split("# only a comment").is_empty());
        assert_eq!(split("a ''"), [["a", ""]]);
    }

    #[test]
    fn alternatives_are_commands_of_their_own() {
        assert_eq!(alternatives(&words("maglev vip add|set")[0]), words("maglev vip add;maglev vip set"));
        assert_eq!(alternatives(&words("a b")[0]), words("a b"));
    }
}
