//! A link that holds a program on an interface, pinned or not. It must not know which program that is.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;

use super::bpf::{self, LinkKind};
use super::error::DataplaneError;
use super::pins::{PinnedLink, Pins};

/// A program on one interface: it is detached when this is dropped, unless the link is pinned.
#[derive(Debug)]
pub(super) struct Held {
    link: OwnedFd,
    /// The program's id.
    program: u32,
    pin: Option<PathBuf>,
}

impl Held {
    /// By a link that is not pinned, with the id of its program.
    pub(super) fn new(link: OwnedFd, program: u32) -> Self {
        Self { link, program, pin: None }
    }

    /// Puts a program, with its id, in the place of the one that the link holds, unless it is that; returns whether it was not.
    pub(super) fn replace(&mut self, program: BorrowedFd<'_>, id: u32) -> Result<bool, Errno> {
        let differs = self.program != id;
        if differs {
            bpf::update_link(self.link.as_fd(), program)?;
            self.program = id;
        }
        Ok(differs)
    }

    /// Pins it, unless it is pinned.
    pub(super) fn pin_to(&mut self, pins: &Pins, kind: LinkKind, index: u32) -> Result<(), DataplaneError> {
        if self.pin.is_none() {
            self.pin = Some(pins.pin_link(kind, index, self.link.as_fd())?);
        }
        Ok(())
    }

    /// Lets it end when this is dropped. The pin of an interface that was removed may be gone.
    pub(super) fn unpin(&mut self) {
        if let Some(path) = self.pin.take()
            && let Err(error) = fs::remove_file(&path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(link = %path.display(), %error, "cannot be removed");
        }
    }
}

impl From<PinnedLink> for Held {
    fn from(PinnedLink { link, path, program }: PinnedLink) -> Self {
        Self { link, program, pin: Some(path) }
    }
}

impl Drop for Held {
    /// Closing is not enough: another process may hold the descriptor, such as a child that is being started. An interface that was
    /// removed took its egress link along, which is not an error.
    fn drop(&mut self) {
        if self.pin.is_none()
            && let Err(errno) = bpf::detach(self.link.as_fd())
            && errno != Errno::ENOLINK
        {
            tracing::warn!(%errno, "a program could not be detached from its interface");
        }
    }
}
