//! Fenced blocks of the pages, and the marks above them.

use super::pages::pages;

/// The line that begins and ends a block, before its language.
pub(super) const FENCE: &str = "```";

/// A fenced block.
#[derive(Clone, Debug, Default)]
pub struct Fence {
    /// The page's path from the workspace's root.
    pub page: String,
    /// The line of its beginning, from 1.
    pub line: usize,
    /// The comment in the line above, such as `sample: status`; empty without one.
    pub comment: String,
    /// The word behind its beginning; may be empty.
    pub language: String,
    /// Its lines, without the block's indentation.
    pub text: String,
}

impl Fence {
    /// Page and line.
    pub fn place(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }

    /// What the mark of this kind says, if there is one: `status` of `<!-- sample: status -->`.
    pub fn mark(&self, kind: &str) -> Option<&str> {
        self.comment.strip_prefix(kind)?.strip_prefix(": ")
    }
}

/// The fenced blocks of all pages.
pub fn fences() -> Vec<Fence> {
    pages().iter().flat_map(|page| of_page(&page.path, &page.text)).collect()
}

/// The fenced blocks of a page.
pub(super) fn of_page(path: &str, text: &str) -> Vec<Fence> {
    let (mut found, mut open, mut above) = (Vec::new(), None::<(usize, Fence)>, "");
    for (number, line) in (1..).zip(text.lines()) {
        let content = line.trim_start_matches(' ');
        match (&mut open, content.strip_prefix(FENCE)) {
            (None, Some(language)) => {
                let comment = above.trim().strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
                let (comment, language) = (comment.unwrap_or_default().to_owned(), language.trim().to_owned());
                let fence = Fence { page: path.to_owned(), line: number, comment, language, ..Fence::default() };
                open = Some((line.len() - content.len(), fence));
            }
            (None, None) => above = line,
            (Some(_), Some(_)) => found.extend(open.take().map(|(_, fence)| fence)),
            (Some((indent, fence)), None) => {
                fence.text += line.get(*indent..).unwrap_or_default();
                fence.text.push('\n');
            }
        }
    }
    assert!(open.is_none(), "{path}: a fence does not end");
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_its_mark_and_loses_its_indentation() {
        let text =
            "a\n<!-- part of: maglev.yaml -->\n```yaml\na:\n  b: c\n```\n1. d\n\n   ```\n   e\n\n     f\n   ```\n";
        let [first, second] = of_page("a.md", text).try_into().unwrap();
        assert_eq!(
            (first.mark("part of"), first.mark("sample"), &*first.text),
            (Some("maglev.yaml"), None, "a:\n  b: c\n")
        );
        assert_eq!((first.place(), &*first.language), ("a.md:3".to_owned(), "yaml"));
        assert_eq!((second.mark("sample"), &*second.text, &*second.language), (None, "e\n\n  f\n", ""));
    }
}
