//! Converts views into changes. It must not know paths.

use std::sync::Arc;

use maglev_api::{Answer, view};
use maglev_model::{
    AdminState, Affinity, AnnounceBy, AnnounceChange, BadValue, Change, Community, HealthChange, Name, Override,
    VipChange, Weight, parse_panic,
};
use maglev_model::{parse_on_all_dead, parse_slow_start};

/// The change to preview, and whether with force.
pub(super) fn proposed(proposal: view::Proposal) -> Answer<(Change, bool)> {
    Ok(match proposal {
        view::Proposal::Add { pool, backend } => (addition(&pool, backend)?, false),
        view::Proposal::Remove { pool, name, force } => {
            let (pool, backend) = parse_backend(&pool, &name)?;
            (Change::RemoveBackend { pool, backend, force }, force)
        }
        view::Proposal::Weight { pool, name, weight, force } => {
            let (pool, backend) = parse_backend(&pool, &name)?;
            (Change::SetWeight { pool, backend, weight: Weight(weight) }, force)
        }
        view::Proposal::State { pool, name, order, force } => {
            let (pool, backend) = parse_backend(&pool, &name)?;
            (Change::SetState { pool, backend, change: order.at(maglev_api::now()) }, force)
        }
    })
}

/// A new backend.
pub(super) fn addition(pool: &str, backend: view::NewBackend) -> Answer<Change> {
    let view::NewBackend { name, address, weight } = backend;
    let (name, weight) = (parse_name("name", &name)?, Weight(weight));
    let backend = maglev_model::Backend { name, address, weight, state: AdminState::Active };
    Ok(Change::AddBackend { pool: parse_name("pool", pool)?, backend })
}

/// The changed settings of a VIP.
pub(super) fn vip(new: view::NewForVip) -> Answer<VipChange> {
    let view::NewForVip { announce, communities, when_empty, affinity } = new;
    let invalid = |field: &str, bad: BadValue| view::Error::invalid(format!("{field}: {bad}"));
    let by = announce.map(|text| text.parse::<AnnounceBy>()).transpose().map_err(|bad| invalid("announce", bad))?;
    let parse = |all: Vec<String>| all.iter().map(|text| text.parse::<Community>()).collect::<Result<_, _>>();
    let communities = communities.map(parse).transpose().map_err(|bad| invalid("communities", bad))?;
    let affinity = affinity.map(|text| text.parse::<Affinity>()).transpose().map_err(|bad| invalid("affinity", bad))?;
    let announce = AnnounceChange { by, communities };
    Ok(VipChange { announce, when_empty: when_empty.map(Into::into), affinity })
}

/// The changed settings of a pool's checks.
pub(super) fn health(new: view::NewHealth) -> Answer<HealthChange> {
    let view::NewHealth { check, panic_percent, slow_start_milliseconds, on_all_dead } = new;
    let check = match check {
        None => None,
        Some(None) => Some(None),
        Some(Some(text)) => Some(Some(Arc::new(maglev_config::parse_check(&text).map_err(several)?))),
    };
    let invalid = |field: &str, bad: BadValue| view::Error::invalid(format!("{field}: {bad}"));
    let panic = panic_percent.map(|percent| parse_panic(&percent.to_string())).transpose();
    let slow_start = slow_start_milliseconds.map(|milliseconds| parse_slow_start(&format!("{milliseconds}ms")));
    let on_all_dead = on_all_dead.map(|rule| parse_on_all_dead(&rule)).transpose();
    Ok(HealthChange {
        check,
        panic: panic.map_err(|bad| invalid("panic_percent", bad))?,
        slow_start: slow_start.transpose().map_err(|bad| invalid("slow_start_milliseconds", bad))?,
        on_all_dead: on_all_dead.map_err(|bad| invalid("on_all_dead", bad))?,
    })
}

/// A change to an existing backend.
pub(super) fn backend_change(pool: Name, backend: Name, new: view::NewForBackend) -> Answer<Change> {
    Ok(match new {
        view::NewForBackend::Weight(weight) => Change::SetWeight { pool, backend, weight: Weight(weight) },
        view::NewForBackend::Check(own) => {
            let own = own.map(|text| maglev_config::parse_override(&text)).transpose().map_err(several)?;
            if own.as_ref().is_some_and(|own| *own == Override::default()) {
                return Err(view::Error::invalid("check: nothing to set; allowed: port, path, host"));
            }
            Change::SetCheck { pool, backend, own }
        }
    })
}

/// One mistake in one line, several in as many more.
fn several(problems: Vec<String>) -> view::Error {
    match problems.as_slice() {
        [problem] => view::Error::invalid(problem),
        _ => {
            let error = view::Error::invalid(format!("check: {} errors:", problems.len()));
            view::Error { details: problems, ..error }
        }
    }
}

/// Parses the names of a pool and of its backend.
pub(super) fn parse_backend(pool: &str, name: &str) -> Answer<(Name, Name)> {
    Ok((parse_name("pool", pool)?, parse_name("backend", name)?))
}

/// Parses the name in a field.
pub(super) fn parse_name(field: &str, name: &str) -> Answer<Name> {
    Name::parse(name).map_err(|error| view::Error::invalid(format!("{field}: {error}")))
}
