//! The maps of the backend's programs, as they see them.
//!
//! Capacities are set by the loader; the ones written here only have to be valid.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, LpmTrie};
use maglev_common::counters::DecapCounter;
use maglev_common::maps::{COUNTER_REGION, MAX_DECAP_SOURCES, MMAPABLE};
use maglev_common::pod::Word;
use maglev_ebpf::env::DecapTables;

#[map]
static DECAP_SOURCES4: LpmTrie<u32, u32> = LpmTrie::with_max_entries(MAX_DECAP_SOURCES, 0);
#[map]
static DECAP_SOURCES6: LpmTrie<[u64; 2], u32> = LpmTrie::with_max_entries(MAX_DECAP_SOURCES, 0);
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

impl DecapTables for DecapMaps {
    #[inline(always)]
    fn accepts4(&self, source: u32) -> bool {
        let key = Key4 { key: Key::new(32, source) };
        DECAP_SOURCES4.get(&key.key).is_some()
    }

    #[inline(always)]
    fn accepts6(&self, source: [u64; 2]) -> bool {
        let key = Key6 { _padding: 0, key: Key::new(128, source) };
        DECAP_SOURCES6.get(&key.key).is_some()
    }

    #[inline(always)]
    fn count(&self, counter: DecapCounter) {
        if let Some(word) = DECAP_COUNTERS.get(cpu() * COUNTER_REGION + counter as u32) {
            word.add_unshared(1);
        }
    }
}
