//! What `doctor` found on a node or backend, as text too: the daemon answers with it, and `maglevd doctor` prints it without one. It
//! must not know how anything is found.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `GET /v1/doctor`: all findings, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Findings(pub Vec<Finding>);

/// One thing that was examined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Whether it is a problem.
    pub level: FindingLevel,
    /// What was examined: an interface, a file, a setting.
    pub subject: String,
    /// What was found, in a sentence.
    pub found: String,
    /// What to do; absent where all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The page of the manual about it, with its heading.
    pub document: String,
}

/// Whether a finding is a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingLevel {
    /// All is well.
    Ok,
    /// It works, with a disadvantage; or it could not be checked.
    Warning,
    /// Packets are lost, or the service does not start, or a secret is open.
    Error,
}

impl FindingLevel {
    /// The word in text and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl Findings {
    /// The number of findings of a level.
    pub fn count(&self, level: FindingLevel) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }

    /// Whether there is no error, and with `strict` no warning.
    ///
    /// # Errors
    /// The numbers of both, in words.
    pub fn verdict(&self, strict: bool) -> Result<(), String> {
        let (errors, warnings) = (self.count(FindingLevel::Error), self.count(FindingLevel::Warning));
        match (errors, warnings) {
            (0, 0) => Ok(()),
            (0, _) if !strict => Ok(()),
            _ => Err(format!("doctor found {} and {}", counted(errors, "error"), counted(warnings, "warning"))),
        }
    }
}

impl fmt::Display for Findings {
    /// Problems first, each with its remedy, then what is well; the last line counts them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|finding| finding.subject.chars().count()).max().unwrap_or(0).min(32);
        for level in [FindingLevel::Error, FindingLevel::Warning, FindingLevel::Ok] {
            for finding in self.0.iter().filter(|finding| finding.level == level) {
                let Finding { subject, found, remedy, document, .. } = finding;
                writeln!(f, "{:<7}  {subject:<width$}  {found}", level.as_str())?;
                if let Some(remedy) = remedy {
                    writeln!(f, "{:9}remedy: {remedy} ({document})", "")?;
                }
            }
        }
        let [errors, warnings, well] =
            [FindingLevel::Error, FindingLevel::Warning, FindingLevel::Ok].map(|level| self.count(level));
        writeln!(f, "{}, {}, {well} ok", counted(errors, "error"), counted(warnings, "warning"))
    }
}

/// `1 error`, `2 errors`
fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(level: FindingLevel, subject: &str) -> Finding {
        let remedy = (level != FindingLevel::Ok).then(|| "do it".to_owned());
        let (subject, found) = (subject.to_owned(), "it is so".to_owned());
        Finding { level, subject, found, remedy, document: "docs/deploy.md#mtu".to_owned() }
    }

    #[test]
    fn problems_come_first_with_their_remedies() {
        let found = [FindingLevel::Ok, FindingLevel::Warning, FindingLevel::Error].map(|level| finding(level, "eth0"));
        let text = Findings(found.to_vec()).to_string();
        let expected = "error    eth0  it is so\n         remedy: do it (docs/deploy.md#mtu)\n\
                        warning  eth0  it is so\n         remedy: do it (docs/deploy.md#mtu)\n\
                        ok       eth0  it is so\n1 error, 1 warning, 1 ok\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn warnings_count_only_where_they_are_to() {
        let of = |levels: &[FindingLevel]| Findings(levels.iter().map(|level| finding(*level, "x")).collect());
        assert_eq!(of(&[FindingLevel::Ok]).verdict(true), Ok(()));
        assert_eq!(of(&[FindingLevel::Warning]).verdict(false), Ok(()));
        let line = Err("doctor found 0 errors and 1 warning".to_owned());
        assert_eq!(of(&[FindingLevel::Warning]).verdict(true), line);
        assert!(of(&[FindingLevel::Error]).verdict(false).is_err());
        let json = serde_json::to_string(&of(&[FindingLevel::Error])).unwrap();
        assert!(json.starts_with(r#"[{"level":"error","subject":"x""#), "{json}");
    }
}
