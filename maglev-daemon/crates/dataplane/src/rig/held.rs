//! A load balancer that another process loaded and holds: its own user space gave it its tables. It must not know which
//! release that is.

use aya::programs::{ProgramFd, ProgramInfo, loaded_programs};

use crate::error::DataplaneError;

/// The program, by its number.
#[derive(Debug)]
pub struct Held {
    id: u32,
    fd: ProgramFd,
    size: Size,
}

/// How long a program is, with all of its functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Instructions as the verifier left them (`xlated_prog_len` / 8).
    pub translated: u32,
    /// Bytes of machine code (`jited_prog_len`).
    pub jited: u32,
}

impl Held {
    /// The loaded program with this number.
    ///
    /// # Errors
    /// There is none, or the kernel does not hand it out.
    pub fn open(id: u32) -> Result<Self, DataplaneError> {
        let info = info(id)?;
        let fd = info.fd().map_err(|error| DataplaneError::Load(format!("program {id}: {error}")))?;
        let size = Size { translated: info.size_translated().unwrap_or_default() / 8, jited: info.size_jitted() };
        Ok(Self { id, fd, size })
    }

    /// How long it is.
    pub const fn size(&self) -> Size {
        self.size
    }

    pub(super) const fn fd(&self) -> &ProgramFd {
        &self.fd
    }

    pub(super) fn info(&self) -> Result<ProgramInfo, DataplaneError> {
        info(self.id)
    }
}

/// Programs that go away meanwhile are passed over.
fn info(id: u32) -> Result<ProgramInfo, DataplaneError> {
    let absent = || DataplaneError::Load(format!("no program {id} is loaded"));
    loaded_programs().flatten().find(|info| info.id() == id).ok_or_else(absent)
}
