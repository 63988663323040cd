//! The harness's one map, and the jump through it.

use aya_ebpf::macros::map;
use aya_ebpf::maps::ProgramArray;
use aya_ebpf::programs::XdpContext;

/// Slot 0 holds the program under test.
#[map]
static UNDER_TEST: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Continues in the program under test; returns only if there is none.
#[inline(always)]
pub(crate) fn run_program_under_test(ctx: &XdpContext) {
    // SAFETY: `ctx` is the context this program was called with, and nothing here needs to be dropped.
    unsafe { UNDER_TEST.tail_call(ctx, 0) }
}
