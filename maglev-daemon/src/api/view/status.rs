//! The node: what `maglev status` shows, and what a reload answers. It must not know how a daemon finds it out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Backend, Node, PoolSummary, Vip};

/// `GET /v1/status`: everything about the node but its counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's release.
    pub version: String,
    /// SHA-256 of the eBPF object, hexadecimal.
    pub object: String,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// The services file.
    pub services_file: String,
    /// Digest of the services: equal on nodes that serve the same.
    pub services_digest: String,
    /// Digest of the flow hash's key: equal on nodes that choose the same slots.
    pub hash_key_digest: String,
    /// Whether a change, or a next hop that was found or lost, is on its way to the packet path.
    pub publishing: bool,
    /// Why what is saved is not what the packet path serves, if so; the next change or reload tries again.
    pub not_published: Option<String>,
    /// Why the state file is not written, if so: a daemon that follows this one would know nothing of transitions. Absent if it
    /// is, or if nothing outlives the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_not_saved: Option<String>,
    /// The last reload, if there was one.
    pub last_reload: Option<LastReload>,
    /// Memory of the data plane's maps.
    pub memory: Memory,
    /// Whether everything that is checked fails at once, which is taken for this node's own fault.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub common_failure: bool,
    /// Whether the node serves or is taken out of service.
    pub node: Node,
    /// Since when the data plane forwards, and whether it outlives the daemon.
    pub forwarding: Forwarding,
    /// The flow tables: whether they have room.
    pub flow_table: FlowTable,
    /// Interfaces the program is attached to, or packets leave through.
    pub interfaces: Vec<Interface>,
    /// VIPs by name.
    pub vips: Vec<Vip>,
    /// Pools by name.
    pub pools: Vec<PoolSummary>,
    /// Backends by pool and name.
    pub backends: Vec<Backend>,
}

impl Status {
    /// As it is when the daemon has been up for so long.
    #[must_use]
    pub fn at(&self, uptime: Duration) -> Self {
        let mut status = Self { uptime_seconds: uptime.as_secs(), ..self.clone() };
        status.pools.iter_mut().for_each(|pool| pool.in_transition = pool.in_transition.at(uptime));
        status
    }

    /// Flows that are known to be pinned, in all pools.
    pub fn pinned_flows(&self) -> u64 {
        self.pools.iter().filter_map(|pool| pool.in_transition.pinned_flows).map(u64::from).sum()
    }
}

/// Since when the data plane forwards, and whether it outlives the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarding {
    /// The folder that program and maps are pinned in; null if they end with the daemon.
    pub pin: Option<String>,
    /// Whether they were another daemon's before.
    pub adopted: bool,
    /// When they began, in seconds since 1970.
    pub since: u64,
}

/// How the last reload went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReload {
    /// When, in seconds since 1970.
    pub unix_seconds: u64,
    /// Whether the files were taken over.
    pub successful: bool,
}

/// The flow tables of all CPUs, and what they had no room for since the daemon started. The counters are looked at every
/// few seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTable {
    /// Flows there is room for.
    pub entries: u64,
    /// Flows there is room for if they meet the CPUs as packets do: each CPU knows its own alone, so that the busiest one's
    /// is full first.
    pub room: u64,
    /// Packets whose flow was not recorded for want of room.
    pub flow_table_full: u64,
    /// Recent entries that gave way to other flows, though their own are cut by it, or may be at the next change.
    pub flow_evicted: u64,
    /// When either was first found to count, in seconds since 1970; null if neither does.
    pub since: Option<u64>,
}

impl FlowTable {
    /// A warning if so many flows do not fit in well: buckets fill unevenly, and a flow that finds its own full is lost.
    pub fn warning(&self, flows: u64) -> Option<String> {
        let Self { room, .. } = self;
        (*room > 0 && flows > room / 2).then(|| {
            format!(
                "{flows} flows would take more than half of the flow tables' room for {room}, as packets are spread over \
                 CPUs: some may find none and be cut; raise flow_table.flows in maglev.yaml"
            )
        })
    }
}

/// Memory of the data plane's maps, locked in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All maps together.
    pub total_bytes: u64,
    /// Each map.
    pub maps: Vec<MapMemory>,
}

/// Memory of one map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapMemory {
    /// The map's name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// `native` or `generic`: how the program is attached.
    pub mode: String,
    /// Whether the program is attached.
    pub attached: bool,
    /// Its index.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
}

/// `POST /v1/reload`: the files were taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Fields of the node file that differ from what runs and take effect at the next start.
    pub restart_needed: Vec<String>,
}
