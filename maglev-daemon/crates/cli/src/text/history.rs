//! The text of the history.

use std::fmt::Write as _;

use maglev_api::view::{Changes, History, Revision, RevisionContent, RevisionDiff};
use maglev_model::utc_with_milliseconds;

use crate::output::{Text, table};

impl Text for History {
    fn text(&self) -> String {
        let Self { revisions, oldest, newest } = self;
        if revisions.is_empty() {
            return match newest {
                0 => "no change was made yet\n".to_owned(),
                _ => format!("no revision matches {}", kept(*oldest, *newest)),
            };
        }
        let row = |revision: &Revision| {
            let why = revision.why.clone().unwrap_or_default();
            let number = revision.revision.to_string();
            [number, time(revision), by(revision), revision.command.clone(), revision.changes.to_string(), why]
        };
        let header = ["revision", "time", "by", "command", "changes", "why"];
        let mut text = table(header, &["revision"], revisions.iter().map(row));
        if *oldest > 1 && revisions.last().is_some_and(|last| last.revision == *oldest) {
            text += &kept(*oldest, *newest);
        }
        text
    }
}

fn kept(oldest: u64, newest: u64) -> String {
    format!("(kept: revisions {oldest} to {newest})\n")
}

fn time(revision: &Revision) -> String {
    utc_with_milliseconds(revision.unix_milliseconds)
}

/// The user, by number: names may differ between the daemon's machine and this one.
fn by(revision: &Revision) -> String {
    revision.uid.map_or_else(|| "maglevd".to_owned(), |uid| format!("uid {uid}"))
}

impl Text for RevisionContent {
    fn text(&self) -> String {
        let Self { revision, services } = self;
        let rows = [
            ("revision", Some(revision.revision.to_string())),
            ("time", Some(time(revision))),
            ("by", Some(by(revision))),
            ("command", Some(revision.command.clone())),
            ("changes", Some(revision.changes.to_string())),
            ("why", revision.why.clone()),
            ("digest", revision.digest.clone()),
        ];
        let mut text = String::new();
        for (name, value) in rows.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<10}{value}");
        }
        text + "\n" + services
    }
}

impl Text for RevisionDiff {
    fn text(&self) -> String {
        let Self { from, to, changes, lines } = self;
        if lines.is_empty() && *changes == Changes::default() {
            return format!("no difference between revisions {from} and {to}\n");
        }
        format!("from revision {from} to {to}: {changes}\n{}", super::difference(lines))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_api::view::{ChangeCounts, DiffLine};

    fn revision(number: u64, why: Option<&str>) -> Revision {
        let backends = ChangeCounts { added: 0, changed: 1, removed: 0 };
        Revision {
            revision: number,
            unix_milliseconds: 1_795_946_400_123,
            uid: why.map(|_| 0),
            pid: None,
            command: "set weight of backend web1 of pool web to 7".to_owned(),
            why: why.map(str::to_owned),
            pools: vec!["web".to_owned()],
            backends: vec!["web/web1".to_owned()],
            changes: Changes { backends, ..Changes::default() },
            digest: None,
        }
    }

    #[test]
    fn a_history_names_the_oldest_kept_revision() {
        let revisions = vec![revision(8, Some("it is slow")), revision(7, None)];
        let text = History { revisions, oldest: 7, newest: 8 }.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            "REVISION  TIME                      BY       COMMAND                                      CHANGES             WHY"
        );
        assert!(
            lines[1].starts_with("       8  2026-11-29T10:00:00.123Z  uid 0    set weight")
                && lines[1].ends_with("it is slow"),
            "{text}"
        );
        assert!(lines[2].contains("  maglevd  "), "{text}");
        assert_eq!(lines[3], "(kept: revisions 7 to 8)");
        assert_eq!(History { revisions: Vec::new(), oldest: 0, newest: 0 }.text(), "no change was made yet\n");
    }

    #[test]
    fn a_filter_that_matches_nothing_is_no_empty_history() {
        let text = History { revisions: Vec::new(), oldest: 7, newest: 8 }.text();
        assert_eq!(text, "no revision matches (kept: revisions 7 to 8)\n");
        // The first revision is the oldest there ever was: nothing is left out.
        let text = History { revisions: vec![revision(1, None)], oldest: 1, newest: 1 }.text();
        assert!(!text.contains("kept"), "{text}");
        let text = History { revisions: vec![revision(8, None)], oldest: 7, newest: 8 }.text();
        assert!(!text.contains("kept"), "the table ends before the oldest: {text}");
    }

    #[test]
    fn a_revision_is_shown_with_its_author_above_its_services() {
        let digest = Some("c44d".to_owned());
        let shown = Revision { digest, ..revision(8, Some("it is slow")) };
        let services = "pools: []\nvips: []\n".to_owned();
        let text = "\
revision  8
time      2026-11-29T10:00:00.123Z
by        uid 0
command   set weight of backend web1 of pool web to 7
changes   backends 1 changed
why       it is slow
digest    c44d

pools: []
vips: []
";
        assert_eq!(RevisionContent { revision: shown, services }.text(), text);
        let text = RevisionContent { revision: revision(8, None), services: String::new() }.text();
        assert!(text.contains("by        maglevd\n") && !text.contains("why") && !text.contains("digest"), "{text}");
    }

    #[test]
    fn a_difference_is_shown_object_by_object() {
        let line = |added, object: &str| DiffLine { added, object: object.to_owned() };
        let lines = vec![line(false, "backend web/a: { weight: 1 }"), line(true, "backend web/a: { weight: 2 }")];
        let text = RevisionDiff { from: 1, to: 2, changes: revision(1, None).changes, lines }.text();
        assert_eq!(
            text,
            "from revision 1 to 2: backends 1 changed\n- backend web/a: { weight: 1 }\n+ backend web/a: { weight: 2 }\n"
        );
        let none = RevisionDiff { from: 1, to: 2, changes: Changes::default(), lines: Vec::new() };
        assert_eq!(none.text(), "no difference between revisions 1 and 2\n");
    }
}
