//! The demo: real requests through real load balancers while their backends change. It draws where the requests went,
//! checks every share against its weight, holds connections and a download through a drain, narrows links below transfers,
//! takes a node out and kills the other's daemon, stops a backend's server, proves that the packets took the way it
//! claims, and counts failures: those in flight on the server that was stopped, and no others.

use std::io::{self, Write};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::lab::{registry, router::Kind};

mod captured;
mod evidence;
mod health;
mod narrow;
mod riders;
mod share;
mod stage;
mod text;

use evidence::Evidence;
use health::Lost;
use riders::Ridden;
use share::Share;
use stage::Stage;

/// The fewest requests a step is judged by.
const FEWEST: u64 = 5_000;

/// The user's options.
#[derive(clap::Args, Clone, Debug)]
pub struct DemoArgs {
    /// Requests each step is judged by
    #[arg(long, value_name = "N", default_value_t = FEWEST, value_parser = clap::value_parser!(u64).range(FEWEST..))]
    requests: u64,
    /// Requests in flight at a time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// The router's routing daemon
    #[arg(long, value_enum, value_name = "DAEMON", default_value_t = Kind::Bird)]
    router: Kind,
    /// Print the figures as JSON instead
    #[arg(long)]
    json: bool,
    /// Leave the lab standing and print commands to try
    #[arg(long, conflicts_with = "clean")]
    keep: bool,
    /// Only remove the labs that --keep left standing
    #[arg(long, conflicts_with = "json")]
    clean: bool,
}

/// All figures; what `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    requests: u64,
    failed: u64,
    steps: Vec<StepReport>,
    evidence: Evidence,
}

/// The effect of one step, and where its requests went.
#[derive(Debug, Serialize)]
struct StepReport {
    title: &'static str,
    /// The commands of the CLI, as run on each load balancer or on the one that is named.
    commands: Vec<String>,
    /// Answers and observations meanwhile.
    seen: Vec<String>,
    /// Requests begun at any time of the step.
    requests: u64,
    failed: u64,
    /// Reasons for the first few that failed.
    failures: Vec<String>,
    /// The losses with a server that was stopped, in the step that stops one.
    lost: Option<Lost>,
    /// The fate of the download and the held connections, in the step that has them.
    riders: Option<Ridden>,
    /// Of the requests begun after the load balancers had acknowledged the change.
    shares: Vec<Share>,
}

/// Builds the lab, runs the steps, proves the claims, and removes the lab.
///
/// # Errors
/// If the lab cannot be built, a request fails, a share is off its weight, or a claim does not hold.
pub fn run(args: &DemoArgs) -> Result<()> {
    if args.clean {
        println!("demo: {} kept labs removed", registry::remove_kept()?);
        return Ok(());
    }
    args.router.ensure_routes()?;
    // With --json standard output is for the figures alone.
    let mut screen: Box<dyn Write> = if args.json { Box::new(io::sink()) } else { Box::new(io::stdout()) };
    writeln!(screen, "building the lab: client - router ({}) - 2 load balancers - 4 backends", args.router)?;
    let mut stage = Stage::build(args.router)?;
    let played = play(args, &mut stage, &mut screen);
    // Not earlier: Ctrl-C removes a lab that is still being played in.
    if args.keep {
        stage.site.keep()?;
        eprint!("{}", text::commands_to_try(&stage)?);
    }
    let report = played.inspect_err(|_| eprint!("{}", stage.last_words()))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    }
    verdict(&report)?;
    drop(stage);
    let done = format!("demo: ok, {} requests, {}", report.requests, failed(&report));
    if args.json {
        eprintln!("{done}");
    } else {
        println!("{done}");
    }
    Ok(())
}

/// Plays the steps in order and collects the evidence.
fn play(args: &DemoArgs, stage: &mut Stage, screen: &mut dyn Write) -> Result<Report> {
    let mut steps = Vec::new();
    for step in stage::STEPS {
        let report = stage.play(step, args.requests, args.concurrency.into())?;
        write!(screen, "{}", text::step(&report))?;
        steps.push(report);
    }
    let evidence = evidence::collect(stage)?;
    write!(screen, "{}", text::evidence(&evidence))?;
    let sum = |count: fn(&StepReport) -> u64| steps.iter().map(count).sum();
    Ok(Report { requests: sum(|step| step.requests), failed: sum(|step| step.failed), steps, evidence })
}

/// How many requests failed, and that these could not but.
fn failed(report: &Report) -> String {
    let lost = report.steps.iter().find_map(|step| step.lost.as_ref());
    lost.filter(|lost| lost.in_flight > 0).map_or_else(
        || "0 failed".to_owned(),
        |Lost { backend, in_flight, .. }| {
            format!("{in_flight} failed: they were in flight on {backend} when its server was stopped; 0 others")
        },
    )
}

/// Whether everything the demo promises holds.
fn verdict(report: &Report) -> Result<()> {
    let reasons =
        || report.steps.iter().flat_map(|step| &step.failures).take(5).cloned().collect::<Vec<_>>().join("; ");
    let in_flight: u64 = report.steps.iter().filter_map(|step| Some(step.lost.as_ref()?.in_flight)).sum();
    let failed = report.failed - in_flight;
    ensure!(failed == 0, "{failed} of {} requests failed: {}", report.requests, reasons());
    for step in &report.steps {
        if let Some(Ridden { broken, failures, .. }) = &step.riders {
            ensure!(*broken == 0, "{}: {broken} connections broke: {}", step.title, failures.join("; "));
        }
        for share in &step.shares {
            ensure!(
                share.within,
                "{}: {} answered {} requests; its weight {} means {:.0} ± {:.0}",
                step.title,
                share.backend,
                share.requests,
                share.weight,
                share.expected,
                share.tolerance
            );
        }
    }
    report.evidence.check()
}
