//! `maglev.yaml`: this node's interfaces, encapsulation, hash key, files and sizes. It must not know the services.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use maglev_common::flow::{MAX_SETS, WAYS};
use maglev_common::hash::HashKey;
use maglev_common::maps;
use maglev_model::bgp::Bgp;
use maglev_model::{Limits, OuterSources, PacketSettings, Rules, node_drain, not_unicast, parse_duration, shown};

use super::bgp::{self, Outlives};
use super::decode::{Collector, Field, parse_number};
use super::interfaces::{Interface, decode_interfaces};
use super::origin::{Origin, ReadSecret, decode_path};
use super::{Problems, tree};

/// The default path of the services file.
const DEFAULT_SERVICES: &str = "/var/lib/maglev/services.yaml";
/// The default path of the API's socket.
const DEFAULT_SOCKET: &str = "/run/maglev/maglev.sock";
/// The address for metrics that messages name.
const USUAL_METRICS: &str = "127.0.0.1:9642";
/// The default folder in which the program and its maps are pinned.
const DEFAULT_PIN: &str = "/sys/fs/bpf/maglev";

/// What happens to the data plane when the daemon is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStop {
    /// The program is detached: packets for VIPs are left to the host.
    Detach,
    /// It keeps forwarding until a daemon is started again: the default where it is pinned. Some drivers reset their link when a
    /// program is detached.
    Keep,
}

impl OnStop {
    /// What happens unless the file says.
    const fn usual(pinned: bool) -> Self {
        if pinned { Self::Keep } else { Self::Detach }
    }
}

/// The settings in `maglev.yaml`.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The interfaces, 1 to 64, in the order of the file.
    pub interfaces: Vec<Interface>,
    /// The outer source addresses of IP in IP.
    pub outer: OuterSources,
    /// The key of the flow hash.
    pub hash_key: HashKey,
    /// The services file, absolute or relative to the working directory.
    pub services: PathBuf,
    /// The API's Unix socket, for reads and changes.
    pub socket: PathBuf,
    /// The path of a second socket that serves reads only, different from the first. `None`: not served.
    pub read_socket: Option<PathBuf>,
    /// The loopback address that serves `/metrics`; `None`: not served.
    pub metrics: Option<SocketAddr>,
    /// The BGP speaker; `None` announces nothing.
    pub bgp: Option<Bgp>,
    /// The settings of a node drain.
    pub drain: node_drain::Settings,
    /// The most VIPs, pools and backends of the node.
    pub limits: Limits,
    /// Sets of seven flows in each CPU's flow table: a power of two.
    pub flow_sets: u32,
    /// How packets to VIPs' addresses are handled that no VIP takes.
    pub packets: PacketSettings,
    /// Whether the packet path logs its decisions.
    pub trace: bool,
    /// Where the program and its maps are pinned, so that they outlive the daemon: a folder in the BPF file system that only
    /// this node uses. `None`: not pinned.
    pub pin: Option<PathBuf>,
    /// What happens to them when the daemon is stopped.
    pub on_stop: OnStop,
    /// For how long packets for VIPs are forwarded without a daemon: 10 s to 1 h. `None`: for ever.
    pub watchdog: Option<Duration>,
    /// For how many rounds a failure of every check is assumed to be a local fault; 0: never.
    pub common_failure: u32,
    /// For how long a VIP's pool must have enough healthy backends again before its prefix, withdrawn for lack of them, is
    /// announced again.
    pub hold_down: Duration,
}

impl NodeConfig {
    /// The limits that services are validated against.
    pub const fn rules(&self) -> Rules {
        Rules { limits: self.limits, outer: self.outer }
    }
}

/// The health settings of this node.
struct Health {
    common_failure: u32,
    hold_down: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self { common_failure: 3, hold_down: Duration::from_secs(10) }
    }
}

fn decode_health(field: &Field<'_>) -> Option<Health> {
    const MOST: u32 = 100;
    const LONGEST: Duration = Duration::from_secs(3_600);
    let default = Health::default();
    let section = field.section(&["common_failure", "hold_down"], &[])?;
    let rounds = |text: &str| {
        text.parse()
            .ok()
            .filter(|rounds| *rounds <= MOST)
            .ok_or_else(|| format!("{} is not a number of rounds; allowed: 0 (never) to {MOST}", shown(text)))
    };
    let hold_down = |text: &str| {
        let held = parse_duration(text).filter(|held| *held <= LONGEST);
        held.ok_or_else(|| format!("{} is not a hold-down; allowed: 0s to 1h, with a unit such as 10s", shown(text)))
    };
    let common_failure = section.get("common_failure").map_or(Some(default.common_failure), |f| f.parse(rounds));
    let hold_down = section.get("hold_down").map_or(Some(default.hold_down), |field| field.parse(hold_down));
    Some(Health { common_failure: common_failure?, hold_down: hold_down? })
}

/// A node's configuration as far as it could be read.
#[derive(Debug)]
pub struct Draft {
    /// The whole configuration, if it has no errors.
    pub config: Option<NodeConfig>,
    /// All errors.
    pub problems: Problems,
    /// The services file, if it is known.
    pub services: Option<PathBuf>,
    /// The rules that services are validated against; a rule that could not be read rejects nothing.
    pub rules: Rules,
}

/// Reads the node's configuration, and by `read_secret` the passwords that it names.
pub fn decode(file: &Path, text: &str, read_secret: ReadSecret) -> Draft {
    let root = match tree::parse(file, text) {
        Ok(root) => root,
        Err(problem) => {
            return Draft { config: None, problems: problem.into(), services: None, rules: Rules::default() };
        }
    };
    let out = Collector::new(file);
    let (config, services, rules) = decode_root(&Field::root(&root, &out), Origin { file, read_secret });
    let problems = out.finish();
    Draft { config: config.filter(|_| problems.is_empty()), problems, services, rules }
}

/// The keys of the file.
const KEYS: [&str; 13] = [
    "interfaces",
    "encap",
    "hash_key",
    "services",
    "api",
    "bgp",
    "drain",
    "limits",
    "flow_table",
    "packets",
    "trace",
    "dataplane",
    "health",
];

fn decode_root(root: &Field<'_>, origin: Origin<'_>) -> (Option<NodeConfig>, Option<PathBuf>, Rules) {
    let Some(section) = root.section(&KEYS, &[]) else { return (None, None, Rules::default()) };
    let file = origin.file;
    let interfaces = section.need("interfaces", "a list such as [{ name: eth0 }]").and_then(|f| decode_interfaces(&f));
    let outer =
        section.need("encap", "such as { kind: ipip, source: 10.64.11.0/24 }").and_then(|field| decode_encap(&field));
    let hash_key = section.need("hash_key", HASH_KEY).and_then(|field| decode_key(&field));
    let services = section.get("services").map_or(Some(PathBuf::from(DEFAULT_SERVICES)), |f| decode_path(&f, file));
    let api = section.get("api").map_or_else(|| Some(Api::default()), |field| decode_api(&field, file));
    let limits = section.get("limits").map_or_else(|| Some(Limits::default()), |field| decode_limits(&field));
    let flow_sets = section.get("flow_table").map_or(Some(maps::DEFAULT_FLOW_SETS), |field| decode_flows(&field));
    let packets =
        section.get("packets").map_or(Some(PacketSettings::default()), |field| super::packets::decode(&field));
    let health = section.get("health").map_or_else(|| Some(Health::default()), |field| decode_health(&field));
    let trace = section.get("trace").map_or(Some(false), |field| field.boolean());
    let dataplane =
        section.get("dataplane").map_or_else(|| Some(Dataplane::default()), |field| decode_dataplane(&field));
    let outlives = outlives(dataplane.as_ref());
    let bgp = section.get("bgp").map_or(Some(None), |field| bgp::decode(&field, origin, outlives).map(Some));
    let drain =
        section.get("drain").map_or(Some(node_drain::Settings::default()), |field| super::node_drain::decode(&field));

    let rules = Rules { limits: limits.unwrap_or_default(), outer: outer.unwrap_or_else(any_outer) };
    let config = || {
        let Api { socket, read_socket, metrics } = api?;
        let Dataplane { pin, on_stop, watchdog } = dataplane?;
        let Health { common_failure, hold_down } = health?;
        Some(NodeConfig {
            interfaces: interfaces?,
            outer: outer?,
            hash_key: hash_key?,
            services: services.clone()?,
            socket,
            read_socket,
            metrics,
            bgp: bgp.clone()?,
            drain: drain?,
            limits: limits?,
            flow_sets: flow_sets?,
            packets: packets?,
            trace: trace?,
            common_failure,
            hold_down,
            pin,
            on_stop,
            watchdog,
        })
    };
    (config(), services, rules)
}

pub(super) fn any_outer() -> OuterSources {
    OuterSources { v4: Some(Ipv4Net::default()), v6: Some(Ipv6Net::default()) }
}

fn decode_encap(field: &Field<'_>) -> Option<OuterSources> {
    let section = field.section(&["kind", "source", "source6"], &[])?;
    let kind = section.need("kind", "ipip").and_then(|kind| {
        kind.parse(|text| match text {
            "ipip" => Ok(()),
            "gue" => Err("gue is a setting of pools (encap: gue in services.yaml); allowed: ipip".to_owned()),
            _ => Err(format!("{} is not an encapsulation; allowed: ipip", shown(text))),
        })
    });
    let (source, source6) = (section.get("source"), section.get("source6"));
    if source.is_none() && source6.is_none() {
        section.report("no outer source; set source (IPv4), source6 (IPv6) or both");
        return None;
    }
    let v4 = source.map_or(Some(None), |field| {
        field.parse(parse_source).and_then(|net| match net {
            IpNet::V4(net) => Some(Some(net)),
            IpNet::V6(net) => field.accept(Err(format!("{net} is IPv6; set it as source6"))),
        })
    });
    let v6 = source6.map_or(Some(None), |field| {
        field.parse(parse_source).and_then(|net| match net {
            IpNet::V6(net) => Some(Some(net)),
            IpNet::V4(net) => field.accept(Err(format!("{net} is IPv4; set it as source"))),
        })
    });
    kind?;
    Some(OuterSources { v4: v4?, v6: v6? })
}

/// An address, or a prefix without host bits.
fn parse_source(text: &str) -> Result<IpNet, String> {
    let net = IpAddr::from_str(text).map(IpNet::from).or_else(|_| IpNet::from_str(text));
    let net =
        net.map_err(|_| format!("{} is not an address or prefix; expected one such as 10.64.11.0/24", shown(text)))?;
    let address = net.addr();
    if net.trunc() != net {
        return Err(format!("{net} has host bits set; write {} or the address alone", net.trunc()));
    }
    if let Some(kind) = not_unicast(address) {
        return Err(format!("{net} cannot be the source of packets: {address} is {kind}"));
    }
    if net.prefix_len() < 8 {
        return Err(format!("{net} is too wide a prefix; allowed: 8 bits or more"));
    }
    Ok(net)
}

const HASH_KEY: &str = "32 hexadecimal digits in quotes, the same on every node (`maglevd keygen` makes a key)";

/// The key is a secret: no report shows any part of it.
fn decode_key(field: &Field<'_>) -> Option<HashKey> {
    let text = field.text()?;
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let pairs = digits.as_deref().map(|digits| digits.as_chunks::<2>());
    let Some((pairs, [])) = pairs else {
        field.report(format_args!("not a hash key; expected {HASH_KEY}"));
        return None;
    };
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    let Ok(bytes) = bytes.try_into() else {
        field.report(format_args!("{} characters; expected {HASH_KEY}", text.chars().count()));
        return None;
    };
    Some(HashKey::from_bytes(bytes))
}

struct Api {
    socket: PathBuf,
    read_socket: Option<PathBuf>,
    metrics: Option<SocketAddr>,
}

impl Default for Api {
    fn default() -> Self {
        Self { socket: PathBuf::from(DEFAULT_SOCKET), read_socket: None, metrics: None }
    }
}

fn decode_api(field: &Field<'_>, file: &Path) -> Option<Api> {
    let section = field.section(&["socket", "read_socket", "metrics"], &[])?;
    let default = Api::default();
    let socket = section.get("socket").map_or(Some(default.socket), |field| decode_socket(&field, file));
    let read_socket = section.get("read_socket").map_or(Some(default.read_socket), |field| {
        let path = decode_socket(&field, file)?;
        if socket.as_ref() == Some(&path) {
            field.report(format_args!("{} is api.socket; allowed: another path", path.display()));
        }
        Some(Some(path))
    });
    let metrics = section
        .get("metrics")
        .map_or(Some(default.metrics), |field| field.parse(|text| parse_metrics(text, USUAL_METRICS)));
    Some(Api { socket: socket?, read_socket: read_socket?, metrics: metrics? })
}

/// The path of a Unix socket, whose length is limited (`sun_path` in unix(7)).
pub(super) fn decode_socket(field: &Field<'_>, file: &Path) -> Option<PathBuf> {
    const LONGEST: usize = 107;
    let path = decode_path(field, file)?;
    let length = path.as_os_str().len();
    if length > LONGEST {
        field.report(format_args!("{} is too long for a socket: {length} bytes, at most {LONGEST}", path.display()));
        return None;
    }
    Some(path)
}

/// A loopback address with a port; `usual` is one for messages.
pub(super) fn parse_metrics(text: &str, usual: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    let allowed = format!("allowed: such as {usual}, or off");
    match SocketAddr::from_str(text) {
        Ok(at) if at.port() == 0 => Err(format!("{at} has no port; {allowed}")),
        Ok(at) if at.ip().is_loopback() => Ok(Some(at)),
        Ok(at) => Err(format!("{at} is not a loopback address; {allowed}")),
        Err(_) => Err(format!("{} is not an address with a port; {allowed}", shown(text))),
    }
}

struct Dataplane {
    pin: Option<PathBuf>,
    on_stop: OnStop,
    watchdog: Option<Duration>,
}

impl Default for Dataplane {
    fn default() -> Self {
        Self { pin: Some(PathBuf::from(DEFAULT_PIN)), on_stop: OnStop::usual(true), watchdog: None }
    }
}

fn decode_dataplane(field: &Field<'_>) -> Option<Dataplane> {
    let section = field.section(&["pin", "on_stop", "watchdog"], &[])?;
    let default = Dataplane::default();
    let pin = section.get("pin").map_or(Some(default.pin), |field| field.parse(|text| parse_pin(text, DEFAULT_PIN)));
    let usual = OnStop::usual(pin != Some(None));
    let on_stop = section.get("on_stop").map_or(Some(usual), |field| {
        let on_stop = field.parse(parse_on_stop)?;
        if (on_stop, &pin) == (OnStop::Keep, &Some(None)) {
            field.report("keep needs a pin folder; allowed with `pin: off`: detach");
        }
        Some(on_stop)
    });
    let watchdog = section.get("watchdog").map_or(Some(None), |field| {
        let watchdog = field.parse(parse_watchdog)?;
        if watchdog.is_some() && pin == Some(None) {
            field.report("a watchdog needs a pin folder: without one, nothing is forwarded without the daemon; allowed with `pin: off`: off");
        }
        Some(watchdog)
    });
    Some(Dataplane { pin: pin?, on_stop: on_stop?, watchdog: watchdog? })
}

/// Shorter than this, a restart would stop the packets.
const SHORTEST_WATCHDOG: Duration = Duration::from_secs(10);

fn parse_watchdog(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    let allowed = SHORTEST_WATCHDOG..=Duration::from_secs(3_600);
    match parse_duration(text).filter(|watchdog| allowed.contains(watchdog)) {
        Some(watchdog) => Ok(Some(watchdog)),
        None => Err(format!("{} is not a watchdog; allowed: off, or 10s to 1h, with a unit such as 60s", shown(text))),
    }
}

/// What keeps forwarding without the daemon. A setting that could not be read rejects nothing.
fn outlives(dataplane: Option<&Dataplane>) -> Outlives {
    dataplane.map_or(Outlives { killed: true, stopped: true }, |Dataplane { pin, on_stop, watchdog: _ }| Outlives {
        killed: pin.is_some(),
        stopped: *on_stop == OnStop::Keep,
    })
}

/// A folder in the BPF file system, which takes no dots in names; `usual` is one for messages.
pub(super) fn parse_pin(text: &str, usual: &str) -> Result<Option<PathBuf>, String> {
    if text == "off" {
        return Ok(None);
    }
    let path = PathBuf::from(text);
    if !path.is_absolute() || text.contains(['.', '\0']) || path.components().count() < 2 {
        return Err(format!("{} is not a pin folder; allowed: such as {usual}, without dots, or off", shown(text)));
    }
    Ok(Some(path))
}

pub(super) fn parse_on_stop(text: &str) -> Result<OnStop, String> {
    match text {
        "detach" => Ok(OnStop::Detach),
        "keep" => Ok(OnStop::Keep),
        _ => Err(format!("{} is not a stop action; allowed: detach, keep", shown(text))),
    }
}

fn decode_limits(field: &Field<'_>) -> Option<Limits> {
    let section = field.section(&["vips", "pools", "backends"], &[])?;
    let limit = |key, default, most| {
        section.get(key).map_or(Some(default), |field| field.parse(|text| parse_number(text, u64::from(most))))
    };
    let (default, most) = (Limits::default(), Limits::MOST);
    let vips = limit("vips", default.vips, most.vips);
    let pools = limit("pools", default.pools, most.pools);
    let backends = limit("backends", default.backends, most.backends);
    Some(Limits { vips: vips?, pools: pools?, backends: backends? })
}

/// Flows per CPU, rounded up to a power of two of sets.
fn decode_flows(field: &Field<'_>) -> Option<u32> {
    let section = field.section(&["flows"], &[])?;
    let most = u64::from(MAX_SETS) * WAYS as u64;
    let default = maps::DEFAULT_FLOW_SETS * WAYS as u32;
    let flows = section.get("flows").map_or(Some(default), |field| field.parse(|text| parse_number(text, most)))?;
    Some(flows.div_ceil(WAYS as u32).next_power_of_two())
}
