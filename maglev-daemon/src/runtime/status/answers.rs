//! Answers to other requests than the status: counters, plans, checks and flows. It must not know the clients.

use maglev_api::view;
use maglev_common::counters::{Counter, Outcome};
use maglev_core::health::Target;
use maglev_core::reconcile::{BackendView, NextHopView, PoolView, Previewed, View, VipView};
use maglev_dataplane::{Explanation, Snapshot, Totals};
use maglev_ebpf::env::{Choice, Decision};
use maglev_model::plan::{Preview, Share};
use maglev_model::{AdminState, Change, Name, StateChange};
use maglev_probe::probe::Ended;
use maglev_probe::scheduler::Asked;

use super::microseconds;
use crate::http::Flow;

/// The report of a requested check.
pub(in crate::runtime) fn checked((target, check, ended): &Asked) -> view::CheckedTarget {
    let Target { pool: _, backend: _, address: _, vip, destination } = &**target;
    let Ended { outcome, latency } = ended;
    view::CheckedTarget {
        destination: *destination,
        vip: vip.as_ref().map(ToString::to_string),
        kind: check.probe.kind().to_owned(),
        passed: outcome.is_ok(),
        microseconds: microseconds(*latency),
        error: outcome.as_ref().err().map(ToString::to_string),
    }
}

/// All counters by name.
pub(in crate::runtime) fn counters(
    view: &View,
    snapshot: &Snapshot,
    interfaces: Vec<view::InterfaceCounter>,
) -> view::Counters {
    let counter = |counter: &Counter| view::Counter {
        name: counter.name().to_owned(),
        outcome: counter.outcome().as_str().to_owned(),
        packets: snapshot.counter(*counter),
        help: counter.help().to_owned(),
    };
    let vip = |vip: &VipView| {
        let Totals { packets, bytes } = vip.id.map(|id| snapshot.vip(id)).unwrap_or_default();
        view::VipTraffic { name: vip.name.to_string(), packets, bytes }
    };
    let backend = |pool: &PoolView, backend: &BackendView| {
        let Totals { packets, bytes } = backend.id.map(|id| snapshot.member(id)).unwrap_or_default();
        view::BackendTraffic { pool: pool.name.to_string(), backend: backend.name.to_string(), packets, bytes }
    };
    let backends = view.pools.iter().flat_map(|pool| pool.backends.iter().map(move |found| backend(pool, found)));
    view::Counters {
        counters: Counter::ALL.iter().map(counter).collect(),
        vips: view.vips.iter().map(vip).collect(),
        backends: backends.collect(),
        interfaces,
    }
}

/// The preview of a change to a backend.
pub(in crate::runtime) fn plan(view: &View, previewed: &Previewed, active_flows: u64) -> view::Plan {
    let Previewed { change, index: _, settings, preview: Preview { disruption, moved, shares } } = previewed;
    let (pool, name) = change.backend().map_or(("", ""), |(pool, name)| (pool.as_str(), name.as_str()));
    let share = |Share { name, before, after }: &Share| view::PlanShare {
        name: name.to_string(),
        slots_before: *before,
        slots_after: *after,
    };
    view::Plan {
        change: change.to_string(),
        pool: pool.to_owned(),
        backend: name.to_owned(),
        slots: moved.len() as u32,
        moved_slots: disruption.moved,
        collateral_slots: disruption.collateral,
        active_flows,
        tracking: settings.tracking.into(),
        cuts: cuts(view, change),
        backends: shares.iter().map(share).collect(),
    }
}

/// Whether a change drops connections of a backend.
fn cuts(view: &View, change: &Change) -> bool {
    let ends =
        matches!(change, Change::RemoveBackend { .. } | Change::SetState { change: StateChange::Disable { .. }, .. });
    let named = |(pool, name): (&Name, &Name)| {
        let pool = view.pools.iter().find(|found| found.name == *pool)?;
        pool.backends.iter().find(|found| found.name == *name)
    };
    let has_some = |found: &BackendView| {
        let disabled = matches!(found.state, AdminState::Disabled { .. });
        !disabled && (found.slots > 0 || found.learning > 0 || found.pinned != Some(0))
    };
    ends && change.backend().and_then(named).is_some_and(has_some)
}

/// The explanation of a flow.
pub(in crate::runtime) fn explanation(view: &View, flow: Flow, explanation: &Explanation) -> view::Explanation {
    let Flow { client, service, protocol } = flow;
    let vip = explanation.vip.and_then(|id| view.vip(id));
    let (outcome, reason) = outcome_and_reason(view, explanation);
    let decision = explanation.outcome.as_ref().ok();
    let member = decision.and_then(|decision| view.member(decision.member));
    view::Explanation {
        client,
        service,
        protocol: protocol.into(),
        outcome: outcome.to_owned(),
        vip: vip.map(|vip| vip.name.to_string()),
        pool: vip.map(|vip| vip.pool.to_string()),
        slot: decision.and_then(|decision| u32::try_from(decision.slot().index()).ok()),
        backend: member.map(|(_, backend)| backend.name.to_string()),
        reason,
    }
}

fn outcome_and_reason(view: &View, explanation: &Explanation) -> (&'static str, String) {
    let decision = match &explanation.outcome {
        Ok(decision) => decision,
        Err(counter) => return (counter.outcome().as_str(), format!("{}: {}", counter.name(), counter.help())),
    };
    let reason = choice(view, decision, explanation);
    match view.member(decision.member).map(|(_, backend)| &backend.next_hop) {
        Some(NextHopView::Unresolved(awaited)) => {
            let counter = Counter::NextHopUnresolved;
            (counter.outcome().as_str(), format!("{}: {awaited}; {reason}", counter.name()))
        }
        Some(NextHopView::Resolved { .. }) | None => (Outcome::Forwarded.as_str(), reason),
    }
}

fn choice(view: &View, decision: &Decision, explanation: &Explanation) -> String {
    match (decision.choice, explanation.remembered.first()) {
        (Choice::Table, _) => "the backend owns the flow's slot; no flow table knows the flow".to_owned(),
        (Choice::Previous, _) => format!(
            "no flow table knows the flow; the backend is the previous owner of its slot, which is learning; \
             its owner is {}",
            owner(view, explanation)
        ),
        (Choice::FlowTable, None) => "the flow table knows the flow".to_owned(),
        (Choice::FlowTable, Some(entry)) => {
            let owner = owner(view, explanation);
            let (cpu, idle) = (entry.cpu, entry.idle);
            format!("CPU {cpu}'s flow table knows the flow, last seen {idle} s ago; the owner of its slot is {owner}")
        }
    }
}

/// The owner of the flow's slot.
fn owner<'a>(view: &'a View, explanation: &Explanation) -> &'a str {
    view.member(explanation.owner).map_or("none", |(_, owner)| owner.name.as_str())
}
