//! `maglevd decap` and `maglevd pass`: programs that run on their own, attached until a signal ends them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::ValueEnum;
use ipnet::IpNet;
use maglev_common::counters::DecapCounter;
use maglev_common::maps::MAX_DECAP_SOURCES;
use maglev_daemon::dataplane::{self, Decap, DecapSettings, DecapSnapshot, InterfaceSettings, Pass, Refresh};
use maglev_daemon::net::links::Watch;
use maglev_daemon::runtime::{Failure, signals::Stop, systemd};
use serde_json::{Map, Value};
use tokio::time::{MissedTickBehavior, interval};

use crate::say;

/// How often the counters' file is replaced.
const COUNTERS_EVERY: Duration = Duration::from_millis(100);

/// What is decapsulated.
#[derive(Debug, clap::Args)]
pub(super) struct DecapArgs {
    /// An interface that encapsulated packets come in by; may be repeated
    #[arg(long = "interface", value_name = "NAME", required = true)]
    interfaces: Vec<String>,

    /// The load balancers' outer source address or prefix; may be repeated. Packets from elsewhere are left as they are
    #[arg(long = "from", value_name = "PREFIX", required = true, value_parser = prefix)]
    sources: Vec<IpNet>,

    /// Where the program runs: in the driver, or in the network stack
    #[arg(long, value_enum, default_value_t = Mode::Native)]
    mode: Mode,

    /// Keep the counters in this file, as JSON, replaced ten times a second
    #[arg(long, value_name = "FILE")]
    counters: Option<PathBuf>,
}

/// Where every packet is passed.
#[derive(Debug, clap::Args)]
pub(super) struct PassArgs {
    /// An interface; may be repeated
    #[arg(long = "interface", value_name = "NAME", required = true)]
    interfaces: Vec<String>,

    /// Where the program runs: in the driver, or in the network stack
    #[arg(long, value_enum, default_value_t = Mode::Native)]
    mode: Mode,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    Native,
    Generic,
}

impl From<Mode> for dataplane::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Native => Self::Native,
            Mode::Generic => Self::Generic,
        }
    }
}

fn prefix(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let net = net.map_err(|_| format!("{text:?} is not an address or prefix; expected one such as 10.64.0.0/16"))?;
    if net.trunc() != net {
        return Err(format!("{net} has host bits set; write {} or the address alone", net.trunc()));
    }
    Ok(net)
}

/// Decapsulates until a signal comes; prints `ready` once attached and the counters as JSON when detached.
pub(super) fn decap(args: &DecapArgs) -> Result<(), Failure> {
    let DecapArgs { interfaces, sources, mode, counters } = args;
    for (family, count) in [
        ("IPv4", sources.iter().filter(|source| source.addr().is_ipv4()).count()),
        ("IPv6", sources.iter().filter(|source| source.addr().is_ipv6()).count()),
    ] {
        if count > MAX_DECAP_SOURCES as usize {
            return Err(anyhow!("--from: {count} {family} prefixes; at most {MAX_DECAP_SOURCES} are supported").into());
        }
    }
    for source in sources.iter().filter(|source| source.prefix_len() == 0) {
        tracing::warn!("--from {source}: whoever can reach this host can have packets from anyone delivered to it");
    }
    let settings = DecapSettings { interfaces: settings(interfaces, *mode), sources: sources.clone() };
    block_on(async {
        let mut stop = Stop::listen()?;
        // Followed before they are read, so that no change falls in between.
        let mut watch = Watch::start()?;
        let mut program = Decap::start(&settings, &watch.list().await?)?;
        let mut file = CountersFile { path: counters.as_deref(), told: false };
        file.replace(&json(&program.snapshot()));
        ready()?;
        let mut last = Refresh::default();
        let mut tick = interval(COUNTERS_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.wait() => break,
                links = watch.changed() => take(program.refresh(&links), &mut last, &mut watch),
                _ = tick.tick(), if counters.is_some() => file.replace(&json(&program.snapshot())),
            }
        }
        let counted = json(&program.snapshot());
        drop(program);
        file.replace(&counted);
        say(&counted)
    })
}

/// Passes every packet until a signal comes; prints `ready` once attached.
pub(super) fn pass(args: &PassArgs) -> Result<(), Failure> {
    let PassArgs { interfaces, mode } = args;
    let interfaces = settings(interfaces, *mode);
    block_on(async {
        let mut stop = Stop::listen()?;
        let mut watch = Watch::start()?;
        let mut program = Pass::start(&interfaces, &watch.list().await?)?;
        ready()?;
        let mut last = Refresh::default();
        loop {
            tokio::select! {
                () = stop.wait() => return Ok(()),
                links = watch.changed() => take(program.refresh(&links), &mut last, &mut watch),
            }
        }
    })
}

/// Takes in how the interfaces are now: tells what is new, and has it tried again if there is a problem.
fn take(now: Refresh, last: &mut Refresh, watch: &mut Watch) {
    now.log_news(last);
    if !now.problems.is_empty() {
        watch.again();
    }
    *last = now;
}

/// Where the counters are kept, if anywhere. A full disk must not end decapsulation: it is told once, and tried again.
#[derive(Debug)]
struct CountersFile<'a> {
    path: Option<&'a Path>,
    told: bool,
}

impl CountersFile<'_> {
    fn replace(&mut self, text: &str) {
        let Some(path) = self.path else { return };
        match replace(path, text) {
            Ok(()) => self.told = false,
            Err(error) if !self.told => {
                tracing::warn!("{error:#}; decapsulation goes on");
                self.told = true;
            }
            Err(_) => {}
        }
    }
}

fn settings(names: &[String], mode: Mode) -> Vec<InterfaceSettings> {
    names.iter().map(|name| InterfaceSettings { name: name.clone(), mode: mode.into(), also: Vec::new() }).collect()
}

fn block_on(task: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the event loop")?.block_on(task)
}

fn ready() -> Result<(), Failure> {
    systemd::notify("READY=1");
    say("ready")
}

fn json(counters: &DecapSnapshot) -> String {
    let of = |counter: &DecapCounter| (counter.name().to_owned(), Value::from(counters.counter(*counter)));
    Value::Object(DecapCounter::ALL.iter().map(of).collect::<Map<_, _>>()).to_string()
}

/// Replaces a file so that a reader meets the old or the new one, whole.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let replaced = std::fs::write(&aside, format!("{text}\n")).and_then(|()| std::fs::rename(&aside, path));
    replaced.with_context(|| format!("cannot write {}", path.display()))
}
