//! Links within the repository: the file exists, and the heading that an anchor names.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::pages::{pages, root};

/// The links of a page that lead to a file of the repository or a heading, outside of fences.
fn links(text: &str) -> Vec<(usize, String)> {
    let (mut found, mut fenced) = (Vec::new(), false);
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let targets = line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
            let inner = targets.filter(|target| !target.contains("://"));
            found.extend(inner.map(|target| (number, target.to_owned())));
        }
    }
    found
}

/// The anchors of a page's headings, as code hosts form them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let headings = text.lines().filter_map(|line| {
        fenced ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        (!fenced && heading.len() < line.len()).then(|| heading.strip_prefix(' ')).flatten()
    });
    let kept = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    headings
        .map(|heading| heading.to_lowercase().chars().filter(|c| kept(*c)).collect::<String>().replace(' ', "-"))
        .collect()
}

/// A path without `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, component| {
        match component {
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
        plain
    })
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut dead = Vec::new();
    for page in &pages {
        for (line, target) in links(&page.text) {
            let (path, anchor) = target.split_once('#').map_or((&*target, None), |(path, anchor)| (path, Some(anchor)));
            let path = match path {
                "" => PathBuf::from(&page.path),
                path => plain(&Path::new(&page.path).parent().unwrap().join(path)),
            };
            let known =
                |anchor| pages.iter().any(|page| Path::new(&page.path) == path && anchors(&page.text).contains(anchor));
            if !root().join(&path).exists() || !anchor.is_none_or(known) {
                dead.push(format!("{}:{line}: {target}", page.path));
            }
        }
    }
    assert!(dead.is_empty(), "links that lead nowhere:\n{}", dead.join("\n"));
}

#[test]
fn links_and_anchors_are_found() {
    let text = "# A b: `c-d`\n[x](a.md#b) and [y](https://example.org)\n```\n# no heading\n[no](link)\n```\n## E, f!\n";
    assert_eq!(links(text), [(2, "a.md#b".to_owned())]);
    assert_eq!(anchors(text), ["a-b-c-d", "e-f"].map(str::to_owned).into());
}
