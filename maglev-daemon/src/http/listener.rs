//! The Unix socket of the API: one daemon per path, mode 0660 from its first moment, gone when the daemon ends. It
//! must not know what is spoken over it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Owner and group may connect; the directory decides who else gets near.
const MODE: u32 = 0o660;

/// A bound socket that belongs to this process alone.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Held as long as the socket is ours; the kernel lets go of it when the process dies.
    _lock: Flock<File>,
}

/// Why a socket was not bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon owns the path.
    #[error("another maglevd answers on {}: stop it first, or set another api.socket", .0.display())]
    InUse(PathBuf),
    /// Something that is not a socket lies there.
    #[error("{} exists and is not a socket: move it away, or set another api.socket", .0.display())]
    NotASocket(PathBuf),
    /// Not as this user.
    #[error("not permitted to {action} {}: run as root, or set an api.socket that this user may create", path.display())]
    NotPermitted {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Socket {
    /// Binds the socket. A socket left behind by a dead daemon is replaced; one that is alive, or anything that is
    /// not a socket, is left alone. The socket appears at its path with its final mode in one step.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let directory = directory_of(path);
        fs::create_dir_all(directory).map_err(failed("create", directory))?;
        // Looked at before a lock is left beside what is not ours, and again once nobody else can bind.
        refuse_foreign(path)?;
        let lock = lock(path)?;
        refuse_foreign(path)?;

        // Bound in a directory that nobody else can enter, then moved into place.
        let aside = directory.join(format!(".{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&aside).map_err(failed("create", &aside))?;
        let bound = bind_aside(&aside.join("s"), path);
        let _ = fs::remove_dir_all(&aside);
        Ok(Self { listener: bound?, path: path.to_owned(), _lock: lock })
    }

    /// Where it is bound.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The listener for the runtime, non-blocking. The socket stays until this value is dropped.
    ///
    /// # Errors
    /// The system refused to duplicate the descriptor.
    pub fn listener(&self) -> io::Result<tokio::net::UnixListener> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        tokio::net::UnixListener::from_std(listener)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BindError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied => BindError::NotPermitted { action, path },
        _ => BindError::Io { action, path, source },
    }
}

/// Two daemons that start at once meet here, not at the socket.
fn lock(socket: &Path) -> Result<Flock<File>, BindError> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed("open", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => BindError::InUse(socket.to_owned()),
        other => BindError::Io { action: "lock", path, source: other.into() },
    })
}

/// What lies at the path may be replaced only if it is a socket on which nobody listens.
fn refuse_foreign(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", path)(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(failed("connect to", path)(error)),
        Ok(_) => Err(BindError::InUse(path.to_owned())),
    }
}

fn bind_aside(aside: &Path, path: &Path) -> Result<UnixListener, BindError> {
    let listener = UnixListener::bind(aside).map_err(failed("bind", path))?;
    fs::set_permissions(aside, Permissions::from_mode(MODE)).map_err(failed("set the mode of", path))?;
    fs::rename(aside, path).map_err(failed("create", path))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_testing::TempDir;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = TempDir::new();
        let path = directory.path().join("maglev.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file of a dead listener behind");

        let ours = Socket::bind(&path).unwrap();
        let refused = Socket::bind(&path).unwrap_err();
        assert!(matches!(refused, BindError::InUse(_)), "{refused}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);

        drop(ours);
        assert!(!path.exists());
    }

    #[test]
    fn a_listener_without_our_lock_is_left_alone() {
        let directory = TempDir::new();
        let path = directory.path().join("maglev.sock");
        let _theirs = UnixListener::bind(&path).unwrap();
        assert!(matches!(Socket::bind(&path), Err(BindError::InUse(_))));
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_file_is_not_replaced() {
        let directory = TempDir::new();
        let path = directory.path().join("precious");
        fs::write(&path, "x").unwrap();
        assert!(matches!(Socket::bind(&path), Err(BindError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"x");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
