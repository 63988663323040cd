//! The demo's site and steps: what is running, and how a step is played while requests flow.

use std::{collections::BTreeMap, fmt::Write, thread, time::Duration, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{
    StepReport,
    health::Stopped,
    riders::{self, Ridden, Riders},
    share,
};
use crate::{
    client::{Outcome, Outcomes, Traffic},
    lab::{
        Answer, Backend, Balancer, Lab, Pool, Services, Settings, Site, Topology, Vip,
        addresses::{WWW4, WWW6},
        router::{Kind, Watch},
    },
};

/// The pool that both VIPs share.
pub(super) const POOL: &str = "web";
/// Requests answered before a step changes anything, so that the change meets traffic.
const BEFOREHAND: usize = 500;
/// Packets that must reach backends while a daemon is dead, and how long that may take.
const ORPHANED: u64 = 5_000;
const FORWARDED_WITHIN: Duration = Duration::from_secs(30);
/// The polling interval of waits.
const LOOK: Duration = Duration::from_millis(100);

/// One change.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// A command of `maglev`, run on every load balancer.
    Maglev(&'static [&'static str]),
    /// A command of `maglev`, run on one load balancer; what it says is shown.
    On(u8, &'static [&'static str]),
    /// The router's kernel leads the VIPs to these load balancers: wait for it and show the route.
    Route(&'static [u8]),
    /// The daemon of a load balancer is killed, and its routes must stay.
    Kill(u8),
    /// It is started again, finds what forwards, and the routes have been there throughout.
    Restart(u8),
    /// Wait until the tables hold this backend: its next hop has to be resolved first.
    AwaitSlots(&'static str),
    /// Wait until no packet has gone to this backend for a second.
    AwaitQuiet(&'static str),
    /// A long download begins on this backend, and connections that are held begin on all.
    Board(&'static str),
    /// Wait until every held connection has been active again: each is silent for a while.
    AwaitSpoken,
    /// They end.
    Alight,
    /// The link to the client shrinks below a download from this backend.
    NarrowHop(&'static str),
    /// Links to backends shrink, and an upload crosses one.
    NarrowLinks,
    /// A packet that a node drops is captured.
    CaptureLostPacket,
    /// From here on backends are checked.
    Check,
    /// A backend's server is stopped: wait until the tables are without it.
    StopServer(&'static str),
    /// It is started again: wait until it has its share.
    StartServer(&'static str),
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
    Step {
        title: "three backends of equal weight; the router has learnt the VIPs from both nodes",
        actions: &[Action::Route(&[1, 2])],
    },
    Step {
        title: "a fourth backend is added",
        actions: &[
            Action::Maglev(&["backend", "add", POOL, "web4", "--address", "10.3.4.2", "--weight", "100"]),
            Action::AwaitSlots("web4"),
        ],
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
    Step {
        title: "links get narrow: a hop to the client during a download, and links to backends before an upload",
        actions: &[Action::NarrowHop("web1"), Action::NarrowLinks],
    },
    Step {
        title: "node lb1 is drained: routers prefer it least, then forget it, then it waits until no packet comes",
        actions: &[Action::On(1, &["node", "drain", "--wait", "--reason", "demo"]), Action::Route(&[2])],
    },
    Step {
        title: "the daemon of lb2, the only node now, is killed and started again",
        actions: &[Action::Kill(2), Action::Restart(2), Action::Route(&[2])],
    },
    Step { title: "node lb1 is back", actions: &[Action::On(1, &["node", "undrain"]), Action::Route(&[1, 2])] },
    Step {
        title: "a weight is mistyped on both nodes: the history names the author, and it is rolled back",
        actions: &[
            Action::Maglev(&["backend", "weight", POOL, "web1", "3", "-m", "make web1 stronger"]),
            Action::On(1, &["history"]),
            Action::On(1, &["history", "diff", BEFORE_MISTAKE, MISTAKE]),
            Action::Maglev(&["rollback", BEFORE_MISTAKE, "-m", "it was to be 300"]),
            Action::On(1, &["history", "diff", BEFORE_MISTAKE, ROLLED_BACK]),
        ],
    },
    Step {
        title: "a packet to a port that no VIP has is captured as it is dropped",
        actions: &[Action::CaptureLostPacket],
    },
    Step {
        title: "web4's server is stopped, is found out, and comes back through slow start",
        actions: &[Action::Check, Action::StopServer("web4"), Action::StartServer("web4")],
    },
];

/// Revisions: each command of the steps before that changes services is one, after the services as they were found.
const BEFORE_MISTAKE: &str = "7";
const MISTAKE: &str = "8";
const ROLLED_BACK: &str = "9";

/// The demo's site.
pub(super) struct Stage {
    riders: Option<Riders>,
    /// Routes are watched while a daemon is dead.
    watch: Option<Watch>,
    /// The server that the step at hand has stopped.
    pub(super) stopped: Option<Stopped>,
    /// The results of the present step.
    pub(super) seen: Vec<String>,
    pub(super) site: Site,
}

impl Stage {
    /// Two load balancers, three of four backends in a pool, and a VIP of each family for it.
    pub(super) fn build(router: Kind) -> Result<Self> {
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
        let mut site = Site::with_settings(Topology::standard(2).routed_by(router), services, Settings::announcing)?;
        for vip in [WWW4, WWW6] {
            site.router()?.await_route(vip, &[1, 2])?;
        }
        Ok(Self { riders: None, watch: None, stopped: None, seen: Vec::new(), site })
    }

    /// Plays one step: requests flow throughout; `counted` of those begun after the change are judged.
    pub(super) fn play(&mut self, step: &Step, counted: u64, concurrency: usize) -> Result<StepReport> {
        self.play_under_load(step, counted, concurrency).with_context(|| format!("step \"{}\"", step.title))
    }

    fn play_under_load(&mut self, step: &Step, counted: u64, concurrency: usize) -> Result<StepReport> {
        let targets = [WWW4, WWW6].map(|vip| (vip, Backend::PORT).into());
        let client = self.site.lab.client();
        let stops = step.actions.iter().any(|action| matches!(action, Action::StopServer(_)));
        let traffic =
            if stops { client.insist(&targets, concurrency) } else { client.start(&targets, u64::MAX, concurrency) };
        let mut outcomes = take(&traffic, BEFOREHAND, |_| true)?;
        let mut ridden = None;
        for action in step.actions {
            ridden = self.act(action)?.or(ridden);
        }
        let acknowledged = Instant::now();
        outcomes.extend(take(&traffic, counted as usize, |outcome| outcome.began >= acknowledged)?);
        outcomes.extend(traffic.stop()?.0);
        let weights = self.weights()?;
        let seen = std::mem::take(&mut self.seen);
        let lost = self.stopped.take().map(|stopped| stopped.judge(&outcomes));
        let in_flight = lost.as_ref().map_or(0, |lost| lost.in_flight);
        ensure!(
            in_flight <= concurrency as u64,
            "{in_flight} requests failed that had begun, of {concurrency} at a time"
        );
        Ok(StepReport { riders: ridden, lost, seen, ..report(step, outcomes, acknowledged, &weights) })
    }

    /// The weights as the load balancers have them, all the same.
    fn weights(&self) -> Result<BTreeMap<String, u64>> {
        let of = |balancer: &Balancer| -> Result<BTreeMap<String, u64>> {
            let backends = balancer.maglev_json(&["backend", "list", POOL])?;
            let pair = |backend: &Value| Some((backend["name"].as_str()?.to_owned(), backend["weight"].as_u64()?));
            let pairs = backends.as_array().map(|all| all.iter().map(pair).collect::<Option<_>>());
            pairs.flatten().with_context(|| format!("maglev backend list answered {backends}"))
        };
        let all = self.site.balancers.iter().map(of).collect::<Result<Vec<_>>>()?;
        ensure!(all.windows(2).all(|pair| pair[0] == pair[1]), "the load balancers' weights differ: {all:?}");
        all.into_iter().next().context("no load balancer")
    }

    /// The evidence when the demo fails: the router's routes, and of each node the sessions and what the daemon
    /// logged last.
    pub(super) fn last_words(&self) -> String {
        let mut text = String::new();
        for vip in [WWW4, WWW6] {
            let shown = self.site.router.as_ref().and_then(|router| router.route_line(vip).ok());
            let _ = writeln!(text, "router$ ip route show {vip}\n{}", shown.unwrap_or_default());
        }
        for balancer in &self.site.balancers {
            for command in ["node status", "bgp neighbors"] {
                // A daemon that does not answer says so on standard error.
                if let Ok(Answer { stdout, stderr, .. }) = balancer.maglev(&command.split(' ').collect::<Vec<_>>()) {
                    let _ = write!(text, "{}$ maglev {command}\n{stdout}{stderr}", balancer.name());
                }
            }
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
            Action::On(n, arguments) => {
                let Answer { stdout, stderr, .. } = self.balancer(*n)?.maglev_done(arguments)?;
                self.seen.extend(stderr.lines().chain(stdout.lines()).map(str::to_owned));
            }
            Action::Route(through) => self.show_route(through)?,
            Action::Kill(n) => self.kill(*n)?,
            Action::Restart(n) => self.restart(*n)?,
            Action::AwaitSlots(backend) => self.await_slots(backend)?,
            Action::AwaitQuiet(backend) => self.await_quiet(backend)?,
            Action::Board(home) => self.riders = Some(Riders::board(self.site.lab.client(), home)?),
            Action::AwaitSpoken => self.riders.as_ref().context("no riders")?.await_spoken()?,
            Action::NarrowHop(home) => self.narrow_hop(home)?,
            Action::NarrowLinks => self.narrow_links()?,
            Action::CaptureLostPacket => self.capture_lost_packet()?,
            Action::Check => self.check()?,
            Action::StopServer(backend) => self.stop_server(backend)?,
            Action::StartServer(backend) => self.start_server(backend)?,
            Action::Alight => return self.riders.take().context("no riders")?.alight().map(Some),
        }
        Ok(None)
    }

    pub(super) fn balancer(&mut self, n: u8) -> Result<&mut Balancer> {
        self.site.balancers.get_mut(usize::from(n) - 1).context("no such load balancer")
    }

    fn show_route(&mut self, through: &[u8]) -> Result<()> {
        for vip in [WWW4, WWW6] {
            self.site.router()?.await_route(vip, through)?;
        }
        let shown = self.site.router()?.route_line(WWW4)?;
        self.seen.push(format!("router$ ip route show {WWW4}"));
        self.seen.extend(shown.lines().map(str::to_owned));
        Ok(())
    }

    fn kill(&mut self, n: u8) -> Result<()> {
        self.watch = Some(self.site.router()?.watch()?);
        let balancer = self.balancer(n)?;
        let (name, id) = (balancer.name().to_owned(), balancer.process_id());
        balancer.kill()?;
        let packets = self.await_forwarded(ORPHANED)?;
        self.seen
            .push(format!("{name}: maglevd, process {id}, is killed; {packets} packets reached backends without it"));
        Ok(())
    }

    /// Waits until so many further packets have reached backends.
    fn await_forwarded(&self, more: u64) -> Result<u64> {
        let (before, began) = (self.decapsulated()?, Instant::now());
        loop {
            let packets = self.decapsulated()? - before;
            if packets >= more {
                return Ok(packets);
            }
            ensure!(began.elapsed() < FORWARDED_WITHIN, "{packets} packets reached backends, {more} were awaited");
            thread::sleep(LOOK);
        }
    }

    fn decapsulated(&self) -> Result<u64> {
        let of = |backend: &Backend| Ok(backend.counters()?.get("decapsulated").copied().unwrap_or(0));
        self.site.backends.iter().map(of).sum()
    }

    /// Starts the daemon again; its sessions must come up and its routes have stayed.
    fn restart(&mut self, n: u8) -> Result<()> {
        let balancer = self.balancer(n)?;
        balancer.restart()?;
        let status = balancer.maglev_json(&["status"])?;
        ensure!(
            status["forwarding"]["adopted"] == true,
            "lb{n} did not adopt what forwarded: see `maglev status` there"
        );
        balancer.await_answer("its BGP sessions", &["bgp", "neighbors"], |neighbors| {
            let announces = |neighbor: &Value| neighbor["state"] == "established" && neighbor["prefixes_sent"] != 0;
            neighbors.as_array().is_some_and(|all| all.iter().all(announces))
        })?;
        self.seen.push(format!("lb{n}: maglevd is back, has adopted what forwards, and announces"));
        let watch = self.watch.take().context("no route watch")?;
        for vip in [WWW4, WWW6] {
            let deleted = watch.changes(vip)?.into_iter().find(|line| line.starts_with("Deleted"));
            ensure!(deleted.is_none(), "the router gave up its route to {vip}: {}", deleted.unwrap_or_default());
        }
        self.seen.push("router: the routes to the VIPs have been there throughout".to_owned());
        Ok(())
    }

    fn await_quiet(&self, backend: &str) -> Result<()> {
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
            Action::Maglev(arguments) => Some(format!("$ maglev {}", arguments.join(" "))),
            Action::AwaitQuiet(backend) => {
                Some(format!("# wait until the packets of {backend} stand still in `maglev counters`"))
            }
            Action::On(n, arguments) => Some(format!("lb{n}$ maglev {}", arguments.join(" "))),
            Action::Kill(n) => Some(format!("lb{n}$ kill -9 maglevd")),
            Action::Restart(n) => Some(format!("lb{n}$ maglevd run")),
            Action::Board(home) => Some(format!("# a download begins on {home}, held connections on all")),
            Action::AwaitSpoken => {
                Some("# wait until every held connection has spoken, the silent ones too".to_owned())
            }
            Action::Check => Some("# check and slow_start in services.yaml; $ maglev reload".to_owned()),
            Action::StopServer(backend) => Some(format!("{backend}$ kill the server")),
            Action::StartServer(backend) => Some(format!("{backend}$ start the server")),
            Action::AwaitSlots(_) | Action::Route(_) | Action::Alight => None,
            Action::NarrowHop(_) | Action::NarrowLinks | Action::CaptureLostPacket => None,
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
        seen: Vec::new(),
        riders: None,
        lost: None,
        shares: share::compare(weights, &judged.by_backend()),
    }
}
