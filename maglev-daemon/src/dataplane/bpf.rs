//! The commands of bpf(2) that aya has no public function for. It must not know what they are used for.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;

/// `BPF_MAP_TYPE_ARRAY`.
pub(super) const ARRAY: u32 = 2;
/// `BPF_MAP_TYPE_ARRAY_OF_MAPS`.
pub(super) const ARRAY_OF_MAPS: u32 = 12;
/// `XDP_FLAGS_SKB_MODE`: in the network stack.
pub(super) const SKB_MODE: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE`: in the driver, or not at all.
pub(super) const DRIVER_MODE: u32 = 1 << 2;

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const LINK_CREATE: libc::c_int = 28;
const LINK_DETACH: libc::c_int = 34;

/// The attach type `BPF_XDP`.
const XDP: u32 = 37;

/// The start of `union bpf_attr` for one command.
///
/// # Safety
/// Laid out as the kernel's, without padding; its pointers are references to what the command reads.
unsafe trait Attributes {}

/// For `BPF_MAP_CREATE`.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
}

// SAFETY: six words; no pointers.
unsafe impl Attributes for MapCreate {}

/// For `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
struct MapUpdate<'a> {
    map_fd: u32,
    padding: u32,
    key: &'a u32,
    value: &'a u32,
    flags: u64,
}

// The kernel's pointers take 64 bits.
const _: () = assert!(size_of::<MapUpdate<'_>>() == 32);

// SAFETY: the gap before `key` is spelt out; `put_map`, which alone makes one, gives a map of four-byte keys and values.
unsafe impl Attributes for MapUpdate<'_> {}

/// For `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

// SAFETY: four words; no pointers.
unsafe impl Attributes for LinkCreate {}

/// For `BPF_LINK_DETACH`.
#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

// SAFETY: one word; no pointers.
unsafe impl Attributes for LinkDetach {}

/// Creates an array of one entry: a number, or a map like `inner`.
pub(super) fn create_map(map_type: u32, inner: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Errno> {
    let inner_map_fd = inner.map_or(0, number);
    own(&MapCreate { map_type, key_size: 4, value_size: 4, max_entries: 1, map_flags: 0, inner_map_fd }, MAP_CREATE)
}

/// Puts a map into the only entry of an array of maps.
pub(super) fn put_map(outer: BorrowedFd<'_>, inner: BorrowedFd<'_>) -> Result<(), Errno> {
    let (key, value) = (&0, &number(inner));
    call(&MapUpdate { map_fd: number(outer), padding: 0, key, value, flags: 0 }, MAP_UPDATE_ELEM).map(drop)
}

/// Attaches an XDP program to an interface that runs none; it stays for as long as the link.
pub(super) fn link_xdp(program: BorrowedFd<'_>, interface: u32, flags: u32) -> Result<OwnedFd, Errno> {
    own(&LinkCreate { prog_fd: number(program), target_ifindex: interface, attach_type: XDP, flags }, LINK_CREATE)
}

/// Ends a link now, whoever else may hold it.
pub(super) fn detach(link: BorrowedFd<'_>) -> Result<(), Errno> {
    call(&LinkDetach { link_fd: number(link) }, LINK_DETACH).map(drop)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// A command that answers with a new file descriptor.
fn own<A: Attributes>(attributes: &A, command: libc::c_int) -> Result<OwnedFd, Errno> {
    let fd = call(attributes, command)? as RawFd;
    // SAFETY: the kernel made the descriptor for this call; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn call<A: Attributes>(attributes: &A, command: libc::c_int) -> Result<libc::c_long, Errno> {
    // SAFETY: the kernel reads exactly the given bytes, all of them initialised (`Attributes`), and writes none.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<A>()) })
}
