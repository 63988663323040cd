//! A small decoder over [`super::tree`]: it continues after an error and collects all errors. It must not know any
//! particular key.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use maglev_model::shown;

use super::tree::{Entry, Node, Value};
use super::{Problem, Problems};

/// The most errors kept of one file: more do not help, and a file can hold a million.
const MOST: usize = 1_000;

/// The errors found so far in one file.
pub(super) struct Collector {
    file: PathBuf,
    problems: RefCell<Vec<Problem>>,
    /// How many more there are, only counted.
    more: Cell<usize>,
}

impl Collector {
    pub(super) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), problems: RefCell::default(), more: Cell::default() }
    }

    pub(super) fn finish(self) -> Problems {
        Problems::sorted(self.problems.into_inner(), self.more.get())
    }

    fn report(&self, line: u64, field: &FieldPath<'_>, message: impl Display) {
        if self.problems.borrow().len() == MOST {
            self.more.set(self.more.get() + 1);
            return;
        }
        let (message, field) = (message.to_string(), field.to_string());
        self.problems.borrow_mut().push(Problem { file: self.file.clone(), line: Some(line), field, message });
    }
}

/// The path from the document to a value, formatted only when there is an error.
#[derive(Clone, Default)]
struct FieldPath<'a>(Option<Rc<(Self, Step<'a>)>>);

#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    /// A list's item, from 0.
    Item(usize),
}

impl<'a> FieldPath<'a> {
    fn then(&self, step: Step<'a>) -> Self {
        Self(Some(Rc::new((self.clone(), step))))
    }

    /// The key it ends with, if it does.
    fn last_key(&self) -> Option<&'a str> {
        match self.0.as_deref() {
            Some((_, Step::Key(key))) => Some(key),
            _ => None,
        }
    }

    const fn is_root(&self) -> bool {
        self.0.is_none()
    }
}

impl Display for FieldPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((parent, step)) = self.0.as_deref() else { return Ok(()) };
        match step {
            Step::Key(key) if parent.is_root() => f.write_str(&shown(key)),
            Step::Key(key) => write!(f, "{parent}.{}", shown(key)),
            Step::Item(n) => write!(f, "{parent}[{n}]"),
        }
    }
}

/// A value, the path to it, and the collector of its errors.
#[derive(Clone)]
pub(super) struct Field<'a> {
    path: FieldPath<'a>,
    line: u64,
    value: &'a Value,
    out: &'a Collector,
}

impl<'a> Field<'a> {
    /// The document itself.
    pub(super) fn root(node: &'a Node, out: &'a Collector) -> Self {
        Self { path: FieldPath::default(), line: node.line, value: &node.value, out }
    }

    /// A value that stands alone, under the name of the key it usually has.
    pub(super) fn named(name: &'a str, node: &'a Node, out: &'a Collector) -> Self {
        Self { path: FieldPath::default().then(Step::Key(name)), ..Self::root(node, out) }
    }

    /// Reports an error of this value.
    pub(super) fn report(&self, message: impl Display) {
        self.out.report(self.line, &self.path, message);
    }

    /// The value, or a report of the error.
    pub(super) fn accept<T, E: Display>(&self, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.report(error)).ok()
    }

    /// A scalar as text, read by `parse`. Whole numbers count as their digits.
    pub(super) fn parse<T, E: Display>(&self, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        match self.value {
            Value::Text(text) | Value::Integer(text) => self.accept(parse(text)),
            Value::Float(number) => self.accept(parse(&number.to_string())),
            Value::Bool(value) => self.accept(parse(if *value { "true" } else { "false" })),
            Value::Null | Value::List(_) | Value::Map(_) => {
                self.report(format_args!("expected a single value, found {}", self.kind()));
                None
            }
        }
    }

    /// A value that YAML reads as text.
    pub(super) fn text(&self) -> Option<&'a str> {
        let Value::Text(text) = self.value else {
            let quotes = if matches!(self.value, Value::List(_) | Value::Map(_) | Value::Null) {
                ""
            } else {
                "; put it in quotes"
            };
            self.report(format_args!("expected text, found {}{quotes}", self.kind()));
            return None;
        };
        Some(text)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        let Value::Bool(value) = self.value else {
            self.report(format_args!("expected true or false, found {}", self.kind()));
            return None;
        };
        Some(*value)
    }

    /// The items of a list, or a report. A key without a value is not an empty list: its items may have been lost.
    pub(super) fn items(&self) -> Option<Vec<Self>> {
        let found = self.list();
        if found.is_none() {
            let remedy = match (self.value, self.path.last_key()) {
                (Value::Null, Some(key)) => format!("; write `{key}: []` for none"),
                _ => String::new(),
            };
            self.report(format_args!("expected a list, found {}{remedy}", self.kind()));
        }
        found
    }

    /// The items if the value is a list; another value is reported by the function that reads the whole.
    pub(super) fn list(&self) -> Option<Vec<Self>> {
        let Value::List(items) = self.value else { return None };
        let item = |(n, node): (usize, &'a Node)| Self {
            path: self.path.then(Step::Item(n)),
            line: node.line,
            value: &node.value,
            out: self.out,
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// The value as a map with these keys; other keys are reported, those of later releases as such.
    pub(super) fn section(&self, known: &[&str], later: &[&str]) -> Option<Section<'a>> {
        let entries = match self.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null if self.path.is_root() => &[],
            _ => {
                self.report(format_args!("expected keys and values ({}), found {}", known.join(", "), self.kind()));
                return None;
            }
        };
        let section = Section { field: self.clone(), entries };
        for (n, entry) in entries.iter().enumerate() {
            let field = section.child(entry);
            if later.contains(&entry.key.as_str()) {
                field.report("not supported by this release; remove it");
            } else if !known.contains(&entry.key.as_str()) {
                field.report(format_args!("unknown key; allowed: {}", known.join(", ")));
            } else if let Some(first) = entries[..n].iter().find(|first| first.key == entry.key) {
                field.report(format_args!("given twice, first in line {}", first.line));
            }
        }
        Some(section)
    }

    /// The value of a key, if this is a map with that key; every other fault is reported by the function that reads the whole.
    pub(super) fn peek(&self, key: &str) -> Option<Self> {
        let Value::Map(entries) = self.value else { return None };
        let entry = entries.iter().find(|entry| entry.key == key)?;
        Some(Self {
            path: self.path.then(Step::Key(&entry.key)),
            line: entry.line,
            value: &entry.node.value,
            out: self.out,
        })
    }

    fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// A map whose keys are known.
pub(super) struct Section<'a> {
    field: Field<'a>,
    entries: &'a [Entry],
}

impl<'a> Section<'a> {
    /// The field of a key, if it is given.
    pub(super) fn get(&self, key: &str) -> Option<Field<'a>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| self.child(entry))
    }

    /// The field of a key, or a report that it is missing.
    pub(super) fn need(&self, key: &str, what: &str) -> Option<Field<'a>> {
        let found = self.get(key);
        if found.is_none() {
            let Field { path, line, out, .. } = &self.field;
            out.report(*line, &path.then(Step::Key(key)), format_args!("missing; expected {what}"));
        }
        found
    }

    /// Reports an error of the section as a whole.
    pub(super) fn report(&self, message: impl Display) {
        self.field.report(message);
    }

    /// The value, or a report of the error for the section as a whole.
    pub(super) fn accept<T, E: Display>(&self, result: Result<T, E>) -> Option<T> {
        self.field.accept(result)
    }

    fn child(&self, entry: &'a Entry) -> Field<'a> {
        let Field { path, out, .. } = &self.field;
        Field { path: path.then(Step::Key(&entry.key)), line: entry.line, value: &entry.node.value, out }
    }
}

/// A whole number from 1 to `most`.
pub(super) fn parse_number(text: &str, most: u64) -> Result<u32, String> {
    parse_number_from(1, text, most)
}

/// A whole number from `least` to `most`.
pub(super) fn parse_number_from(least: u32, text: &str, most: u64) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(number) if number >= least && u64::from(number) <= most => Ok(number),
        _ => Err(format!("{} is out of range; allowed: {least} to {most}", shown(text))),
    }
}
