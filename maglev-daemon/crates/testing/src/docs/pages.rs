//! The pages, and the parts of them that tests compare with the code, or write when `cargo xtask docs` runs them.
//!
//! A generated part stands between `<!-- generated: NAME -->` and `<!-- end of NAME -->`. A sample of output is the fence below
//! `<!-- sample: NAME -->`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::fences::{FENCE, fences};

/// The variable with which tests write the pages instead of comparing them.
const WRITE: &str = "MAGLEV_WRITE_DOCS";

/// The remedy for a page that differs from the code.
const REMEDY: &str = "run `cargo xtask docs` and read the difference";

/// Tests of one program run at the same time, and some write the same page.
static WRITING: Mutex<()> = Mutex::new(());

/// A page of the manual.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its path from the workspace's root, such as `docs/cli.md`.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).unwrap().to_owned()
}

/// README.md and all pages below `docs`, in the order of their paths.
pub fn pages() -> Vec<Page> {
    let mut paths = vec!["README.md".to_owned()];
    for folder in ["docs", "docs/design"] {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        paths.extend(names.filter(|name| name.ends_with(".md")).map(|name| format!("{folder}/{name}")));
    }
    paths.sort();
    paths.into_iter().map(|path| Page { text: fs::read_to_string(root().join(&path)).unwrap(), path }).collect()
}

/// Compares the generated part of a page with what the code says now, or writes it.
pub fn hold(path: &str, part: &str, text: &str) {
    let _guard = WRITING.lock();
    let file = root().join(path);
    let page = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (begin, end) = (format!("<!-- generated: {part} -->\n"), format!("<!-- end of {part} -->"));
    let bounds = page.split_once(&begin).and_then(|(head, rest)| Some((head, rest.split_once(&end)?)));
    let (head, (found, tail)) = bounds.unwrap_or_else(|| panic!("{path} has no lines {begin:?} and {end:?}"));
    let expected = format!("\n{}\n\n", text.trim_end());
    settle(&format!("{path}, part {part}"), found, &expected, || {
        fs::write(&file, format!("{head}{begin}{expected}{end}{tail}")).unwrap();
    });
}

/// Compares the samples in all pages with the text that the code makes now, or writes them: each of `samples` stands in some page, and
/// no page has others.
pub fn hold_samples(samples: &[(&str, String)]) {
    let _guard = WRITING.lock();
    let mut shown = BTreeSet::new();
    for fence in fences() {
        let Some(name) = fence.mark("sample") else { continue };
        let sample = samples.iter().find(|(known, _)| *known == name);
        let (name, expected) = sample.unwrap_or_else(|| panic!("{}: there is no sample {name}", fence.place()));
        shown.insert(*name);
        settle(&format!("{}, sample {name}", fence.place()), &fence.text, expected, || {
            let file = root().join(&fence.page);
            fs::write(&file, replaced(&fs::read_to_string(&file).unwrap(), name, expected)).unwrap();
        });
    }
    let unused: Vec<_> = samples.iter().map(|(name, _)| *name).filter(|name| !shown.contains(name)).collect();
    assert!(unused.is_empty(), "samples that no page shows: {}", unused.join(", "));
}

/// A page with another text in the fence of a sample.
fn replaced(page: &str, name: &str, text: &str) -> String {
    let mark = format!("<!-- sample: {name} -->");
    let (head, rest) = page.split_once(&mark).unwrap();
    let (before, rest) = rest.split_once(FENCE).unwrap();
    let indent = &before[before.rfind('\n').unwrap_or(0)..];
    let (language, rest) = rest.split_once('\n').unwrap();
    let (_, tail) = rest.split_once(FENCE).unwrap();
    let body: String = text.lines().map(|line| format!("{indent}{line}").trim_end_matches(' ').to_owned()).collect();
    format!("{head}{mark}{before}{FENCE}{language}{body}{indent}{FENCE}{tail}")
}

/// Fails if two texts differ; writes the file instead if the environment says so.
fn settle(place: &str, found: &str, expected: &str, write: impl FnOnce()) {
    if found == expected {
        return;
    }
    if std::env::var_os(WRITE).is_some() {
        return write();
    }
    let end = || (found.lines().count(), expected.lines().count());
    let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    match differs {
        Some((found, expected)) => panic!("{place} differs from the code: {REMEDY}\n-{found}\n+{expected}"),
        None => panic!("{place} differs from the code, in its number of lines {:?}: {REMEDY}", end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_replaced_with_its_indentation() {
        let page = "a\n\n   <!-- sample: x -->\n   ```console\n   old\n   ```\n\n```\nb\n```\n";
        let expected = "a\n\n   <!-- sample: x -->\n   ```console\n   new\n\n   line\n   ```\n\n```\nb\n```\n";
        assert_eq!(replaced(page, "x", "new\n\nline\n"), expected);
    }

    #[test]
    #[should_panic(expected = "place differs from the code: run `cargo xtask docs`")]
    fn a_difference_names_the_command_that_writes_it() {
        settle("place", "a\n", "b\n", || ());
    }
}
