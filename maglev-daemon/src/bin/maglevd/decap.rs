//! `maglevd decap`: its arguments. It must not know how packets are unwrapped.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::{ArgGroup, ValueEnum};
use ipnet::IpNet;
use maglev_common::maps::{MAX_DECAP_SOURCES, MAX_DECAP_VIPS};
use maglev_common::settings::Mss;
use maglev_daemon::decap::{self, Settings};
use maglev_daemon::runtime::Failure;

use crate::attach::{self, Mode};
use crate::say;

/// The default of `--pin`.
pub(super) const DEFAULT_PIN: &str = "/sys/fs/bpf/maglev-decap";

/// The arguments of `maglevd decap`: a file, or options.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("form").required(true).args(["config", "interfaces"])))]
pub(super) struct DecapArgs {
    /// Run as a service with this file, such as /etc/maglev/decap.yaml, which has all settings: SIGHUP and `maglev decap reload` reload
    /// it. None of the options below goes with it, but for --check
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Check the file, list every error, and end
    #[arg(long, requires = "config")]
    check: bool,

    /// An interface that receives encapsulated packets; may be repeated. An interface that does not exist yet is awaited
    #[arg(long = "interface", value_name = "NAME")]
    interfaces: Vec<String>,

    /// The load balancers' outer source address or prefix; may be repeated. Packets from other sources are passed unchanged
    #[arg(long = "from", value_name = "PREFIX", required_unless_present = "config", conflicts_with = "config", value_parser = attach::prefix)]
    sources: Vec<IpNet>,

    /// A VIP's address, or a prefix of VIPs; may be repeated. Encapsulated packets for other addresses are dropped. Default: the
    /// addresses on the loopback device, without loopback and link-local ones; changes are followed
    #[arg(long = "to", value_name = "PREFIX", conflicts_with = "config", value_parser = vips)]
    vips: Vec<IpNet>,

    /// The place of the program: native (in the driver) or generic (in the network stack)
    #[arg(long, value_enum, conflicts_with = "config", default_value_t = Mode::Native)]
    mode: Mode,

    /// Lower the MSS in answers to SYNs that came encapsulated, so that clients' packets fit with their outer header: `auto` by the
    /// MTU of the interface that received the SYN, or to this many bytes for IPv4 and 20 less for IPv6. The answers must be routed
    /// via one of the interfaces. Default: the MSS is left as it is
    #[arg(long, value_name = "auto|BYTES", conflicts_with = "config", value_parser = mss)]
    mss: Option<Mss>,

    /// Keep the counters in this file, as JSON, replaced ten times a second
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    counters: Option<PathBuf>,

    /// The folder in the BPF file system in which the program and its counters are pinned, one subfolder for each interface, so that
    /// they outlive this process; or `off`. Default: /sys/fs/bpf/maglev-decap, if that can be written
    #[arg(long, value_name = "DIR", conflicts_with = "config", value_parser = pin)]
    pin: Option<Pin>,

    /// The effect of SIGTERM: detach the program and leave nothing, or keep it decapsulating
    #[arg(long, value_enum, conflicts_with = "config", default_value_t = OnStop::Detach)]
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

/// Decapsulates until a signal comes; prints `ready` once attached to every interface. With options, prints the counters as JSON at the
/// end.
pub(super) fn run(args: DecapArgs) -> Result<(), Failure> {
    match &args.config {
        Some(file) if args.check => say(&decap::check(file)?),
        Some(file) => attach::block_on(decap::serve(file, say)),
        None => {
            check(&args)?;
            let counters = args.counters.clone();
            attach::block_on(decap::decapsulate(settings(args), counters.as_deref(), say))
        }
    }
}

fn settings(args: DecapArgs) -> Settings {
    let DecapArgs { config: _, check: _, interfaces, sources, vips, mode, mss, counters: _, pin, on_stop } = args;
    Settings {
        interfaces: attach::settings(&interfaces, mode),
        sources,
        vips: Some(vips).filter(|vips| !vips.is_empty()),
        mss: mss.unwrap_or_default(),
        pin: match pin {
            None => decap::Pin::IfPossible(PathBuf::from(DEFAULT_PIN)),
            Some(Pin::Folder(folder)) => decap::Pin::Folder(folder),
            Some(Pin::Off) => decap::Pin::Off,
        },
        on_stop: match on_stop {
            OnStop::Detach => maglev_config::OnStop::Detach,
            OnStop::Keep => maglev_config::OnStop::Keep,
        },
        api: None,
    }
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
    Ok(())
}
