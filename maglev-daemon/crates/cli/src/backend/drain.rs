//! `maglev backend drain`: the request, and the wait until no flow is left to the backend. It must not know how the daemon
//! finds flows.

use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::{Duration, Instant};

use maglev_api::client::ClientError;
use maglev_api::view::{self, BackendState, StateOrder};
use maglev_model::{Name, ShownDuration};

use super::path;
use crate::flow_table;
use crate::interrupt::Interrupt;
use crate::output::Printer;
use crate::progress::Progress;
use crate::{Client, Failure};

/// The interval between two requests for the state.
const POLL: Duration = Duration::from_millis(500);

/// Drains a backend, and with `wait` waits until it is drained, at most for the time in it.
pub(super) fn run(
    client: &Client,
    printer: &Printer,
    backend: (&Name, &Name),
    wait: Option<Option<Duration>>,
    force: bool,
) -> Result<(), Failure> {
    let (pool, name) = backend;
    // The warning needs the count of pinned flows from before: the transition makes it unknown until the next survey.
    let warning = flow_table::warning(client, 0);
    let interrupt = wait.map(|_| Interrupt::says("see `maglev backend list`")).transpose()?;
    let ordered = order(client, backend, wait.is_some(), force);
    if let Some(interrupt) = interrupt {
        interrupt.now_says(format!("{name} goes on draining; `maglev backend undrain {pool} {name}` reverses it"));
    }
    if let (Ok(_), Some(warning)) = (&ordered, warning) {
        eprintln!("{warning}");
    }
    match wait {
        None => printer.done(&ordered?, &format!("backend {name} of pool {pool} is draining")),
        Some(timeout) => ordered.and_then(|_| await_end(client, printer, backend, timeout)),
    }
}

/// Requests the drain. With `again`, a backend that is already draining is no error.
fn order(client: &Client, (pool, name): (&Name, &Name), again: bool, force: bool) -> Result<view::Done, Failure> {
    let path = path(pool, name);
    let ordered = client.post(&format!("{path}/state?force={force}"), &view::NewState { order: StateOrder::Drain });
    if again
        && let Err(ClientError::Refused(_)) = &ordered
        && client.get::<view::Backend>(&path).is_ok_and(|backend| backend.state == BackendState::Draining)
    {
        return Ok(view::Done::default());
    }
    Ok(ordered?)
}

fn await_end(
    client: &Client,
    printer: &Printer,
    (pool, name): (&Name, &Name),
    timeout: Option<Duration>,
) -> Result<(), Failure> {
    let began = Instant::now();
    let mut progress = Progress::new(io::stderr(), io::stderr().is_terminal());
    loop {
        let found = look(&client.get(&format!("/v1/pools/{pool}"))?, name);
        let waited = began.elapsed();
        let failure = match (found, timeout) {
            (Look::Drained(backend), _) => {
                progress.clear();
                return printer.done(&backend, &drained(name));
            }
            (Look::Over(reason), _) => reason,
            (Look::Left(left), Some(timeout)) if waited >= timeout => {
                format!("{name} is not drained after {}: {left}; it goes on draining", ShownDuration(timeout))
            }
            (Look::Left(left), _) => {
                progress.show(&format!("{name}: {left}"), waited);
                thread::sleep(POLL);
                continue;
            }
        };
        progress.clear();
        return Err(Failure::Waited(failure));
    }
}

/// The state of a backend that was ordered to drain.
#[derive(Debug, PartialEq)]
enum Look {
    /// No flow is left to it.
    Drained(Box<view::Backend>),
    /// The slots and flows that are left, in words.
    Left(String),
    /// It no longer drains, with the reason.
    Over(String),
}

fn look(pool: &view::Pool, name: &Name) -> Look {
    let Some(backend) = pool.backends.iter().find(|backend| backend.name == name.as_str()) else {
        return Look::Over(format!("{name} was removed while it drained"));
    };
    match backend.state {
        BackendState::Draining if backend.is_drained() => Look::Drained(Box::new(backend.clone())),
        BackendState::Draining => Look::Left(left(pool, backend)),
        BackendState::Active | BackendState::Out => Look::Over(format!("{name} was undrained while it drained")),
        BackendState::Disabled => {
            Look::Over(format!("{name} was disabled while it drained: its remaining connections are dropped"))
        }
    }
}

/// The last line.
pub(crate) fn drained(name: &Name) -> String {
    format!("{name} is drained: no flow is left; safe to stop")
}

pub(crate) fn left(pool: &view::Pool, backend: &view::Backend) -> String {
    match pool.in_transition.learning_seconds_left {
        Some(seconds) if backend.learning_slots > 0 => {
            format!("{}, learning ends in {}", backend.left(), ShownDuration::from_secs(seconds))
        }
        _ => backend.left().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_api::testing;

    fn pool(state: BackendState, learning_slots: u32, pinned_flows: Option<u32>) -> view::Pool {
        let backend = view::Backend { state, learning_slots, pinned_flows, ..testing::backend("web2") };
        let in_transition = view::InTransition { learning_seconds_left: Some(97), ..view::InTransition::default() };
        view::Pool { backends: vec![testing::backend("web1"), backend], in_transition, ..testing::pool() }
    }

    fn seen(state: BackendState, learning_slots: u32, pinned_flows: Option<u32>) -> Look {
        look(&pool(state, learning_slots, pinned_flows), &Name::parse("web2").unwrap())
    }

    #[test]
    fn a_backend_is_drained_once_nothing_learns_for_it_and_a_survey_found_nothing() {
        use BackendState::Draining;
        let left = |text: &str| Look::Left(text.to_owned());
        assert!(matches!(seen(Draining, 0, Some(0)), Look::Drained(backend) if backend.name == "web2"));
        let line = "0 slots are learning for it and the flows pinned to it are not counted yet";
        assert_eq!(seen(Draining, 0, None), left(line));
        let line = "1 slot is learning for it and 0 flows are pinned to it, learning ends in 1m 37s";
        assert_eq!(seen(Draining, 1, Some(0)), left(line));
        let line = "6554 slots are learning for it and 312 flows are pinned to it, learning ends in 1m 37s";
        assert_eq!(seen(Draining, 6_554, Some(312)), left(line));
        assert_eq!(seen(Draining, 0, Some(1)), left("0 slots are learning for it and 1 flow is pinned to it"));
    }

    #[test]
    fn an_undrain_disable_or_remove_ends_the_wait() {
        let over = |text: &str| Look::Over(text.to_owned());
        for state in [BackendState::Active, BackendState::Out] {
            assert_eq!(seen(state, 0, Some(0)), over("web2 was undrained while it drained"));
        }
        let line = "web2 was disabled while it drained: its remaining connections are dropped";
        assert_eq!(seen(BackendState::Disabled, 0, Some(0)), over(line));
        let gone = look(&testing::pool(), &Name::parse("web2").unwrap());
        assert_eq!(gone, over("web2 was removed while it drained"));
    }
}
