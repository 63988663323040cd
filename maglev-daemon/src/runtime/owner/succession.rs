//! Reloads that change settings of the data plane: another one is prepared, the services are replaced, and it takes over with a plan
//! of everything. Sessions and checks go on. The same without a reload, once the flow table before has no use any more. It must not know
//! how a data plane is prepared, nor how it takes over.

use std::sync::Arc;

use maglev_api::view::{self, DataPlaneStage, What};
use maglev_config::NodeConfig;
use maglev_core::node::Plan;
use maglev_core::reconcile::{self, Denied, Event};
use maglev_dataplane::Interface;
use maglev_model::{Refusal, Rules, Services};
use maglev_net::links;
use tokio::sync::watch;

use super::super::files::{Forwarding, Reread};
use super::super::heartbeat::Heartbeat;
use super::super::refreshed::Refreshed;
use super::super::start;
use super::super::status;
use super::super::succession::Successor;
use super::reload::{Reload, nothing_changed};
use super::{Owner, Waiting};

/// A data plane that is prepared, or why there is none.
pub(in crate::runtime) type Prepared = Result<Successor, String>;

/// The reason for another data plane.
#[derive(Debug)]
pub(super) enum Cause {
    /// A reload changes its settings.
    Reload(Reload, Box<Reread>),
    /// The flow table before has no use any more.
    Spent,
}

/// The change to another data plane.
#[derive(Debug)]
pub(super) struct Succession {
    /// The reason for the one that is prepared.
    preparing: Option<Cause>,
    /// The one that takes over with the next plan that names its members.
    next: Option<Successor>,
    /// The number of those that were to take over.
    plane: u64,
    /// Whether a new release is judged.
    on_probation: watch::Receiver<bool>,
    rules: watch::Sender<Rules>,
}

impl Succession {
    pub(super) fn new(rules: Rules) -> Self {
        let rules = watch::Sender::new(rules);
        Self { preparing: None, next: None, plane: 0, on_probation: watch::channel(false).1, rules }
    }

    /// Whether a data plane is prepared.
    pub(super) const fn is_preparing(&self) -> bool {
        self.preparing.is_some()
    }

    /// Whether slots mean here what they meant to a data plane.
    pub(super) const fn is_of(&self, refreshed: &Refreshed) -> bool {
        self.plane == refreshed.plane
    }
}

impl Owner {
    /// The rules for services, as they change.
    pub(in crate::runtime) fn rules(&self) -> watch::Receiver<Rules> {
        self.succession.rules.subscribe()
    }

    /// As long as a new release is judged, its data plane stays as it is.
    pub(in crate::runtime) fn judged_by(&mut self, on_probation: watch::Receiver<bool>) {
        self.succession.on_probation = on_probation;
    }

    /// Checks whether a data plane with these settings may take over, with the services that apply with them.
    pub(super) fn review_forwarding(&self, node: &NodeConfig, services: &Services) -> Result<(), Denied> {
        if *self.succession.on_probation.borrow() {
            let line = "this release is on probation, and its data plane stays as it is until then: reload again after the \
                        event `proven`";
            return Err(Denied::Refused(Refusal::Conflict(line.to_owned())));
        }
        self.node.reconciler().review_successor(&node.rules(), services)
    }

    /// Lets a data plane take over that does not read the flow table before, whose memory is freed with the present one.
    pub(super) fn go_without_flows_before(&mut self) {
        // The next sweep reports it again.
        if !*self.succession.on_probation.borrow() {
            let node = self.files.running().clone();
            self.prepare_forwarding(Cause::Spent, &node);
        }
    }

    /// Prepares a data plane, and goes on with [`Self::prepared`]. No change of services begins before.
    pub(super) fn prepare_forwarding(&mut self, cause: Cause, node: &NodeConfig) {
        let (settings, known) = (start::settings(node), self.interfaces.interfaces.clone());
        let (orders, prepared) = (self.tools.dataplane.orders().clone(), self.tools.prepared.clone());
        self.succession.preparing = Some(cause);
        tokio::spawn(async move {
            let prepare = async {
                let existing = links::list().await.map_err(|error| error.to_string())?;
                let lineage = orders.lineage().await.ok().flatten().ok_or("the data plane is not pinned")?;
                // The kernel verifies the programs: orders to the running data plane must not wait for that.
                let load = move || Successor::load(&settings, existing, &lineage, &known);
                let loaded = tokio::task::spawn_blocking(load).await.map_err(|error| error.to_string())?;
                loaded.map_err(|error| error.to_string())
            };
            // The owner may have ended.
            let _ = prepared.send(prepare.await);
        });
    }

    /// A data plane is prepared, or cannot be.
    pub(super) fn prepared(&mut self, prepared: Prepared) {
        let Some(cause) = self.succession.preparing.take() else { return };
        let prepared = prepared.and_then(|successor| match self.renewed(&successor.interfaces) {
            Some(name) => Err(format!("interface {name} was made anew meanwhile; reload again")),
            None => Ok(successor),
        });
        match cause {
            Cause::Reload(reload, read) => self.go_on_with_reload(reload, *read, prepared),
            Cause::Spent => match prepared {
                Ok(successor) => {
                    let forwarding =
                        Forwarding { node: Box::new(self.files.running().clone()), keys: vec!["flow_table"] };
                    self.succeed(None, (forwarding, successor));
                }
                // The next sweep reports it again.
                Err(reason) => tracing::warn!("the flow table from before `flow_table` changed stays: {reason}"),
            },
        }
    }

    /// The reload goes on, or is refused.
    fn go_on_with_reload(&mut self, reload: Reload, read: Reread, prepared: Prepared) {
        let prepared = prepared.map_err(|reason| Denied::Refused(Refusal::Conflict(reason)));
        match prepared.and_then(|successor| Ok((self.review(&read, reload.force)?, successor))) {
            Ok((difference, successor)) => self.replace(reload, read, difference, Some(successor)),
            Err(denied) => self.reloaded(reload, Err(nothing_changed(denied))),
        }
    }

    /// An interface that the running data plane has attached to since another one was prepared, which cannot take it over.
    fn renewed(&self, prepared: &Refreshed) -> Option<&str> {
        let is_renewed = |known: &&Interface| {
            let same = prepared.interfaces.iter().find(|interface| interface.name == known.name);
            known.index != 0 && same.is_some_and(|same| same.index != known.index)
        };
        self.interfaces.interfaces.iter().find(is_renewed).map(|known| known.name.as_str())
    }

    /// Lets a data plane take over with the next plan.
    pub(super) fn succeed(
        &mut self,
        reload: Option<(Reload, view::Reloaded)>,
        (forwarding, mut successor): (Forwarding, Successor),
    ) {
        self.succession.plane += 1;
        successor.interfaces.plane = self.succession.plane;
        let facts = self.facts.succeed(&successor.dataplane, &forwarding.keys);
        let change = reconcile::Successor {
            rules: forwarding.node.rules(),
            packets: forwarding.node.packets,
            interfaces: status::known_interfaces(&successor.interfaces),
        };
        let interfaces = successor.interfaces.clone();
        self.succession.next = Some(successor);
        let request = self.expect(Waiting::Succession(reload.map(Box::new), Box::new((forwarding, facts, interfaces))));
        self.reconcile(Event::Succeed { request, successor: Box::new(change) });
        self.handle(maglev_core::node::Event::Flush);
    }

    /// Orders a plan.
    pub(super) fn publish(&mut self, Plan { steps, saved, members }: Plan) {
        let orders = self.tools.dataplane.orders();
        // First, so that no packet of what it changes is missed.
        if self.captures.are_running() {
            self.captures.follow(self.node.view(), orders);
        }
        if let Some((members, successor)) = members.and_then(|members| Some((members, self.succession.next.take()?))) {
            orders.succeed(successor, members);
        }
        orders.publish(steps, saved);
    }

    /// The data plane took over, or will with another attempt; or it was refused, and nothing of it has changed.
    pub(super) fn succeeded(
        &mut self,
        reload: Option<(Reload, view::Reloaded)>,
        (Forwarding { node, keys }, facts, interfaces): (Forwarding, status::Facts, Refreshed),
        outcome: Result<(), Refusal>,
    ) {
        if self.succession.next.take().is_some() {
            self.succession.plane -= 1;
        } else {
            self.files.forward_by(&node);
            self.facts = Arc::new(facts);
            self.tools.heartbeat = Heartbeat::new(node.watchdog);
            self.succession.rules.send_replace(node.rules());
            self.interfaces_changed(interfaces);
        }
        if outcome.is_ok() {
            let reason = match &reload {
                Some(_) => format!("{} changed", keys.join(", ")),
                None => "the flow table from before `flow_table` changed is freed".to_owned(),
            };
            self.log.record(What::DataPlane { stage: DataPlaneStage::Continued, reason: Some(reason) });
        }
        match (reload, outcome) {
            (Some((reload, reloaded)), outcome) => {
                self.reloaded(reload, outcome.map(|()| reloaded).map_err(view::Error::from));
            }
            (None, Ok(())) => self.snapshots.outdate_beside(),
            (None, Err(reason)) => tracing::warn!("the flow table from before `flow_table` changed stays: {reason}"),
        }
    }
}
