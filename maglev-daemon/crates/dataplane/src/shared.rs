//! A BPF array as memory: the map's values as a slice that this process and the kernel share. It must not know which
//! map it is.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use aya::maps::{MapData, MapType};
use maglev_common::capture::{CaptureState, Filters};
use maglev_common::counters::Counts;
use maglev_common::flow::Bucket;
use maglev_common::forwarding::{Forwarding, Table};
use maglev_common::fragment::Line;
use maglev_common::maps::MMAPABLE;
use maglev_common::pod::Word;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::error::DataplaneError;

/// What may be seen through shared memory.
///
/// # Safety
/// Any bytes must be a valid value, and either the type is made of [`Word`]s alone, or no program ever writes values of
/// this type: user space alone does, through `&mut`.
pub(super) unsafe trait Shared {}

// SAFETY: a word is an atomic integer: any bytes are one.
unsafe impl Shared for Word {}
// SAFETY: made of words alone.
unsafe impl<const N: usize> Shared for [Word; N] {}
// SAFETY: made of words alone.
unsafe impl Shared for Bucket {}
// SAFETY: made of words alone.
unsafe impl Shared for Line {}
// SAFETY: made of short words, which are atomic integers too.
unsafe impl Shared for Table {}
// SAFETY: made of words alone.
unsafe impl Shared for Counts {}
// SAFETY: made of words alone.
unsafe impl Shared for Filters {}
// SAFETY: made of words alone.
unsafe impl Shared for CaptureState {}
// SAFETY: any bytes are one (`FromBytes`), and the programs only read it: its directories, which are not words, change
// under `&mut` alone.
unsafe impl Shared for Forwarding {}

/// The bytes of a device map's value: an interface index and a program.
pub(super) const DEVICE: u32 = 8;

/// The shape of a map, so that one of another release is not used as ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) kind: MapType,
    /// Bytes of a key.
    pub(super) key: u32,
    /// Bytes of a value.
    pub(super) value: u32,
    pub(super) entries: u32,
    /// Of those that decide how it is used.
    pub(super) flags: u32,
}

impl Shape {
    /// Of an array that is mapped into memory, with so many values of this size in bytes.
    pub(super) const fn of_values(value: usize, entries: u32) -> Self {
        Self { kind: MapType::Array, key: 4, value: value as u32, entries, flags: MMAPABLE }
    }

    /// Whether the kernel says the same of a map.
    pub(super) fn check(&self, name: &'static str, map: &MapData) -> Result<(), DataplaneError> {
        let Self { kind, key, value, entries, flags } = *self;
        let info = map.info().map_err(|error| DataplaneError::map(name, "BPF_OBJ_GET_INFO_BY_FD", &error))?;
        let found = info.map_type().map_err(|error| DataplaneError::map(name, "look-up of the type", &error))?;
        let facts = [
            ("its type", found as u32, kind as u32),
            ("its key's size", info.key_size(), key),
            ("its value's size", info.value_size(), value),
            ("its number of entries", info.max_entries(), entries),
            ("the memory-mapping flag", info.map_flags() & MMAPABLE, flags),
        ];
        match facts.into_iter().find(|(_, found, expected)| found != expected) {
            Some((what, found, expected)) => {
                Err(DataplaneError::Map { map: name, what, found: found.into(), expected: expected.into() })
            }
            None => Ok(()),
        }
    }
}

/// All values of one BPF array.
pub(super) struct Mapped<T> {
    name: &'static str,
    start: NonNull<T>,
    entries: usize,
    values: PhantomData<T>,
}

// SAFETY: the memory belongs to the process, not to a thread, and `Shared` types are words or written through `&mut`.
unsafe impl<T: Shared + Send> Send for Mapped<T> {}
// SAFETY: as above; what changes under a shared reference is made of atomic words.
unsafe impl<T: Shared + Sync> Sync for Mapped<T> {}

impl<T: Shared> Mapped<T> {
    /// Maps an array, once the kernel confirmed that it is laid out as expected.
    pub(super) fn open(name: &'static str, map: &MapData, entries: u32) -> Result<Self, DataplaneError> {
        Self::part_of(name, map, &Shape::of_values(size_of::<T>(), entries), 0, entries)
    }

    /// The start of the only value of an array.
    pub(super) fn start_of(name: &'static str, map: &MapData, shape: &Shape) -> Result<Self, DataplaneError> {
        Self::part_of(name, map, shape, 0, 1)
    }

    /// So many values in a row, from so many bytes of an array on: a multiple of any page's size.
    pub(super) fn part_of(
        name: &'static str,
        map: &MapData,
        shape: &Shape,
        offset: usize,
        entries: u32,
    ) -> Result<Self, DataplaneError> {
        // Values stand in the map's memory at multiples of eight bytes; in a slice they must stand likewise.
        const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() <= 4096) };
        shape.check(name, map)?;
        let length = const { size_of::<T>().next_multiple_of(8) } * entries as usize;
        let failed = |errno: nix::Error| DataplaneError::MapCall { map: name, call: "mmap", source: errno.into() };
        let length = NonZeroUsize::new(length).ok_or(failed(nix::Error::EINVAL))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice: it overlaps nothing of this process.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, map.fd().as_fd(), offset as i64) };
        let start = start.map_err(failed)?.cast();
        Ok(Self { name, start, entries: entries as usize, values: PhantomData })
    }

    /// All values.
    pub(super) fn values(&self) -> &[T] {
        // SAFETY: the mapping is page-aligned, as long as `entries` values, and lives as long as `self`. What the
        // kernel writes meanwhile lies in words; what is not words only `&mut self` changes (`Shared`).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.entries) }
    }

    /// The value with this index.
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.values().get(index)
    }

    /// The first value: a map has one.
    pub(super) fn first(&self) -> &T {
        // SAFETY: as in `values`; no mapping is empty (`open`).
        unsafe { self.start.as_ref() }
    }

    /// The first value, to change what is not made of words in it: only while no program reads that.
    pub(super) fn first_mut(&mut self) -> &mut T {
        // SAFETY: as in `values`, and `&mut self` makes it the only reference here; a program never writes to what is
        // not made of words.
        unsafe { self.start.as_mut() }
    }

    /// The map's name and the bytes its values take.
    pub(super) fn memory(&self) -> (&'static str, u64) {
        (self.name, (self.entries * size_of::<T>()) as u64)
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made by `open`, to which no reference outlives `self`.
        let unmapped = unsafe { munmap(self.start.cast(), self.entries * size_of::<T>()) };
        if let Err(errno) = unmapped {
            tracing::warn!(map = self.name, %errno, "munmap failed");
        }
    }
}

impl<T> fmt::Debug for Mapped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapped({} × {})", self.name, self.entries)
    }
}
