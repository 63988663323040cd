//! From the API's words to changes of backends, and what is refused by what the status shows. It must not know paths.

use std::sync::Arc;

use maglev_api::{Answer, view};
use maglev_model::{
    AdminState, AnnounceBy, AnnounceChange, BadValue, Change, Community, HealthChange, Name, Override, Weight,
    parse_panic,
};
use maglev_model::{parse_on_all_dead, parse_slow_start};

/// The change that would be made, and whether by force.
pub(super) fn proposed(status: &view::Status, proposal: view::Proposal) -> Answer<(Change, bool)> {
    Ok(match proposal {
        view::Proposal::Add { pool, backend } => (addition(&pool, backend)?, false),
        view::Proposal::Remove { pool, name, force } => {
            let (pool, backend) = parse_backend(&pool, &name)?;
            (removal(status, pool, backend, force)?, force)
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

/// The removal of a backend; refused if it is draining and has something left, unless forced.
pub(super) fn removal(status: &view::Status, pool: Name, backend: Name, force: bool) -> Answer<Change> {
    let is_it = |found: &&view::Backend| found.pool == pool.as_str() && found.name == backend.as_str();
    let draining = |found: &&view::Backend| found.state == view::BackendState::Draining;
    match status.backends.iter().find(is_it).filter(draining) {
        Some(found) if !force && !found.is_drained() => Err(view::Error::conflict(format!(
            "backend {backend} of pool {pool} is not drained: {}; wait (maglev backend drain {pool} {backend} --wait) or \
             --force",
            found.left()
        ))),
        _ => Ok(Change::RemoveBackend { pool, backend, force }),
    }
}

/// What is set of how a VIP is announced.
pub(super) fn announcement(new: view::NewAnnounce) -> Answer<AnnounceChange> {
    let view::NewAnnounce { announce, communities } = new;
    let invalid = |field: &str, bad: BadValue| view::Error::invalid(format!("{field}: {bad}"));
    let by = announce.map(|text| text.parse::<AnnounceBy>()).transpose().map_err(|bad| invalid("announce", bad))?;
    let parse = |all: Vec<String>| all.iter().map(|text| text.parse::<Community>()).collect::<Result<_, _>>();
    let communities = communities.map(parse).transpose().map_err(|bad| invalid("communities", bad))?;
    Ok(AnnounceChange { by, communities })
}

/// What is set of a pool's checks.
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

/// A change to a backend that is there.
pub(super) fn of_backend(pool: Name, backend: Name, new: view::NewForBackend) -> Answer<Change> {
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

/// One fault in one line, several in as many more.
fn several(problems: Vec<String>) -> view::Error {
    match problems.as_slice() {
        [problem] => view::Error::invalid(problem),
        _ => {
            let error = view::Error::invalid(format!("check: {} errors:", problems.len()));
            view::Error { details: problems, ..error }
        }
    }
}

/// Reads the names of a pool and of its backend.
pub(super) fn parse_backend(pool: &str, name: &str) -> Answer<(Name, Name)> {
    Ok((parse_name("pool", pool)?, parse_name("backend", name)?))
}

/// Reads a name that a field holds.
pub(super) fn parse_name(field: &str, name: &str) -> Answer<Name> {
    Name::parse(name).map_err(|error| view::Error::invalid(format!("{field}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_api::testing::backend;
    use view::BackendState::{Active, Disabled, Draining, Out};

    /// What is said to removing `web2` that looks like this.
    fn removed(
        state: view::BackendState,
        learning_slots: u32,
        pinned_flows: Option<u32>,
        force: bool,
    ) -> Answer<Change> {
        let found = view::Backend { state, learning_slots, pinned_flows, ..backend("web2") };
        let status = view::Status { backends: vec![backend("web1"), found], ..view::Status::default() };
        removal(&status, Name::parse("web").unwrap(), Name::parse("web2").unwrap(), force)
    }

    #[test]
    fn a_draining_backend_with_something_left_is_removed_by_force_alone() {
        for (learning, pinned, left) in [
            (6_554, Some(312), "6554 slots are learning for it and 312 flows are pinned to it"),
            (0, Some(1), "0 slots are learning for it and 1 flow is pinned to it"),
            (1, None, "1 slot is learning for it and the flows pinned to it are not counted yet"),
            (0, None, "0 slots are learning for it and the flows pinned to it are not counted yet"),
        ] {
            let line = format!(
                "backend web2 of pool web is not drained: {left}; wait (maglev backend drain web web2 --wait) or --force"
            );
            assert_eq!(removed(Draining, learning, pinned, false), Err(view::Error::conflict(line)));
            assert!(removed(Draining, learning, pinned, true).is_ok());
        }
        assert!(removed(Draining, 0, Some(0), false).is_ok());
        for state in [Active, Disabled, Out] {
            assert!(removed(state, 1, Some(1), false).is_ok(), "only a drain promises to keep connections");
        }
    }

    #[test]
    fn who_is_not_there_is_left_to_the_owner() {
        let (pool, name) = parse_backend("web", "web9").unwrap();
        assert!(removal(&view::Status::default(), pool, name, false).is_ok());
    }
}
