//! One cycle: changes, and what happens to the first load balancer's daemon meanwhile. It must not know what is measured.

use std::{
    net::SocketAddr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::POOL;
use crate::{
    client::Client,
    lab::{Backend, Balancer, Start, addresses::WWW4},
    release::{self, Difference},
    trial::{Change, Trial},
};

/// The load balancer whose daemon is restarted; the others' run all the time.
pub(super) const RESTARTED: usize = 0;
/// How long a release is watched: long enough to measure packets, and over before a cycle ends.
const PROBATION: &str = "2s";
/// The age of the restarted daemon at the end of a cycle: its probation is over, and the state of the one before it is gone.
const AGE: Duration = Duration::from_secs(8);
/// Changes back to back.
const BURST: u32 = 20;
/// The backend that joins and leaves, and requests to a VIP that comes and goes.
const SPARE: u8 = 5;
const REQUESTS: u64 = 50;
/// `api.metrics` in the lab.
const METRICS: ([u8; 4], u16) = ([127, 0, 0, 1], 9_642);

/// What is done in every cycle again.
#[derive(Debug)]
pub(super) struct Cycles {
    /// Two releases in turn.
    releases: [PathBuf; 2],
    /// The pinned links of each load balancer, as they were at first.
    links: Vec<Vec<(String, u64)>>,
    /// What was done so far.
    pub(super) counts: Counts,
    /// The steps of the present cycle, each with the moment at which it began.
    pub(super) steps: Vec<(Instant, String)>,
}

/// Sums over all cycles.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Commands that changed something, on all load balancers together.
    pub(super) changes: u64,
    /// Daemons that were killed, ended, and replaced by another release.
    pub(super) killed: u64,
    pub(super) ended: u64,
    pub(super) upgraded: u64,
    /// Times that `/metrics` was read.
    pub(super) scrapes: u64,
}

impl Cycles {
    /// Writes the releases.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(super) fn new(trial: &Trial) -> Result<Self> {
        let folder = trial.site.lab.directory();
        let write = |n: u8| release::write(&folder.join(format!("maglevd-{n}")), Difference::Digest(n));
        let links = trial.site.balancers.iter().map(Balancer::links).collect::<Result<_>>()?;
        Ok(Self { releases: [write(1)?, write(2)?], links, counts: Counts::default(), steps: Vec::new() })
    }

    /// Changes back to back, which fill all that the daemons remember of changes; returns the time that one took on one of them.
    ///
    /// # Errors
    /// If one is refused.
    pub(super) fn fill(&mut self, trial: &Trial, changes: u32) -> Result<Duration> {
        let began = Instant::now();
        for n in 0..changes {
            let change = match n % 4 {
                0 => Change::Weight(3, 101 + n),
                1 => Change::Drain(2),
                2 => Change::Weight(1, 101 + n),
                _ => Change::Undrain(2),
            };
            self.change(trial, &[change])?;
        }
        let each = began.elapsed() / changes / trial.site.balancers.len() as u32;
        self.change(trial, &[Change::Weight(1, 100), Change::Weight(3, 100)])?;
        trial.await_slots()?;
        Ok(each)
    }

    /// A whole cycle; without restarts while the daemon that is restarted is away.
    ///
    /// # Errors
    /// If a command fails, or a daemon does not come back as it must.
    pub(super) fn run(&mut self, trial: &mut Trial, restarts: bool) -> Result<()> {
        self.steps.clear();
        self.grow(trial, restarts)?;
        if restarts {
            self.kill(trial)?;
        }
        self.scrape(trial)?;
        self.change(trial, &[Change::Weight(3, 50), Change::Undrain(1)])?;
        if restarts {
            self.end(trial)?;
        }
        self.shrink(trial)?;
        self.change(trial, &[Change::Weight(2, 100), Change::Weight(3, 100)])?;
        let mut began = Instant::now();
        if restarts {
            self.upgrade(trial)?;
            began = Instant::now();
        }
        thread::sleep(AGE.saturating_sub(began.elapsed()));
        self.settle(trial, restarts)?;
        Ok(())
    }

    /// Kills the daemon in mid-transition, for longer.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub(super) fn leave(&mut self, trial: &mut Trial) -> Result<()> {
        self.change(trial, &[Change::Drain(4)])?;
        trial.site.balancers[RESTARTED].kill()?;
        trial.leave_out(Some(RESTARTED));
        // The others have the backend again, as in every other cycle.
        self.change(trial, &[Change::Undrain(4)])
    }

    /// Starts the daemon that was away.
    ///
    /// # Errors
    /// If it does not adopt what forwarded meanwhile.
    pub(super) fn come_back(&mut self, trial: &mut Trial) -> Result<()> {
        trial.leave_out(None);
        let balancer = &mut trial.site.balancers[RESTARTED];
        restart_adopting(balancer)?;
        balancer.maglev_ok(&["backend", "undrain", POOL, "web4"])?;
        self.counts.changes += 1;
        trial.await_slots()
    }

    fn step(&mut self, what: &str) {
        self.steps.push((Instant::now(), what.to_owned()));
    }

    fn kill(&mut self, trial: &mut Trial) -> Result<()> {
        self.step("kill");
        let balancer = &mut trial.site.balancers[RESTARTED];
        balancer.kill()?;
        restart_adopting(balancer)?;
        self.counts.killed += 1;
        Ok(())
    }

    fn end(&mut self, trial: &mut Trial) -> Result<()> {
        self.step("stop and start");
        let balancer = &mut trial.site.balancers[RESTARTED];
        balancer.stop()?;
        restart_adopting(balancer)?;
        self.counts.ended += 1;
        Ok(())
    }

    /// Another release takes over, from a daemon that is killed and from one that is ended in turn.
    fn upgrade(&mut self, trial: &mut Trial) -> Result<()> {
        self.step("upgrade");
        let balancer = &mut trial.site.balancers[RESTARTED];
        let next = self.releases[usize::from(self.counts.upgraded % 2 == 1)].clone();
        balancer.install(Start::watched(Some(next), PROBATION, "/nonexistent"));
        if self.counts.upgraded.is_multiple_of(2) {
            balancer.kill()?;
        } else {
            balancer.stop()?;
        }
        balancer.restart()?;
        let status = balancer.forwarding()?;
        let continued = status["continued"].as_array().is_some_and(|all| !all.is_empty());
        ensure!(status["adopted"] == false && continued, "{status}\n{}", balancer.log());
        self.counts.upgraded += 1;
        Ok(())
    }

    /// More of everything: a backend joins, a pool with a VIP of its own comes, weights change, a backend drains.
    fn grow(&mut self, trial: &mut Trial, restarts: bool) -> Result<()> {
        self.change(trial, &[Change::Weight(2, 300), Change::Add(SPARE), Change::Drain(1)])?;
        let like = WWW4.to_string();
        let address = trial.site.lab.backend_address(2, WWW4).to_string();
        let port = Backend::PORT.to_string();
        self.commands(
            trial,
            &[
                &["pool", "add", "extra"],
                &["backend", "add", "extra", "web2", "--address", &address],
                &["vip", "add", "extra", "--address", &like, "--port", &port, "--protocol", "tcp", "--pool", "extra"],
            ],
        )?;
        if !restarts {
            // The load balancer whose daemon is away does not know this VIP.
            return Ok(());
        }
        trial.site.balancers.iter_mut().try_for_each(Balancer::await_next_hops)?;
        let vip = SocketAddr::new(WWW4, Backend::PORT);
        trial.site.lab.client().requests(&[vip], REQUESTS, 8)?.all_answered().context("a new VIP")
    }

    /// What came goes: the backend once no connection is on it, the VIP and its pool at once.
    fn shrink(&mut self, trial: &Trial) -> Result<()> {
        self.change(trial, &[Change::Drain(SPARE)])?;
        trial.leave(SPARE);
        for n in 0..BURST {
            self.change(trial, &[Change::Weight(2, 200 + n)])?;
        }
        trial.await_left(SPARE)?;
        trial.await_drained(SPARE)?;
        self.change(trial, &[Change::Remove(SPARE)])?;
        self.commands(trial, &[&["vip", "remove", "extra"], &["pool", "remove", "extra", "--force"]])
    }

    /// Nothing is in transition any more, and everything is as it was.
    fn settle(&mut self, trial: &mut Trial, restarts: bool) -> Result<()> {
        self.step("settle");
        trial.await_slots()?;
        self.scrape(trial)?;
        if restarts {
            trial.site.balancers[RESTARTED].await_proof()?;
        }
        for n in 0..trial.site.balancers.len() {
            if restarts || n != RESTARTED {
                let balancer = &mut trial.site.balancers[n];
                balancer.await_sync()?;
                ensure!(balancer.links()? == self.links[n], "{}: a link was made anew", balancer.name());
            }
        }
        Ok(())
    }

    /// Reads `/metrics` of every daemon that runs.
    fn scrape(&mut self, trial: &Trial) -> Result<()> {
        for balancer in trial.present() {
            let client = Client::new(balancer.netns().clone(), Vec::new());
            let text = client.text(SocketAddr::from(METRICS), "/metrics").context("a scrape")?;
            ensure!(text.ends_with("# EOF\n"), "{}: /metrics has no end", balancer.name());
            self.counts.scrapes += 1;
        }
        Ok(())
    }

    fn change(&mut self, trial: &Trial, changes: &[Change]) -> Result<()> {
        for change in changes {
            self.step(&format!("{change:?}"));
            trial.change(*change)?;
            self.counts.changes += trial.present().count() as u64;
        }
        Ok(())
    }

    fn commands(&mut self, trial: &Trial, commands: &[&[&str]]) -> Result<()> {
        for command in commands {
            self.step(&command.join(" "));
            for balancer in trial.present() {
                balancer.maglev_ok(command)?;
                self.counts.changes += 1;
            }
        }
        Ok(())
    }
}

/// Starts the same release again, which finds what forwards.
fn restart_adopting(balancer: &mut Balancer) -> Result<()> {
    balancer.restart()?;
    let status = balancer.forwarding()?;
    ensure!(status["adopted"] == true, "not adopted: {status}\n{}", balancer.log());
    Ok(())
}
