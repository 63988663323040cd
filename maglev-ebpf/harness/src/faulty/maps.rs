//! The node's maps, read or written with a fault.

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
use maglev_ebpf::env::{
    self, Answers, Choice, Clock, Counters, Decision, Flow, Flows, Fragments, Ingress, Segment, Trace,
};
use maglev_harness::Fault;

use crate::frame::has;
use crate::true_maps;

pub(crate) use crate::true_maps::{COUNTS, FORWARDING, TAG, action, cpu, find_by_rules4, find_by_rules6, slot_of};

/// The node's maps as they are, but for the fault.
pub(crate) struct Maps<const TRACED: bool>(true_maps::Maps<TRACED>);

impl<const TRACED: bool> Maps<TRACED> {
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Option<Self> {
        true_maps::Maps::new(ctx).map(Self)
    }

    #[inline(always)]
    pub(crate) fn is_abandoned(&self) -> bool {
        self.0.is_abandoned()
    }
}

impl<const TRACED: bool> env::Forwarding for Maps<TRACED> {
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
        // The port is left out.
        let service = if has(Fault::ForgetsPort) { service & !0xffff } else { service };
        self.0.find_by_rules4(address, service)
    }

    #[inline(always)]
    fn find_by_rules6(&self, address: [u64; 2], service: u64) -> VipWord {
        self.0.find_by_rules6(address, service)
    }
}

impl<const TRACED: bool> Ingress for Maps<TRACED> {
    #[inline(always)]
    fn ingress(&self) -> u32 {
        self.0.ingress()
    }

    #[inline(always)]
    fn owns(&self, mac: u64) -> bool {
        has(Fault::TakesOtherMac) || self.0.owns(mac)
    }
}

impl<const TRACED: bool> Answers for Maps<TRACED> {
    #[inline(always)]
    fn may_answer(&self) -> bool {
        has(Fault::AnswersWithoutLimit) || self.0.may_answer()
    }

    #[inline(always)]
    fn takes_turn(&self, flow: FlowHash) -> bool {
        self.0.takes_turn(flow)
    }
}

impl<const TRACED: bool> Fragments for Maps<TRACED> {
    #[inline(always)]
    fn may_begin(&self) -> bool {
        self.0.may_begin()
    }

    #[inline(always)]
    fn line(&self, datagram: Datagram) -> Option<&Line> {
        if has(Fault::ForgetsFragments) { None } else { self.0.line(datagram) }
    }
}

impl<const TRACED: bool> Clock for Maps<TRACED> {
    #[inline(always)]
    fn now(&self) -> Seconds {
        self.0.now()
    }
}

impl<const TRACED: bool> Flows for Maps<TRACED> {
    #[inline(always)]
    fn bucket(&self, hash: FlowHash) -> Option<&Bucket> {
        self.0.bucket(hash)
    }

    #[inline(always)]
    fn choose(&self, flow: Flow, segment: impl Fn() -> Segment) -> (MemberId, Choice) {
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

impl<const TRACED: bool> Counters for Maps<TRACED> {
    #[inline(always)]
    fn count(&self, counter: Counter) {
        self.0.count(counter);
    }

    #[inline(always)]
    fn count_vip(&self, vip: VipTraffic, bytes: u64) {
        if has(Fault::CountsVipTwice) {
            self.0.count_vip(vip, bytes);
        }
        self.0.count_vip(vip, bytes);
    }

    #[inline(always)]
    fn count_member(&self, member: MemberId, bytes: u64) {
        self.0.count_member(member, bytes);
    }
}

impl<const TRACED: bool> Trace for Maps<TRACED> {
    #[inline(always)]
    fn decided(&self, decision: &Decision) {
        self.0.decided(decision);
    }
}
