//! The backends of a pool as rows. It must not know the screen.

use maglev_api::view::{Backend, BackendState, HealthState};

use super::content::{Body, Cell, Column, Listing, Row, Tone};
use super::listings::{rates, trend};
use super::model::Model;
use super::screen::{Level, Place};
use crate::text;

const BACKENDS: [Column; 8] = [
    Column::text("backend", 8, 63, 0),
    Column::number("packets/s", 10, 0),
    Column::number("bytes/s", 8, 3),
    Column::trend(4),
    Column::number("weight", 7, 2),
    Column::number("share", 8, 2),
    Column::text("state", 8, 8, 1),
    Column::text("health", 9, 200, 1),
];

/// The backends of a pool; or why they are not shown.
pub(super) fn body(model: &Model, pool: &str, level: &Level) -> Body {
    let pool = match model.whole_pool(pool) {
        Some(Err(refusal)) => return Body::Text(vec![refusal.to_owned()]),
        Some(Ok(pool)) => Some(pool),
        None => None,
    };
    let row = |backend: &Backend| {
        let Backend { pool, name, weight, state, share, health, .. } = backend;
        let meter = model.backend(pool, name);
        let [packets, bytes] = rates(meter);
        let state_tone = if *state == BackendState::Active { Tone::Good } else { Tone::Warning };
        let [shown, _] = text::backend::health(health.as_deref());
        let cells = vec![
            Cell::text(name),
            packets,
            bytes,
            Cell::default(),
            Cell::number(weight.to_string(), (*weight).into()),
            Cell::number(format!("{:.2} %", share * 100.0), *share),
            Cell::text(state.as_str()).toned(state_tone),
            Cell::text(shown).toned(tone(health.as_ref().map(|health| health.state))),
        ];
        let opens = Place::Backend { pool: pool.clone(), name: name.clone() };
        Row { key: name.clone(), cells, trend: trend(meter), opens }
    };
    let rows = pool.map(|pool| pool.backends.iter().map(row).collect());
    Body::Rows(Listing::new(&BACKENDS, 1, rows, "no backend: `maglev backend add` adds one").shown(level))
}

const fn tone(health: Option<HealthState>) -> Tone {
    match health {
        None => Tone::Plain,
        Some(HealthState::Healthy) => Tone::Good,
        Some(HealthState::Checking) => Tone::Warning,
        Some(HealthState::Unhealthy | HealthState::Unreachable) => Tone::Bad,
    }
}
