//! The node's maps, and how the measured program departs from the one that ships.

use aya_ebpf::Global;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::programs::XdpContext;
use maglev_common::backend::MemberId;
use maglev_common::counters::{Counter, VipTraffic};
use maglev_common::flow::{Bucket, Seconds};
use maglev_common::forwarding::Forwarding;
use maglev_common::fragment::{Datagram, Line};
use maglev_common::hash::FlowHash;
use maglev_common::table::{Slot, SlotWord, TableStart};
use maglev_common::vip::VipWord;
use maglev_ebpf::affinity;
use maglev_ebpf::env::{self, Answers, Choice, Clock, Counters, Flow, Flows, Fragments, Ingress, Segment, Trace};
use maglev_harness::{SLOWED, TABLE_ONLY};

use crate::maps::Maps;

#[unsafe(no_mangle)]
static MODE: Global<u32> = Global::new(0);

/// The node's maps, seen as `MODE` says.
pub(crate) struct Measured(Maps<false>);

impl Measured {
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Option<Self> {
        if MODE.load() & SLOWED != 0 {
            // SAFETY: the helper takes nothing and cannot fail.
            unsafe { bpf_ktime_get_ns() };
        }
        Maps::new(ctx).map(Self)
    }
}

impl env::Forwarding for Measured {
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

impl Ingress for Measured {
    #[inline(always)]
    fn ingress(&self) -> u32 {
        self.0.ingress()
    }

    #[inline(always)]
    fn owns(&self, mac: u64) -> bool {
        self.0.owns(mac)
    }
}

impl Answers for Measured {
    #[inline(always)]
    fn may_answer(&self) -> bool {
        self.0.may_answer()
    }

    #[inline(always)]
    fn takes_turn(&self, flow: FlowHash) -> bool {
        self.0.takes_turn(flow)
    }
}

impl Fragments for Measured {
    #[inline(always)]
    fn may_begin(&self) -> bool {
        self.0.may_begin()
    }

    #[inline(always)]
    fn line(&self, datagram: Datagram) -> Option<&Line> {
        self.0.line(datagram)
    }
}

impl Clock for Measured {
    #[inline(always)]
    fn now(&self) -> Seconds {
        self.0.now()
    }
}

impl Flows for Measured {
    #[inline(always)]
    fn bucket(&self, hash: FlowHash) -> Option<&Bucket> {
        self.0.bucket(hash)
    }

    #[inline(always)]
    fn choose(&self, flow: Flow, segment: impl Fn() -> Segment) -> (MemberId, Choice) {
        if MODE.load() & TABLE_ONLY != 0 {
            return (affinity::owner(self, flow), Choice::Table);
        }
        affinity::choose(self, flow, segment)
    }

    #[inline(always)]
    fn resolve(&self, flow: Flow, segment: Segment) -> (MemberId, Choice) {
        self.0.resolve(flow, segment)
    }

    #[inline(always)]
    fn choose_for_error(&self, flow: Flow, segment: Segment) -> (MemberId, Choice) {
        self.0.choose_for_error(flow, segment)
    }
}

impl Counters for Measured {
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

impl Trace for Measured {}
