//! The maps as the program at an interface's egress sees them.

use maglev_common::backend::MemberId;
use maglev_common::counters::{Counter, Counts, VipTraffic};
use maglev_common::forwarding::Forwarding;
use maglev_common::table::{Slot, SlotWord, TableStart};
use maglev_common::vip::VipWord;
use maglev_ebpf::env::{self, Counters, Ingress};

use crate::maps::{COUNTS, FORWARDING, cpu, find_by_rules4, find_by_rules6, slot_of};

/// The load balancer's tables, as the program at an interface's egress sees them.
pub(crate) struct EgressMaps {
    interface: u32,
    forwarding: &'static Forwarding,
    counts: &'static Counts,
}

impl EgressMaps {
    /// Looks up, once, the maps for an outgoing packet; `None` on a CPU that the maps have no room for.
    #[inline(always)]
    pub(crate) fn new(interface: u32) -> Option<Self> {
        let (forwarding, counts) = (FORWARDING.get(0)?, COUNTS.get(cpu())?);
        Some(Self { interface, forwarding, counts })
    }
}

impl env::Forwarding for EgressMaps {
    #[inline(always)]
    fn forwarding(&self) -> &Forwarding {
        self.forwarding
    }

    #[inline(always)]
    fn slot(&self, start: TableStart, slot: Slot) -> SlotWord {
        slot_of(self.forwarding, start, slot)
    }

    #[inline(always)]
    fn find_by_rules4(&self, address: u32, service: u64) -> VipWord {
        VipWord(find_by_rules4(address, service))
    }

    #[inline(always)]
    fn find_by_rules6(&self, [high, low]: [u64; 2], service: u64) -> VipWord {
        VipWord(find_by_rules6(high, low, service))
    }
}

impl Ingress for EgressMaps {
    #[inline(always)]
    fn ingress(&self) -> u32 {
        self.interface
    }
}

impl Counters for EgressMaps {
    #[inline(always)]
    fn count(&self, counter: Counter) {
        self.counts.count(counter);
    }

    #[inline(always)]
    fn count_vip(&self, vip: VipTraffic, bytes: u64) {
        self.counts.count_vip(vip, bytes);
    }

    #[inline(always)]
    fn count_member(&self, member: MemberId, bytes: u64) {
        self.counts.count_member(member, bytes);
    }
}
