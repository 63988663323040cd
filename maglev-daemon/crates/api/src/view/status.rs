//! The status of the node, and the answer to a reload. It must not know how the daemon collects them.

use std::fmt;
use std::time::Duration;

use maglev_model::{Counts, Difference};
use serde::{Deserialize, Serialize};

use super::{Backend, BgpSummary, CheckShortage, Node, PoolSummary, Vip};

/// `GET /v1/status`: the node without its counters.
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
    /// Digest of the services: equal on nodes with the same services.
    pub services_digest: String,
    /// The number of their last revision; `None` before the first change.
    #[serde(default)]
    pub revision: Option<u64>,
    /// Digest of the flow hash's key: equal on nodes that choose the same slots.
    pub hash_key_digest: String,
    /// Whether a change of services or next hops is being applied to the packet path.
    pub publishing: bool,
    /// The reason why the packet path is not in sync with the saved services; null if it is.
    pub out_of_sync: Option<OutOfSync>,
    /// The reason why the state file is not written: the next daemon would have no history of transitions. Absent if it is
    /// written, or if the data plane does not outlive the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_not_saved: Option<String>,
    /// The last reload, if there was one.
    pub last_reload: Option<LastReload>,
    /// Memory of the data plane's maps.
    pub memory: Memory,
    /// Whether every check fails at once, which is assumed to be a local fault.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub common_failure: bool,
    /// Checks that were not made since the node lacks resources; absent if there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_shortage: Option<CheckShortage>,
    /// The node's state and its drain.
    pub node: Node,
    /// The begin of forwarding, and whether the data plane outlives the daemon.
    pub forwarding: Forwarding,
    /// The flow tables: whether they have room.
    pub flow_table: FlowTable,
    /// BGP sessions and prefixes; absent without a `bgp` section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bgp: Option<BgpSummary>,
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
    /// With the times for the present uptime.
    #[must_use]
    pub fn at(&self, uptime: Duration) -> Self {
        let mut status = Self { uptime_seconds: uptime.as_secs(), ..self.clone() };
        status.out_of_sync = status.out_of_sync.map(|found| found.at(uptime));
        status.pools.iter_mut().for_each(|pool| pool.in_transition = pool.in_transition.at(uptime));
        let now = crate::now();
        let healths = status.backends.iter_mut().filter_map(|backend| backend.health.as_mut());
        healths.for_each(|health| health.derive_times(uptime, now));
        status
    }

    /// The number of flows known to be pinned, in all pools.
    pub fn pinned_flows(&self) -> u64 {
        self.pools.iter().filter_map(|pool| pool.in_transition.pinned_flows).map(u64::from).sum()
    }
}

/// The begin of forwarding, and whether the data plane outlives the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarding {
    /// The folder that program and maps are pinned in; null if they end with the daemon.
    pub pin: Option<String>,
    /// Whether they were adopted from a previous daemon.
    pub adopted: bool,
    /// Where programs of this daemon continue those of the previous one, with its flow entries: the differences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub continued: Vec<String>,
    /// Why this release runs in the place of a newer one that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<String>,
    /// The begin of forwarding, in seconds since 1970.
    pub since: u64,
}

/// A failed attempt to apply the saved services to the packet path. It is retried, and at every change and reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutOfSync {
    /// The error of the last attempt.
    pub reason: String,
    /// Milliseconds until the next attempt; null while one is under way.
    pub next_try_milliseconds: Option<u64>,
    /// The time of the next attempt since the daemon started.
    #[serde(skip)]
    pub next: Option<Duration>,
}

impl OutOfSync {
    /// With the times for the present uptime.
    fn at(self, uptime: Duration) -> Self {
        let left = |next: Duration| u64::try_from(next.saturating_sub(uptime).as_millis()).unwrap_or(u64::MAX);
        Self { next_try_milliseconds: self.next.map(left), ..self }
    }
}

/// The last reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReload {
    /// When, in seconds since 1970.
    pub unix_seconds: u64,
    /// Whether the files were valid and are in use.
    pub successful: bool,
}

/// The flow tables of all CPUs, and flows without room since the daemon started. The counters are read every few seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTable {
    /// The number of entries.
    pub entries: u64,
    /// The number of flows that fit with the present spread of packets over CPUs: each CPU has its own table, and that of the
    /// busiest CPU is full first.
    pub room: u64,
    /// Packets whose flow was not recorded for lack of room.
    pub flow_table_full: u64,
    /// Recent entries that were evicted: their connections are dropped, or may be at the next change.
    pub flow_evicted: u64,
    /// The time when one of these counters was first seen to grow, in seconds since 1970; null if none does.
    pub since: Option<u64>,
}

impl FlowTable {
    /// A warning if so many flows do not fit: buckets fill unevenly, and a flow whose bucket is full is not recorded.
    pub fn warning(&self, flows: u64) -> Option<String> {
        let Self { room, .. } = self;
        (*room > 0 && flows > room / 2).then(|| {
            format!(
                "{flows} flows would take more than half of the flow tables' room for {room}, as packets are spread over \
                 CPUs: some may not be recorded and be dropped; raise flow_table.flows in maglev.yaml"
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
    /// Its name in `maglev.yaml`.
    pub name: String,
    /// Its new name if it was renamed: the next start would wait for the name in `maglev.yaml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_to: Option<String>,
    /// `native` or `generic`: how the program is attached.
    pub mode: String,
    /// Whether the program is attached.
    pub attached: bool,
    /// `up`, `no carrier` or `down`; `absent` as long as it does not exist.
    #[serde(default)]
    pub link: String,
    /// Its index; 0 as long as it does not exist.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
}

/// `POST /v1/reload`: the answer to a successful reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Changed fields of the node file that need a restart.
    pub restart_needed: Vec<String>,
    /// The number of changes of the services.
    pub changes: Changes,
    /// The BGP neighbors that changed.
    #[serde(default)]
    pub neighbors: Vec<NeighborChange>,
    /// The changed settings of the data plane that apply; connections and BGP sessions go on.
    #[serde(default)]
    pub data_plane: Vec<String>,
}

/// A BGP neighbor whose settings changed with a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighborChange {
    /// Its name.
    pub name: String,
    /// The fate of its session.
    pub session: SessionChange,
    /// The keys that changed, if it was there before and is still.
    #[serde(default)]
    pub keys: Vec<String>,
}

/// The fate of a BGP session with a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionChange {
    /// It begins: the neighbor is new.
    Added,
    /// It ends: the neighbor is gone.
    Removed,
    /// It goes on.
    Kept,
    /// It begins anew.
    Reset,
}

/// `GET /v1/plan/reload`: a preview of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedReload {
    /// Changed fields of the node file that would need a restart.
    pub restart_needed: Vec<String>,
    /// The number of changes of the services.
    pub changes: Changes,
    /// The reason why it would be refused without `--force`, if so.
    pub refused: Option<String>,
    /// The BGP neighbors that would change.
    #[serde(default)]
    pub neighbors: Vec<NeighborChange>,
    /// The settings of the data plane that would change; connections and BGP sessions go on.
    #[serde(default)]
    pub data_plane: Vec<String>,
}

impl fmt::Display for NeighborChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, session, keys } = self;
        let keys = keys.join(", ");
        match session {
            SessionChange::Added => write!(f, "BGP neighbor {name} added"),
            SessionChange::Removed => write!(f, "BGP neighbor {name} removed"),
            SessionChange::Kept => write!(f, "BGP neighbor {name}: {keys} changed, the session goes on"),
            SessionChange::Reset => write!(f, "BGP neighbor {name}: {keys} changed, the session begins anew"),
        }
    }
}

/// The numbers of changes between two versions of the services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// VIPs, by name.
    pub vips: ChangeCounts,
    /// Pools, by name: their settings and checks.
    pub pools: ChangeCounts,
    /// Backends, by pool and name.
    pub backends: ChangeCounts,
}

/// The numbers of changes of one kind of object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeCounts {
    /// New ones.
    pub added: usize,
    /// Changed ones.
    pub changed: usize,
    /// Removed ones.
    pub removed: usize,
}

impl From<Difference> for Changes {
    fn from(Difference { vips, pools, backends }: Difference) -> Self {
        let counts = |Counts { added, changed, removed }| ChangeCounts { added, changed, removed };
        Self { vips: counts(vips), pools: counts(pools), backends: counts(backends) }
    }
}

impl fmt::Display for Changes {
    /// `VIPs 1 added; backends 2 changed, 1 removed`, or `no change`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vips, pools, backends } = self;
        let kinds = [("VIPs", vips), ("pools", pools), ("backends", backends)];
        let changed = kinds.into_iter().filter_map(|(kind, ChangeCounts { added, changed, removed })| {
            let counts = [(added, "added"), (changed, "changed"), (removed, "removed")];
            let counts = counts.into_iter().filter(|(count, _)| **count > 0);
            let counts: Vec<_> = counts.map(|(count, what)| format!("{count} {what}")).collect();
            (!counts.is_empty()).then(|| format!("{kind} {}", counts.join(", ")))
        });
        let changed: Vec<_> = changed.collect();
        if changed.is_empty() { f.write_str("no change") } else { f.write_str(&changed.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted_by_kind() {
        let counts = |added, changed, removed| Counts { added, changed, removed };
        let found = Difference { vips: counts(0, 0, 1), pools: counts(1, 1, 0), backends: counts(0, 1, 1) };
        let expected = "VIPs 1 removed; pools 1 added, 1 changed; backends 1 changed, 1 removed";
        assert_eq!(Changes::from(found).to_string(), expected);
        assert_eq!(Changes::from(Difference::default()).to_string(), "no change");
    }
}
