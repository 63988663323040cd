//! Memory for an answer of the kernel whose length is known only once it is there. It must not know what is asked.

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::libc::c_void;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::machine;

/// Memory that ends where a page begins which nothing can write: the kernel, which would write more than there is room for, fails
/// there with `EFAULT`.
pub(super) struct Fenced {
    start: NonNull<c_void>,
    /// Bytes before the page that cannot be written.
    writable: usize,
    /// All bytes.
    whole: NonZeroUsize,
    /// Bytes that are used, the last ones of those that can be written.
    used: usize,
}

impl Fenced {
    /// At least so many bytes, all zero.
    pub(super) fn new(bytes: usize) -> Result<Self, Errno> {
        let page = machine::page().ok_or(Errno::EINVAL)? as usize;
        // Aligned like a number of 64 bits.
        let used = bytes.checked_next_multiple_of(8).ok_or(Errno::ENOMEM)?;
        let writable = used.max(1).checked_next_multiple_of(page).ok_or(Errno::ENOMEM)?;
        let whole = writable.checked_add(page).and_then(NonZeroUsize::new).ok_or(Errno::ENOMEM)?;
        // SAFETY: new memory, at an address that the kernel chooses.
        let start = unsafe { mmap_anonymous(None, whole, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE)? };
        let fenced = Self { start, writable, whole, used };
        // SAFETY: its first pages, which nothing uses yet.
        unsafe { mprotect(start, writable, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)? };
        Ok(fenced)
    }

    /// The bytes; behind the last one nothing can be written.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: within the mapping, since `used <= writable`; readable and writable as long as `self` lives, zeroed by the kernel, and
        // mutably borrowed through `self`.
        unsafe {
            let first = self.start.cast::<u8>().add(self.writable - self.used);
            std::slice::from_raw_parts_mut(first.as_ptr(), self.used)
        }
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nothing borrows it any more.
        if let Err(errno) = unsafe { munmap(self.start, self.whole.get()) } {
            tracing::warn!(%errno, "munmap failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_can_be_written_and_the_kernel_writes_no_byte_behind_it() {
        for bytes in [0, 1, 8, 4_096, 4_097] {
            let mut fenced = Fenced::new(bytes).unwrap();
            let room = fenced.bytes();
            assert!(room.len() >= bytes && room.iter().all(|byte| *byte == 0), "{bytes}");
            room.fill(7);
            assert!(room.as_ptr().cast::<u64>().is_aligned());
            let behind = room.as_mut_ptr_range().end;
            // SAFETY: the kernel writes nothing where it may not. As a system call: the C library may fill memory by itself.
            let written = unsafe { nix::libc::syscall(nix::libc::SYS_getrandom, behind, 1, 0) };
            assert_eq!(Errno::result(written), Err(Errno::EFAULT), "{bytes}");
        }
    }
}
