//! `maglevd decap`: decapsulation on a backend, until a signal ends it. It must not know how a program is loaded.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use clap::ValueEnum;
use ipnet::IpNet;
use maglev_common::counters::DecapCounter;
use maglev_common::maps::{MAX_DECAP_SOURCES, MAX_DECAP_VIPS};
use maglev_common::settings::Mss;
use maglev_daemon::runtime::{Failure, signals::Stop, systemd};
use maglev_dataplane::{Decap, DecapSettings, DecapSnapshot, Prefixes, Refresh};
use maglev_net::links::{Link, Watch};
use maglev_net::loopback::Loopback;
use maglev_store::Kept;
use serde_json::{Map, Value};
use tokio::time::{MissedTickBehavior, interval};

use crate::attach::{self, Mode};
use crate::say;

/// How often the counters' file is replaced.
const COUNTERS_EVERY: Duration = Duration::from_millis(100);

/// The default of `--pin`.
pub(super) const DEFAULT_PIN: &str = "/sys/fs/bpf/maglev-decap";

/// The arguments of `maglevd decap`.
#[derive(Debug, clap::Args)]
pub(super) struct DecapArgs {
    /// An interface that receives encapsulated packets; may be repeated. An interface that does not exist yet is awaited
    #[arg(long = "interface", value_name = "NAME", required = true)]
    interfaces: Vec<String>,

    /// The load balancers' outer source address or prefix; may be repeated. Packets from other sources are passed unchanged
    #[arg(long = "from", value_name = "PREFIX", required = true, value_parser = attach::prefix)]
    sources: Vec<IpNet>,

    /// A VIP's address, or a prefix of VIPs; may be repeated. Encapsulated packets for other addresses are dropped. Default: the
    /// addresses on the loopback device, without loopback and link-local ones; changes are followed
    #[arg(long = "to", value_name = "PREFIX", value_parser = vips)]
    vips: Vec<IpNet>,

    /// The place of the program: native (in the driver) or generic (in the network stack)
    #[arg(long, value_enum, default_value_t = Mode::Native)]
    mode: Mode,

    /// Lower the MSS in answers to SYNs that came encapsulated, so that clients' packets fit with their outer header: `auto` by the
    /// MTU of the interface that received the SYN, or to this many bytes for IPv4 and 20 less for IPv6. The answers must be routed
    /// via one of the interfaces. Default: the MSS is left as it is
    #[arg(long, value_name = "auto|BYTES", value_parser = mss)]
    mss: Option<Mss>,

    /// Keep the counters in this file, as JSON, replaced ten times a second
    #[arg(long, value_name = "FILE")]
    counters: Option<PathBuf>,

    /// The folder in the BPF file system in which the program and its counters are pinned, one subfolder for each interface, so that
    /// they outlive this process; or `off`. Default: /sys/fs/bpf/maglev-decap, if that can be written
    #[arg(long, value_name = "DIR", value_parser = pin)]
    pin: Option<Pin>,

    /// The effect of SIGTERM: detach the program and leave nothing, or keep it decapsulating
    #[arg(long, value_enum, default_value_t = OnStop::Detach)]
    on_stop: OnStop,
}

#[derive(Clone, Debug)]
enum Pin {
    Off,
    Folder(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnStop {
    Detach,
    Keep,
}

/// A prefix that can hold VIPs.
fn vips(text: &str) -> Result<IpNet, String> {
    let net = attach::prefix(text)?;
    if !maglev_dataplane::can_be_vips(net) {
        return Err(format!(
            "{net} holds no VIP: multicast, broadcast, loopback and link-local packets are never unwrapped"
        ));
    }
    Ok(net)
}

fn mss(text: &str) -> Result<Mss, String> {
    match text.parse() {
        _ if text == "auto" => Ok(Mss::Auto),
        Ok(bytes @ Mss::LEAST..=Mss::MOST) => Ok(Mss::Limit(bytes)),
        _ => Err(format!("{text:?} is not an MSS; allowed: auto, or {} to {} bytes", Mss::LEAST, Mss::MOST)),
    }
}

fn pin(text: &str) -> Result<Pin, String> {
    let folder = PathBuf::from(text);
    match text {
        "off" => Ok(Pin::Off),
        _ if folder.is_absolute() && !text.contains('.') => Ok(Pin::Folder(folder)),
        _ => Err(format!("{text:?} is not a pin folder; allowed: such as {DEFAULT_PIN}, without dots, or off")),
    }
}

/// Decapsulates until a signal comes; prints `ready` once attached to every interface, and the counters as JSON at the end.
pub(super) fn run(args: &DecapArgs) -> Result<(), Failure> {
    check(args)?;
    attach::block_on(async {
        let mut stop = Stop::listen()?;
        // Subscribes before reading, so that no change is missed.
        let mut watch = Watch::start()?;
        let mut loopback = Loopback::start()?;
        let vips = match &args.vips[..] {
            [] => held(loopback.list().await?),
            named => Prefixes::new(named.iter().copied()),
        };
        let mut program = start(args, vips, &watch.list().await?)?;
        let mut file = CountersFile { path: args.counters.as_deref(), failed: false };
        file.replace(&json(&program.snapshot()));
        let mut last = Refresh { detached: program.waiting(), ..Refresh::default() };
        for name in &last.detached {
            tracing::warn!(interface = name, "the interface does not exist: waiting for it");
        }
        let mut progress = Progress::default();
        progress.show(args, &last)?;
        let mut tick = interval(COUNTERS_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.wait() => break,
                links = watch.changed() => {
                    attach::take(program.refresh(&links), &mut last, &mut watch);
                    progress.show(args, &last)?;
                }
                addresses = loopback.changed(), if args.vips.is_empty() => serve(&mut program, addresses),
                _ = tick.tick(), if args.counters.is_some() => file.replace(&json(&program.snapshot())),
            }
        }
        let counted = json(&program.snapshot());
        match args.on_stop {
            OnStop::Detach => program.stop(),
            OnStop::Keep => {
                tracing::info!("decapsulation goes on without this process");
                drop(program);
            }
        }
        file.replace(&counted);
        say(&counted)
    })
}

fn check(args: &DecapArgs) -> Result<(), Failure> {
    for (option, prefixes, most) in [("--from", &args.sources, MAX_DECAP_SOURCES), ("--to", &args.vips, MAX_DECAP_VIPS)]
    {
        let v4 = prefixes.iter().filter(|prefix| prefix.addr().is_ipv4()).count();
        for (family, count) in [("IPv4", v4), ("IPv6", prefixes.len() - v4)] {
            if count > most as usize {
                return Err(anyhow!("{option}: {count} {family} prefixes; at most {most} are supported").into());
            }
        }
    }
    if args.on_stop == OnStop::Keep && matches!(args.pin, Some(Pin::Off)) {
        return Err(anyhow!("--on-stop keep needs a folder to pin in; allowed with --pin off: detach").into());
    }
    for source in args.sources.iter().filter(|source| source.prefix_len() == 0) {
        tracing::warn!("--from {source}: packets from any source address are unwrapped");
    }
    Ok(())
}

/// Attaches the programs, pinned if `--pin` names a folder, or if the default folder can be written.
fn start(args: &DecapArgs, vips: Prefixes, links: &[Link]) -> Result<Decap, Failure> {
    let pin = match &args.pin {
        None => Some(PathBuf::from(DEFAULT_PIN)),
        Some(Pin::Folder(folder)) => Some(folder.clone()),
        Some(Pin::Off) => None,
    };
    let interfaces = attach::settings(&args.interfaces, args.mode);
    let mss = args.mss.unwrap_or_default();
    let settings = DecapSettings { interfaces, sources: args.sources.clone(), vips, mss, pin };
    match Decap::start(&settings, links) {
        Err(error) if args.pin.is_none() && args.on_stop == OnStop::Detach && error.forbids_pinning() => {
            tracing::warn!("{error}: nothing is pinned, decapsulation ends with this process");
            Ok(Decap::start(&DecapSettings { pin: None, ..settings }, links)?)
        }
        started => Ok(started?),
    }
}

/// The VIPs among the addresses that the host holds on its loopback device.
fn held(addresses: BTreeSet<IpNet>) -> Prefixes {
    let (vips, beyond) = maglev_dataplane::within_limit(Prefixes::from_loopback(addresses));
    if beyond > 0 {
        tracing::error!(
            "lo has {beyond} more addresses than the limit of {MAX_DECAP_VIPS}: packets for these are dropped"
        );
    }
    if vips.is_empty() {
        tracing::warn!(
            "no VIP on lo and no --to: every encapsulated packet is dropped and counted as foreign_destination; \
             `ip address add VIP dev lo`, which is noticed, or name VIPs with --to"
        );
    } else {
        let vips: Vec<_> = vips.accepted().map(|vip| vip.to_string()).collect();
        tracing::info!(vips = vips.join(" "), "VIPs on lo");
    }
    vips
}

fn serve(program: &mut Decap, addresses: BTreeSet<IpNet>) {
    if let Err(error) = program.serve(&held(addresses)) {
        tracing::error!(%error, "the VIPs on lo changed and cannot all be served");
    }
}

/// The progress, as last shown.
#[derive(Debug, Default)]
struct Progress {
    status: String,
    ready: bool,
}

impl Progress {
    /// Reports the attached interfaces to the service manager, and readiness once all are.
    fn show(&mut self, args: &DecapArgs, now: &Refresh) -> Result<(), Failure> {
        let status = match &now.detached[..] {
            [] => format!("decapsulating on {}", args.interfaces.join(", ")),
            missing => format!("waiting for {}", missing.join(", ")),
        };
        if status != self.status {
            systemd::notify(&format!("STATUS={status}"));
            self.status = status;
        }
        if now.detached.is_empty() && !self.ready {
            self.ready = true;
            attach::ready()?;
        }
        Ok(())
    }
}

/// The file of the counters, if any. A full disk does not end decapsulation: it is logged once, and the write is retried.
#[derive(Debug)]
struct CountersFile<'a> {
    path: Option<&'a Path>,
    failed: bool,
}

impl CountersFile<'_> {
    fn replace(&mut self, text: &str) {
        let Some(path) = self.path else { return };
        match maglev_store::replace(path, format!("{text}\n").as_bytes(), Kept::UntilReboot { mode: 0o644 }) {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                tracing::warn!("{error}; decapsulation goes on");
                self.failed = true;
            }
            Err(_) => {}
        }
    }
}

fn json(counters: &DecapSnapshot) -> String {
    let of = |counter: &DecapCounter| (counter.name().to_owned(), Value::from(counters.counter(*counter)));
    Value::Object(DecapCounter::ALL.iter().map(of).collect::<Map<_, _>>()).to_string()
}
