//! The harness's maps, the jump through one of them, and its clock.

use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_redirect};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, ProgramArray};
use aya_ebpf::programs::XdpContext;
use maglev_common::maps::MMAPABLE;
use maglev_common::pod::Word;
use maglev_harness::{LINE_WORDS, MOST_LINES, MOST_PROGRAMS, Rig};

/// The programs under test; tests use slot 0 alone.
#[map]
static UNDER_TEST: ProgramArray = ProgramArray::with_max_entries(MOST_PROGRAMS as u32, 0);

#[map]
static RIG: Array<Rig> = Array::with_max_entries(1, MMAPABLE);

/// What the floor with one random line reads of. The loader gives it its size.
#[map]
static LINES: Array<[Word; LINE_WORDS]> = Array::with_max_entries(1, MMAPABLE);

/// Continues in a program under test; returns only if there is none in the slot.
#[inline(always)]
pub(crate) fn run_program_under_test(ctx: &XdpContext, slot: u32) {
    // SAFETY: `ctx` is the context this program was called with, and nothing here needs to be dropped.
    unsafe { UNDER_TEST.tail_call(ctx, slot) }
}

/// The batch.
#[inline(always)]
pub(crate) fn rig() -> Option<&'static Rig> {
    RIG.get(0)
}

/// The first word of a line.
#[inline(always)]
pub(crate) fn line(number: u64) -> Option<u64> {
    Some(LINES.get(number as u32 & (MOST_LINES - 1))?[0].get())
}

/// Sends the frame into an interface.
#[inline(always)]
pub(crate) fn redirect(interface: u32) -> u32 {
    // SAFETY: the helper takes two numbers.
    unsafe { bpf_redirect(interface, 0) as u32 }
}

/// Nanoseconds since boot.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}
