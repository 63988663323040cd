//! The Unix sockets of the API: one daemon per path, with its final mode from its first moment, removed when the daemon ends. It
//! must not know the protocol.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The use of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads and changes: owner and group may connect.
    Changes,
    /// Reads and plans alone: its folder decides which users may connect.
    Reads,
}

impl Role {
    const fn mode(self) -> u32 {
        match self {
            Self::Changes => 0o660,
            Self::Reads => 0o666,
        }
    }

    /// Its key in the node file.
    const fn key(self) -> &'static str {
        match self {
            Self::Changes => "api.socket",
            Self::Reads => "api.read_socket",
        }
    }
}

/// A bound socket that belongs to this process alone.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Held as long as the socket exists; the kernel releases it when the process dies.
    _lock: Flock<File>,
}

/// The error of a socket that cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon owns the path.
    #[error("another maglevd answers on {}: stop it first, or set another {}", path.display(), role.key())]
    InUse {
        /// The path.
        path: PathBuf,
        /// The use.
        role: Role,
    },
    /// The path is not a socket.
    #[error("{} exists and is not a socket: move it away, or set another {}", path.display(), role.key())]
    NotASocket {
        /// The path.
        path: PathBuf,
        /// The use.
        role: Role,
    },
    /// This user lacks the permission.
    #[error(
        "not permitted to {action} {}: run as root, or set another {} that this user may create", path.display(), role.key()
    )]
    NotPermitted {
        /// The action.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The use.
        role: Role,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The action.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl Socket {
    /// Binds the socket. A socket left behind by a dead daemon is replaced; one that is in use, or anything that is
    /// not a socket, is left alone. The socket appears at its path with its final mode in one step.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(path: &Path, role: Role) -> Result<Self, BindError> {
        let directory = directory_of(path);
        fs::create_dir_all(directory).map_err(failed("create", directory, role))?;
        // Checked before a lock file is created beside a foreign file, and again while the lock is held.
        refuse_foreign(path, role)?;
        let lock = lock(path, role)?;
        refuse_foreign(path, role)?;

        // Bound in a private directory, then renamed into place.
        let aside = directory.join(format!(".{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&aside).map_err(failed("create", &aside, role))?;
        let bound = bind_aside(&aside.join("s"), path, role);
        let _ = fs::remove_dir_all(&aside);
        Ok(Self { listener: bound?, path: path.to_owned(), _lock: lock })
    }

    /// Its path.
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

fn failed(action: &'static str, path: &Path, role: Role) -> impl FnOnce(io::Error) -> BindError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied => BindError::NotPermitted { action, path, role },
        _ => BindError::Io { action, path, source },
    }
}

/// Locks the path, so that of two daemons that start at once one is refused.
fn lock(socket: &Path, role: Role) -> Result<Flock<File>, BindError> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(failed("open", &path, role))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => BindError::InUse { path: socket.to_owned(), role },
        other => BindError::Io { action: "lock", path, source: other.into() },
    })
}

/// Only a socket without a listener may be replaced.
fn refuse_foreign(path: &Path, role: Role) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("inspect", path, role)(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path.to_owned(), role });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(failed("connect to", path, role)(error)),
        Ok(_) => Err(BindError::InUse { path: path.to_owned(), role }),
    }
}

fn bind_aside(aside: &Path, path: &Path, role: Role) -> Result<UnixListener, BindError> {
    let listener = UnixListener::bind(aside).map_err(failed("bind", path, role))?;
    let mode = Permissions::from_mode(role.mode());
    fs::set_permissions(aside, mode).map_err(failed("set the mode of", path, role))?;
    fs::rename(aside, path).map_err(failed("create", path, role))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_testing::TempDir;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        for (role, mode, key) in [(Role::Changes, 0o660, "api.socket"), (Role::Reads, 0o666, "api.read_socket")] {
            let directory = TempDir::new();
            let path = directory.path().join("maglev.sock");
            drop(UnixListener::bind(&path).unwrap());
            assert!(path.exists(), "std leaves the file of a dead listener behind");

            let ours = Socket::bind(&path, role).unwrap();
            let refused = Socket::bind(&path, role).unwrap_err();
            assert!(matches!(refused, BindError::InUse { .. }) && refused.to_string().ends_with(key), "{refused}");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);

            drop(ours);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_listener_without_our_lock_is_left_alone() {
        let directory = TempDir::new();
        let path = directory.path().join("maglev.sock");
        let _theirs = UnixListener::bind(&path).unwrap();
        assert!(matches!(Socket::bind(&path, Role::Changes), Err(BindError::InUse { .. })));
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_file_is_not_replaced() {
        let directory = TempDir::new();
        let path = directory.path().join("precious");
        fs::write(&path, "x").unwrap();
        assert!(matches!(Socket::bind(&path, Role::Reads), Err(BindError::NotASocket { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"x");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
