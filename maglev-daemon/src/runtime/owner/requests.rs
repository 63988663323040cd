//! Requests of clients: changes become events; reads are answered from the node's present state.

use std::sync::Arc;

use maglev_api::{Answer, view};
use maglev_core::node::Event;
use maglev_core::node_drain;
use maglev_core::reconcile;
use maglev_model::{Change, Name};
use tokio::sync::oneshot;

use super::super::captures::{self, Wanted};
use super::super::dataplane::ActiveFlows;
use super::super::lost_packets::Interfaces;
use super::super::snapshot::Snapshot;
use super::super::status;
use super::{Apply, Owner, Reload, Replacement, Rollback, Waiting};
use crate::http::{Caller, CaptureMessages, Flow, Made, Request, Shown};

impl Owner {
    pub(super) fn request(&mut self, request: Request) {
        let changes_services =
            matches!(request, Request::Change { .. } | Request::Reload { .. } | Request::Rollback { .. });
        if changes_services && (!self.replacements.is_empty() || self.succession.is_preparing()) {
            return self.postponed.push_back(request);
        }
        match request {
            Request::Change { change, force, by, reply } => {
                let request = self.expect(Waiting::Change(change.clone(), by, reply));
                self.reconcile(reconcile::Event::Change { request, change, force });
            }
            Request::Reload { force, by, reply } => {
                self.replacements.push_back(Replacement::Reload(Reload { force, by, reply: Some(reply) }));
            }
            Request::Rollback { revision, services, force, by, reply } => {
                let rollback = Rollback { revision, services, force, by, reply };
                self.replacements.push_back(Replacement::Rollback(rollback));
            }
            Request::Apply { file, force, by, reply } => {
                self.replacements.push_back(Replacement::Apply(Apply { file, force, by, reply }));
            }
            Request::ReviewFile { file, force, reply } => drop(reply.send(Ok(self.plan_file(&file, force)))),
            Request::PlanRollback { services, reply } => drop(reply.send(self.plan_rollback(&services))),
            Request::PlanReload { reply } => drop(reply.send(self.plan_reload())),
            Request::Counters { reply } => {
                let (snapshot, view) = (self.tools.dataplane.orders().snapshot(), self.snapshot().view);
                let (lost, interfaces) = (self.lost.clone(), Interfaces::from_refreshed(&self.interfaces));
                tokio::spawn(async move {
                    let (interfaces, snapshot) = tokio::join!(lost.read(interfaces), snapshot);
                    if let Ok(snapshot) = snapshot {
                        let _ = reply.send(Ok(Made::by(move || status::counters(&view, &snapshot, interfaces))));
                    }
                });
            }
            Request::Explain { flow, reply } => self.explain(flow, reply),
            Request::Capture { wanted, caller, reply } => self.capture(&wanted, caller, reply),
            Request::Plan { change, force, reply } => self.plan(change, force, reply),
            Request::Check { pool, backend, reply } => {
                let _ = reply.send(self.check(&pool, &backend));
            }
            Request::DrainNode { order, caller, reply } => {
                let request = self.expect(Waiting::Node("drain the node", caller, reply));
                self.handle(Event::Drain(node_drain::Event::Drain { request, order }));
            }
            Request::UndrainNode { caller, reply } => {
                let request = self.expect(Waiting::Node("undrain the node", caller, reply));
                self.handle(Event::Drain(node_drain::Event::Undrain { request }));
            }
            Request::StopNode { order, caller, reply } => {
                // The client may have disconnected.
                let _ = reply.send(self.order_stop(&order, caller));
            }
        }
    }

    /// Stops the daemon after this input. A node whose packets are still forwarded is detached only if that is forced.
    fn order_stop(&mut self, order: &view::NewStop, Caller { uid, pid }: Caller) -> Answer<()> {
        let view::NewStop { detach, force } = *order;
        let drained = status::node(&self.node, self.files.running(), self.clock.now()).drain.is_some();
        if detach && !force && !drained {
            return Err(view::Error::conflict(
                "the node is not drained: its connections would break; drain it first (`maglev node drain --wait`), or use --force",
            ));
        }
        let change = if detach { "stop the node, detached" } else { "stop the node" };
        self.log.record(view::What::Changed { change: change.to_owned(), uid, pid });
        self.stopping = Some(detach);
        Ok(())
    }

    /// The present state of the node, for readers.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        let Self { node, facts, interfaces, last_reload, clock, files, snapshots, .. } = self;
        snapshots.get(|| {
            let (view, now) = (Arc::new(node.view()), clock.now());
            let shown = status::node(node, files.running(), now);
            let (facts, interfaces, last_reload) = (Arc::clone(facts), Arc::clone(interfaces), last_reload.clone());
            let (services, of_node) = (Arc::clone(&view), shown.clone());
            let make = move || facts.status(&services, &interfaces, last_reload.as_ref(), of_node, now);
            Snapshot::new(view, Shown::new(shown, make), node.generation())
        })
    }

    /// Previews a change: slots that move, and flows on them.
    fn plan(&mut self, change: Change, force: bool, reply: oneshot::Sender<Answer<view::Plan>>) {
        let previewed = match self.node.reconciler().preview(change, force) {
            Ok(previewed) => previewed,
            Err(refusal) => {
                let _ = reply.send(Err(refusal.into()));
                return;
            }
        };
        let flows =
            ActiveFlows::from_preview(&previewed).map(|flows| self.tools.dataplane.orders().active_flows(flows));
        let view = self.snapshot().view;
        tokio::spawn(async move {
            let counted = match flows {
                Some(flows) => flows.await,
                None => Ok(Ok(0)),
            };
            let Ok(counted) = counted else { return };
            let answer = counted.map(|flows| status::plan(&view, &previewed, flows)).map_err(view::Error::failed);
            let _ = reply.send(answer);
        });
    }

    /// Starts one check of a backend, which ends when its requester disconnects.
    fn check(&mut self, pool: &Name, backend: &Name) -> Answer<oneshot::Receiver<view::CheckReport>> {
        let asked = self.tools.scheduler.once(self.node.reconciler().to_check(pool, backend)?);
        let (mut reply, report) = oneshot::channel();
        let (pool, backend) = (pool.to_string(), backend.to_string());
        tokio::spawn(async move {
            tokio::select! {
                asked = asked => {
                    let targets = asked.iter().map(status::checked).collect();
                    let _ = reply.send(view::CheckReport { pool, backend, targets });
                }
                () = reply.closed() => {}
            }
        });
        Ok(report)
    }

    /// Begins a capture, in a task of its own: the verifier takes its time.
    fn capture(
        &mut self,
        wanted: &view::NewCapture,
        Caller { uid, pid }: Caller,
        reply: oneshot::Sender<Answer<CaptureMessages>>,
    ) {
        let view = self.node.view();
        let begun = Wanted::parse(wanted).and_then(|wanted| {
            wanted.target(&view)?;
            Ok(wanted)
        });
        let wanted = match begun {
            Ok(wanted) => wanted,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let interfaces = self.interfaces.interfaces.iter().map(|it| (it.index, it.name.clone())).collect();
        let orders = self.tools.dataplane.orders();
        self.captures.follow(view, orders);
        self.log.record(view::What::Changed { change: "capture packets".to_owned(), uid, pid });
        // The client may have disconnected; the task notices.
        tokio::spawn(captures::run(Arc::clone(&self.captures), orders.clone(), wanted, interfaces, reply));
    }

    fn explain(&mut self, flow: Flow, reply: oneshot::Sender<Answer<view::Explanation>>) {
        let Flow { client, service, protocol } = flow;
        let asked = maglev_dataplane::Asked { source: client, destination: service, protocol };
        let asked = self.tools.dataplane.orders().explain(asked);
        let view = self.snapshot().view;
        tokio::spawn(async move {
            let Ok(explained) = asked.await else { return };
            let answer = explained
                .map(|explanation| status::explanation(&view, flow, &explanation))
                .map_err(view::Error::failed);
            let _ = reply.send(answer);
        });
    }
}
