//! `decap.yaml`: decapsulation on a backend. It must not know how packets are unwrapped, nor the running state.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use maglev_common::maps::{MAX_DECAP_SOURCES, MAX_DECAP_VIPS};
use maglev_common::settings::Mss;
use maglev_model::{can_be_vips, not_unicast, shown};

use super::decode::{Collector, Field};
use super::interfaces::{Interface, decode_decap_interfaces};
use super::node::{OnStop, decode_socket, parse_metrics, parse_on_stop, parse_pin};
use super::{Problems, tree};

/// The default path of the service's socket.
const DEFAULT_SOCKET: &str = "/run/maglev-decap/maglev-decap.sock";
/// The default folder in which programs and counters are pinned.
const DEFAULT_PIN: &str = "/sys/fs/bpf/maglev-decap";
/// The address for metrics that messages name.
const USUAL_METRICS: &str = "127.0.0.1:9102";

/// The settings in `decap.yaml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecapConfig {
    /// The interfaces that receive encapsulated packets, 1 to 64, in the order of the file. None has other MAC addresses.
    pub interfaces: Vec<Interface>,
    /// The load balancers' outer sources: at least one, and at most [`MAX_DECAP_SOURCES`] of each family.
    pub sources: Vec<IpNet>,
    /// The VIPs, at most [`MAX_DECAP_VIPS`] prefixes of each family. `None`: the addresses on the loopback device, followed.
    pub vips: Option<Vec<IpNet>>,
    /// How the MSS in answers to encapsulated SYNs is lowered.
    pub mss: Mss,
    /// The folder in the BPF file system with a folder for each interface. `None`: nothing is pinned.
    pub pin: Option<PathBuf>,
    /// The effect of a stop on the programs.
    pub on_stop: OnStop,
    /// The Unix socket of the API.
    pub socket: PathBuf,
    /// The loopback address that serves `/metrics`; `None`: only the socket does.
    pub metrics: Option<SocketAddr>,
}

/// Reads the file.
///
/// # Errors
/// All errors, each with line and field.
pub fn decode(file: &Path, text: &str) -> Result<DecapConfig, Problems> {
    let root = tree::parse(file, text)?;
    let out = Collector::new(file);
    let config = decode_root(&Field::root(&root, &out), file);
    let problems = out.finish();
    config.filter(|_| problems.is_empty()).ok_or(problems)
}

fn decode_root(root: &Field<'_>, file: &Path) -> Option<DecapConfig> {
    let section = root.section(&["interfaces", "sources", "vips", "mss", "dataplane", "api"], &[])?;
    let interfaces =
        section.need("interfaces", "a list such as [{ name: eth0 }]").and_then(|field| decode_decap_interfaces(&field));
    let sources =
        section.need("sources", "a list such as [10.64.11.0/24]").and_then(|field| decode_prefixes(&field, &SOURCES));
    let vips = section.get("vips").map_or(Some(None), |field| decode_prefixes(&field, &VIPS).map(Some));
    let mss = section.get("mss").map_or(Some(Mss::Off), |field| field.parse(parse_mss));
    let dataplane =
        section.get("dataplane").map_or_else(|| Some(Dataplane::default()), |field| decode_dataplane(&field));
    let api = section.get("api").map_or_else(|| Some(Api::default()), |field| decode_api(&field, file));
    let (Dataplane { pin, on_stop }, Api { socket, metrics }) = (dataplane?, api?);
    Some(DecapConfig {
        interfaces: interfaces?,
        sources: sources?,
        vips: vips?,
        mss: mss?,
        pin,
        on_stop,
        socket,
        metrics,
    })
}

/// A list of prefixes.
struct List {
    /// The message for a list without items.
    empty: &'static str,
    /// The most prefixes of each family.
    most: u32,
    parse: fn(&str) -> Result<IpNet, String>,
}

const SOURCES: List = List {
    empty: "no source; name at least one address or prefix, such as 10.64.11.0/24",
    most: MAX_DECAP_SOURCES,
    parse: parse_source,
};

const VIPS: List = List {
    empty: "no VIP; name at least one, or remove the key: then the addresses on lo are the VIPs",
    most: MAX_DECAP_VIPS,
    parse: parse_vip,
};

fn decode_prefixes(field: &Field<'_>, list: &List) -> Option<Vec<IpNet>> {
    let items = field.items()?;
    if items.is_empty() {
        field.report(list.empty);
        return None;
    }
    let decoded: Vec<_> = items.iter().map(|item| item.parse(list.parse)).collect();
    let v4 = decoded.iter().flatten().filter(|net| net.addr().is_ipv4()).count();
    let v6 = decoded.iter().flatten().count() - v4;
    for (family, count) in [("IPv4", v4), ("IPv6", v6)].into_iter().filter(|(_, count)| *count > list.most as usize) {
        field.report(format_args!("{count} {family} prefixes; at most {} are supported", list.most));
    }
    let mut seen = BTreeSet::new();
    for (item, net) in items.iter().zip(&decoded) {
        if let Some(net) = net.filter(|net| !seen.insert(*net)) {
            item.report(format_args!("{net} is in the list twice"));
        }
    }
    decoded.into_iter().collect()
}

/// An address, or a prefix without host bits.
fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let net =
        net.map_err(|_| format!("{} is not an address or prefix; expected one such as 10.64.11.0/24", shown(text)))?;
    if net.trunc() != net {
        return Err(format!("{net} has host bits set; write {} or the address alone", net.trunc()));
    }
    Ok(net)
}

/// A prefix of all addresses is one: a firewall may be what decides.
fn parse_source(text: &str) -> Result<IpNet, String> {
    let net = parse_prefix(text)?;
    match not_unicast(net.addr()).filter(|_| net.prefix_len() > 0) {
        Some(kind) => Err(format!("{net} cannot be the source of packets: {} is {kind}", net.addr())),
        None => Ok(net),
    }
}

fn parse_vip(text: &str) -> Result<IpNet, String> {
    let net = parse_prefix(text)?;
    if can_be_vips(net) {
        return Ok(net);
    }
    Err(format!("{net} holds no VIP; allowed: no multicast, broadcast, loopback or link-local addresses"))
}

fn parse_mss(text: &str) -> Result<Mss, String> {
    match text.parse() {
        _ if text == "off" => Ok(Mss::Off),
        _ if text == "auto" => Ok(Mss::Auto),
        Ok(bytes @ Mss::LEAST..=Mss::MOST) => Ok(Mss::Limit(bytes)),
        _ => {
            let (least, most) = (Mss::LEAST, Mss::MOST);
            Err(format!("{} is not an MSS; allowed: off, auto, or {least} to {most} bytes", shown(text)))
        }
    }
}

struct Dataplane {
    pin: Option<PathBuf>,
    on_stop: OnStop,
}

impl Default for Dataplane {
    fn default() -> Self {
        Self { pin: Some(PathBuf::from(DEFAULT_PIN)), on_stop: OnStop::Keep }
    }
}

fn decode_dataplane(field: &Field<'_>) -> Option<Dataplane> {
    let section = field.section(&["pin", "on_stop"], &[])?;
    let default = Dataplane::default();
    let pin = section.get("pin").map_or(Some(default.pin), |field| field.parse(|text| parse_pin(text, DEFAULT_PIN)));
    // Without a folder nothing can be kept.
    let usual = if pin == Some(None) { OnStop::Detach } else { default.on_stop };
    let on_stop = section.get("on_stop").map_or(Some(usual), |field| {
        let on_stop = field.parse(parse_on_stop)?;
        if (on_stop, &pin) == (OnStop::Keep, &Some(None)) {
            field.report("keep needs a pin folder; allowed with `pin: off`: detach");
        }
        Some(on_stop)
    });
    Some(Dataplane { pin: pin?, on_stop: on_stop? })
}

struct Api {
    socket: PathBuf,
    metrics: Option<SocketAddr>,
}

impl Default for Api {
    fn default() -> Self {
        Self { socket: PathBuf::from(DEFAULT_SOCKET), metrics: None }
    }
}

fn decode_api(field: &Field<'_>, file: &Path) -> Option<Api> {
    let section = field.section(&["socket", "metrics"], &[])?;
    let default = Api::default();
    let socket = section.get("socket").map_or(Some(default.socket), |field| decode_socket(&field, file));
    let metrics = section
        .get("metrics")
        .map_or(Some(default.metrics), |field| field.parse(|text| parse_metrics(text, USUAL_METRICS)));
    Some(Api { socket: socket?, metrics: metrics? })
}
