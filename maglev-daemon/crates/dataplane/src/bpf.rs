//! The commands of bpf(2) that aya 0.14 does not offer as they are needed here. It must not know what they are used for.
//!
//! | command | instead of aya's |
//! |---|---|
//! | create an array of maps | none is public; the map in it is created alike |
//! | an array with one value of any length | `Array`, whose values are of a type |
//! | attach XDP | `Xdp::attach_to_if_index`, which attaches without a link where the kernel refuses one with `EINVAL` |
//! | attach to the egress | `SchedClassifier::attach_with_options`, which takes an interface's name: another may bear it by now |
//! | detach a link | its links only close their descriptor, which ends nothing that another descriptor or a pin holds |
//! | update a link; pin and open | `Xdp::attach_to_link`, `FdLink::pin` and `PinnedLink`, which take links of aya alone |
//! | read a link's interface | `LinkInfo`, which holds the program and the type |

use std::ffi::{CStr, c_char};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;

/// `XDP_FLAGS_SKB_MODE`: in the network stack.
pub(super) const SKB_MODE: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE`: in the driver, or not at all.
pub(super) const DRIVER_MODE: u32 = 1 << 2;

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const LINK_DETACH: libc::c_int = 34;

/// The attach type `BPF_XDP`.
const XDP: u32 = 37;
/// The attach type `BPF_TCX_EGRESS`.
const TCX_EGRESS: u32 = 47;
/// `BPF_F_BEFORE`: before all others, if none is named.
const BEFORE: u32 = 1 << 3;

/// The start of `union bpf_attr` for one command.
///
/// # Safety
/// Laid out as the kernel's, without padding; its pointers lead to what the command reads, for as long as it is borrowed.
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
struct Update<'a> {
    map_fd: u32,
    padding: u32,
    key: &'a u32,
    value: *const u8,
    flags: u64,
}

const _: () = assert!(size_of::<Update<'_>>() == 32);

// SAFETY: words and two pointers of 64 bits, which lead to a key of four bytes and to the first byte of a value. `create_value`,
// which alone makes one, gives a value that is as long as the map's.
unsafe impl Attributes for Update<'_> {}

/// For `BPF_MAP_LOOKUP_ELEM`.
#[repr(C)]
struct Lookup<'a> {
    map_fd: u32,
    padding: u32,
    key: &'a u32,
    value: *mut u8,
    flags: u64,
}

const _: () = assert!(size_of::<Lookup<'_>>() == 32);

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

/// For `BPF_LINK_UPDATE`.
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

// SAFETY: four words; no pointers.
unsafe impl Attributes for LinkUpdate {}

/// For `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
#[repr(C)]
struct Object<'a> {
    path: &'a c_char,
    bpf_fd: u32,
    file_flags: u32,
}

const _: () = assert!(size_of::<Object<'_>>() == 16);

// SAFETY: a pointer of 64 bits and two words. `at`, which alone makes one, takes the pointer from a `CStr`, which ends with
// a zero and outlives the value.
unsafe impl Attributes for Object<'_> {}

impl<'a> Object<'a> {
    fn at(path: &'a CStr, bpf_fd: u32) -> Self {
        // SAFETY: a `CStr` has at least its zero, so the pointer leads to a character of it, and lives as long as `'a`.
        Self { path: unsafe { &*path.as_ptr() }, bpf_fd, file_flags: 0 }
    }
}

/// For `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct GetInfo<'a> {
    bpf_fd: u32,
    info_len: u32,
    info: &'a mut RawLinkInfo,
}

const _: () = assert!(size_of::<GetInfo<'_>>() == 16);

/// The start of `struct bpf_link_info`, of a link of one of [`LinkKind`].
#[derive(Default)]
#[repr(C)]
struct RawLinkInfo {
    link_type: u32,
    id: u32,
    prog_id: u32,
    /// What follows is a union that holds 64-bit members.
    padding: u32,
    ifindex: u32,
}

/// Where a link holds a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkKind {
    /// At an interface's XDP.
    Xdp,
    /// At an interface's egress.
    Egress,
}

impl LinkKind {
    /// `BPF_LINK_TYPE_XDP` or `BPF_LINK_TYPE_TCX`.
    const fn number(self) -> u32 {
        match self {
            Self::Xdp => 6,
            Self::Egress => 11,
        }
    }
}

/// What a link holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// The program's id.
    pub(super) program: u32,
    /// The interface's index; 0 if it is gone.
    pub(super) interface: u32,
}

/// `BPF_MAP_TYPE_ARRAY` and `BPF_MAP_TYPE_ARRAY_OF_MAPS`.
const ARRAYS: [u32; 2] = [2, 12];

/// Creates an array of one entry: a number, or a map like `inner`.
pub(super) fn create_array(inner: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Errno> {
    let (map_type, inner_map_fd) = (ARRAYS[usize::from(inner.is_some())], inner.map_or(0, number));
    own(&MapCreate { map_type, key_size: 4, value_size: 4, max_entries: 1, map_flags: 0, inner_map_fd }, MAP_CREATE)
}

/// Creates an array whose only value is these bytes: `EINVAL` if there is none.
pub(super) fn create_value(value: &[u8]) -> Result<OwnedFd, Errno> {
    let map_type = ARRAYS[0];
    let value_size = u32::try_from(value.len()).map_err(|_| Errno::E2BIG)?;
    let map = own(
        &MapCreate { map_type, key_size: 4, value_size, max_entries: 1, map_flags: 0, inner_map_fd: 0 },
        MAP_CREATE,
    )?;
    let attributes = Update { map_fd: number(map.as_fd()), padding: 0, key: &0, value: value.as_ptr(), flags: 0 };
    call(&attributes, MAP_UPDATE_ELEM)?;
    Ok(map)
}

/// The only value of an array, of the length that the kernel reports for its values.
pub(super) fn read_value(map: BorrowedFd<'_>, length: u32) -> Result<Vec<u8>, Errno> {
    // The kernel copies whole words.
    let mut value = vec![0_u8; (length as usize).next_multiple_of(8)];
    let to = value.as_mut_ptr();
    let mut attributes = Lookup { map_fd: number(map), padding: 0, key: &0, value: to, flags: 0 };
    let (start, size) = (&raw mut attributes, size_of::<Lookup<'_>>());
    // SAFETY: the kernel reads the attributes and the key, and writes as many bytes as the map's values have to `value`,
    // which is at least as long and not used meanwhile.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, MAP_LOOKUP_ELEM, start, size) })?;
    value.truncate(length as usize);
    Ok(value)
}

/// Attaches an XDP program to an interface that runs none; it stays for as long as the link.
pub(super) fn link_xdp(program: BorrowedFd<'_>, interface: u32, flags: u32) -> Result<OwnedFd, Errno> {
    own(&LinkCreate { prog_fd: number(program), target_ifindex: interface, attach_type: XDP, flags }, LINK_CREATE)
}

/// Attaches a program to the egress of an interface, before those that are attached there; it stays for as long as the
/// link. `EINVAL` before Linux 6.6.
pub(super) fn link_egress(program: BorrowedFd<'_>, interface: u32) -> Result<OwnedFd, Errno> {
    let (prog_fd, target_ifindex) = (number(program), interface);
    own(&LinkCreate { prog_fd, target_ifindex, attach_type: TCX_EGRESS, flags: BEFORE }, LINK_CREATE)
}

/// Ends a link now, even if other processes hold it.
pub(super) fn detach(link: BorrowedFd<'_>) -> Result<(), Errno> {
    call(&LinkDetach { link_fd: number(link) }, LINK_DETACH).map(drop)
}

/// Replaces the program that a link holds; no packet passes without a program.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let attributes = LinkUpdate { link_fd: number(link), new_prog_fd: number(program), flags: 0, old_prog_fd: 0 };
    call(&attributes, LINK_UPDATE).map(drop)
}

/// Gives a program, map or link a name in the BPF file system, which keeps it.
pub(super) fn pin(path: &CStr, object: BorrowedFd<'_>) -> Result<(), Errno> {
    call(&Object::at(path, number(object)), OBJ_PIN).map(drop)
}

/// Opens the object with this name in the BPF file system.
pub(super) fn get(path: &CStr) -> Result<OwnedFd, Errno> {
    own(&Object::at(path, 0), OBJ_GET)
}

/// What a link holds; `EINVAL` if it is a link of another kind.
pub(super) fn link_info(link: BorrowedFd<'_>, kind: LinkKind) -> Result<LinkInfo, Errno> {
    let mut info = RawLinkInfo::default();
    let mut attributes = GetInfo { bpf_fd: number(link), info_len: size_of::<RawLinkInfo>() as u32, info: &mut info };
    let (start, size) = (&raw mut attributes, size_of::<GetInfo<'_>>());
    // SAFETY: the kernel reads the attributes, writes `info_len` of them, and at most that many bytes to `info`, which is
    // mutably borrowed and as long: any bytes are valid for its words.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET_INFO_BY_FD, start, size) })?;
    let RawLinkInfo { link_type, id: _, prog_id, padding: _, ifindex } = info;
    let found = LinkInfo { program: prog_id, interface: ifindex };
    if link_type == kind.number() { Ok(found) } else { Err(Errno::EINVAL) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// A command that answers with a new file descriptor.
fn own<A: Attributes>(attributes: &A, command: libc::c_int) -> Result<OwnedFd, Errno> {
    let fd = call(attributes, command)? as RawFd;
    // SAFETY: the kernel made the descriptor for this call; no other code knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn call<A: Attributes>(attributes: &A, command: libc::c_int) -> Result<libc::c_long, Errno> {
    // SAFETY: the kernel reads exactly the given bytes, all of them initialised (`Attributes`), and writes none.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<A>()) })
}
