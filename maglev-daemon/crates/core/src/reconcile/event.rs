//! Events and effects of the reconciler: its contract with the runtime. It must not know how either is
//! carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use maglev_common::backend::{InterfaceSlot, MemberId, MemberRecord};
use maglev_model::plan::{Step, SurveyOrder, Surveyed};
use maglev_model::{Change, Delta, Name, PacketSettings, Refusal, Resolution, Rules, Services};

use crate::addresses::AddressDelta;
use crate::health::{Last, News, Orders, Target};

use maglev_model::Host;

use super::needed::Needed;

/// Identifies the caller that awaits an answer; chosen by the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// An operator asks for a change.
    Change {
        /// The request to answer.
        request: RequestId,
        /// The change.
        change: Change,
        /// Whether it may take more out of service than the limits allow.
        force: bool,
    },
    /// The services that the store holds at the start: the first event.
    Load {
        /// The request to answer.
        request: RequestId,
        /// All services; already valid.
        services: Services,
    },
    /// Other services as a whole, as of an edited file or an older revision; [reviewed](super::Reconciler::review) before. They are
    /// saved like a change.
    Replace {
        /// The request to answer.
        request: RequestId,
        /// All services; already valid.
        services: Services,
    },
    /// The burst is over: act on the collected events.
    Flush,
    /// The services were written to disk, or the reason they could not be.
    Persisted(Result<(), String>),
    /// The last plan was carried out, or the reason it could not be.
    Published(Result<(), String>),
    /// Neighbors send no packets for these VIPs any more, which are among [`super::Reconciler::departing`].
    Forget(BTreeSet<Name>),
    /// Members that a plan removed were cleared after all, or the reason they could not be.
    Closed(Result<(), String>),
    /// The next hop of an address changed. Carried out with the next [`Event::Flush`], like a change.
    NextHop {
        /// A backend's address, or a VIP's.
        address: IpAddr,
        /// Its next hop.
        resolution: Resolution,
    },
    /// A check ended. Carried out with the next [`Event::Flush`], if [`super::Reconciler::is_restless`] by it.
    Checked {
        /// The target.
        target: Arc<Target>,
        /// The result.
        last: Last,
    },
    /// [`super::Reconciler::deadline`] has come.
    Tick,
    /// The surveys asked for are done.
    Surveyed(Vec<Surveyed>),
    /// The host's addresses or gateways changed. Carried out with the next [`Event::Flush`].
    Host(Host),
    /// The addresses that the node needs by `maglev.yaml` changed: see [`Needed::configured`]. Carried out with the next
    /// [`Event::Flush`].
    Configured(Vec<(IpAddr, String)>),
    /// The configured or known interfaces changed. Carried out with the next [`Event::Flush`].
    Interfaces(Interfaces),
    /// Another data plane of this process is prepared, and takes the place of the running one with the next plan;
    /// [reviewed](super::Reconciler::review_successor) before.
    Succeed {
        /// The request to answer.
        request: RequestId,
        /// The other data plane.
        successor: Box<Successor>,
    },
}

/// A data plane that takes the place of the running one: what differs for the reconciler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Successor {
    /// The limits that services are validated against, and the outer sources.
    pub rules: Rules,
    /// How packets are handled that no VIP takes.
    pub packets: PacketSettings,
    /// The interfaces, with their slots there.
    pub interfaces: Interfaces,
}

/// An order to the runtime.
#[derive(Debug)]
pub enum Effect {
    /// Save the services, atomically and durably, then report [`Event::Persisted`].
    Persist(Draft),
    /// The prepared data plane begins with these members, and takes over once the plan that follows is carried out in it.
    Succeed(Members),
    /// Carry out a plan, then report [`Event::Published`].
    Publish(Vec<Step>),
    /// Survey the flow tables, after all that was published before, then report [`Event::Surveyed`].
    Survey(Vec<SurveyOrder>),
    /// Follow the next hops of other addresses from now on.
    Follow(AddressDelta),
    /// Check exactly these targets, with these settings, from now on.
    Check(Orders),
    /// A change to report to operators.
    News(Vec<News>),
    /// Answer a request; an error is one line for the operator.
    Reply {
        /// The request.
        request: RequestId,
        /// Its outcome.
        outcome: Result<(), Refusal>,
    },
}

/// The records of members, by id.
pub type Members = BTreeMap<MemberId, MemberRecord>;

/// Services that are to be saved, and the changes that led to them, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// All services.
    pub services: Arc<Services>,
    /// The changes of each request; one that changed nothing is not here.
    pub revisions: Vec<(RequestId, Delta)>,
}

/// The interfaces of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// The configured ones and the VLAN devices on them, through which packets can leave: their slots by interface index.
    pub slots: BTreeMap<u32, InterfaceSlot>,
    /// Of VLAN devices among them, the VLAN and the name of the interface that carries its frames.
    pub vlans: BTreeMap<u32, (u16, String)>,
    /// Why packets cannot leave through other interfaces, where it is not only that they are not configured: words that follow the
    /// interface's name.
    pub reasons: BTreeMap<u32, String>,
    /// The indices of configured ones at whose egress health checks are not encapsulated.
    pub unguarded: BTreeSet<u32>,
    /// The names of all known ones by interface index, for messages.
    pub names: BTreeMap<u32, String>,
    /// The MTUs of all known ones by interface index, for messages.
    pub mtus: BTreeMap<u32, u32>,
}

impl Interfaces {
    /// Why packets cannot leave through an interface without a slot: words that follow its name.
    pub(super) fn reason(&self, index: u32) -> &str {
        self.reasons.get(&index).map_or("which is not listed in `interfaces`", String::as_str)
    }
}

/// The reconciler's settings at start.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The limits that services are validated against.
    pub rules: Rules,
    /// The interfaces; [`Event::Interfaces`] replaces them.
    pub interfaces: Interfaces,
    /// The addresses that no VIP may have; [`Event::Host`] and [`Event::Configured`] replace parts of it.
    pub needed: Needed,
    /// For how many rounds failures of every check are assumed to be a local fault.
    pub common_failure: u32,
    /// How packets are handled that no VIP takes.
    pub packets: PacketSettings,
}
