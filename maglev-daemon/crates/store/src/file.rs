//! The disk: reading files, and replacing `services.yaml` so that a crash leaves either the old or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use maglev_config::{Problem, bounds, encode_services};
use maglev_model::Services;

/// The mode of a services file that did not exist before.
const NEW_FILE_MODE: u32 = 0o640;

/// Which version of a file lies on the disk, as far as that can be told without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// That of the file which lies there now, if there is one.
    pub fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self { inode: found.ino(), bytes: found.len(), modified: (found.mtime(), found.mtime_nsec()) })
    }
}

/// Reads a small file that only its owner, and perhaps a group, may read.
///
/// # Errors
/// One line: it cannot be read, or everybody can.
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

/// Writes the services to disk, atomically and durably: once this returns, they survive a power cut, unless the disk refuses
/// to make the new name last, which is logged. Mode and owner of an existing file are kept; a symbolic link is followed.
///
/// # Errors
/// One line that names the file and the step, or that the file would be too large to be read again; the old file is still in
/// place.
pub fn persist(path: &Path, services: &Services) -> Result<(), String> {
    let text = encode_services(services);
    if text.len() as u64 > bounds::LARGEST {
        return Err(bounds::too_large_to_write(path, text.len()));
    }
    replace(path, text.as_bytes())
}

/// Writes a file as [`persist`] does.
///
/// # Errors
/// As there.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let Some(directory) =
        target.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
    else {
        return Err(format!("{} is not the path of a file", path.display()));
    };
    let aside = aside(&target);
    let failed = |step: &str, at: &Path, error: io::Error| format!("cannot {step} {}: {error}", at.display());
    write_aside(&aside, &target, bytes).map_err(|error| {
        // What is left of it is removed as far as it can be: the disk may be full.
        let _ = fs::remove_file(&aside);
        failed("write", &aside, error)
    })?;
    fs::rename(&aside, &target).map_err(|error| failed("replace", &target, error))?;
    sync(directory);
    Ok(())
}

/// Makes the names in a directory last. By now they say what is so: to call that not written would be untrue.
pub fn sync(directory: &Path) {
    if let Err(error) = File::open(directory).and_then(|directory| directory.sync_all()) {
        tracing::error!(directory = %directory.display(), %error, "cannot sync: a power cut may undo what was just written");
    }
}

/// The file next to the target in which its successor is built.
fn aside(target: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".new");
    target.with_file_name(name)
}

fn write_aside(aside: &Path, target: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(NEW_FILE_MODE).open(aside)?;
    if let Ok(old) = fs::metadata(target) {
        let new = file.metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

/// The text of a file that must exist.
pub(super) fn read(path: &Path) -> Result<String, Problem> {
    read_if_present(path)?.ok_or_else(|| Problem::of_file(path, "there is no such file"))
}

/// The text of a file, if it exists.
pub(super) fn read_if_present(path: &Path) -> Result<Option<String>, Problem> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(Problem::of_file(path, "not a file")),
        Ok(found) if found.len() > bounds::LARGEST => {
            Err(Problem::of_file(path, bounds::too_large_to_read(found.len())))
        }
        Ok(_) => fs::read_to_string(path).map(Some).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => Problem::of_file(path, "not text: expected YAML in UTF-8"),
            _ => Problem::of_file(path, error),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Problem::of_file(path, error)),
    }
}
