//! A source file as the rules see it: its code without comments and text, and its comments and string literals apart.
//!
//! This is no parser. It knows where comments, strings and characters begin and end, and no other syntax of Rust.

/// A Rust file.
#[derive(Debug)]
pub(super) struct Source {
    /// From the workspace's root, with slashes.
    pub(super) path: String,
    /// The content of the file.
    pub(super) text: String,
    /// The text with comments, strings and characters replaced by spaces; lines and columns are kept.
    pub(super) code: String,
    /// String literals outside comments: the line, from 1, and the text between the quotes.
    pub(super) strings: Vec<(usize, String)>,
    /// Comments: the line, from 1, and the text with its slashes.
    pub(super) comments: Vec<(usize, String)>,
}

impl Source {
    pub(super) fn new(path: String, text: String) -> Self {
        let code = String::with_capacity(text.len());
        let mut lexer = Lexer { rest: &text, code, line: 1, strings: Vec::new(), comments: Vec::new() };
        while lexer.step() {}
        let Lexer { code, strings, comments, .. } = lexer;
        Self { path, text, code, strings, comments }
    }

    /// The words of the code: the line, from 1, and the identifier or keyword.
    pub(super) fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().flat_map(|(index, line)| {
            let words = line.split(|character: char| !character.is_alphanumeric() && character != '_');
            words.filter(|word| !word.is_empty()).map(move |word| (index + 1, word))
        })
    }

    /// The line from which on there are only tests, or one past the last.
    pub(super) fn tests_begin(&self) -> usize {
        let mut lines = self.code.lines().enumerate();
        let begin = lines.find(|(_, line)| line.starts_with("#[cfg(test)]"));
        begin.map_or_else(|| self.code.lines().count() + 1, |(index, _)| index + 1)
    }
}

struct Lexer<'a> {
    rest: &'a str,
    code: String,
    line: usize,
    strings: Vec<(usize, String)>,
    comments: Vec<(usize, String)>,
}

impl Lexer<'_> {
    /// Takes one comment, literal, word or character; false at the end.
    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else {
            return false;
        };
        if self.rest.starts_with("//") {
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            self.comment(end);
        } else if self.rest.starts_with("/*") {
            self.comment(block_comment(self.rest));
        } else if let Some((open, close, escapes)) = string_start(self.rest) {
            self.string(open, &close, escapes);
        } else if let Some(length) = character(self.rest) {
            self.blank(length);
        } else if first.is_alphanumeric() || first == '_' {
            let word = |character: char| character.is_alphanumeric() || character == '_';
            let end = self.rest.find(|character| !word(character)).unwrap_or(self.rest.len());
            self.keep(end);
        } else {
            self.keep(first.len_utf8());
        }
        true
    }

    fn comment(&mut self, length: usize) {
        self.comments.push((self.line, self.rest[..length].to_owned()));
        self.blank(length);
    }

    fn string(&mut self, open: usize, close: &str, escapes: bool) {
        let body = &self.rest[open..];
        let length = string_length(body, close, escapes);
        self.strings.push((self.line, body[..length].to_owned()));
        self.blank((open + length + close.len()).min(self.rest.len()));
    }

    fn keep(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.code.push_str(taken);
        self.rest = rest;
    }

    fn blank(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.code.extend(taken.chars().map(|character| if character == '\n' { '\n' } else { ' ' }));
        self.rest = rest;
    }
}

/// Length of the block comment that begins here; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// If a string begins here: the length of what opens it, what closes it, and whether it has escapes.
fn string_start(text: &str) -> Option<(usize, String, bool)> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        let rest = text.strip_prefix(prefix).unwrap_or_default();
        rest.starts_with('"') || (prefix.ends_with('r') && rest.trim_start_matches('#').starts_with('"'))
    })?;
    let rest = &text[prefix.len()..];
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    Some((prefix.len() + hashes + 1, format!("\"{}", "#".repeat(hashes)), !prefix.ends_with('r')))
}

fn string_length(body: &str, close: &str, escapes: bool) -> usize {
    let mut escaped = false;
    for (at, character) in body.char_indices() {
        if escaped {
            escaped = false;
        } else if escapes && character == '\\' {
            escaped = true;
        } else if body[at..].starts_with(close) {
            return at;
        }
    }
    body.len()
}

/// Length of the character literal that begins here, if it is one and no lifetime.
fn character(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    let mut characters = body.char_indices();
    let (_, first) = characters.next()?;
    if first == '\\' {
        characters.next();
        return characters.find(|&(_, character)| character == '\'').map(|(at, _)| at + 2);
    }
    characters.next().filter(|&(_, character)| character == '\'').map(|(at, _)| at + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("a.rs".to_owned(), text.to_owned())
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        for text in [
            "// unsafe",
            "/* /* unsafe */ unsafe */",
            r#"" unsafe \" unsafe ""#,
            r##"r#" unsafe " unsafe "#"##,
            r#"b"unsafe""#,
            r"'\'' /*unsafe*/",
            "'\"' // unsafe \"",
        ] {
            assert_eq!(source(text).words().next(), None, "{text}");
        }
    }

    #[test]
    fn code_beside_literals_keeps_its_line() {
        let source = source("fn a<'a>() {\n    let b = \"x\n\"; unsafe {}\n}\nlet r = 'r'; var\"\"");
        let words: Vec<_> = source.words().collect();
        assert!(words.contains(&(3, "unsafe")));
        assert!(words.contains(&(1, "a")));
        assert!(words.contains(&(5, "var")));
        assert_eq!(source.strings, [(2, "x\n".to_owned()), (5, String::new())]);
    }

    #[test]
    fn comments_keep_their_line_and_their_text() {
        let source = source("// one\nlet a = \"// no\"; // two\n/* three\n */ fn a() {}");
        let expected = [(1, "// one"), (2, "// two"), (3, "/* three\n */")];
        assert_eq!(source.comments, expected.map(|(line, text)| (line, text.to_owned())));
    }

    #[test]
    fn tests_begin_at_their_attribute() {
        assert_eq!(source("fn a() {}\n\n#[cfg(test)]\nmod tests {}\n").tests_begin(), 3);
        assert_eq!(source("fn a() {}\n").tests_begin(), 2);
    }
}
