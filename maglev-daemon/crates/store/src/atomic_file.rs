//! A file is replaced as a whole: a reader, and the daemon after a crash, finds the old or the new content. It must not know
//! what a file holds.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

/// How long a file has to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It survives a power cut once it is replaced. Mode and owner of an existing file are kept, a symbolic link is followed, and
    /// a new file has the mode 640.
    Always,
    /// It survives this process, and need not survive the machine. It has this mode, less the umask.
    UntilReboot {
        /// The permissions.
        mode: u32,
    },
}

/// The mode of a file that is kept always and did not exist before.
const NEW_FILE_MODE: u32 = 0o640;

/// Replaces a file, or creates it. On failure the old file is still in place, and nothing is left beside it.
///
/// # Errors
/// One line that names the file and the step.
pub fn replace(path: &Path, bytes: &[u8], kept: Kept) -> Result<(), String> {
    let target = match kept {
        Kept::Always => fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()),
        Kept::UntilReboot { .. } => path.to_owned(),
    };
    if target.file_name().is_none() {
        return Err(format!("{} is not the path of a file", path.display()));
    }
    let aside = aside(&target);
    let failed = |step: &str, at: &Path, error: io::Error| {
        // The disk may be full: half a file would only take room. That this fails too is no news.
        let _ = fs::remove_file(&aside);
        format!("cannot {step} {}: {error}", at.display())
    };
    write_aside(&aside, &target, bytes, kept).map_err(|error| failed("write", &aside, error))?;
    fs::rename(&aside, &target).map_err(|error| failed("replace", &target, error))?;
    if kept == Kept::Always {
        sync(directory(&target));
    }
    Ok(())
}

/// Removes a file, if it exists, so that a power cut does not bring it back.
///
/// # Errors
/// One line that names the file.
pub fn remove(path: &Path) -> Result<(), String> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed.map_err(|error| format!("cannot remove {}: {error}", path.display()))?,
    }
    sync(directory(path));
    Ok(())
}

/// Makes the names in a directory last. The change itself has succeeded by now, so a failure is logged and not returned.
fn sync(directory: &Path) {
    if let Err(error) = File::open(directory).and_then(|directory| directory.sync_all()) {
        tracing::error!(directory = %directory.display(), %error, "cannot sync: a power cut may undo what was just written");
    }
}

fn directory(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The file next to the target in which its successor is built.
fn aside(target: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".new");
    target.with_file_name(name)
}

fn write_aside(aside: &Path, target: &Path, bytes: &[u8], kept: Kept) -> io::Result<()> {
    match fs::remove_file(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let create = |mode| OpenOptions::new().write(true).create_new(true).mode(mode).open(aside);
    match kept {
        Kept::UntilReboot { mode } => create(mode)?.write_all(bytes),
        Kept::Always => {
            let mut file = create(NEW_FILE_MODE)?;
            keep_owner_and_mode(&file, target)?;
            file.write_all(bytes)?;
            file.sync_all()
        }
    }
}

fn keep_owner_and_mode(file: &File, target: &Path) -> io::Result<()> {
    let Ok(old) = fs::metadata(target) else { return Ok(()) };
    let new = file.metadata()?;
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        unless_unprivileged(fchown(file, Some(old.uid()), Some(old.gid())))?;
    }
    file.set_permissions(Permissions::from_mode(old.mode() & 0o7777))
}

/// A daemon that is not root cannot give a file away: that root replaced the old one is no reason to refuse every change.
fn unless_unprivileged(given: io::Result<()>) -> io::Result<()> {
    match given {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        given => given,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_testing::TempDir;

    #[test]
    fn a_file_that_cannot_be_given_away_is_replaced_all_the_same() {
        let failed = |kind: io::ErrorKind| unless_unprivileged(Err(kind.into())).map_err(|error| error.kind());
        assert_eq!(failed(io::ErrorKind::PermissionDenied), Ok(()));
        assert_eq!(failed(io::ErrorKind::StorageFull), Err(io::ErrorKind::StorageFull));
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_with_the_mode_it_is_to_have() {
        let directory = TempDir::new();
        let path = directory.path().join("file");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        for (kept, expected) in [
            (Kept::UntilReboot { mode: 0o600 }, 0o600),
            (Kept::Always, 0o600),
            (Kept::UntilReboot { mode: 0o400 }, 0o400),
        ] {
            replace(&path, b"text", kept).unwrap();
            assert_eq!((fs::read(&path).unwrap(), mode()), (b"text".to_vec(), expected), "{kept:?}");
        }
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left beside it");
    }

    #[test]
    fn a_failure_names_the_file_and_leaves_nothing_behind() {
        let directory = TempDir::new();
        let path = directory.path().join("file");
        fs::create_dir(&path).unwrap();
        for kept in [Kept::Always, Kept::UntilReboot { mode: 0o600 }] {
            let line = replace(&path, b"text", kept).unwrap_err();
            assert!(line.starts_with("cannot replace ") && line.contains("file: "), "{line}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let line = replace(Path::new("/"), b"text", Kept::Always).unwrap_err();
        assert_eq!(line, "/ is not the path of a file");
    }

    #[test]
    fn a_symbolic_link_stays_one_where_the_file_is_kept_always() {
        let directory = TempDir::new();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, b"new", Kept::Always).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
    }
}
