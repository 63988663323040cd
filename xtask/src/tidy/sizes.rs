//! The limits of lengths of files and functions. A longer one has a comment `// long: reason` in the file's head, or above the
//! function. Tests do not count.

use super::{Finding, source::Source};

/// Lines of a file, up to its tests.
const FILE: usize = 450;
/// Lines of a function, from its name to its last brace.
const FUNCTION: usize = 60;

/// The mark of an exception; a reason follows.
const MARK: &str = "// long: ";

/// Excess lengths without a reason, and reasons without an excess length.
pub(super) fn limits(source: &Source) -> Vec<Finding> {
    if is_test(&source.path) {
        return Vec::new();
    }
    let (text, code): (Vec<&str>, Vec<&str>) = (source.text.lines().collect(), source.code.lines().collect());
    let end = production(&code);
    let head = code.iter().position(|line| !line.trim().is_empty()).unwrap_or(end);
    let mut reasons: Vec<usize> = (0..end).filter(|&at| is_reason(text[at])).collect();
    let mut findings = Vec::new();
    let mut check = |at: usize, what: &str, length: usize, most: usize, beside: std::ops::Range<usize>| {
        let reason = reasons.iter().position(|at| beside.contains(at));
        let excess = length > most;
        match reason {
            Some(reason) if excess => drop(reasons.remove(reason)),
            None if excess => {
                let message = format!("{what} has {length} lines; allowed: {most}, or `{MARK}reason` beside it");
                findings.push(Finding { path: source.path.clone(), line: at + 1, message });
            }
            Some(_) | None => {}
        }
    };
    check(0, "the file", end, FILE, 0..head);
    for (first, last) in functions(&code[..end]) {
        check(first, "the function", last - first + 1, FUNCTION, above(&text, first)..first);
    }
    for at in reasons {
        let message = "is a reason for a length that is within the limits: remove it".to_owned();
        findings.push(Finding { path: source.path.clone(), line: at + 1, message });
    }
    findings
}

fn is_reason(line: &str) -> bool {
    line.trim_start().strip_prefix(MARK).is_some_and(|reason| !reason.trim().is_empty())
}

/// The number of lines before the tests that end a file. A module of tests in a file of its own is declared, not begun.
fn production(code: &[&str]) -> usize {
    let begins = |pair: &[&str]| pair[0].starts_with("#[cfg(test)]") && !pair[1].trim_end().ends_with(';');
    code.windows(2).position(begins).unwrap_or(code.len())
}

/// The last line, from 1, before the tests that end a file.
pub(super) fn production_end(source: &Source) -> usize {
    production(&source.code.lines().collect::<Vec<_>>())
}

/// The first and the last line of each function with a body. The formatter puts the last brace below the first word.
fn functions(code: &[&str]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (first, line) in code.iter().enumerate().filter(|(_, line)| begins_function(line)) {
        let indent = line.len() - line.trim_start().len();
        let ends = |line: &&str| {
            let body = line.get(indent..).unwrap_or_default();
            line.trim_start().len() + indent == line.len() && (body.starts_with('}') || body.ends_with(';'))
        };
        if line.ends_with(['}', ';']) {
            found.push((first, first));
        } else if let Some(length) = code[first + 1..].iter().position(ends) {
            found.push((first, first + 1 + length));
        }
    }
    found
}

fn begins_function(line: &str) -> bool {
    let words = line.trim_start().split(' ').take_while(|word| {
        matches!(*word, "pub" | "const" | "async" | "unsafe" | "extern" | "fn" | "") || word.starts_with("pub(")
    });
    words.last() == Some("fn")
}

/// The first of the comments and attributes that stand above a function.
fn above(text: &[&str], function: usize) -> usize {
    let belongs = |line: &&&str| line.trim_start().starts_with("//") || line.trim_start().starts_with("#[");
    function - text[..function].iter().rev().take_while(belongs).count()
}

/// Tests, and files that only they use.
pub(super) fn is_test(path: &str) -> bool {
    let names = ["tests", "faults", "interop"];
    let (_, inner) = path.split_once("/src/").unwrap_or(("", path));
    inner.ends_with("_tests.rs") || inner.split(['/', '.']).any(|part| names.contains(&part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        limits(&Source::new(path.to_owned(), text.to_owned())).into_iter().map(|finding| finding.line).collect()
    }

    /// A function of so many lines.
    fn function(lines: usize) -> String {
        format!("fn a() {{\n{}}}\n", "    b();\n".repeat(lines - 2))
    }

    #[test]
    fn a_long_file_gives_a_reason_in_its_head() {
        let file = |head: &str, lines: usize| format!("//! A module.\n{head}\n{}", "use a;\n".repeat(lines));
        assert_eq!(lines("xtask/src/a.rs", &file("", 448)), [0; 0]);
        assert_eq!(lines("xtask/src/a.rs", &file("", 449)), [1]);
        assert_eq!(lines("xtask/src/a.rs", &file("// long: a table", 449)), [0; 0]);
        assert_eq!(lines("xtask/src/a.rs", &file("// long: ", 449)), [1], "no reason is none");
        assert_eq!(lines("xtask/src/a.rs", &file("// long: a table", 9)), [2], "no reason is needed");
        assert_eq!(lines("xtask/src/a/tests.rs", &file("", 449)), [0; 0]);
        assert_eq!(lines("tests/tests/a.rs", &file("", 449)), [0; 0]);
        assert_eq!(lines("tests/src/a.rs", &file("", 449)), [1]);
    }

    #[test]
    fn tests_in_a_file_do_not_count() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    use a;\n".repeat(500));
        assert_eq!(lines("xtask/src/a.rs", &format!("//! A module.\n{tests}")), [0; 0]);
        let declared = format!("//! A module.\n#[cfg(test)]\nmod tests;\n{}", "use a;\n".repeat(450));
        assert_eq!(lines("xtask/src/a.rs", &declared), [1]);
    }

    #[test]
    fn a_long_function_gives_a_reason_above() {
        assert_eq!(lines("xtask/src/a.rs", &function(60)), [0; 0]);
        assert_eq!(lines("xtask/src/a.rs", &function(61)), [1]);
        let reason = format!("/// Does it.\n// long: one arm for each event\n#[must_use]\npub const {}", function(61));
        assert_eq!(lines("xtask/src/a.rs", &reason), [0; 0]);
        let apart = format!("fn b() {{}}\n// long: of another\n\n{}", function(61));
        assert_eq!(lines("xtask/src/a.rs", &apart), [4, 2]);
        let inner = function(70)
            .replace("    b", "        b")
            .replace("fn", "    pub(super) async fn")
            .replace("\n}", "\n    }");
        assert_eq!(lines("xtask/src/a.rs", &format!("impl A {{\n{inner}}}\n")), [2]);
    }

    #[test]
    fn a_function_ends_at_its_brace() {
        let declared =
            format!("trait A {{\n    fn a(\n        b: u8,\n    ) -> u8;\n    fn c();\n}}\n{}", function(60));
        assert_eq!(lines("xtask/src/a.rs", &declared), [0; 0]);
        let wrapped = function(59).replacen("fn a() {", "fn a(\n    b: u8,\n) -> u8 {", 1);
        assert_eq!(lines("xtask/src/a.rs", &wrapped), [1]);
    }
}
