//! The node: what `maglev status` shows, and what a reload answers. It must not know how a daemon finds it out.

use std::fmt;
use std::time::Duration;

use maglev_model::{Counts, Difference};
use serde::{Deserialize, Serialize};

use super::{Backend, BgpSummary, CheckShortage, Node, PoolSummary, Vip};

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
    /// The number of their last revision; `None` before anything was changed.
    #[serde(default)]
    pub revision: Option<u64>,
    /// Digest of the flow hash's key: equal on nodes that choose the same slots.
    pub hash_key_digest: String,
    /// Whether a change, or a next hop that was found or lost, is on its way to the packet path.
    pub publishing: bool,
    /// Why the packet path does not serve what is saved; null if it does.
    pub out_of_sync: Option<OutOfSync>,
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
    /// Checks that were not made, by this node's own shortage; absent if there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_shortage: Option<CheckShortage>,
    /// Whether the node serves or is taken out of service.
    pub node: Node,
    /// Since when the data plane forwards, and whether it outlives the daemon.
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
    /// As it is when the daemon has been up for so long.
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

/// That the packet path does not serve what is saved. It is tried again, and at every change and reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutOfSync {
    /// Why the last attempt failed.
    pub reason: String,
    /// Milliseconds until the next attempt; null while one is under way.
    pub next_try_milliseconds: Option<u64>,
    /// When that is, as time since the daemon started.
    #[serde(skip)]
    pub next: Option<Duration>,
}

impl OutOfSync {
    /// As it is when the daemon has been up for so long.
    fn at(self, uptime: Duration) -> Self {
        let left = |next: Duration| u64::try_from(next.saturating_sub(uptime).as_millis()).unwrap_or(u64::MAX);
        Self { next_try_milliseconds: self.next.map(left), ..self }
    }
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
    /// Its name in `maglev.yaml`.
    pub name: String,
    /// The name it has now, if that is another: the next start would wait for the first.
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

/// `POST /v1/reload`: the files were taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Fields of the node file that differ from what runs and take effect at the next start.
    pub restart_needed: Vec<String>,
    /// What of the services differs from what ran before.
    pub changes: Changes,
}

/// `GET /v1/plan/reload`: what a reload would do now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedReload {
    /// Fields of the node file that differ from what runs and would take effect at the next start.
    pub restart_needed: Vec<String>,
    /// What of the services would differ.
    pub changes: Changes,
    /// Why it would be refused without `--force`, if it would.
    pub refused: Option<String>,
}

/// What of the services differs, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// VIPs, by name.
    pub vips: ChangeCounts,
    /// Pools, by name: their settings and checks.
    pub pools: ChangeCounts,
    /// Backends, by pool and name.
    pub backends: ChangeCounts,
}

/// What of one kind differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeCounts {
    /// Those that are new.
    pub added: usize,
    /// Those that are others than before.
    pub changed: usize,
    /// Those that are gone.
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
        let told = kinds.into_iter().filter_map(|(kind, ChangeCounts { added, changed, removed })| {
            let counts = [(added, "added"), (changed, "changed"), (removed, "removed")];
            let counts = counts.into_iter().filter(|(count, _)| **count > 0);
            let counts: Vec<_> = counts.map(|(count, what)| format!("{count} {what}")).collect();
            (!counts.is_empty()).then(|| format!("{kind} {}", counts.join(", ")))
        });
        let told: Vec<_> = told.collect();
        if told.is_empty() { f.write_str("no change") } else { f.write_str(&told.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_said_by_kind() {
        let counts = |added, changed, removed| Counts { added, changed, removed };
        let found = Difference { vips: counts(0, 0, 1), pools: counts(1, 1, 0), backends: counts(0, 1, 1) };
        let expected = "VIPs 1 removed; pools 1 added, 1 changed; backends 1 changed, 1 removed";
        assert_eq!(Changes::from(found).to_string(), expected);
        assert_eq!(Changes::from(Difference::default()).to_string(), "no change");
    }
}
