//! Readings of the daemon: which views a screen needs, requested through the client. It must not know rates and screens.

use std::time::Duration;

use maglev_api::view::{BgpNeighbors, Counters, Events, Node, OutOfSync, Pool, PoolSummary, Vip};
use serde::Deserialize;

use crate::{Client, ClientError};

/// How often the status is read. It names every backend, so it is large; its facts change seldom.
const STATUS: Duration = Duration::from_secs(10);

/// The facts of the status that are shown.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Facts {
    pub(super) version: String,
    pub(super) uptime_seconds: u64,
    #[serde(default)]
    pub(super) out_of_sync: Option<OutOfSync>,
    #[serde(default)]
    pub(super) common_failure: bool,
}

/// The views that a screen needs beside those of the first lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) vips: bool,
    pub(super) neighbors: bool,
    /// This pool with its backends.
    pub(super) pool: Option<String>,
    /// Nothing is read at intervals.
    pub(super) paused: bool,
}

/// The answers of one round of requests; absent ones were not requested.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// With the time of the answer.
    pub(super) counters: Option<(Duration, Counters)>,
    /// With the time of the answer.
    pub(super) facts: Option<(Duration, Facts)>,
    pub(super) node: Option<Node>,
    pub(super) pools: Option<Vec<PoolSummary>>,
    /// Those after the last ones.
    pub(super) events: Option<Events>,
    pub(super) vips: Option<Vec<Vip>>,
    pub(super) neighbors: Option<BgpNeighbors>,
    /// By name; or the daemon's refusal: there is no such pool any more.
    pub(super) pool: Option<(String, Result<Pool, String>)>,
}

/// Makes readings. `now` is the time since a fixed start.
pub(super) struct Reader<F> {
    client: Client,
    now: F,
    /// The sequence number of the last event.
    last_event: Option<u64>,
    status_at: Option<Duration>,
}

impl<F: Fn() -> Duration> Reader<F> {
    pub(super) fn new(client: Client, now: F) -> Self {
        Self { client, now, last_event: None, status_at: None }
    }

    /// All views, with counters.
    pub(super) fn read(&mut self, needs: &Needs) -> Result<Reading, ClientError> {
        let counters: Counters = self.client.get("/v1/counters")?;
        let at = (self.now)();
        // After the counters: if these are of another daemon than the last ones, the event of its start is among the events.
        let events = self.events()?;
        let due = self.status_at.is_none_or(|read| at.saturating_sub(read) >= STATUS) || !events.events.is_empty();
        let facts = if due { Some(self.client.get("/v1/status")?) } else { None };
        if facts.is_some() {
            self.status_at = Some(at);
        }
        Ok(Reading {
            counters: Some((at, counters)),
            facts: facts.map(|facts| ((self.now)(), facts)),
            node: Some(self.client.get("/v1/node")?),
            pools: Some(self.client.get("/v1/pools")?),
            events: Some(events),
            ..self.read_needs(needs)?
        })
    }

    /// The views that a screen needs, between two readings of counters.
    pub(super) fn read_needs(
        &self,
        Needs { vips, neighbors, pool, paused: _ }: &Needs,
    ) -> Result<Reading, ClientError> {
        Ok(Reading {
            vips: if *vips { Some(self.client.get("/v1/vips")?) } else { None },
            neighbors: if *neighbors { Some(self.client.get("/v1/bgp/neighbors")?) } else { None },
            pool: pool.as_ref().map(|name| self.pool(name)).transpose()?,
            ..Reading::default()
        })
    }

    fn pool(&self, name: &str) -> Result<(String, Result<Pool, String>), ClientError> {
        match self.client.get(&format!("/v1/pools/{name}")) {
            Ok(pool) => Ok((name.to_owned(), Ok(pool))),
            Err(ClientError::Refused(refused)) => Ok((name.to_owned(), Err(refused.to_string()))),
            Err(error) => Err(error),
        }
    }

    fn events(&mut self) -> Result<Events, ClientError> {
        let query = self.last_event.map(|after| format!("?after={after}")).unwrap_or_default();
        let events: Events = self.client.get(&format!("/v1/events/recent{query}"))?;
        self.last_event = events.events.last().map(|event| event.sequence).or(self.last_event);
        Ok(events)
    }
}
