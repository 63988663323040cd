//! What the load balancer's programs leave for a capture: nothing. `bin/captured/tap.rs` stands in this module's place in the program
//! that captures.

use maglev_common::counters::Counter;
use maglev_ebpf::env::{Decision, Ends};

/// Takes no notes.
pub(crate) struct Tap;

impl Tap {
    #[inline(always)]
    pub(crate) const fn new(_cpu: u32) -> Option<Self> {
        Some(Self)
    }

    #[inline(always)]
    pub(crate) const fn received(&self, _ends: Ends) {}

    #[inline(always)]
    pub(crate) const fn decided(&self, _decision: &Decision) {}

    #[inline(always)]
    pub(crate) const fn counted(&self, _counter: Counter) {}
}
