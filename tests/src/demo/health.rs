//! A backend's server that is stopped under load: what is lost with it, and how it comes back.

use std::{fs, time::Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::stage::{POOL, Stage};
use crate::{
    client::Outcome,
    lab::{Backend, Balancer},
};

/// The pool's first settings, in `services.yaml`.
const LINES: [&str; 2] =
    ["check: { kind: http, port: 80, interval: 500ms, timeout: 250ms, fall: 2, rise: 3 }", "slow_start: 4s"];

/// The lines as they stand there.
fn lines() -> String {
    LINES.map(|line| format!("    {line}\n")).concat()
}

/// The losses with a server.
#[derive(Debug, Serialize)]
pub(super) struct Lost {
    pub(super) backend: &'static str,
    /// Requests that had begun before it was gone, and failed.
    pub(super) in_flight: u64,
    /// Connections that were refused before the checks had found out: nothing was asked on them, and another was tried.
    pub(super) refused: u64,
}

/// A server that was stopped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopped {
    backend: &'static str,
    /// When it was gone.
    at: Instant,
}

impl Stopped {
    /// The losses, and other failures.
    pub(super) fn judge(self, outcomes: &[Outcome]) -> Lost {
        let Self { backend, at } = self;
        let mut lost = Lost { backend, in_flight: 0, refused: 0 };
        for outcome in outcomes {
            lost.refused += u64::from(outcome.refused);
            lost.in_flight += u64::from(outcome.answer.is_err() && outcome.local.is_some() && outcome.began <= at);
        }
        lost
    }
}

impl Stage {
    /// From here on the pool's backends are checked, and one that comes back starts slowly.
    pub(super) fn check(&mut self) -> Result<()> {
        let name = format!("- name: {POOL}\n");
        self.rewrite(&name, &format!("{name}{}", lines()))?;
        self.await_backends("healthy backends", |backend| backend["health"]["state"] == "healthy")?;
        self.seen.extend(LINES.map(|line| format!("services.yaml: {line}")));
        Ok(())
    }

    /// From here on they are not: what was counted stands still.
    pub(super) fn check_no_more(&self) -> Result<()> {
        self.rewrite(&lines(), "")
    }

    /// Puts one text in another's place in every load balancer's `services.yaml`.
    fn rewrite(&self, from: &str, to: &str) -> Result<()> {
        for balancer in &self.site.balancers {
            let path = balancer.services();
            let text = fs::read_to_string(&path).context("services.yaml")?;
            ensure!(text.contains(from), "services.yaml does not hold {from:?}: {text}");
            fs::write(&path, text.replacen(from, to, 1)).context("services.yaml")?;
            balancer.maglev_ok(&["reload"])?;
        }
        Ok(())
    }

    /// Ends a server, and waits until no load balancer sends anything there.
    pub(super) fn stop_server(&mut self, backend: &'static str) -> Result<()> {
        self.server(backend)?.stop_server()?;
        let at = Instant::now();
        self.stopped = Some(Stopped { backend, at });
        self.await_backends("the table without it", |found| found["name"] != backend || found["slots"] == 0)?;
        self.seen
            .push(format!("{backend} is out of both tables {} ms after its server was gone", at.elapsed().as_millis()));
        self.show_backend(backend)
    }

    /// Waits until every load balancer has resolved a backend's next hop, and sends it its part.
    pub(super) fn await_slots(&mut self, backend: &'static str) -> Result<()> {
        self.await_backends("the table with it", |found| found["name"] != backend || found["slots"] != 0)
    }

    /// Starts it again, and waits until it has all of its share.
    pub(super) fn start_server(&mut self, backend: &'static str) -> Result<()> {
        let at = self.site.backends.iter().position(|found| found.name() == backend).context("no such backend")?;
        let lab = &self.site.lab;
        self.site.backends[at].start_server(lab)?;
        let began = Instant::now();
        self.await_slots(backend)?;
        self.seen.push(format!("{backend} is back after {} ms, and starts slowly", began.elapsed().as_millis()));
        self.show_backend(backend)?;
        let full = |found: &Value| found["name"] != backend || found["health"]["weight_percent"] == 100;
        self.await_backends("its whole share", full)?;
        self.seen.push(format!("{backend} has its share after {} ms", began.elapsed().as_millis()));
        self.show_backend(backend)
    }

    fn server(&mut self, name: &str) -> Result<&mut Backend> {
        self.site.backends.iter_mut().find(|backend| backend.name() == name).context("no such backend")
    }

    /// Waits until every load balancer's backends are as `holds` looks for.
    fn await_backends(&mut self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<()> {
        self.site.balancers.iter_mut().try_for_each(|balancer: &mut Balancer| {
            balancer.await_status(what, |status| {
                let all = status["backends"].as_array();
                status["publishing"] == false && all.is_some_and(|all| all.iter().all(&holds))
            })
        })
    }

    /// Its line in the first load balancer's list.
    fn show_backend(&mut self, backend: &str) -> Result<()> {
        let list = self.balancer(1)?.maglev_ok(&["backend", "list", POOL])?;
        let is_shown = |line: &&str| line.contains("STATE") || line.split_whitespace().any(|word| word == backend);
        self.seen.push(format!("lb1$ maglev backend list {POOL}"));
        self.seen.extend(list.lines().filter(is_shown).map(|line| line.trim().to_owned()));
        Ok(())
    }
}
