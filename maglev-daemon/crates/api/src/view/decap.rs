//! Decapsulation on a backend: its status, its counters, and the answer to a reload. It must not know how the service collects them.

use serde::{Deserialize, Serialize};

use super::{Counter, LastReload};

/// `GET /v1/decap/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecapStatus {
    /// The service's release.
    pub version: String,
    /// SHA-256 of the eBPF object, hexadecimal.
    pub object: String,
    /// Seconds since the service started.
    pub uptime_seconds: u64,
    /// The configuration file.
    pub file: String,
    /// The interfaces, in the order in which they were added.
    pub interfaces: Vec<DecapInterface>,
    /// The outer sources that packets are unwrapped from: addresses and prefixes.
    pub sources: Vec<String>,
    /// The VIPs that packets are unwrapped for: addresses and prefixes.
    pub vips: Vec<String>,
    /// Whether the VIPs are the addresses on the loopback device.
    pub vips_on_loopback: bool,
    /// Addresses on the loopback device beyond the limit of VIPs: packets for these are dropped.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub vips_beyond_limit: usize,
    /// `off`, `auto`, or the MSS for IPv4 in bytes.
    pub mss: String,
    /// The folder that programs, counters and links are pinned in; null if they end with the service.
    pub pin: Option<String>,
    /// Whether decapsulation goes on while the service is stopped.
    pub kept_on_stop: bool,
    /// Interfaces that are not in the file, on which an earlier process left decapsulation running.
    pub abandoned: Vec<String>,
    /// Changed fields of the file that need a restart.
    pub restart_needed: Vec<String>,
    /// Errors that are retried.
    pub problems: Vec<String>,
    /// The last reload, if there was one.
    pub last_reload: Option<LastReload>,
}

const fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// An interface that receives encapsulated packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecapInterface {
    /// Its name.
    pub name: String,
    /// `native` or `generic`: how the program is attached.
    pub mode: String,
    /// Whether the program is attached; otherwise the interface is awaited.
    pub attached: bool,
    /// Since when, in seconds since 1970, as far as this process knows; null if it is not attached.
    pub since: Option<u64>,
    /// Its index; 0 if it never existed.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The folder with the pinned maps; null if nothing is pinned.
    pub set: Option<String>,
    /// Whether program and counters were adopted from a previous process.
    pub adopted: bool,
    /// The reason why the pinned maps of a previous process were replaced, and its counters lost; absent if they were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<String>,
}

/// `GET /v1/decap/counters`: packets of all interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecapCounters {
    /// Packets by outcome.
    pub counters: Vec<Counter>,
}

/// `POST /v1/decap/reload`: the answer to a successful reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecapReloaded {
    /// What changed, a phrase each.
    pub changes: Vec<String>,
    /// Changed fields of the file that need a restart.
    pub restart_needed: Vec<String>,
}
