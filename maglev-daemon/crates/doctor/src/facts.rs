//! The facts that findings are made from, as they were read. They must not know what is right.

use std::net::IpAddr;

use ipnet::IpNet;
use maglev_api::view::{BgpNeighbor, Status};

/// A fact, or the reason why it could not be read.
pub type Fact<T> = Result<T, String>;

/// The facts about a node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its configuration, or its mistakes, a line each.
    pub config: Result<Config, Vec<String>>,
    /// The files and folders that it reads and writes.
    pub files: Vec<File>,
    /// The machine.
    pub host: Host,
    /// The interfaces of `maglev.yaml`, in its order.
    pub interfaces: Fact<Vec<Interface>>,
    /// The paths to backends.
    pub backends: Fact<Vec<Path>>,
    /// The paths to VIPs that checks are sent to.
    pub vips: Fact<Vec<Path>>,
    /// The paths to BGP neighbors.
    pub neighbors: Fact<Vec<Path>>,
    /// VIPs that this machine cannot serve: the name, and the reason.
    pub conflicts: Fact<Vec<(String, String)>>,
    /// What a start would do; `None` while the daemon runs.
    pub rehearsal: Option<Fact<Rehearsal>>,
    /// What the daemon says; `None` without one.
    pub daemon: Option<Daemon>,
}

/// What findings need of `maglev.yaml` and `services.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The names and addresses of BGP neighbors.
    pub neighbors: Vec<(String, IpAddr)>,
    /// Digest of the services in the file.
    pub services_digest: String,
    /// Digest of the flow hash's key in the file.
    pub hash_key_digest: String,
}

/// The facts about a backend.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Its configuration, or its mistakes, a line each.
    pub config: Result<DecapConfig, Vec<String>>,
    /// The files and folders that it reads and writes.
    pub files: Vec<File>,
    /// The machine.
    pub host: Host,
    /// The interfaces of `decap.yaml`, in its order.
    pub interfaces: Fact<Vec<Interface>>,
    /// The machine's own addresses, with their interfaces.
    pub own: Fact<Vec<(IpAddr, String)>>,
    /// The prefixes that are local by the loopback device.
    pub loopback: Fact<Vec<IpNet>>,
}

/// What findings need of `decap.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecapConfig {
    /// The outer sources.
    pub sources: Vec<IpNet>,
    /// The VIPs; `None`: those on the loopback device.
    pub vips: Option<Vec<IpNet>>,
    /// Whether the MSS is lowered.
    pub lowers_mss: bool,
}

/// A file, folder or socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path.
    pub path: String,
    /// Its use.
    pub role: Role,
    /// Its mode and owner; `None` if it does not exist.
    pub found: Fact<Option<Mode>>,
}

/// The use of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It holds a secret: the hash key, or a password.
    Secret,
    /// It is read, and holds no secret.
    Settings,
    /// The services, which are read and replaced.
    Services,
    /// The folder in which files are replaced.
    State,
    /// The socket that takes changes.
    Socket,
}

/// The mode of a file, and its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Its permissions, twelve bits.
    pub bits: u32,
    /// The number of its owner.
    pub owner: u32,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Host {
    /// The first feature that the kernel lacks.
    pub missing_feature: Fact<Option<String>>,
    /// Whether eBPF programs are compiled (`bpf_jit_enable`); `None` where the kernel does not show it: only the first network
    /// namespace has it.
    pub jit: Fact<Option<u32>>,
    /// Where things are pinned; `None`: nowhere.
    pub pin: Option<Pin>,
    /// Whether the clock is synchronised.
    pub clock: Fact<bool>,
    /// The CPUs that are online.
    pub cpus: Fact<u32>,
    /// Memory and limits.
    pub memory: Memory,
}

/// The folder that programs and maps are pinned in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The folder.
    pub folder: String,
    /// Whether it is, or would be made, in a BPF file system.
    pub is_bpf: Fact<bool>,
}

/// Memory and limits; bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What can be allocated without swapping.
    pub available: Fact<u64>,
    /// What the limit of the process's control groups leaves; `None`: no limit.
    pub group_left: Fact<Option<u64>>,
    /// The most files that the process may open.
    pub open_files: Fact<u64>,
}

/// An interface that is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Whether the program is to run in the driver, not in the network stack.
    pub native: bool,
    /// What was found; `None` if it does not exist.
    pub device: Option<Device>,
}

/// An interface that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Whether packets can be sent.
    pub link: Link,
    /// In bytes.
    pub mtu: u32,
    /// Whether it has an Ethernet address.
    pub is_ethernet: bool,
    /// Whether VLAN devices are on it.
    pub has_vlans: bool,
    /// The XDP program on it.
    pub program: Option<Program>,
    /// The driver's name.
    pub driver: Option<String>,
    /// Whether the driver runs programs.
    pub runs_native: Option<bool>,
    /// The limits for which the driver refuses programs.
    pub refusals: Vec<String>,
    /// Disadvantages that a setting would remove.
    pub advice: Vec<String>,
    /// Whether it has a card, and so interrupts.
    pub is_physical: bool,
    /// The queues that receive.
    pub queues: Option<u32>,
    /// How many there can be.
    pub most_queues: Option<u32>,
    /// The CPUs of each interrupt.
    pub interrupts: Fact<Vec<Vec<u32>>>,
    /// Whether the card merges packets (LRO).
    pub lro: Option<bool>,
    /// Whether the network stack merges packets (GRO).
    pub gro: Option<bool>,
    /// Whether the card strips VLAN tags.
    pub strips_tags: Option<bool>,
    /// Packets lost while the examination went on: the counter, and its growth.
    pub lost: Fact<Vec<(String, u64)>>,
    /// `rp_filter`: the larger of `all` and of the interface.
    pub rp_filter: Fact<u32>,
    /// `arp_ignore`, likewise.
    pub arp_ignore: Fact<u32>,
    /// `arp_announce`, likewise.
    pub arp_announce: Fact<u32>,
}

/// Whether packets can be sent on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It is up and has a carrier.
    Up,
    /// It is up and has no carrier.
    NoCarrier,
    /// It is set down.
    Down,
}

/// An XDP program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its number.
    pub id: u32,
    /// Its name, if this user may know it.
    pub name: Option<String>,
    /// Whether it runs in the driver.
    pub native: bool,
    /// Whether it is Maglev's for this role; `None` if its name is not known.
    pub is_ours: Option<bool>,
}

/// The path to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// What is there: `backend web1 of pool web`.
    pub to: String,
    /// The address.
    pub address: IpAddr,
    /// Bytes of the outer header; 0 where nothing is encapsulated.
    pub overhead: u32,
    /// The next hop, or why there is none.
    pub hop: Result<Hop, String>,
}

/// A next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The outgoing interface.
    pub interface: String,
    /// Whether it is configured, or a VLAN device on one that is.
    pub is_listed: bool,
    /// The MTU of interface and route, the smaller one.
    pub mtu: u32,
    /// What a probe of that length with DF set has shown.
    pub probe: Probe,
}

/// What a probe of the path's length has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It was answered.
    Passed,
    /// A short one was answered, and one of this length was not.
    Lost,
    /// Not even a short one was answered: nothing is known.
    Unanswered,
    /// None was sent, for this reason.
    NotSent(String),
}

/// What a start would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rehearsal {
    /// Why it would be refused.
    pub refused: Option<String>,
    /// Bytes of kernel memory that the maps take.
    pub memory: u64,
    /// Whether maps of that size exist already: a running or pinned data plane.
    pub exists: bool,
}

/// What the daemon says.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// Its status.
    pub status: Status,
    /// The BGP sessions.
    pub sessions: Vec<BgpNeighbor>,
}
