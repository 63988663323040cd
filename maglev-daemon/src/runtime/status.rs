//! From what the reconciler and the data plane know, by number, to what the API answers, by name. It must not know who
//! asks.

use std::collections::BTreeMap;

use maglev_common::backend::MemberId;
use maglev_common::counters::{Counter, Outcome};
use maglev_common::vip::VipId;
use maglev_ebpf::affinity::Choice;
use maglev_ebpf::forward::Decision;

use super::plane::Refreshed;
use crate::api::{Flow, RELEASE, view};
use crate::config::NodeConfig;
use crate::dataplane::{self, Dataplane, Explanation, Interface, Snapshot, Totals};
use crate::digest::Digest;
use crate::reconcile::{Resolution, View};

/// What stays the same while the daemon runs.
#[derive(Debug)]
pub(super) struct Facts {
    services_file: String,
    hash_key_digest: String,
    memory: view::Memory,
}

impl Facts {
    pub(super) fn new(node: &NodeConfig, dataplane: &Dataplane) -> Self {
        let map = |(name, bytes): (&str, u64)| view::MapMemory { name: name.to_owned(), bytes };
        let maps: Vec<_> = dataplane.memory().into_iter().map(map).collect();
        Self {
            services_file: node.services.display().to_string(),
            hash_key_digest: Digest::of_key(node.hash_key).to_string(),
            memory: view::Memory { total_bytes: maps.iter().map(|map| map.bytes).sum(), maps },
        }
    }

    /// The node's status, but for the time it is up.
    pub(super) fn status(
        &self,
        view: &View<'_>,
        interfaces: &Refreshed,
        last_reload: Option<&view::LastReload>,
    ) -> view::Status {
        let Self { services_file, hash_key_digest, memory } = self;
        let names: BTreeMap<_, _> =
            interfaces.interfaces.iter().map(|interface| (interface.index, interface.name.as_str())).collect();
        let backends = view.services.pools.values().flat_map(|pool| {
            pool.backends.values().map(|backend| view::Backend {
                pool: pool.name.to_string(),
                name: backend.name.to_string(),
                address: backend.address,
                weight: backend.weight.0,
                state: if backend.weight.0 == 0 { view::BackendState::Out } else { view::BackendState::Active },
                next_hop: next_hop(view.resolution(backend.address), &names),
            })
        });
        view::Status {
            version: RELEASE.to_owned(),
            object: dataplane::sha256().to_owned(),
            uptime_seconds: 0,
            services_file: services_file.clone(),
            services_digest: view.digest.to_string(),
            hash_key_digest: hash_key_digest.clone(),
            last_reload: last_reload.cloned(),
            memory: memory.clone(),
            interfaces: interfaces.interfaces.iter().map(|found| interface(found, &interfaces.gone)).collect(),
            vips: view.services.vips.values().map(vip).collect(),
            pools: view.services.pools.values().map(|pool| summary(pool, view)).collect(),
            backends: backends.collect(),
        }
    }
}

fn interface(interface: &Interface, gone: &[String]) -> view::Interface {
    let Interface { name, index, slot: _, mode, mac: _, mtu } = interface;
    view::Interface {
        name: name.clone(),
        mode: mode.to_string(),
        attached: !gone.contains(name),
        index: *index,
        mtu: *mtu,
    }
}

fn vip(vip: &crate::model::Vip) -> view::Vip {
    let crate::model::Vip { name, service, pool } = vip;
    view::Vip {
        name: name.to_string(),
        address: service.address,
        port: view::Port(service.port),
        protocol: service.protocol.into(),
        pool: pool.to_string(),
    }
}

fn next_hop(resolution: Option<&Resolution>, interfaces: &BTreeMap<u32, &str>) -> view::NextHop {
    match resolution {
        None => view::NextHop::Unresolved { reason: "the route has not been looked up yet".to_owned() },
        Some(Resolution::Unresolved(reason)) => view::NextHop::Unresolved { reason: reason.clone() },
        Some(Resolution::Resolved { interface, mac, gateway }) => match interfaces.get(interface) {
            Some(name) => view::NextHop::Resolved {
                interface: (*name).to_owned(),
                mac: mac_text(*mac),
                gateway: *gateway,
            },
            None => view::NextHop::Unresolved {
                reason: format!("the route leaves by interface {interface}, which is not among the node's interfaces"),
            },
        },
    }
}

fn mac_text([a, b, c, d, e, f]: [u8; 6]) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// The names behind the numbers that are published.
#[derive(Debug, Default)]
pub(super) struct Names {
    vips: Vec<NamedVip>,
    members: Vec<NamedMember>,
}

#[derive(Debug)]
struct NamedVip {
    id: VipId,
    name: String,
    pool: String,
}

#[derive(Debug)]
struct NamedMember {
    id: MemberId,
    pool: String,
    backend: String,
    /// Why packets for it are dropped, if they are.
    unresolved: Option<String>,
}

impl Names {
    /// All counters by name.
    pub(super) fn counters(&self, snapshot: &Snapshot) -> view::Counters {
        let counter = |counter: &Counter| view::Counter {
            name: counter.name().to_owned(),
            outcome: outcome(counter.outcome()).to_owned(),
            packets: snapshot.counter(*counter),
            help: counter.help().to_owned(),
        };
        let vip = |vip: &NamedVip| {
            let Totals { packets, bytes } = snapshot.vip(vip.id);
            view::VipTraffic { name: vip.name.clone(), packets, bytes }
        };
        let member = |member: &NamedMember| {
            let Totals { packets, bytes } = snapshot.member(member.id);
            view::BackendTraffic { pool: member.pool.clone(), backend: member.backend.clone(), packets, bytes }
        };
        view::Counters {
            counters: Counter::ALL.iter().map(counter).collect(),
            vips: self.vips.iter().map(vip).collect(),
            backends: self.members.iter().map(member).collect(),
        }
    }

    /// Where a flow goes, in words.
    pub(super) fn explanation(&self, flow: Flow, explanation: &Explanation) -> view::Explanation {
        let Flow { client, service, protocol } = flow;
        let vip = explanation.vip.and_then(|id| self.vips.iter().find(|vip| vip.id == id));
        let mut answer = view::Explanation {
            client,
            service,
            protocol: protocol.into(),
            outcome: String::new(),
            vip: vip.map(|vip| vip.name.clone()),
            pool: vip.map(|vip| vip.pool.clone()),
            slot: None,
            backend: None,
            reason: String::new(),
        };
        match &explanation.outcome {
            Ok(decision) => {
                let member = self.member(decision.member);
                let unresolved = member.and_then(|member| member.unresolved.as_ref());
                answer.slot = u32::try_from(decision.slot.index()).ok();
                answer.backend = member.map(|member| member.backend.clone());
                let reason = self.reason(decision, explanation);
                (answer.outcome, answer.reason) = match unresolved {
                    None => (outcome(Outcome::Forwarded).to_owned(), reason),
                    Some(awaited) => {
                        let counter = Counter::NextHopUnresolved;
                        (outcome(counter.outcome()).to_owned(), format!("{}: {awaited}; {reason}", counter.name()))
                    }
                };
            }
            Err(counter) => {
                answer.outcome = outcome(counter.outcome()).to_owned();
                answer.reason = format!("{}: {}", counter.name(), counter.help());
            }
        }
        answer
    }

    fn reason(&self, decision: &Decision, explanation: &Explanation) -> String {
        match (decision.choice, explanation.remembered.first()) {
            (Choice::Table, _) => "the backend owns the flow's slot; no flow table knows the flow".to_owned(),
            (Choice::FlowTable, None) => "the flow table knows the flow".to_owned(),
            (Choice::FlowTable, Some(entry)) => {
                let owner = self.member(decision.owner).map_or("nobody", |owner| owner.backend.as_str());
                let (cpu, idle) = (entry.cpu, entry.idle);
                format!("CPU {cpu}'s flow table knows the flow, last seen {idle} s ago; its slot belongs to {owner}")
            }
        }
    }

    fn member(&self, id: MemberId) -> Option<&NamedMember> {
        self.members.iter().find(|member| member.id == id)
    }
}

const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Forwarded => "forwarded",
        Outcome::Passed => "passed",
        Outcome::Dropped => "dropped",
        Outcome::Noted => "noted",
    }
}

pub(super) fn settings(node: &NodeConfig, interfaces: &[Interface]) -> crate::reconcile::Settings { let _ = (node, interfaces); unimplemented!() }
fn summary(pool: &crate::model::Pool, view: &View<'_>) -> view::PoolSummary { let _ = view; view::PoolSummary { name: pool.name.to_string(), table_digest: String::new(), backends: pool.backends.len() } }
impl Names { pub(super) fn of(_view: &View<'_>) -> Self { Self::default() } }
