//! The maps of the backend's programs, as they see them.
//!
//! Capacities are set by the loader; the ones written here only have to be valid.

use aya_ebpf::Global;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::{self, ArrayOfMaps};
use aya_ebpf::helpers::{bpf_check_mtu, bpf_get_smp_processor_id, bpf_ktime_get_coarse_ns};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, LpmTrie};
use maglev_common::counters::DecapCounter;
use maglev_common::flow::Seconds;
use maglev_common::hash::FlowHash;
use maglev_common::maps::{COUNTER_REGION, DECAP_SOURCES_ROOM, DECAP_VIPS_ROOM, MMAPABLE};
use maglev_common::pod::Word;
use maglev_common::settings::Mss;
use maglev_common::syn::{SYNS, SynWord};
use maglev_ebpf::env::{Clock, DecapTables, Syns};

#[unsafe(no_mangle)]
static DECAP_MSS: Global<u32> = Global::new(0);

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
// Plain numbers: Linux 6.1 takes a map whose values are a structure for another one than that of user space, which says nothing of
// its values.
#[btf_map]
static DECAP_SYNS: ArrayOfMaps<btf_maps::Array<u64, SYNS>, 1> = ArrayOfMaps::new();

/// The entry of a flow's SYN.
#[inline(always)]
fn syn(hash: FlowHash) -> Option<&'static Word> {
    let entry = DECAP_SYNS.get_value_ptr_mut(0, &SynWord::place(hash))?;
    // SAFETY: a value of the array, eight bytes that are aligned to eight and live as long as the program; a word is laid out like
    // them, and all access is through words.
    Some(unsafe { &*entry.cast::<Word>() })
}

#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_get_smp_processor_id() as u32 }
}

/// Counts an event.
#[inline(always)]
pub(crate) fn count(counter: DecapCounter) {
    if let Some(word) = DECAP_COUNTERS.get(cpu() * COUNTER_REGION + counter as u32) {
        word.add_unshared(1);
    }
}

/// The SYNs that came encapsulated.
pub(crate) struct SynMap;

impl Clock for SynMap {
    #[inline(always)]
    fn now(&self) -> Seconds {
        // SAFETY: the helper takes nothing and cannot fail.
        Seconds((unsafe { bpf_ktime_get_coarse_ns() } / 1_000_000_000) as u16)
    }
}

impl Syns for SynMap {
    #[inline(always)]
    fn syn(&self, hash: FlowHash) -> Option<&Word> {
        syn(hash)
    }
}

/// The decapsulation program's maps.
pub(crate) struct DecapMaps {
    ctx: *mut xdp_md,
}

impl DecapMaps {
    #[inline(always)]
    pub(crate) fn new(ctx: *mut xdp_md) -> Self {
        Self { ctx }
    }
}

impl Clock for DecapMaps {
    #[inline(always)]
    fn now(&self) -> Seconds {
        SynMap.now()
    }
}

impl Syns for DecapMaps {
    #[inline(always)]
    fn syn(&self, hash: FlowHash) -> Option<&Word> {
        syn(hash)
    }
}

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
    fn mss(&self) -> Mss {
        Mss::from_bits(DECAP_MSS.load())
    }

    #[inline(always)]
    fn mtu(&self) -> u32 {
        let mut mtu = 0;
        // SAFETY: `ctx` is the context this program was called with, and `mtu` a local variable. The kernel writes the MTU there
        // whether or not the packet exceeds it.
        unsafe { bpf_check_mtu(self.ctx.cast(), 0, &raw mut mtu, 0, 0) };
        mtu
    }

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
        count(counter);
    }
}
