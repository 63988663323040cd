//! The listing of each view: its columns, and a row for each object that was read. It must not know the screen.

use maglev_api::view::{BgpNeighbor, Counter, Event, InterfaceCounter, Level, PoolSummary, Vip};
use maglev_model::{ShownDuration, runbook, utc_with_milliseconds};

use super::content::{Cell, Column, Listing, Row, Tone};
use super::meter::Meter;
use super::model::Model;
use super::screen::Place;
use crate::text;

const VIPS: [Column; 6] = [
    Column::text("vip", 8, 63, 0),
    Column::number("packets/s", 10, 0),
    Column::number("bytes/s", 8, 2),
    Column::trend(3),
    Column::text("serving", 8, 20, 1),
    Column::text("announced", 9, 200, 1),
];

pub(super) fn vips(model: &Model) -> Listing {
    let row = |vip: &Vip| {
        let meter = model.vip(&vip.name);
        let [packets, bytes] = rates(meter);
        let cells = vec![Cell::text(&vip.name), packets, bytes, Cell::default(), serving(vip), announced(vip)];
        Row { key: vip.name.clone(), cells, trend: trend(meter), opens: Place::Vip(vip.name.clone()) }
    };
    let rows = model.vips.as_ref().map(|vips| vips.iter().map(row).collect());
    Listing::new(&VIPS, 1, rows, "no VIP: `maglev vip add` adds one")
}

fn serving(vip: &Vip) -> Cell {
    let health = &vip.health;
    let tone = match () {
        () if vip.error.is_some() || health.panic || health.serving == 0 => Tone::Bad,
        () if health.serving < health.backends => Tone::Warning,
        () => Tone::Good,
    };
    let text = match &vip.error {
        Some(_) => "ERROR".to_owned(),
        None => {
            format!("{}{} of {}", if health.panic { "PANIC: " } else { "" }, health.serving, health.backends)
        }
    };
    Cell::number(text, health.serving as f64).toned(tone)
}

fn announced(vip: &Vip) -> Cell {
    let health = &vip.health;
    let (to, of) = (health.announced_to.unwrap_or_default(), health.neighbors.unwrap_or_default());
    let text = match (health.announced, &health.withheld) {
        (Some(_), None) if to > 0 => format!("to {to} of {of}"),
        (Some(_), Some(reason)) if to > 0 => format!("to {to} of {of}: {reason}"),
        (announced, reason) => text::bgp::announced(announced.map(|_| (to, of)), reason.as_deref()),
    };
    let tone = match health.announced {
        None => Tone::Plain,
        Some(false) => Tone::Bad,
        Some(true) if to < of => Tone::Warning,
        Some(true) => Tone::Good,
    };
    Cell::text(text).toned(tone)
}

const POOLS: [Column; 7] = [
    Column::text("pool", 8, 63, 0),
    Column::number("packets/s", 10, 0),
    Column::number("bytes/s", 8, 2),
    Column::trend(3),
    Column::text("usable", 8, 20, 1),
    Column::text("healthy", 8, 200, 1),
    Column::number("learning", 9, 2),
];

pub(super) fn pools(model: &Model) -> Listing {
    let row = |pool: &PoolSummary| {
        let traffic = model.pool_traffic(&pool.name);
        let rates = traffic.and_then(|(rates, _)| *rates);
        let tone = match () {
            () if pool.panic || pool.usable == 0 => Tone::Bad,
            () if pool.usable < pool.backends => Tone::Warning,
            () => Tone::Good,
        };
        let health = pool.health.as_ref().map(|health| text::pool::in_short(pool.panic, health));
        let learning = pool.in_transition.learning_slots;
        let cells = vec![
            Cell::text(&pool.name),
            Cell::rate(rates.map(|rates| rates.packets)),
            Cell::rate(rates.map(|rates| rates.bytes)),
            Cell::default(),
            Cell::number(format!("{} of {}", pool.usable, pool.backends), pool.usable as f64).toned(tone),
            Cell::text(health.unwrap_or_else(|| "not checked".to_owned())),
            Cell::number(learning.to_string(), learning.into()),
        ];
        let trend = traffic.map(|(_, trend)| trend.values()).unwrap_or_default();
        Row { key: pool.name.clone(), cells, trend, opens: Place::Pool(pool.name.clone()) }
    };
    let rows = model.pools.as_ref().map(|pools| pools.iter().map(row).collect());
    Listing::new(&POOLS, 1, rows, "no pool: `maglev pool add` adds one")
}

const DROPS: [Column; 5] = [
    Column::text("counter", 9, 40, 0),
    Column::number("packets/s", 10, 0),
    Column::trend(3),
    Column::number("total", 8, 1),
    Column::text("meaning", 10, 200, 2),
];

/// Counters with a remedy: packets that are lost, or would be at the next change.
pub(super) fn drops(model: &Model) -> Listing {
    let total = |packets: u64| Cell::number(packets.to_string(), packets as f64);
    let rate = |meter: Option<&Meter>| {
        let rate = packet_rate(meter);
        Cell::rate(rate).toned(if rate.is_some_and(|rate| rate > 0.0) { Tone::Bad } else { Tone::Plain })
    };
    let row = |counter: &Counter| {
        let Counter { name, outcome, packets, help } = counter;
        let remedy = runbook::parse_balancer(name).is_ok_and(|entry| entry.remedy.is_some());
        if !remedy && outcome != "dropped" {
            return None;
        }
        let meter = model.counter(name);
        let cells = vec![Cell::text(name), rate(meter), Cell::default(), total(*packets), Cell::text(help)];
        let opens = Place::Counter(name.clone());
        Some((*packets, Row { key: name.clone(), cells, trend: trend(meter), opens }))
    };
    let interface = |counter: &InterfaceCounter| {
        let InterfaceCounter { interface, source, name, packets } = counter;
        let (key, meter) = (format!("{interface} {name}"), model.interface(counter));
        let meaning = Cell::text(format!("Lost at interface {interface}, counted by the {source}."));
        let cells = vec![Cell::text(&key), rate(meter), Cell::default(), total(*packets), meaning];
        let opens = Place::Counter(key.clone());
        (*packets > 0).then(|| (*packets, Row { key, cells, trend: trend(meter), opens }))
    };
    let rows = model.counters.iter().filter_map(row).chain(model.interfaces.iter().filter_map(interface));
    let mut rows: Vec<(u64, Row)> = rows.collect();
    // Rows with the same rate keep this order.
    rows.sort_by_key(|(packets, _)| std::cmp::Reverse(*packets));
    let rows = rows.into_iter().map(|(_, row)| row).collect();
    let read = (!model.counters.is_empty()).then_some(rows);
    Listing::new(&DROPS, 1, read, "no drop reason")
}

const SESSIONS: [Column; 6] = [
    Column::text("neighbor", 10, 63, 0),
    Column::text("state", 9, 12, 0),
    Column::number("since", 8, 1),
    Column::number("as", 6, 3),
    Column::number("sent", 6, 2),
    Column::text("last error", 10, 200, 2),
];

pub(super) fn sessions(model: &Model) -> Listing {
    let row = |neighbor: &BgpNeighbor| {
        let BgpNeighbor { name, remote_as, state, since, prefixes_sent, last_error, .. } = neighbor;
        let up = state == "established";
        let lasts = model.unix_seconds().saturating_sub(*since);
        let error = last_error.clone().unwrap_or_else(|| "-".to_owned());
        let cells = vec![
            Cell::text(name),
            Cell::text(state).toned(if up { Tone::Good } else { Tone::Bad }),
            Cell::number(ShownDuration::from_secs(lasts).to_string(), lasts as f64),
            Cell::number(remote_as.to_string(), (*remote_as).into()),
            Cell::number(prefixes_sent.to_string(), *prefixes_sent as f64),
            Cell::text(error),
        ];
        Row { key: name.clone(), cells, trend: Vec::new(), opens: Place::Neighbor(name.clone()) }
    };
    let rows = model.neighbors.as_ref().map(|neighbors| neighbors.0.iter().map(row).collect());
    Listing::new(&SESSIONS, 0, rows, "no neighbor: BGP is off, or `neighbors` in maglev.yaml is empty")
}

const EVENTS: [Column; 3] =
    [Column::number("time", 8, 1), Column::text("level", 7, 7, 2), Column::text("event", 12, 400, 0)];

pub(super) fn events(model: &Model) -> Listing {
    let row = |event: &Event| {
        let time = utc_with_milliseconds(event.unix_milliseconds);
        // The time of day: the date is in the text that the row opens.
        let time = time.get(11..19).unwrap_or(&time).to_owned();
        let tone = match event.level {
            Level::Info => Tone::Plain,
            Level::Warning => Tone::Warning,
            Level::Error => Tone::Bad,
        };
        let cells = vec![
            Cell::number(time, event.sequence as f64),
            Cell::text(event.level.as_str()).toned(tone),
            Cell::text(&event.text).toned(tone),
        ];
        let key = event.sequence.to_string();
        Row { key, cells, trend: Vec::new(), opens: Place::Event(event.sequence) }
    };
    let rows = model.events.as_ref().map(|events| events.iter().map(row).collect());
    Listing::new(&EVENTS, 0, rows, "no event since the daemon started")
}

/// Packets and bytes a second.
pub(super) fn rates(meter: Option<&Meter>) -> [Cell; 2] {
    let rates = meter.and_then(|meter| meter.rates);
    [rates.map(|rates| rates.packets), rates.map(|rates| rates.bytes)].map(Cell::rate)
}

pub(super) fn packet_rate(meter: Option<&Meter>) -> Option<f64> {
    meter.and_then(|meter| meter.rates).map(|rates| rates.packets)
}

pub(super) fn trend(meter: Option<&Meter>) -> Vec<f32> {
    meter.map(|meter| meter.trend.values()).unwrap_or_default()
}
