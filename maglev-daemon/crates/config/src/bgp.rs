//! The `bgp` section of `maglev.yaml`: this node's AS and router id, and the neighbors. It must not know sessions.

mod neighbor;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use maglev_model::bgp::{Bgp, OnDrain, OnStop};
use maglev_model::{Community, shown};

use super::decode::Field;
use super::origin::Origin;
use neighbor::decode_neighbors;
pub(super) use values::decode_communities;
use values::{AS_NUMBERS, optional, parse_as, parse_prepend, parse_u32, seconds};

/// For how long neighbors keep our prefixes while we restart, by default: the value that most of them suggest.
const RESTART_TIME: u16 = 120;

/// What the packet path does without the daemon, as far as neighbors depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outlives {
    /// It keeps forwarding when the daemon is killed.
    pub(super) killed: bool,
    /// It keeps forwarding when the daemon is stopped.
    pub(super) stopped: bool,
}

/// Reads the section.
pub(super) fn decode(field: &Field<'_>, origin: Origin<'_>, outlives: Outlives) -> Option<Bgp> {
    const KEYS: [&str; 8] = [
        "local_as",
        "router_id",
        "communities",
        "link_bandwidth",
        "on_stop",
        "on_drain",
        "graceful_restart",
        "neighbors",
    ];
    let section = field.section(&KEYS, &[])?;
    let local_as = section.need("local_as", AS_NUMBERS).and_then(|field| field.parse(parse_as));
    let router_id = section.need("router_id", "such as 10.0.0.11").and_then(|field| field.parse(parse_router_id));
    let communities = decode_communities(&section);
    let link_bandwidth = optional(&section, "link_bandwidth", parse_bandwidth);
    let on_drain = section.get("on_drain").map_or(Some(OnDrain::default()), |field| decode_on_drain(&field));
    let usual = outlives.killed.then_some(RESTART_TIME);
    let graceful_restart = section.get("graceful_restart").map_or(Some(usual), |field| field.parse(parse_restart));
    let keeps = outlives.stopped && graceful_restart.is_some_and(|time| time.is_some());
    let usual = if keeps { OnStop::Keep } else { OnStop::Withdraw };
    let on_stop = section.get("on_stop").map_or(Some(usual), |field| field.parse(parse_on_stop));
    let neighbors = section
        .need("neighbors", "a list such as [{ address: 10.0.0.1, remote_as: 65000 }]")
        .and_then(|field| decode_neighbors(&field, local_as, origin));
    section.accept(check_outlives(on_stop?, graceful_restart?, outlives))?;
    let (local_as, mut communities) = (local_as?, communities?);
    if let Some(bytes) = link_bandwidth? {
        section.accept(check_one_bandwidth(&communities))?;
        communities.insert(Community::bandwidth(local_as, bytes));
    }
    Some(Bgp {
        local_as,
        router_id: router_id?,
        communities,
        on_stop: on_stop?,
        on_drain: on_drain?,
        graceful_restart: graceful_restart?,
        neighbors: neighbors?,
    })
}

/// Neighbors must not keep prefixes whose packets are not forwarded.
fn check_outlives(on_stop: OnStop, graceful_restart: Option<u16>, outlives: Outlives) -> Result<(), String> {
    let Outlives { killed, stopped } = outlives;
    if graceful_restart.is_some() && !killed {
        return Err("graceful_restart makes neighbors send packets while they are not forwarded: it needs \
                    dataplane.pin; allowed with `pin: off`: off"
            .into());
    }
    if on_stop == OnStop::Keep && graceful_restart.is_none() {
        return Err("on_stop: keep needs graceful_restart, or neighbors drop every prefix at once".into());
    }
    if on_stop == OnStop::Keep && !stopped {
        return Err("on_stop: keep makes neighbors send packets while they are not forwarded: it needs \
                    `dataplane: { on_stop: keep }`; allowed with detach: withdraw"
            .into());
    }
    Ok(())
}

/// A prefix has one bandwidth.
fn check_one_bandwidth(communities: &BTreeSet<Community>) -> Result<(), String> {
    match communities.iter().find(|community| community.is_bandwidth()) {
        Some(other) => {
            Err(format!("link_bandwidth and {other} in communities both set the bandwidth; allowed: one of them"))
        }
        None => Ok(()),
    }
}

/// What makes the node less preferred while it drains, beside the community.
fn decode_on_drain(field: &Field<'_>) -> Option<OnDrain> {
    let section = field.section(&["med", "prepend"], &[])?;
    let med = optional(&section, "med", parse_u32);
    let prepend = optional(&section, "prepend", parse_prepend);
    Some(OnDrain { med: med?, prepend: prepend?.unwrap_or(0) as u8 })
}

fn parse_on_stop(text: &str) -> Result<OnStop, String> {
    match text {
        "withdraw" => Ok(OnStop::Withdraw),
        "keep" => Ok(OnStop::Keep),
        _ => Err(format!("{} is not a stop action; allowed: withdraw, keep", shown(text))),
    }
}

fn parse_restart(text: &str) -> Result<Option<u16>, String> {
    match text {
        "off" => Ok(None),
        _ => seconds(text, 1, 4_095).map(Some).ok_or_else(|| {
            format!("{} is not a restart time; allowed: off, or 1s to 4095s in whole seconds", shown(text))
        }),
    }
}

fn parse_router_id(text: &str) -> Result<Ipv4Addr, String> {
    let found = text.parse::<Ipv4Addr>().ok().filter(|id| !id.is_unspecified());
    found.ok_or_else(|| {
        format!("{} is not a router id; allowed: four numbers such as 10.0.0.11, not all 0", shown(text))
    })
}

/// Bits a second with a unit; returns bytes a second, the unit of the community (RFC 10005).
fn parse_bandwidth(text: &str) -> Result<f32, String> {
    const UNITS: [(char, f32); 4] = [('K', 1e3), ('M', 1e6), ('G', 1e9), ('T', 1e12)];
    let unit = UNITS.iter().find_map(|(unit, bits)| Some((text.strip_suffix(*unit)?, bits / 8.0)));
    let digits = unit.filter(|(count, _)| count.bytes().all(|byte| byte.is_ascii_digit()));
    let found = digits.and_then(|(count, bytes)| Some((count.parse::<u16>().ok().filter(|count| *count > 0)?, bytes)));
    found.map(|(count, bytes)| f32::from(count) * bytes).ok_or_else(|| {
        format!("{} is not a bandwidth; allowed: 1 to 65535 with K, M, G or T bits a second, such as 10G", shown(text))
    })
}
