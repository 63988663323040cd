//! The maps as the program at an interface's egress sees them, read or written with a fault.

use maglev_common::backend::MemberId;
use maglev_common::counters::{Counter, VipTraffic};
use maglev_common::forwarding::Forwarding;
use maglev_common::table::{Slot, SlotWord, TableStart};
use maglev_common::vip::VipWord;
use maglev_ebpf::env::{self, Counters, Ingress};
use maglev_harness::Fault;

use crate::frame::has;
use crate::true_egress;

/// The node's maps as the egress program sees them, but for the fault.
pub(crate) struct EgressMaps(true_egress::EgressMaps);

impl EgressMaps {
    #[inline(always)]
    pub(crate) fn new(interface: u32) -> Option<Self> {
        true_egress::EgressMaps::new(interface).map(Self)
    }
}

impl env::Forwarding for EgressMaps {
    #[inline(always)]
    fn forwarding(&self) -> &Forwarding {
        env::Forwarding::forwarding(&self.0)
    }

    #[inline(always)]
    fn slot(&self, start: TableStart, slot: Slot) -> SlotWord {
        self.0.slot(start, slot)
    }

    #[inline(always)]
    fn find_by_rules4(&self, address: u32, service: u64) -> VipWord {
        self.0.find_by_rules4(address, service)
    }

    #[inline(always)]
    fn find_by_rules6(&self, address: [u64; 2], service: u64) -> VipWord {
        self.0.find_by_rules6(address, service)
    }
}

impl Ingress for EgressMaps {
    #[inline(always)]
    fn ingress(&self) -> u32 {
        if has(Fault::RedirectsChecks) { 0 } else { self.0.ingress() }
    }
}

impl Counters for EgressMaps {
    #[inline(always)]
    fn count(&self, counter: Counter) {
        self.0.count(counter);
    }

    #[inline(always)]
    fn count_vip(&self, vip: VipTraffic, bytes: u64) {
        self.0.count_vip(vip, bytes);
    }

    #[inline(always)]
    fn count_member(&self, member: MemberId, bytes: u64) {
        self.0.count_member(member, bytes);
    }
}
