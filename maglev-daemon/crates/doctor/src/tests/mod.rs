//! The table of faults: each is seeded in facts that are well otherwise, and found with its remedy and its page. Without it, nothing is
//! found.

mod backends;
mod bad_facts;
mod nodes;
mod well;

use maglev_api::view::{Finding, FindingLevel, Findings};
use maglev_testing::docs;

use super::report::page;

/// The problems among findings.
fn problems(findings: &Findings) -> Vec<&Finding> {
    findings.0.iter().filter(|finding| finding.level != FindingLevel::Ok).collect()
}

/// Holds that a fault alone was found, in these words.
fn hold(fault: &str, findings: &Findings, level: FindingLevel, found: &str, remedy: &str) {
    let problems = problems(findings);
    let [only] = problems.as_slice() else { panic!("{fault}: {} problems: {problems:#?}", problems.len()) };
    assert_eq!(only.level, level, "{fault}: {only:?}");
    assert!(only.found.contains(found), "{fault}: {only:?}");
    assert!(only.remedy.as_ref().is_some_and(|text| text.contains(remedy)), "{fault}: {only:?}");
    assert!(page::ALL.contains(&only.document.as_str()), "{fault}: {only:?}");
}

#[test]
fn every_page_exists_with_its_heading() {
    let pages = docs::pages();
    for document in page::ALL {
        let (path, heading) =
            document.split_once('#').map_or((document, None), |(path, heading)| (path, Some(heading)));
        let page = pages.iter().find(|page| page.path == path);
        let text = &page.unwrap_or_else(|| panic!("no page {path}")).text;
        let anchor = |line: &str| {
            let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(kept)
                .collect::<String>()
                .replace(' ', "-")
        };
        let known = text.lines().filter(|line| line.starts_with('#')).map(anchor);
        assert!(heading.is_none_or(|heading| known.into_iter().any(|known| known == heading)), "{document}");
    }
}
