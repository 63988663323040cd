//! A small file with a version and a checksum, kept twice: if the file is damaged, it is named and copied aside, and its twin counts.
//! It must not know what a file holds.
//!
//! ```text
//!  {"version": 2, "sha256": "…", "content": {…}}      a file without a version is of version 1, and has no checksum
//! ```

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::atomic_file::{Kept, remove, replace};

/// The most bytes that are read of a file.
const LARGEST: u64 = 1 << 20;

/// The content of a file, and the version of its form.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// The version.
    pub version: u32,
    /// The content.
    pub value: Value,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    version: u32,
    sha256: String,
    content: Value,
}

impl Content {
    /// Replaces a file by this content. Once this returns, it survives a power cut.
    ///
    /// # Errors
    /// One line that names the file and the step; the old file is still in place.
    pub fn keep(self, path: &Path) -> Result<(), String> {
        let Self { version, value } = self;
        let sealed = Sealed { version, sha256: sum(version, &value), content: value };
        let text = serde_json::to_string_pretty(&sealed).map_err(|error| error.to_string())? + "\n";
        replace(path, text.as_bytes(), Kept::Always)?;
        if let Err(error) = replace(&twin(path), text.as_bytes(), Kept::Always) {
            tracing::warn!(error, "the file has no twin in case that it is damaged");
        }
        Ok(())
    }

    /// Reads a file; none if it does not exist. If it is damaged, its twin counts.
    ///
    /// # Errors
    /// Both are damaged: one line that names the file.
    pub fn find(path: &Path) -> Result<Option<Self>, String> {
        let bytes = match read(path) {
            Ok(None) => return Ok(None),
            Ok(Some(bytes)) => Ok(bytes),
            Err(error) => Err(error.to_string()),
        };
        let found = bytes.as_ref().map_err(String::clone).and_then(|bytes| unseal(bytes));
        let reason = match found {
            Ok(content) => return Ok(Some(content)),
            Err(reason) => reason,
        };
        let reason = format!("{} cannot be read: {reason}", path.display());
        let aside = beside(path, "damaged");
        let kept = bytes.map(|bytes| replace(&aside, &bytes, Kept::Always));
        let aside = if kept == Ok(Ok(())) { format!("; it is kept as {}", aside.display()) } else { String::new() };
        let kept = read(&twin(path)).ok().flatten();
        match kept.and_then(|bytes| Some((unseal(&bytes).ok()?, bytes))) {
            Some((content, bytes)) => {
                tracing::error!("{reason}{aside}; continuing with {}", twin(path).display());
                // It is named again at the next start if this fails.
                let _ = replace(path, &bytes, Kept::Always);
                Ok(Some(content))
            }
            None => Err(reason + &aside),
        }
    }

    /// Removes a file, if it exists, so that a power cut does not bring it back.
    ///
    /// # Errors
    /// One line that names the file.
    pub fn forget(path: &Path) -> Result<(), String> {
        // Without the file, nothing reads its twin.
        remove(path).and_then(|()| remove(&twin(path)))
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn unseal(bytes: &[u8]) -> Result<Content, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    // One of these keys alone is what damage left of a later version.
    if ["version", "sha256", "content"].iter().all(|key| value.get(key).is_none()) {
        return Ok(Content { version: 1, value });
    }
    let sealed: Sealed = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let Sealed { version, sha256, content } = sealed;
    if sha256 != sum(version, &content) {
        return Err("its checksum does not match".to_owned());
    }
    Ok(Content { version, value: content })
}

/// The sum of a version and a content, in the form in which they are read.
fn sum(version: u32, content: &Value) -> String {
    let sum: [u8; 32] = Sha256::new().chain_update(format!("{version}\n{content}")).finalize().into();
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn twin(path: &Path) -> PathBuf {
    beside(path, "copy")
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(what);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use maglev_testing::TempDir;
    use serde_json::json;

    use super::*;

    fn content() -> Content {
        Content { version: 2, value: json!({ "zebra": [1, null, "ä\u{1}"], "apple": { "deep": true } }) }
    }

    #[test]
    fn a_content_is_found_until_it_is_forgotten() {
        let directory = TempDir::new();
        let path = directory.path().join("state.json");
        assert_eq!(Content::find(&path), Ok(None));
        content().keep(&path).unwrap();
        assert_eq!(Content::find(&path), Ok(Some(content())));
        for _ in 0..2 {
            Content::forget(&path).unwrap();
            assert_eq!(Content::find(&path), Ok(None));
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_without_a_version_is_an_old_one() {
        let directory = TempDir::new();
        let path = directory.path().join("state.json");
        fs::write(&path, r#"{"drain":1}"#).unwrap();
        assert_eq!(Content::find(&path), Ok(Some(Content { version: 1, value: json!({ "drain": 1 }) })));
    }

    #[test]
    fn a_damaged_file_is_named_and_kept_aside_and_its_twin_counts() {
        let directory = TempDir::new();
        let path = directory.path().join("state.json");
        content().keep(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let damaged = text.replace("true", "null");
        fs::write(&path, &damaged).unwrap();
        assert_eq!(Content::find(&path), Ok(Some(content())));
        assert_eq!(fs::read_to_string(directory.path().join("state.json.damaged")).unwrap(), damaged);
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "it is as it was");
        fs::write(&path, &damaged).unwrap();
        fs::write(directory.path().join("state.json.copy"), &damaged).unwrap();
        let reason = Content::find(&path).unwrap_err();
        let expected = "state.json cannot be read: its checksum does not match; it is kept as ";
        assert!(reason.contains(expected) && reason.ends_with("state.json.damaged"), "{reason}");
        // The version is under the checksum too.
        fs::write(&path, text.replace("\"version\": 2", "\"version\": 3")).unwrap();
        assert!(Content::find(&path).unwrap_err().contains("checksum"));
    }
}
