//! The maps of the backend's programs, as they see them.
//!
//! Capacities are set by the loader; the ones written here only have to be valid.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, LpmTrie};
use maglev_common::counters::DecapCounter;
use maglev_common::maps::{COUNTER_REGION, DECAP_SOURCES_ROOM, DECAP_VIPS_ROOM, MMAPABLE};
use maglev_common::pod::Word;
use maglev_ebpf::env::DecapTables;

#[map]
static DECAP_SOURCES4: LpmTrie<u32, u32> = LpmTrie::with_max_entries(DECAP_SOURCES_ROOM, 0);
#[map]
static DECAP_SOURCES6: LpmTrie<[u64; 2], u32> = LpmTrie::with_max_entries(DECAP_SOURCES_ROOM, 0);
#[map]
static DECAP_VIPS4: LpmTrie<u32, u32> = LpmTrie::with_max_entries(DECAP_VIPS_ROOM, 0);
#[map]
static DECAP_VIPS6: LpmTrie<[u64; 2], u32> = LpmTrie::with_max_entries(DECAP_VIPS_ROOM, 0);
#[map]
static DECAP_COUNTERS: Array<Word> = Array::with_max_entries(COUNTER_REGION, MMAPABLE);

#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_get_smp_processor_id() as u32 }
}

/// The decapsulation program's maps.
pub(crate) struct DecapMaps;

/// A trie's key on the stack, where the verifier wants every store aligned and the packed key alone is not.
#[repr(C, align(8))]
struct Key4 {
    key: Key<u32>,
}

/// The same for IPv6: the padding puts the address on a word.
#[repr(C, align(8))]
struct Key6 {
    _padding: u32,
    key: Key<[u64; 2]>,
}

/// Whether the longest prefix that holds an IPv4 address is one that accepts it.
#[inline(always)]
fn holds4(prefixes: &LpmTrie<u32, u32>, address: u32) -> bool {
    let key = Key4 { key: Key::new(32, address) };
    prefixes.get(&key.key).is_some_and(|accepts| *accepts != 0)
}

/// The same for IPv6.
#[inline(always)]
fn holds6(prefixes: &LpmTrie<[u64; 2], u32>, address: [u64; 2]) -> bool {
    let key = Key6 { _padding: 0, key: Key::new(128, address) };
    prefixes.get(&key.key).is_some_and(|accepts| *accepts != 0)
}

impl DecapTables for DecapMaps {
    #[inline(always)]
    fn accepts4(&self, source: u32) -> bool {
        holds4(&DECAP_SOURCES4, source)
    }

    #[inline(always)]
    fn accepts6(&self, source: [u64; 2]) -> bool {
        holds6(&DECAP_SOURCES6, source)
    }

    #[inline(always)]
    fn serves4(&self, destination: u32) -> bool {
        holds4(&DECAP_VIPS4, destination)
    }

    #[inline(always)]
    fn serves6(&self, destination: [u64; 2]) -> bool {
        holds6(&DECAP_VIPS6, destination)
    }

    #[inline(always)]
    fn count(&self, counter: DecapCounter) {
        if let Some(word) = DECAP_COUNTERS.get(cpu() * COUNTER_REGION + counter as u32) {
            word.add_unshared(1);
        }
    }
}
