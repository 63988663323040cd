//! What the owner does and hears of, in the log's words. It must not know more than it is told.

use std::net::IpAddr;
use std::time::Duration;

use maglev_api::view;
use maglev_core::announced;
use maglev_core::health::News;
use maglev_model::{Change, Health, Refusal, Resolution};

use super::flood::Kind;
use crate::http::Caller;

/// Backends that cannot be reached own no slots, and VIPs that cannot be are not asked: the log says why. `shown` is whether
/// the line is one for operators, or one of too many.
pub(super) fn next_hop(address: IpAddr, resolution: &Resolution, shown: bool) {
    match resolution {
        Resolution::Resolved { .. } if shown => {
            tracing::info!(%address, "an address of a backend or VIP can be reached");
        }
        Resolution::Resolved { .. } => tracing::debug!(%address, "an address of a backend or VIP can be reached"),
        Resolution::Unresolved(reason) if shown => {
            tracing::warn!(%address, "an address of a backend or VIP is out of reach: {reason}");
        }
        Resolution::Unresolved(reason) => {
            tracing::debug!(%address, "an address of a backend or VIP is out of reach: {reason}");
        }
    }
}

/// Lines that were not shown.
pub(super) fn held((kind, count): (Kind, u32)) {
    match kind {
        Kind::Resolved => tracing::info!(count, "addresses of backends and VIPs can be reached; each at level debug"),
        Kind::Unresolved => {
            tracing::warn!(count, "addresses of backends or VIPs are out of reach; each at level debug");
        }
        Kind::Healthy => tracing::info!(count, "more backends are healthy; each at level debug"),
        Kind::Unhealthy => tracing::warn!(count, "more backends are unhealthy; each at level debug"),
    }
}

/// The kind of the line about a next hop.
pub(super) const fn kind_of_next_hop(resolution: &Resolution) -> Kind {
    match resolution {
        Resolution::Resolved { .. } => Kind::Resolved,
        Resolution::Unresolved(_) => Kind::Unresolved,
    }
}

/// The kind of the line about health, if there may be thousands.
pub(super) const fn kind_of_news(news: &News) -> Option<Kind> {
    match news {
        News::Health { health: Health::Unhealthy, .. } => Some(Kind::Unhealthy),
        News::Health { .. } => Some(Kind::Healthy),
        News::Panic { .. } | News::CommonFailure { .. } => None,
    }
}

/// What was ordered of the node is told like a change.
pub(super) fn order(order: &str, Caller { uid, pid }: Caller, outcome: &Result<(), Refusal>) {
    match outcome {
        Ok(()) => tracing::info!(uid, pid, "ordered: {order} the node"),
        Err(Refusal::Failed(reason)) => tracing::error!(uid, pid, "cannot {order} the node: {reason}"),
        Err(refusal) => tracing::debug!(uid, pid, "refused to {order} the node: {refusal}"),
    }
}

/// How long packets still went where checks had found that they should not.
pub(super) fn turn(took: Duration) {
    tracing::info!(microseconds = took.as_micros(), "the tables follow what checks found");
}

/// Health, in the log. `shown` as for next hops.
pub(super) fn news(news: &News, shown: bool) {
    match news {
        News::Health { pool, backend, health, reason } if !shown => {
            let health = view::HealthState::from(*health).as_str();
            let reason = reason.as_deref().unwrap_or("none");
            tracing::debug!(%pool, %backend, reason, "a backend is {health}");
        }
        News::Health { pool, backend, health: Health::Unhealthy, reason } => {
            let reason = reason.as_deref().unwrap_or("unknown");
            tracing::warn!(%pool, %backend, "a backend is unhealthy: {reason}");
        }
        News::Health { pool, backend, health, reason: _ } => {
            tracing::info!(%pool, %backend, "a backend is {}", view::HealthState::from(*health).as_str());
        }
        News::Panic { pool, on: true, healthy, of } => tracing::error!(
            %pool,
            healthy,
            of,
            "PANIC: too few backends are healthy; all that are active are used, whatever their checks say"
        ),
        News::Panic { pool, on: false, healthy, of } => {
            tracing::warn!(%pool, healthy, of, "panic is over: enough backends are healthy");
        }
        News::CommonFailure { on: true, healthy } => tracing::error!(
            healthy,
            "every check fails at once: taken for this node's own fault, for as many rounds as health.common_failure says"
        ),
        News::CommonFailure { on: false, .. } => tracing::warn!("not every check fails any more, or it is believed"),
    }
}

/// A change made is told with who asked for it; one that failed, as an error; a refusal is the client's business alone.
pub(super) fn change(change: &Change, caller: Caller, outcome: &Result<(), Refusal>) {
    let Caller { uid, pid } = caller;
    match outcome {
        Ok(()) => tracing::info!(uid, pid, "changed: {change}"),
        Err(Refusal::Failed(reason)) => tracing::error!(uid, pid, "cannot {change}: {reason}"),
        Err(refusal) => tracing::debug!(uid, pid, "refused to {change}: {refusal}"),
    }
}

/// Says when the packet path begins to differ from what is saved, and when it is in sync again; not each attempt.
pub(super) fn sync(before: Option<&str>, now: Option<&str>) {
    match (before, now) {
        (None, Some(reason)) => tracing::error!("out of sync: {reason}; trying again, at most every 30 s"),
        (Some(_), None) => tracing::info!("in sync again"),
        (None, None) | (Some(_), Some(_)) => {}
    }
}

/// Prefixes that came, and went and why. Many at once, as when a session ends, are one line, with the details at DEBUG.
pub(super) fn announced(news: &[announced::News]) {
    const FEW: usize = 16;
    let (gone, come): (Vec<_>, Vec<_>) = news.iter().partition(|news| news.withdrawn.is_some());
    for (what, news) in [("withdrawn", gone), ("announced", come)] {
        let many = news.len() > FEW;
        if many {
            tracing::info!("{} prefixes {what}", news.len());
        }
        for announced::News { prefix, vips: _, withdrawn } in news {
            let text = withdrawn.as_ref().map_or_else(|| what.to_owned(), |why| format!("{what}: {why}"));
            match many {
                true => tracing::debug!(%prefix, "{text}"),
                false => tracing::info!(%prefix, "{text}"),
            }
        }
    }
}
