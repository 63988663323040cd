//! The text about one object: a title above its rows, or a whole page. It must not know the screen.

use maglev_api::view::{Backend, BgpNeighbor, Vip};
use maglev_model::{ShownDuration, UnixTime, runbook, unserved_word, utc_with_milliseconds};

use super::model::Model;
use super::shown::{rate, trend};
use super::{listings, meter::Meter};
use crate::output::Text as _;
use crate::text;

/// The columns of a trend in a text.
const TREND: usize = 48;

pub(super) fn vip(model: &Model, vip: &Vip) -> Vec<String> {
    let Vip { name, address, port, protocol, pool, when_empty, affinity, error, health } = vip;
    let numbers =
        health.announced.map(|_| (health.announced_to.unwrap_or_default(), health.neighbors.unwrap_or_default()));
    let announced = text::bgp::announced(numbers, health.withheld.as_deref());
    let empty = unserved_word((*when_empty).into());
    let mut lines = vec![
        format!("VIP {name}: {address} port {port} {protocol}, affinity {affinity}, when empty {empty}"),
        format!("serving {} of {}, announced: {announced}", health.serving, health.backends),
    ];
    lines.extend(error.iter().map(|error| format!("ERROR, not served: {error}")));
    lines.push(traffic(model.vip(name)));
    lines.push(format!("Backends of pool {pool}, with the traffic of all its VIPs:"));
    lines
}

pub(super) fn pool(model: &Model, name: &str) -> Vec<String> {
    let Some(Ok(pool)) = model.whole_pool(name) else { return vec![format!("pool {name}")] };
    let vips = if pool.vips.is_empty() { "none".to_owned() } else { pool.vips.join(", ") };
    let health = pool.health.as_ref().map(|health| text::pool::in_short(pool.panic, health));
    vec![
        format!(
            "pool {name}: usable {} of {}, healthy {}",
            pool.usable,
            pool.backends.len(),
            health.as_deref().unwrap_or("not checked")
        ),
        format!("in transition: {}", text::pool::moving(&pool.in_transition)),
        format!("VIPs: {vips}"),
    ]
}

pub(super) fn backend(model: &Model, pool: &str, name: &str) -> Vec<String> {
    let found = match model.whole_pool(pool) {
        None => return vec!["reading …".to_owned()],
        Some(Err(refusal)) => return vec![refusal.to_owned()],
        Some(Ok(pool)) => pool.backends.iter().find(|backend| backend.name == name),
    };
    let Some(backend) = found else { return vec![format!("unknown backend {name} in pool {pool}: it was removed")] };
    let Backend { address, weight, state, since, slots, share, learning_slots, pinned_flows, next_hop, .. } = backend;
    let [health, last] = text::backend::health(backend.health.as_deref());
    let since = since.map(|since| format!(" since {}", UnixTime(since))).unwrap_or_default();
    let mut lines = vec![format!("backend {name} of pool {pool}"), String::new()];
    let meter = model.backend(pool, name);
    let rows = [
        ("packets/s", rate(listings::packet_rate(meter))),
        ("bytes/s", rate(meter.and_then(|meter| meter.rates).map(|rates| rates.bytes))),
        ("trend", bars(meter)),
        ("address", address.to_string()),
        ("weight", weight.to_string()),
        ("state", format!("{}{since}", state.as_str())),
        ("slots", format!("{slots}, {:.2} % of the table", share * 100.0)),
        ("learning", format!("{learning_slots} slots learn from it")),
        ("pinned", format!("{} flows on slots of others", text::count(*pinned_flows))),
        ("health", health),
        ("last check", last),
        ("next hop", text::backend::shown_next_hop(next_hop)),
    ];
    lines.extend(rows.iter().map(|(key, value)| line(key, value)));
    lines
}

/// What `maglev counters --why` prints, with the packets so far.
pub(super) fn counter(model: &Model, name: &str) -> Vec<String> {
    let found = model.counters.iter().find(|counter| counter.name == name);
    let total = found.map_or_else(|| "-".to_owned(), |counter| counter.packets.to_string());
    let Ok(entry) = runbook::parse_balancer(name) else {
        let lost = format!("{name}: packets lost at the interface, outside the program.");
        return vec![lost, "`ip -s -s link` and `ethtool -S` on this node show the counters of its interfaces.".into()];
    };
    let mut lines: Vec<String> = entry.text().lines().map(str::to_owned).collect();
    let meter = model.counter(name);
    let rates = format!("{} packets/s  {}", rate(listings::packet_rate(meter)), bars(meter));
    lines.splice(0..0, [format!("{name}: {total} packets since the daemon started"), rates, String::new()]);
    lines
}

pub(super) fn neighbor(model: &Model, name: &str) -> Vec<String> {
    let Some(neighbors) = &model.neighbors else { return vec!["reading …".to_owned()] };
    let Some(neighbor) = neighbors.0.iter().find(|neighbor| neighbor.name == name) else {
        return vec![format!("unknown neighbor {name}: it was removed")];
    };
    let BgpNeighbor { remote_as, state, since, prefixes_sent, sessions, .. } = neighbor;
    let BgpNeighbor { last_error, last_error_at, later_error, later_error_at, .. } = neighbor;
    let ago = |at: u64| ShownDuration::from_secs(model.unix_seconds().saturating_sub(at)).to_string();
    let error = |error: &Option<String>, at: &Option<u64>| {
        let error = error.clone()?;
        Some(at.map_or_else(|| error.clone(), |at| format!("{error}, {} ago", ago(at))))
    };
    let mut lines = vec![
        format!("neighbor {name}"),
        String::new(),
        line("as", &remote_as.to_string()),
        line("state", &format!("{state} for {}", ago(*since))),
        line("sent", &format!("{prefixes_sent} prefixes")),
        line("sessions", &format!("{sessions} established since the daemon started")),
        line("last error", &error(last_error, last_error_at).unwrap_or_else(|| "none".to_owned())),
    ];
    lines.extend(error(later_error, later_error_at).map(|error| line("later", &error)));
    lines
}

pub(super) fn event(model: &Model, sequence: u64) -> Vec<String> {
    let found = model.events.iter().flatten().find(|event| event.sequence == sequence);
    let Some(event) = found else { return vec!["this event is no longer kept".to_owned()] };
    let time = utc_with_milliseconds(event.unix_milliseconds);
    vec![
        format!("event {sequence}"),
        String::new(),
        line("time", &time),
        line("level", event.level.as_str()),
        event.text.clone(),
    ]
}

fn traffic(meter: Option<&Meter>) -> String {
    let rates = meter.and_then(|meter| meter.rates);
    let [packets, bytes] = [rates.map(|rates| rates.packets), rates.map(|rates| rates.bytes)].map(rate);
    format!("{packets} packets/s, {bytes} bytes/s  {}", bars(meter))
}

fn bars(meter: Option<&Meter>) -> String {
    trend(&listings::trend(meter), TREND).trim_start().to_owned()
}

fn line(key: &str, value: &str) -> String {
    format!("{key:<12}{value}")
}
