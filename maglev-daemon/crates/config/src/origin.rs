//! Where a configuration comes from, and the files that it names.

use std::path::{Path, PathBuf};

use maglev_model::shown;

use super::decode::Field;

/// Reads a small file that must not be readable by others; an error is one line.
pub type ReadSecret = fn(&Path) -> Result<String, String>;

/// Where a configuration comes from.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    /// Its file: relative paths in it start at the folder of this file.
    pub(super) file: &'a Path,
    /// Reads the password files that it names.
    pub(super) read_secret: ReadSecret,
}

/// A path; a relative one is relative to the file that names it.
pub(super) fn decode_path(field: &Field<'_>, file: &Path) -> Option<PathBuf> {
    let text = field.text()?;
    if text.is_empty() || text.contains(char::is_control) {
        field.report(format_args!("{} is not the path of a file", shown(text)));
        return None;
    }
    Some(file.parent().unwrap_or(Path::new("")).join(text))
}
