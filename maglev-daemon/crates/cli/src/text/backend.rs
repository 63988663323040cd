//! The text of backends.

use maglev_api::view;
use maglev_model::ShownDuration;

use super::count;
use crate::output::{Text, table};

/// Backends as a table.
pub(super) fn list(backends: &[view::Backend]) -> String {
    let row = |backend: &view::Backend| {
        let view::Backend { pool, name, address, weight, state, since: _, slots: _, share, .. } = backend;
        let view::Backend { learning_slots, pinned_flows, next_hop, .. } = backend;
        let [weight, learning] = [weight.to_string(), learning_slots.to_string()];
        let (share, state) = (format!("{:.2} %", share * 100.0), state.as_str().to_owned());
        let (address, pinned) = (address.to_string(), count(*pinned_flows));
        let [health, last] = health(backend.health.as_deref());
        [
            pool.clone(),
            name.clone(),
            address,
            weight,
            share,
            state,
            learning,
            pinned,
            health,
            last,
            shown_next_hop(next_hop),
        ]
    };
    let header = [
        "pool",
        "name",
        "address",
        "weight",
        "share",
        "state",
        "learning",
        "pinned",
        "health",
        "last check",
        "next hop",
    ];
    table(header, &["weight", "share", "learning", "pinned"], backends.iter().map(row))
}

/// The health of a backend with its age, and the result of the last check.
pub(crate) fn health(health: Option<&view::Health>) -> [String; 2] {
    let Some(view::Health { state, age_seconds, weight_percent, last, waiting, held_back_seconds, .. }) = health else {
        return ["not checked".to_owned(), String::new()];
    };
    let lasts = ShownDuration::from_secs(*age_seconds);
    let held = held_back_seconds.map(ShownDuration::from_secs);
    let held = held.map(|left| format!(", held back for {left} by flap damping")).unwrap_or_default();
    let ramp = if *weight_percent < 100 { format!(", {weight_percent} % of its weight") } else { String::new() };
    let last = match (last, waiting) {
        (_, Some(why)) => why.clone(),
        (None, None) => "none yet".to_owned(),
        (Some(view::LastCheck { microseconds, error: None, .. }), _) => {
            format!("ok in {}", ShownDuration::from_micros(*microseconds))
        }
        (Some(view::LastCheck { microseconds, error: Some(error), .. }), _) => {
            format!("{error} ({})", ShownDuration::from_micros(*microseconds))
        }
    };
    [format!("{} for {lasts}{ramp}{held}", state.as_str()), last]
}

pub(crate) fn shown_next_hop(next_hop: &view::NextHop) -> String {
    match next_hop {
        view::NextHop::Resolved { interface, vlan, mac, gateway, longest_packet } => {
            let vlan = vlan.as_ref().map(|view::Vlan { id, on }| format!(" (VLAN {id} on {on})")).unwrap_or_default();
            let via = gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
            let longest = longest_packet.map(|bytes| format!(", packets of up to {bytes} bytes")).unwrap_or_default();
            format!("{mac} on {interface}{vlan}{via}{longest}")
        }
        view::NextHop::Unresolved { reason } => format!("unresolved: {reason}"),
    }
}

impl Text for Vec<view::Backend> {
    fn text(&self) -> String {
        list(self)
    }
}

impl Text for view::Backend {
    fn text(&self) -> String {
        list(std::slice::from_ref(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_api::testing;
    use maglev_model::UnixTime;

    #[test]
    fn health_is_shown_with_its_age_and_the_last_result() {
        let UnixTime(now) = maglev_api::now();
        let known = |state, error: Option<&str>| view::Health {
            state,
            since: now - 120,
            age_seconds: 120,
            weight_percent: 100,
            last: Some(view::LastCheck { at: now, microseconds: 12_400, error: error.map(str::to_owned) }),
            waiting: None,
            held_back_seconds: None,
            checks: view::CheckCounts::default(),
            clock: view::HealthClock::default(),
        };
        let (healthy, bad) =
            (known(view::HealthState::Healthy, None), known(view::HealthState::Unhealthy, Some("HTTP 503")));
        let ramping = view::Health { weight_percent: 29, ..healthy.clone() };
        let first = view::Health { last: None, ..known(view::HealthState::Checking, None) };
        let waiting = view::Health { waiting: Some("no VIP uses pool web".into()), ..first.clone() };
        let damped = view::Health { held_back_seconds: Some(18), ..bad.clone() };
        let of = |health: Option<&view::Health>| self::health(health);
        assert_eq!(of(None), ["not checked", ""]);
        assert_eq!(of(Some(&healthy)), ["healthy for 2m", "ok in 12 ms"]);
        assert_eq!(of(Some(&bad)), ["unhealthy for 2m", "HTTP 503 (12 ms)"]);
        assert_eq!(of(Some(&damped))[0], "unhealthy for 2m, held back for 18s by flap damping");
        assert_eq!(of(Some(&ramping)), ["healthy for 2m, 29 % of its weight", "ok in 12 ms"]);
        assert_eq!(of(Some(&first)), ["checking for 2m", "none yet"]);
        assert_eq!(of(Some(&waiting)), ["checking for 2m", "no VIP uses pool web"]);
        let text = view::Backend { health: Some(Box::new(bad)), ..testing::backend("web1") }.text();
        assert!(text.contains("HEALTH") && text.contains("HTTP 503 (12 ms)"), "{text}");
    }
}
