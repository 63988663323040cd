//! The node's files, read with bounds.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use maglev_config::{Problem, bounds};

/// Which version of a file lies on the disk, as far as that is known without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// The version of the file that is there now, if there is one.
    pub fn read(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self { inode: found.ino(), bytes: found.len(), modified: (found.mtime(), found.mtime_nsec()) })
    }
}

/// Reads a small file that only its owner, and perhaps a group, may read.
///
/// # Errors
/// One line: it cannot be read, or every user can read it.
pub(super) fn read_secret(path: &Path) -> Result<String, String> {
    const SMALL: u64 = 4_096;
    let failed = |error: io::Error| format!("cannot read {}: {error}", path.display());
    let file = File::open(path).map_err(failed)?;
    // Of the open file, so that it is the one that is read.
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(format!("{}: others may read it (mode {mode:o}); allowed: 600 or 640", path.display()));
    }
    let mut text = String::new();
    file.take(SMALL).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// The text of a file that must exist.
pub(super) fn read(path: &Path) -> Result<String, Problem> {
    read_if_present(path)?.ok_or_else(|| Problem::new(path, "there is no such file"))
}

/// The text of a file, if it exists.
pub(super) fn read_if_present(path: &Path) -> Result<Option<String>, Problem> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(Problem::new(path, "not a file")),
        Ok(found) if found.len() > bounds::LARGEST => Err(Problem::new(path, bounds::too_large_to_read(found.len()))),
        Ok(_) => fs::read_to_string(path).map(Some).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => Problem::new(path, "not text: expected YAML in UTF-8"),
            _ => Problem::new(path, error),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Problem::new(path, error)),
    }
}
