//! Events and effects of the node: its contract with the runtime. It must not know how either is carried out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use maglev_common::vip::VipId;
use maglev_model::bgp::{NeighborStatus, Wanted};
use maglev_model::node_drain::Stage;
use maglev_model::plan::{Saved, Step, SurveyOrder};
use maglev_model::{Name, Refusal};

use crate::addresses::AddressDelta;
use crate::announce::Prefix;
use crate::health::Orders;
use crate::reconcile::{Draft, Interfaces, Members, RequestId};
use crate::{announced, health, node_drain, reconcile};

/// Settings of a node.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Settings of the reconciler.
    pub reconcile: reconcile::Settings,
    /// The settings of a drain.
    pub drain: maglev_model::node_drain::Settings,
    /// Neighbors are configured.
    pub announces: bool,
    /// For how long a prefix withdrawn for lack of healthy backends is held down.
    pub hold_down: Duration,
    /// Plans carry the state to save before them.
    pub keeps: bool,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// To services, next hops, checks, disk or packet path. The runtime sends neither [`reconcile::Event::Flush`], nor
    /// [`reconcile::Event::Tick`], nor [`reconcile::Event::Interfaces`].
    Reconcile(reconcile::Event),
    /// To the drain of the node. The runtime sends neither [`node_drain::Event::Sent`] nor [`node_drain::Event::Tick`].
    Drain(node_drain::Event),
    /// The interfaces changed.
    Interfaces {
        /// The known interfaces.
        interfaces: Interfaces,
        /// Why no packet can be received or sent, if so.
        trouble: Option<String>,
    },
    /// The neighbors' sessions, whenever one changed. From the first such event on, wanted prefixes are sent.
    Sessions(Vec<NeighborStatus>),
    /// Sessions have ended for good: the daemon stops.
    SessionsEnded {
        /// Neighbors keep the prefixes that they hold (graceful restart).
        kept: bool,
    },
    /// [`super::Node::deadline`] has come. What is due is acted on with the next [`Event::Flush`].
    Tick,
    /// The burst is over: act on the collected events.
    Flush,
}

/// An order to the runtime. Effects are carried out in their order.
#[derive(Debug)]
pub enum Effect {
    /// Write the services to disk, atomically and durably, then report [`reconcile::Event::Persisted`].
    Persist(Draft),
    /// Carry out a plan, then report [`reconcile::Event::Published`].
    Publish(Plan),
    /// Survey the flow tables, after all that was published before, then report [`reconcile::Event::Surveyed`].
    Survey(Vec<SurveyOrder>),
    /// Follow the next hops of other addresses from now on.
    Follow(AddressDelta),
    /// Check exactly these targets, with these settings, from now on.
    Check(Orders),
    /// Announce these routes, and no others.
    Announce {
        /// The prefixes to announce.
        wanted: Arc<Wanted>,
        /// Every prefix, and why it is withheld if it is.
        prefixes: Arc<Vec<Prefix>>,
    },
    /// Save this of the drain, or that there is none; then report [`node_drain::Event::Saved`].
    SaveDrain(Option<node_drain::Record>),
    /// Read the counters of these VIPs, then report [`node_drain::Event::Counted`].
    Count(Vec<(Name, VipId)>),
    /// A change to report to operators.
    News(News),
    /// Answer a request. All its effects were ordered before.
    Reply {
        /// The request.
        request: RequestId,
        /// Its outcome.
        outcome: Result<(), Refusal>,
    },
}

/// Steps for the packet path, and the state after them.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The steps, in their order.
    pub steps: Vec<Step>,
    /// The state that the next daemon needs, if it is to be saved before.
    pub saved: Option<Saved>,
    /// If the prepared data plane takes over with this plan: the members that it begins with.
    pub members: Option<Members>,
}

/// A change to report to operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Of checks.
    Health(health::News),
    /// A backend is unreachable, or reachable again.
    Reach {
        /// Its pool.
        pool: Name,
        /// Its name.
        backend: Name,
        /// Its address.
        address: IpAddr,
        /// Why it is unreachable, if it is.
        lost: Option<String>,
    },
    /// A VIP cannot be served, or can be again.
    Vip {
        /// Its name.
        vip: Name,
        /// Why it cannot be.
        conflict: Option<String>,
    },
    /// Prefixes are announced to a first neighbor, or no longer to any.
    Prefixes(Vec<announced::News>),
    /// The drain of the node enters a stage.
    Stage {
        /// The stage.
        stage: Stage,
        /// The order.
        order: node_drain::Order,
        /// Packets forwarded to backends since the drain began.
        forwarded: u64,
    },
    /// The node is no longer drained.
    Serving,
    /// The packet path is out of sync, and why; or in sync again.
    OutOfSync(Option<String>),
    /// The tables match check results, so long after the first of them.
    TablesFollow(Duration),
}
