//! A key of a file as the manual describes it, and documents with and without it. It must not know any particular key.

use std::fmt::Write as _;

use crate::tree::{self, Entry, Node, Value};

/// A key.
pub(super) struct Key {
    /// The path to it; `[]` stands for any item of a list: `pools[].backends[].weight`.
    pub(super) path: &'static str,
    /// What its value is.
    pub(super) kind: &'static str,
    /// What holds without it.
    pub(super) absent: Absent,
    /// A value that means something else than the default; empty where every other value needs another document.
    pub(super) good: &'static str,
    /// A value that is rejected with what is allowed; `*x` is a list of a thousand x. Empty where `kind` and `meaning` say it.
    pub(super) bad: &'static str,
    /// What it means.
    pub(super) meaning: &'static str,
}

/// What holds without a key.
pub(super) enum Absent {
    /// The file is rejected.
    Required,
    /// The same as with this value.
    Is(&'static str),
    /// The same as with the first value, in the document of the group; the second says how it is derived.
    Derived(&'static str, &'static str),
    /// Something that no value says.
    Nothing(&'static str),
}

/// Keys that are tried in the same document.
pub(super) struct Group {
    pub(super) title: &'static str,
    /// A whole file. Each key is tried in it by itself, whatever it says of that key.
    pub(super) document: &'static str,
    pub(super) keys: &'static [Key],
}

impl Key {
    /// The path of the section that it belongs to.
    pub(super) fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    pub(super) fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or_default().trim_end_matches("[]")
    }

    /// The path to it in a report about a first item.
    pub(super) fn field(&self) -> String {
        self.path.trim_end_matches("[]").replace("[]", "[0]")
    }
}

impl Group {
    /// The document without a key.
    pub(super) fn without(&self, path: &str) -> String {
        self.changed(path, None)
    }

    /// The document with another value for a key.
    pub(super) fn with(&self, path: &str, value: &str) -> String {
        let value = match value.strip_prefix('*') {
            Some(item) => format!("[{}]", vec![item; 1_000].join(", ")),
            None => value.to_owned(),
        };
        let Value::Map(mut entries) = parsed(&format!("value: {value}")).value else { unreachable!("it is a map") };
        self.changed(path, Some(entries.remove(0).node))
    }

    /// A part of a file, with what is missing at its top from the document.
    pub(super) fn completed(&self, part: &str) -> String {
        let (Value::Map(entries), Value::Map(others)) = (parsed(part).value, parsed(self.document).value) else {
            panic!("{part} is no map");
        };
        let is_missing = |other: &Entry| entries.iter().all(|entry| entry.key != other.key);
        let missing: Vec<_> = others.into_iter().filter(is_missing).collect();
        let mut text = String::new();
        write_value(&mut text, &Value::Map(entries.into_iter().chain(missing).collect()));
        text
    }

    fn changed(&self, path: &str, value: Option<Node>) -> String {
        let mut root = parsed(self.document);
        let path = path.trim_end_matches("[]").replace("[]", ".[]");
        let (section, key) = path.rsplit_once('.').unwrap_or(("", &path));
        let mut at = &mut root;
        for step in section.split('.').filter(|step| !step.is_empty()) {
            at = stepped(at, step);
        }
        let Value::Map(entries) = &mut at.value else { panic!("{section} is no map in this document") };
        entries.retain(|entry| entry.key != key);
        entries.extend(value.map(|node| Entry { key: key.to_owned(), line: 1, node }));
        let mut text = String::new();
        write_value(&mut text, &root.value);
        text
    }
}

fn parsed(text: &str) -> Node {
    tree::parse(std::path::Path::new("document"), text).unwrap_or_else(|problem| panic!("{problem}"))
}

/// The value of a key, or the first item of a list; a map that is missing is made.
fn stepped<'a>(at: &'a mut Node, step: &str) -> &'a mut Node {
    match &mut at.value {
        Value::List(items) if step == "[]" => &mut items[0],
        Value::Map(entries) => {
            let found = entries.iter().position(|entry| entry.key == step).unwrap_or_else(|| {
                let node = Node { line: 1, value: Value::Map(Vec::new()) };
                entries.push(Entry { key: step.to_owned(), line: 1, node });
                entries.len() - 1
            });
            &mut entries[found].node
        }
        _ => panic!("{step} is not in the document"),
    }
}

/// Writes a value on one line.
fn write_value(text: &mut String, value: &Value) {
    // Writing to a string cannot fail.
    let _ = match value {
        Value::Null => write!(text, "null"),
        Value::Bool(value) => write!(text, "{value}"),
        Value::Integer(digits) => write!(text, "{digits}"),
        Value::Float(number) => write!(text, "{number}"),
        Value::Text(content) => write!(text, "{content:?}"),
        Value::List(items) => {
            text.push('[');
            for item in items {
                write_value(text, &item.value);
                text.push(',');
            }
            write!(text, "]")
        }
        Value::Map(entries) => {
            text.push('{');
            for Entry { key, node, .. } in entries {
                let _ = write!(text, "{key}: ");
                write_value(text, &node.value);
                text.push(',');
            }
            write!(text, "}}")
        }
    };
}
