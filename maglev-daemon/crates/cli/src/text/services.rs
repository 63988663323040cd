//! The text of the services as a whole.

use maglev_api::view::{Applied, Changes, PlannedServices, ServicesFile};

use crate::output::Text;

impl Text for ServicesFile {
    fn text(&self) -> String {
        self.services.clone()
    }
}

impl Text for PlannedServices {
    fn text(&self) -> String {
        let Self { file, base: _, revision, changes, lines, refused: _ } = self;
        if *changes == Changes::default() {
            return format!("no difference between revision {revision} and {file}\n");
        }
        format!("from revision {revision} to {file}: {changes}\n{}", super::difference(lines))
    }
}

impl Text for Applied {
    fn text(&self) -> String {
        let Self { revision, changes } = self;
        match revision {
            Some(revision) => format!("applied as revision {revision}: {changes}\n"),
            None => format!("{changes}: no revision was made\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_api::view::{ChangeCounts, DiffLine};

    #[test]
    fn a_file_is_compared_like_a_revision() {
        let line = |added, object: &str| DiffLine { added, object: object.to_owned() };
        let lines = vec![line(false, "backend web/a: { weight: 1 }"), line(true, "backend web/a: { weight: 2 }")];
        let backends = ChangeCounts { added: 0, changed: 1, removed: 0 };
        let changes = Changes { backends, ..Changes::default() };
        let planned =
            PlannedServices { file: "web.yaml".to_owned(), base: None, revision: 57, changes, lines, refused: None };
        assert_eq!(
            planned.text(),
            "from revision 57 to web.yaml: backends 1 changed\n- backend web/a: { weight: 1 }\n+ backend web/a: { weight: 2 }\n"
        );
        let same = PlannedServices { changes: Changes::default(), lines: Vec::new(), ..planned };
        assert_eq!(same.text(), "no difference between revision 57 and web.yaml\n");
        assert_eq!(Applied { revision: Some(58), changes }.text(), "applied as revision 58: backends 1 changed\n");
        let none = Applied { revision: None, changes: Changes::default() };
        assert_eq!(none.text(), "no change: no revision was made\n");
    }
}
