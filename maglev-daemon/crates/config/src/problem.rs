//! The errors of a file: the place, the value and the allowed values.

use std::fmt;
use std::path::{Path, PathBuf};

use maglev_model::shown;

/// One error of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The line, from 1, if it is known.
    pub line: Option<u64>,
    /// The path to the field, such as `pools[0].backends[1].weight`; empty for the file as a whole.
    pub field: String,
    /// The value and what is allowed.
    pub message: String,
}

impl Problem {
    /// An error of a file as a whole.
    pub fn new(file: &Path, message: impl fmt::Display) -> Self {
        Self { file: file.to_owned(), line: None, field: String::new(), message: message.to_string() }
    }
}

impl fmt::Display for Problem {
    /// `services.yaml:7: pools[0].backends[1].weight: 70000 is not a weight; allowed: 0 to 65535`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, field, message } = self;
        write!(f, "{}:", shown(&file.to_string_lossy()))?;
        if let Some(line) = line {
            write!(f, "{line}:")?;
        }
        if !field.is_empty() {
            write!(f, " {field}:")?;
        }
        write!(f, " {message}")
    }
}

/// Errors in the order of files and lines, one per line; those beyond a limit are only counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    listed: Vec<Problem>,
    /// How many others there are.
    more: usize,
}

impl Problems {
    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.listed.len() + self.more
    }

    /// Each problem that is listed.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.listed.iter()
    }

    /// A line for each listed problem, and one with the number of those that are only counted.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let more = (self.more > 0).then(|| format!("{} more errors", self.more));
        self.listed.iter().map(ToString::to_string).chain(more)
    }

    /// Adds those of another file.
    pub fn extend(&mut self, others: Self) {
        self.listed.extend(others.listed);
        self.more += others.more;
    }

    /// `more`: how many there are besides these.
    pub(super) fn sorted(mut listed: Vec<Problem>, more: usize) -> Self {
        listed.sort_by_key(|problem| problem.line);
        Self { listed, more }
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self { listed: vec![problem], more: 0 }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, line) in self.lines().enumerate() {
            let newline = if n == 0 { "" } else { "\n" };
            write!(f, "{newline}{line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
