//! The test binaries that cargo builds. It must not know what they test.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::program;

/// The package of the end-to-end tests.
const END_TO_END: &str = "tests";

/// One test binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binary {
    /// The target: a library's name, or that of a file of tests.
    pub(crate) name: String,
    pub(crate) executable: PathBuf,
    /// The package's folder, in which cargo runs its tests.
    pub(crate) folder: PathBuf,
}

impl Binary {
    pub(crate) fn is_end_to_end(&self) -> bool {
        self.folder == program::workspace().join(END_TO_END)
    }
}

/// Builds the tests of a selection, given as cargo's arguments.
///
/// # Errors
/// If they do not build.
pub(crate) fn built(selection: &[&str]) -> Result<Vec<Binary>> {
    named(&program::output(&mut building(selection))?)
}

/// The command that builds the tests of a selection, with messages for [`named`].
pub(crate) fn building(selection: &[&str]) -> Command {
    let mut command = program::command(program::cargo());
    command.args(["test", "--no-run", "--locked", "--message-format", "json-render-diagnostics"]).args(selection);
    command
}

/// The test binaries that cargo's messages name.
pub(crate) fn named(messages: &str) -> Result<Vec<Binary>> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let tests = messages.filter(|message| message["profile"]["test"] == true && message["executable"].is_string());
    tests
        .map(|message| {
            let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
            let binary = || {
                let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
                let executable = PathBuf::from(text(&message["executable"])?);
                Some(Binary { name: text(&message["target"]["name"])?, executable, folder })
            };
            binary().with_context(|| format!("a test binary without a name or folder: {message}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_binaries_are_taken_from_cargos_messages() {
        let messages = r#"
{"reason":"compiler-artifact","manifest_path":"/w/a/Cargo.toml","target":{"name":"a"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","manifest_path":"/w/a/Cargo.toml","target":{"name":"a"},"profile":{"test":true},"executable":"/t/a-1"}
   Compiling something
{"reason":"compiler-artifact","manifest_path":"/w/a/Cargo.toml","target":{"name":"bin"},"profile":{"test":false},"executable":"/t/bin"}
{"reason":"build-finished","success":true}
"#;
        let a = Binary { name: "a".into(), executable: "/t/a-1".into(), folder: "/w/a".into() };
        assert_eq!(named(messages).unwrap(), [a]);
        let nameless =
            r#"{"target":{},"profile":{"test":true},"executable":"/t/a-1","manifest_path":"/w/a/Cargo.toml"}"#;
        assert!(named(nameless).is_err());
    }
}
