//! A backend's administrative state: an operator's order, and its time. It must not know health, nor the effect
//! on flows.
//!
//! ```text
//!              drain                 disable
//!          ┌──────────▶ draining ──────────┐
//!   active ◀───undrain──┘                  ▼
//!      ▲ └────────────disable──────────▶ disabled
//!      └──────────────enable───────────────┘
//! ```

use std::fmt;
use std::str::FromStr;

use super::{Backend, BadValue, Name, Refusal, Services, UnixTime, Weight, shown};

/// A backend's state as ordered by an operator, and since when. The time is unknown if a file written by hand does not hold it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdminState {
    /// It takes its share of new flows.
    #[default]
    Active,
    /// It takes no new flows and keeps those it has.
    Draining {
        /// When the order came.
        since: Option<UnixTime>,
    },
    /// It takes no packets.
    Disabled {
        /// When the order came.
        since: Option<UnixTime>,
    },
}

/// An order about a backend's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateChange {
    /// From active to draining.
    Drain {
        /// The present time.
        now: UnixTime,
    },
    /// From draining back to active.
    Undrain,
    /// From active or draining to disabled.
    Disable {
        /// The present time.
        now: UnixTime,
    },
    /// From disabled back to active.
    Enable,
}

impl Backend {
    /// Whether it is available: active, and with a weight. New flows are sent to it if it is healthy and reachable.
    pub const fn takes_new_flows(&self) -> bool {
        self.state.takes_new_flows(self.weight)
    }

    /// Whether it takes no packets at all.
    pub const fn is_disabled(&self) -> bool {
        matches!(self.state, AdminState::Disabled { .. })
    }
}

impl AdminState {
    /// Whether a backend of this state and weight is available: active, and with a weight.
    pub const fn takes_new_flows(self, weight: Weight) -> bool {
        matches!(self, Self::Active) && weight.0 > 0
    }

    /// When it was set, if it is known.
    pub const fn since(self) -> Option<UnixTime> {
        match self {
            Self::Active => None,
            Self::Draining { since } | Self::Disabled { since } => since,
        }
    }

    /// The same state, set at this time; active has no time.
    #[must_use]
    pub const fn set_at(self, time: UnixTime) -> Self {
        match self {
            Self::Active => Self::Active,
            Self::Draining { .. } => Self::Draining { since: Some(time) },
            Self::Disabled { .. } => Self::Disabled { since: Some(time) },
        }
    }

    /// The state after an order, or the conflict and the remedy.
    fn after(self, change: StateChange) -> Result<Self, &'static str> {
        use AdminState::{Active, Disabled, Draining};
        use StateChange::{Disable, Drain, Enable, Undrain};
        match (self, change) {
            (Active, Drain { now }) => Ok(Draining { since: Some(now) }),
            (Draining { .. }, Drain { .. }) => Err("is already draining"),
            (Disabled { .. }, Drain { .. }) => Err("is disabled and has no flows to keep; enable it first"),
            (Draining { .. }, Undrain) => Ok(Active),
            (Active, Undrain) => Err("is active, not draining"),
            (Disabled { .. }, Undrain) => Err("is disabled, not draining; enable it instead"),
            (Active | Draining { .. }, Disable { now }) => Ok(Disabled { since: Some(now) }),
            (Disabled { .. }, Disable { .. }) => Err("is already disabled"),
            (Disabled { .. }, Enable) => Ok(Active),
            (Active, Enable) => Err("is active, not disabled"),
            (Draining { .. }, Enable) => Err("is draining, not disabled; undrain it instead"),
        }
    }
}

impl FromStr for AdminState {
    type Err = BadValue;

    /// Reads the state's name, without its time.
    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text {
            "active" => Ok(Self::Active),
            "draining" => Ok(Self::Draining { since: None }),
            "disabled" => Ok(Self::Disabled { since: None }),
            _ => Err(BadValue(format!("{} is not a state; allowed: active, draining, disabled", shown(text)))),
        }
    }
}

impl fmt::Display for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Draining { .. } => "draining",
            Self::Disabled { .. } => "disabled",
        })
    }
}

impl fmt::Display for StateChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Drain { .. } => "drain",
            Self::Undrain => "undrain",
            Self::Disable { .. } => "disable",
            Self::Enable => "enable",
        })
    }
}

impl Services {
    /// Orders another state.
    pub(super) fn set_state(&mut self, pool: &Name, name: &Name, change: StateChange) -> Result<(), Refusal> {
        let pool = self.pool_mut(pool)?;
        let Some(backend) = pool.backends.get(name) else { return Err(pool.no_backend(name)) };
        let refused = |reason| Refusal::Conflict(format!("backend {name} of pool {} {reason}", pool.name));
        let state = backend.state.after(change).map_err(refused)?;
        pool.backends.entry(name.clone()).and_modify(|backend| backend.state = state);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, OuterSources, Pool, Rules, Weight};

    const NOW: UnixTime = UnixTime(1_700_000_000);
    const DRAIN: StateChange = StateChange::Drain { now: NOW };
    const DISABLE: StateChange = StateChange::Disable { now: NOW };
    const DRAINING: AdminState = AdminState::Draining { since: Some(NOW) };
    const DISABLED: AdminState = AdminState::Disabled { since: Some(NOW) };

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn rules() -> Rules {
        Rules { outer: OuterSources { v4: Some("10.64.0.0/24".parse().unwrap()), v6: None }, ..Rules::default() }
    }

    /// Pool `web` of `web1`, `web2`, … in these states and with these weights.
    fn web(backends: &[(AdminState, u16)]) -> Services {
        let mut services = Services::default();
        services.admit(Change::AddPool(Pool::new(name("web"))), &rules()).unwrap();
        for (n, (state, weight)) in (1_u8..).zip(backends) {
            let address = [10, 0, 1, n].into();
            let backend =
                Backend { name: name(&format!("web{n}")), address, weight: Weight(*weight), state: *state, mtu: None };
            services.admit(Change::AddBackend { pool: name("web"), backend }, &rules()).unwrap();
        }
        services
    }

    /// The state of `web1` after an order, or the refusal.
    fn ordered(services: &Services, change: StateChange) -> Result<AdminState, Refusal> {
        let (pool, backend) = (name("web"), name("web1"));
        let next = services.apply(&Change::SetState { pool, backend, change }, &rules())?;
        Ok(next.pools[&name("web")].backends[&name("web1")].state)
    }

    #[test]
    fn every_order_in_every_state() {
        use StateChange::{Enable, Undrain};
        let rows = [
            (AdminState::Active, DRAIN, Ok(DRAINING)),
            (AdminState::Active, Undrain, Err("is active, not draining")),
            (AdminState::Active, DISABLE, Ok(DISABLED)),
            (AdminState::Active, Enable, Err("is active, not disabled")),
            (DRAINING, DRAIN, Err("is already draining")),
            (DRAINING, Undrain, Ok(AdminState::Active)),
            (DRAINING, DISABLE, Ok(DISABLED)),
            (DRAINING, Enable, Err("is draining, not disabled; undrain it instead")),
            (DISABLED, DRAIN, Err("is disabled and has no flows to keep; enable it first")),
            (DISABLED, Undrain, Err("is disabled, not draining; enable it instead")),
            (DISABLED, DISABLE, Err("is already disabled")),
            (DISABLED, Enable, Ok(AdminState::Active)),
        ];
        for (state, change, expected) in rows {
            let outcome = ordered(&web(&[(state, 1), (AdminState::Active, 1)]), change);
            let refusal = |reason| Refusal::Conflict(format!("backend web1 of pool web {reason}"));
            assert_eq!(outcome, expected.map_err(refusal), "{change} while {state}");
        }
    }

    #[test]
    fn an_unknown_backend_is_named_with_those_there_are() {
        let change = |pool, backend| Change::SetState { pool: name(pool), backend: name(backend), change: DRAIN };
        let services = web(&[(AdminState::Active, 1)]);
        let refused = |change| services.apply(&change, &rules()).unwrap_err().to_string();
        assert_eq!(refused(change("web", "web9")), "unknown backend web9 in pool web; known: web1");
        assert_eq!(refused(change("api", "web1")), "unknown pool api; known: web");
    }

    #[test]
    fn words_are_read_as_they_are_shown() {
        for state in [AdminState::Active, DRAINING, DISABLED] {
            let read: AdminState = state.to_string().parse().unwrap();
            assert_eq!((read.since(), read.set_at(NOW)), (None, state));
        }
        let refused = "drained".parse::<AdminState>().unwrap_err().to_string();
        assert_eq!(refused, "drained is not a state; allowed: active, draining, disabled");
    }
}
