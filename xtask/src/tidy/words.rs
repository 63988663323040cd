//! Plain words: no forbidden phrase in comments, in text that production code prints, and in documents. A phrase is found
//! across line breaks, and only as whole words. It must not know the phrases, which `phrases` holds.

use std::{collections::HashMap, mem};

use super::{
    Finding,
    phrases::{EXCEPTIONS, Exception, PHRASES},
    sizes,
    source::Source,
};

/// The file that spells out the phrases.
const DATA: &str = "xtask/src/tidy/phrases.rs";

/// A text that is no Rust source: a document, an example, a unit.
#[derive(Debug)]
pub(super) struct Document {
    /// From the workspace's root, with slashes.
    pub(super) path: String,
    pub(super) text: String,
}

/// A word or a punctuation mark, with its line from 1.
#[derive(Debug, PartialEq, Eq)]
struct Token {
    line: usize,
    text: String,
}

/// Phrases by their first token.
struct Phrases(HashMap<String, Vec<Phrase>>);

struct Phrase {
    tokens: Vec<String>,
    text: &'static str,
    better: &'static str,
}

/// Forbidden phrases in the comments of all sources, in the strings before their tests, and in all documents.
pub(super) fn all(sources: &[Source], documents: &[Document]) -> Vec<Finding> {
    let phrases = Phrases::new(&PHRASES);
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path != DATA) {
        for passage in passages(source) {
            findings.extend(phrases.find(&source.path, &passage, &EXCEPTIONS));
        }
    }
    for Document { path, text } in documents {
        findings.extend(phrases.find(path, &tokens(1, text, "#>|"), &EXCEPTIONS));
    }
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    findings
}

impl Phrases {
    fn new(phrases: &[(&'static str, &'static str)]) -> Self {
        let mut by_first: HashMap<_, Vec<_>> = HashMap::new();
        for &(text, better) in phrases {
            let tokens: Vec<String> = tokens(1, text, "").into_iter().map(|token| token.text).collect();
            if let Some(first) = tokens.first().cloned() {
                by_first.entry(first).or_default().push(Phrase { tokens, text, better });
            }
        }
        Self(by_first)
    }

    fn find(&self, path: &str, passage: &[Token], exceptions: &[Exception]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (at, token) in passage.iter().enumerate() {
            for Phrase { tokens, text, better } in self.0.get(&token.text).into_iter().flatten() {
                let matches = passage[at..].len() >= tokens.len()
                    && passage[at..].iter().zip(tokens).all(|(token, expected)| token.text == *expected);
                let excepted = exceptions.iter().any(|(file, excepted, _)| *file == path && excepted == text);
                if matches && !excepted {
                    let message = format!("says \"{text}\"; better: {better}");
                    findings.push(Finding { path: path.to_owned(), line: token.line, message });
                }
            }
        }
        findings
    }
}

/// The texts of a source that a person reads, each without its line breaks: blocks of comments, and strings of production.
fn passages(source: &Source) -> Vec<Vec<Token>> {
    let mut passages = Vec::new();
    let (mut block, mut next) = (Vec::new(), 0);
    for (line, comment) in &source.comments {
        if *line != next {
            passages.push(mem::take(&mut block));
        }
        next = line + comment.lines().count();
        block.extend(tokens(*line, comment, "/!*"));
    }
    passages.push(block);
    let end = if sizes::is_test(&source.path) { 0 } else { sizes::production_end(source) };
    let strings = source.strings.iter().filter(|(line, _)| *line <= end);
    passages.extend(strings.map(|(line, text)| tokens(*line, &without_escapes(text), "")));
    passages
}

/// A literal whose escapes do not stick to words; line breaks stay where they are.
fn without_escapes(text: &str) -> String {
    text.replace("\\n", "  ").replace("\\t", "  ").replace("\\\"", " \"").replace('\\', " ")
}

/// The words of a text in lower case, its punctuation, and an empty token for each empty line, so that no phrase spans paragraphs.
/// `marks` are characters that may begin a line of a comment or list.
fn tokens(first: usize, text: &str, marks: &str) -> Vec<Token> {
    let is_word = |character: char| character.is_alphanumeric() || matches!(character, '_' | '\'');
    let mut found: Vec<Token> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start().trim_start_matches(|character| marks.contains(character));
        if line.trim().is_empty() {
            found.push(Token { line: first + index, text: String::new() });
            continue;
        }
        let mut word = String::new();
        let mut push = |text: String| found.push(Token { line: first + index, text });
        for character in line.chars() {
            if is_word(character) {
                word.extend(character.to_lowercase());
                continue;
            }
            if !word.is_empty() {
                push(mem::take(&mut word));
            }
            if !character.is_whitespace() {
                push(character.to_string());
            }
        }
        if !word.is_empty() {
            push(word);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: [usize; 0] = [];

    /// The lines of a Rust file that hold a forbidden phrase.
    fn lines(path: &str, text: &str) -> Vec<usize> {
        let findings = all(&[Source::new(path.to_owned(), text.to_owned())], &[]);
        findings.into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_phrase_is_found_in_comments_and_in_strings() {
        assert_eq!(lines("xtask/src/a.rs", "//! Routers are told.\nfn a() {} // Nobody reads it.\n"), [1, 2]);
        assert_eq!(lines("xtask/src/a.rs", "fn a() {\n    bail!(\"eth9 is none of them\");\n}\n"), [2]);
        assert_eq!(lines("xtask/src/a.rs", "const A: &str = \"\\\n    one\\n\\\n    who fails\";\n"), [3]);
    }

    #[test]
    fn a_finding_names_the_phrase_and_the_better_wording() {
        let findings = all(&[Source::new("a.rs".to_owned(), "// It is out of\n// reach.".to_owned())], &[]);
        let message = "says \"out of reach\"; better: unreachable, unresolved".to_owned();
        assert_eq!(findings, [Finding { path: "a.rs".to_owned(), line: 1, message }]);
    }

    #[test]
    fn identifiers_and_parts_of_words_are_legal() {
        assert_eq!(lines("xtask/src/a.rs", "//! A whole wholesale way; `who_asked`, whose.\nlet told = 1;\n"), CLEAN);
        assert_eq!(lines("xtask/src/a.rs", "// Reach is out. Of reach we know nothing.\n"), CLEAN);
        assert_eq!(lines("xtask/src/a.rs", "// It is out of\n\n// reach: another comment.\n"), CLEAN);
    }

    #[test]
    fn strings_of_tests_are_free_and_their_comments_are_not() {
        let tests = "fn a() {}\n#[cfg(test)]\nmod tests {\n    // Nobody.\n    const A: &str = \"nobody\";\n}\n";
        assert_eq!(lines("xtask/src/a.rs", tests), [4]);
        assert_eq!(lines("maglev-daemon/src/http/tests.rs", "const A: &str = \"nobody\";\n"), CLEAN);
        assert_eq!(lines("xtask/src/a.rs", "#[cfg(test)]\nmod tests;\nconst A: &str = \"nobody\";\n"), [3]);
    }

    #[test]
    fn documents_are_read_across_lines_and_lists() {
        let text = "# Title\n\nThe backend is out\nof reach.\n\n> Whom?\n\nIt is out of\n\nreach\n".to_owned();
        let findings = all(&[], &[Document { path: "docs/a.md".to_owned(), text }]);
        assert_eq!(findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [3, 6]);
    }

    #[test]
    fn an_exception_holds_for_its_file_and_its_phrase() {
        let phrases = Phrases::new(&[("told", "reported"), ("who", "a noun")]);
        let exceptions = [("a.rs", "told", "a quotation")];
        let find = |path, text| phrases.find(path, &tokens(1, text, ""), &exceptions).len();
        assert_eq!(find("a.rs", "it was told"), 0);
        assert_eq!(find("a.rs", "who was told"), 1);
        assert_eq!(find("b.rs", "it was told"), 1);
    }

    #[test]
    fn phrases_are_in_lower_case_and_exceptions_are_of_phrases() {
        assert!(PHRASES.iter().all(|(phrase, better)| *phrase == phrase.to_lowercase() && !better.is_empty()));
        assert!(EXCEPTIONS.iter().all(|(_, excepted, reason)| {
            !reason.is_empty() && PHRASES.iter().any(|(phrase, _)| phrase == excepted)
        }));
    }
}
