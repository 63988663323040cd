//! The soak: two load balancers under held and new connections, whose daemons are changed, restarted, upgraded and scraped in a
//! cycle. At the same point of each cycle it measures what they hold; in the end nothing may have grown, and no connection may have
//! broken or failed.
//!
//! ```text
//!  lb1   changes  kill -9  scrape  changes  end  changes  upgrade  8 s  measure     … and once, no daemon for a long while
//!  lb2   changes           scrape  changes       changes                measure     the same process all the time
//! ```

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use crate::{
    client::held::Seen,
    lab::{Balancer, is_root},
    trial::{Setting, Trial},
};

mod cycle;
mod text;
mod usage;
mod verdict;

use cycle::{Cycles, RESTARTED};
use usage::Usage;
use verdict::{Sample, Verdict};

/// The pool under connections.
const POOL: &str = "exception";
/// How long its slots learn after a change, and how long it remembers a silent flow.
const LEARNING: Duration = Duration::from_secs(8);
const IDLE: Duration = Duration::from_secs(10);
/// How often a connection speaks; and how long every fifth is silent, less than the learning time.
const PACE: Duration = Duration::from_millis(500);
const SILENCE: Duration = Duration::from_millis(1_500);
/// Changes at first, and at most so many for each minute of the run: the daemons keep the last 1,024 events and some 200 revisions.
const FIRST: u32 = 1_000;
const FIRST_A_MINUTE: u32 = 200;
/// The longest absence of a daemon.
const AWAY: Duration = Duration::from_secs(10 * 60);

/// The user's options.
#[derive(clap::Args, Clone, Debug)]
pub struct SoakArgs {
    /// How long to go on; the cycle that has begun is finished
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_440))]
    minutes: u64,
    /// Connections that are held
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    held: u16,
    /// New connections a second
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    arrivals: u32,
}

/// A run as it goes.
struct Soak {
    trial: Trial,
    cycles: Cycles,
    began: Instant,
    number: usize,
    samples: Vec<Sample>,
    /// Breaks that were described.
    described: usize,
}

/// The absence of a daemon.
struct Absence {
    lasted: Duration,
    before: Seen,
    after: Seen,
}

/// Builds the lab, runs cycles for as long as asked, prints a line for each, and the verdicts.
///
/// # Errors
/// If the lab cannot be built, a command fails, or a verdict does not hold.
pub fn run(args: &SoakArgs) -> Result<()> {
    ensure!(is_root(), "the soak needs root: it makes network namespaces and loads programs into the kernel");
    let length = Duration::from_secs(args.minutes * 60);
    println!("building the lab: client - router - 2 load balancers - 5 backends");
    let trial = Trial::begin(&setting(args))?;
    println!("{} connections held, {} new ones a second, {} minutes", args.held, args.arrivals, args.minutes);
    let mut cycles = Cycles::new(&trial)?;
    let changes = FIRST.min(FIRST_A_MINUTE * args.minutes as u32);
    let each = cycles.fill(&trial, changes)?;
    println!("{changes} changes of each load balancer back to back: {:.1} ms each", each.as_secs_f64() * 1e3);
    let mut soak = Soak { trial, cycles, began: Instant::now(), number: 0, samples: Vec::new(), described: 0 };
    print!("{}", text::head());
    let absence = soak.run(length).inspect_err(|_| eprint!("{}", soak.last_words()))?;
    let verdicts = soak.finish(&absence)?;
    verdicts.iter().for_each(|verdict| print!("{}", text::verdict(verdict)));
    let failed = verdicts.iter().filter(|verdict| !verdict.holds).count();
    if failed > 0 {
        bail!("soak: {failed} of {} verdicts do not hold", verdicts.len());
    }
    println!("soak: ok, {} verdicts hold", verdicts.len());
    Ok(())
}

fn setting(args: &SoakArgs) -> Setting {
    Setting {
        balancers: 2,
        backends: 4,
        spare: 1,
        tracking: &[POOL],
        learning: LEARNING.as_secs(),
        idle: IDLE.as_secs(),
        held: args.held.into(),
        pace: PACE,
        silence: SILENCE,
        arrivals: args.arrivals,
        flows: None,
        on_stop: "keep",
    }
}

impl Soak {
    /// Cycles until `length` has passed; after the first quarter a daemon is away for half of it, at most [`AWAY`].
    fn run(&mut self, length: Duration) -> Result<Absence> {
        let away = (length / 2).min(AWAY);
        self.until(length / 4, true)?;
        let (left, before) = (Instant::now(), self.trial.so_far());
        self.cycles.leave(&mut self.trial)?;
        self.until(self.began.elapsed() + away, false)?;
        // A cycle of the others that does not fit any more is not begun.
        thread::sleep(away.saturating_sub(left.elapsed()));
        let (lasted, after) = (left.elapsed(), self.trial.so_far());
        self.cycles.come_back(&mut self.trial)?;
        self.until(length, true)?;
        Ok(Absence { lasted, before, after })
    }

    /// Cycles until so much time has passed since the run began; one at least.
    fn until(&mut self, end: Duration, restarts: bool) -> Result<()> {
        loop {
            self.cycles.run(&mut self.trial, restarts)?;
            self.number += 1;
            let at = self.began.elapsed();
            let mut usages = Vec::new();
            for (n, balancer) in self.trial.site.balancers.iter().enumerate() {
                if !restarts && n == RESTARTED {
                    usages.push(None);
                    continue;
                }
                let usage = Usage::calm(balancer)?;
                usages.push(Some(usage));
                self.samples.push(Sample { at, node: balancer.name().to_owned(), usage });
            }
            print!("{}", text::line(at, self.number, self.cycles.counts, self.trial.so_far(), &usages));
            self.describe_breaks();
            if at >= end {
                return Ok(());
            }
        }
    }

    /// What happened around each connection that broke in the last cycle, and what the load balancers say of its flow.
    fn describe_breaks(&mut self) {
        let breaks = self.trial.breaks();
        for lost in breaks.iter().skip(self.described) {
            print!("{}", text::broken(lost, self.began, &self.cycles.steps));
            let Some(source) = lost.source else { continue };
            for balancer in self.trial.present() {
                let flow = ["flow", "explain", &source.to_string(), &lost.target.to_string(), "tcp"];
                let said = balancer.maglev_ok(&flow).and_then(|flow| Ok(flow + &balancer.maglev_ok(&["counters"])?));
                let said = said.unwrap_or_else(|error| format!("{error:#}"));
                let lines = said.lines().filter(|line| !line.contains(" 0  ")).map(|line| format!("    {line}\n"));
                print!("    {}\n{}", balancer.name(), lines.collect::<String>());
            }
        }
        self.described = breaks.len();
    }

    /// Ends every connection, and judges.
    fn finish(self, absence: &Absence) -> Result<Vec<Verdict>> {
        let Self { trial, cycles, began, number, samples, described: _ } = self;
        let mut verdicts = verdict::judge(&samples, began.elapsed());
        let reports = trial.finish()?;
        verdicts.push(text::absence(absence));
        verdicts.push(text::connections(&reports, number));
        verdicts.push(text::done(cycles.counts));
        Ok(verdicts)
    }

    /// What the daemons logged last.
    fn last_words(&self) -> String {
        let log = |balancer: &Balancer| {
            let log = balancer.log();
            let lines: Vec<&str> = log.lines().collect();
            format!("{}:\n{}\n", balancer.name(), lines[lines.len().saturating_sub(20)..].join("\n"))
        };
        self.trial.site.balancers.iter().map(log).collect()
    }
}
