//! The demo's site and steps: what is running, and how a step is played while requests flow.

use std::{collections::BTreeMap, fmt::Write, thread, time::Duration, time::Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{
    StepReport,
    riders::{self, Ridden, Riders},
    share,
};
use crate::{
    client::{Outcome, Outcomes, Traffic},
    lab::{
        Backend, Balancer, Lab, Pool, Services, Site, Vip,
        addresses::{WWW4, WWW6},
    },
};

/// The pool that both VIPs share.
const POOL: &str = "web";
/// Requests answered before a step changes anything, so that the change meets traffic.
const BEFOREHAND: usize = 500;

/// One change.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// A command of `maglev`, run on every load balancer.
    Maglev(&'static [&'static str]),
    /// Wait until no packet has gone to this backend for a second.
    AwaitQuiet(&'static str),
    /// A long download begins on this backend, and connections that are held begin on all.
    Board(&'static str),
    /// Wait until every connection that is held has been heard of again: each is silent for a while.
    AwaitSpoken,
    /// They end.
    Alight,
}

/// A step: what is done while requests flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    title: &'static str,
    actions: &'static [Action],
}

/// The demo. A backend is taken out as an operator would do it without breaking a connection: weight 0 keeps its flows
/// and gives it no new ones; once it is quiet it goes.
pub(super) const STEPS: &[Step] = &[
    Step { title: "three backends of equal weight", actions: &[] },
    Step {
        title: "a fourth backend is added",
        actions: &[Action::Maglev(&["backend", "add", POOL, "web4", "--address", "10.3.4.2", "--weight", "100"])],
    },
    Step {
        title: "web1 gets three times the weight",
        actions: &[Action::Maglev(&["backend", "weight", POOL, "web1", "300"])],
    },
    Step {
        title: "web2 is taken out: weight 0, its flows end, then it is removed",
        actions: &[
            Action::Maglev(&["backend", "weight", POOL, "web2", "0"]),
            Action::AwaitQuiet("web2"),
            Action::Maglev(&["backend", "remove", POOL, "web2"]),
        ],
    },
    Step {
        title: "web3 is drained and comes back: a long download and 200 held connections ride along",
        actions: &[
            Action::Board("web3"),
            Action::Maglev(&["backend", "drain", POOL, "web3"]),
            Action::AwaitSpoken,
            Action::AwaitSpoken,
            Action::Maglev(&["backend", "undrain", POOL, "web3"]),
            Action::AwaitSpoken,
            Action::AwaitSpoken,
            Action::Alight,
        ],
    },
];

/// The demo's site.
pub(super) struct Stage {
    riders: Option<Riders>,
    pub(super) site: Site,
}

impl Stage {
    /// Two load balancers, three of four backends in a pool, and a VIP of each family for it.
    pub(super) fn build() -> Result<Self> {
        let vip = |name: &str, address, port| Vip::new(name, (address, port), "tcp", POOL);
        let services = |lab: &Lab| Services {
            pools: vec![Pool {
                affinity: Some(riders::AFFINITY),
                ..lab.pool(POOL, WWW4, &[(1, 100), (2, 100), (3, 100)])
            }],
            vips: vec![
                vip("www", WWW4, Backend::PORT),
                vip("www6", WWW6, Backend::PORT),
                vip("talk", WWW4, Backend::TALK_PORT),
                vip("talk6", WWW6, Backend::TALK_PORT),
            ],
        };
        Ok(Self { riders: None, site: Site::new(2, services)? })
    }

    /// Plays one step: requests flow throughout; `counted` of those begun after the change are judged.
    pub(super) fn play(&mut self, step: &Step, counted: u64, concurrency: usize) -> Result<StepReport> {
        let targets = [WWW4, WWW6].map(|vip| (vip, Backend::PORT).into());
        let traffic = self.site.lab.client().start(&targets, u64::MAX, concurrency);
        let mut outcomes = take(&traffic, BEFOREHAND, |_| true)?;
        let mut ridden = None;
        for action in step.actions {
            ridden = self.act(action)?.or(ridden);
        }
        let acknowledged = Instant::now();
        outcomes.extend(take(&traffic, counted as usize, |outcome| outcome.began >= acknowledged)?);
        outcomes.extend(traffic.stop()?.0);
        let weights = self.weights()?;
        Ok(StepReport { riders: ridden, ..report(step, outcomes, acknowledged, &weights) })
    }

    /// The weights as the load balancers have them, all the same.
    fn weights(&self) -> Result<BTreeMap<String, u64>> {
        let of = |balancer: &Balancer| -> Result<BTreeMap<String, u64>> {
            let backends = balancer.maglev_json(&["backend", "list", POOL])?;
            let pair =
                |backend: &serde_json::Value| Some((backend["name"].as_str()?.to_owned(), backend["weight"].as_u64()?));
            let pairs = backends.as_array().map(|all| all.iter().map(pair).collect::<Option<_>>());
            pairs.flatten().with_context(|| format!("maglev backend list answered {backends}"))
        };
        let all = self.site.balancers.iter().map(of).collect::<Result<Vec<_>>>()?;
        ensure!(all.windows(2).all(|pair| pair[0] == pair[1]), "the load balancers' weights differ: {all:?}");
        all.into_iter().next().context("no load balancer")
    }

    /// What the daemons logged last, for the message of a demo that fails.
    pub(super) fn last_words(&self) -> String {
        let mut text = String::new();
        for balancer in &self.site.balancers {
            let log = balancer.log();
            let lines: Vec<&str> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(5)..] {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{}: {line}", balancer.name());
            }
        }
        text
    }

    /// Does one thing; those that end say how it went.
    fn act(&mut self, action: &Action) -> Result<Option<Ridden>> {
        match action {
            Action::Maglev(arguments) => {
                for balancer in &self.site.balancers {
                    balancer.maglev_ok(arguments)?;
                }
            }
            Action::AwaitQuiet(backend) => self.await_quiet(backend)?,
            Action::Board(home) => self.riders = Some(Riders::board(self.site.lab.client(), home)?),
            Action::AwaitSpoken => self.riders.as_ref().context("nobody rides")?.await_spoken()?,
            Action::Alight => return self.riders.take().context("nobody rides")?.alight().map(Some),
        }
        Ok(None)
    }

    fn await_quiet(&self, backend: &str) -> Result<()> {
        const LOOK: Duration = Duration::from_millis(100);
        let (mut last, mut same) = (self.packets_to(backend)?, 0);
        for _ in 0..300 {
            thread::sleep(LOOK);
            let now = self.packets_to(backend)?;
            same = if now == last { same + 1 } else { 0 };
            if same == 10 {
                return Ok(());
            }
            last = now;
        }
        bail!("packets still go to {backend} half a minute after its weight became 0")
    }

    fn packets_to(&self, backend: &str) -> Result<u64> {
        let mut packets = 0;
        for balancer in &self.site.balancers {
            let counters = balancer.maglev_json(&["counters"])?;
            let of = counters["backends"].as_array().into_iter().flatten().filter(|of| of["backend"] == backend);
            packets += of.filter_map(|of| of["packets"].as_u64()).sum::<u64>();
        }
        Ok(packets)
    }
}

impl Step {
    fn commands(&self) -> Vec<String> {
        let command = |action: &Action| match action {
            Action::Maglev(arguments) => Some(format!("maglev {}", arguments.join(" "))),
            Action::AwaitQuiet(backend) => {
                Some(format!("# wait until the packets of {backend} stand still in `maglev counters`"))
            }
            Action::Board(home) => Some(format!("# a download begins on {home}, held connections on all")),
            Action::AwaitSpoken => {
                Some("# wait until every held connection has spoken, the silent ones too".to_owned())
            }
            Action::Alight => None,
        };
        let mut commands: Vec<String> = self.actions.iter().filter_map(command).collect();
        commands.dedup();
        commands
    }
}

/// The next outcomes, until `count` of them are of the kind that `counts`.
fn take(traffic: &Traffic, count: usize, counts: impl Fn(&Outcome) -> bool) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut counted = 0;
    while counted < count {
        let outcome = traffic.next_outcome().context("the client ended early")?;
        counted += usize::from(counts(&outcome));
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

fn report(step: &Step, outcomes: Vec<Outcome>, acknowledged: Instant, weights: &BTreeMap<String, u64>) -> StepReport {
    let requests = outcomes.len() as u64;
    let (judged, before): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|outcome| outcome.began >= acknowledged);
    let (judged, before) = (Outcomes(judged), Outcomes(before));
    let failures: Vec<String> = before.failed().chain(judged.failed()).map(ToString::to_string).collect();
    StepReport {
        title: step.title,
        commands: step.commands(),
        requests,
        failed: failures.len() as u64,
        failures: failures.into_iter().take(5).collect(),
        riders: None,
        shares: share::compare(weights, &judged.by_backend()),
    }
}
