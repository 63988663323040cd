//! The subset of YAML that the daemon writes, read twenty times as fast as by the full parser: block maps and lists, flow maps and
//! lists on one line, plain and double-quoted scalars that every YAML parser reads as text. Other documents are left to the full
//! parser; a document read here gives the same tree (a test compares them). It must not report errors.

use super::{Entry, Node, Value};

/// Words that some YAML parsers read as a boolean, a number or null.
const RESERVED: [&str; 13] =
    ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "inf", "nan", "infinity", "undefined"];

/// Levels of lists and maps that are read here.
const DEEPEST: usize = 8;

/// Longest whole number that is read here, in digits: it fits 64 bits.
const LONGEST_NUMBER: usize = 18;

/// Reads a document of at most `most` values; `None` if it needs the full parser.
pub(super) fn parse(text: &str, most: usize) -> Option<Node> {
    if text.bytes().any(|byte| !matches!(byte, b'\n' | b' '..=b'~')) {
        return None;
    }
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.split('\n')) {
        let content = line.trim_start_matches(' ');
        if !content.is_empty() && !content.starts_with('#') {
            lines.push(Line { number, indent: line.len() - content.len(), content: content.trim_end_matches(' ') });
        }
    }
    let mut reader = Reader { lines: &lines, left: most };
    let root = reader.block(0, DEEPEST)?;
    reader.lines.is_empty().then_some(root)
}

/// A line with content.
#[derive(Clone, Copy)]
struct Line<'t> {
    /// From 1.
    number: u64,
    /// Columns before the content.
    indent: usize,
    content: &'t str,
}

struct Reader<'a, 't> {
    /// The text that is still unread.
    lines: &'a [Line<'t>],
    /// Values that may still be read.
    left: usize,
}

impl<'t> Reader<'_, 't> {
    /// The lines of one block, which stand at exactly this indent.
    fn block(&mut self, indent: usize, levels: usize) -> Option<Node> {
        let first = *self.lines.first()?;
        if first.indent != indent {
            return None;
        }
        let levels = levels.checked_sub(1)?;
        let value =
            if first.content.starts_with("- ") { self.list(indent, levels)? } else { self.map(indent, levels)? };
        self.node(first.number, value)
    }

    fn list(&mut self, indent: usize, levels: usize) -> Option<Value> {
        let mut items = Vec::new();
        while let Some(&line) = self.lines.first().filter(|line| line.indent >= indent) {
            let item = line.content.strip_prefix("- ").filter(|_| line.indent == indent)?;
            let content = item.trim_start_matches(' ');
            if content.starts_with(['{', '[', '"']) || !content.contains(": ") && !content.ends_with(':') {
                self.lines = &self.lines[1..];
                items.push(self.inline(line.number, content, levels)?);
                continue;
            }
            // A map that begins after the dash: its other keys stand below its first.
            let inner = indent + line.content.len() - content.len();
            let map = self.map_from(Line { indent: inner, content, ..line }, levels.checked_sub(1)?)?;
            items.push(self.node(line.number, map)?);
        }
        Some(Value::List(items))
    }

    fn map(&mut self, indent: usize, levels: usize) -> Option<Value> {
        let first = *self.lines.first()?;
        self.map_from(Line { indent, ..first }, levels)
    }

    /// A map that begins at this line, whatever precedes it there.
    fn map_from(&mut self, first: Line<'t>, levels: usize) -> Option<Value> {
        let mut entries = vec![self.entry(first, levels)?];
        while let Some(&line) = self.lines.first().filter(|line| line.indent >= first.indent) {
            if line.indent != first.indent {
                return None;
            }
            entries.push(self.entry(line, levels)?);
        }
        Some(Value::Map(entries))
    }

    /// A key, and the value beside or below it.
    fn entry(&mut self, line: Line<'t>, levels: usize) -> Option<Entry> {
        self.lines = &self.lines[1..];
        self.left = self.left.checked_sub(1)?;
        let (key, rest) = line.content.split_once(':')?;
        let key = key_of(key)?;
        let node = match rest.strip_prefix(' ') {
            Some(value) => self.inline(line.number, value.trim_start_matches(' '), levels)?,
            None if rest.is_empty() => {
                let below = self.lines.first().filter(|below| below.indent > line.indent)?;
                self.block(below.indent, levels)?
            }
            None => return None,
        };
        Some(Entry { key, line: line.number, node })
    }

    /// A value that takes the rest of its line.
    fn inline(&mut self, line: u64, content: &str, levels: usize) -> Option<Node> {
        let (node, rest) = self.flow(line, content, levels)?;
        rest.is_empty().then_some(node)
    }

    /// A value at the start of a text, and the text after it.
    fn flow<'c>(&mut self, line: u64, content: &'c str, levels: usize) -> Option<(Node, &'c str)> {
        let (value, rest) = match content.as_bytes().first()? {
            b'{' => self.flow_map(line, &content[1..], levels.checked_sub(1)?)?,
            b'[' => self.flow_list(line, &content[1..], levels.checked_sub(1)?)?,
            b'"' => {
                let (text, rest) = content[1..].split_once('"')?;
                (Value::Text((!text.contains('\\')).then(|| text.to_owned())?), rest)
            }
            _ => {
                let end = content.find([',', '}', ']', ' ']).unwrap_or(content.len());
                (scalar(&content[..end])?, &content[end..])
            }
        };
        Some((self.node(line, value)?, rest))
    }

    fn flow_map<'c>(&mut self, line: u64, mut rest: &'c str, levels: usize) -> Option<(Value, &'c str)> {
        let mut entries = Vec::new();
        loop {
            self.left = self.left.checked_sub(1)?;
            let (key, value) = rest.trim_start_matches(' ').split_once(": ")?;
            let (node, behind) = self.flow(line, value.trim_start_matches(' '), levels)?;
            entries.push(Entry { key: key_of(key)?, line, node });
            match separator(behind)? {
                (b',', behind) => rest = behind,
                (b'}', behind) => return Some((Value::Map(entries), behind)),
                _ => return None,
            }
        }
    }

    fn flow_list<'c>(&mut self, line: u64, mut rest: &'c str, levels: usize) -> Option<(Value, &'c str)> {
        let mut items = Vec::new();
        if let Some(behind) = rest.trim_start_matches(' ').strip_prefix(']') {
            return Some((Value::List(items), behind));
        }
        loop {
            let (node, behind) = self.flow(line, rest.trim_start_matches(' '), levels)?;
            items.push(node);
            match separator(behind)? {
                (b',', behind) => rest = behind,
                (b']', behind) => return Some((Value::List(items), behind)),
                _ => return None,
            }
        }
    }

    fn node(&mut self, line: u64, value: Value) -> Option<Node> {
        self.left = self.left.checked_sub(1)?;
        Some(Node { line, value })
    }
}

/// The separator after a value, and the text after it.
fn separator(rest: &str) -> Option<(u8, &str)> {
    let rest = rest.trim_start_matches(' ');
    let sign = *rest.as_bytes().first()?;
    Some((sign, &rest[1..]))
}

/// A key of our files: lower-case letters, digits and underscores.
fn key_of(text: &str) -> Option<String> {
    let fits = text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        && !RESERVED.contains(&text);
    fits.then(|| text.to_owned())
}

/// A plain scalar that every YAML parser reads alike.
fn scalar(text: &str) -> Option<Value> {
    let first = *text.as_bytes().first()?;
    if !text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'/' | b'-')) {
        return None;
    }
    match first {
        b'a'..=b'z' | b'A'..=b'Z' => match text {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ if RESERVED.iter().any(|word| text.eq_ignore_ascii_case(word)) => None,
            _ => Some(Value::Text(text.to_owned())),
        },
        b'/' => Some(Value::Text(text.to_owned())),
        b'1'..=b'9' if text.len() <= LONGEST_NUMBER && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(Value::Integer(text.to_owned()))
        }
        b'1'..=b'9' if is_range(text) => Some(Value::Text(text.to_owned())),
        b'0'..=b'9' if is_duration(text) || text.parse::<std::net::Ipv4Addr>().is_ok() => {
            Some(Value::Text(text.to_owned()))
        }
        _ if text == "0" => Some(Value::Integer(text.to_owned())),
        _ => None,
    }
}

/// Two port numbers: a date has three numbers.
fn is_range(text: &str) -> bool {
    let is_port = |text: &str| (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('-').is_some_and(|(first, last)| is_port(first) && is_port(last))
}

/// Digits and a unit.
fn is_duration(text: &str) -> bool {
    let unit = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
    matches!(unit, "us" | "ms" | "s" | "m" | "h" | "d")
}
