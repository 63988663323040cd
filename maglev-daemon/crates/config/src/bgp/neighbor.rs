//! A neighbor of the `bgp` section, and which of its keys fit together. It must not know sessions.

use std::collections::BTreeSet;
use std::net::IpAddr;

use maglev_model::bgp::{HOLD_TIME, Neighbor, PORT, Password, Role};
use maglev_model::{Name, not_unicast, parse_address, shown};

use super::values::{AS_NUMBERS, decode_communities, optional, parse_as, parse_prepend, parse_u32, seconds};
use crate::decode::{self, Field};
use crate::origin::{Origin, decode_path};

/// A node has at most this many neighbors.
const MAX_NEIGHBORS: usize = 64;

const KEYS: [&str; 19] = [
    "name",
    "address",
    "remote_as",
    "source",
    "port",
    "password_file",
    "multihop",
    "gtsm",
    "hold_time",
    "keepalive",
    "families",
    "next_hop",
    "next_hop6",
    "communities",
    "med",
    "prepend",
    "local_pref",
    "role",
    "passive",
];

pub(super) fn decode_neighbors(field: &Field<'_>, local_as: Option<u32>, origin: Origin<'_>) -> Option<Vec<Neighbor>> {
    let items = field.items()?;
    if !(1..=MAX_NEIGHBORS).contains(&items.len()) {
        field.report(format_args!("{} neighbors; allowed: 1 to {MAX_NEIGHBORS}", items.len()));
        return None;
    }
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    let decoded = items.iter().map(|item| {
        let neighbor = decode_neighbor(item, local_as, origin)?;
        if !addresses.insert(neighbor.address) {
            item.report(format_args!("{} is the address of an earlier neighbor too", neighbor.address));
        } else if !names.insert(neighbor.name.clone()) {
            item.report(format_args!("{} is the name of an earlier neighbor too", neighbor.name));
        }
        Some(neighbor)
    });
    // Each is decoded before any missing one is noticed, so that all errors are reported.
    decoded.collect::<Vec<_>>().into_iter().collect()
}

fn decode_neighbor(field: &Field<'_>, local_as: Option<u32>, origin: Origin<'_>) -> Option<Neighbor> {
    let section = field.section(&KEYS, &[])?;
    let address = section.need("address", "the neighbor's IP address").and_then(|field| field.parse(parse_neighbor));
    let remote_as = section.need("remote_as", AS_NUMBERS).and_then(|field| field.parse(parse_as));
    let flag = |key| section.get(key).map_or(Some(false), |field| field.boolean());
    let number = |key, most| optional(&section, key, |text| decode::parse_number(text, most));
    let address_of = |key| optional(&section, key, parse_neighbor);

    let name = optional(&section, "name", |text| Name::parse(text).map(|name| name.as_str().to_owned()));
    let (source, next_hop, next_hop6) = (address_of("source"), address_of("next_hop"), address_of("next_hop6"));
    let port = number("port", 65_535);
    let password = section.get("password_file").map_or(Some(None), |field| decode_password(&field, origin).map(Some));
    let (multihop, prepend) = (number("multihop", 254), optional(&section, "prepend", parse_prepend));
    let hold_time = optional(&section, "hold_time", parse_hold_time);
    let keepalive = optional(&section, "keepalive", parse_keepalive);
    let families = section.get("families").map_or(Some(None), |field| decode_families(&field).map(Some));
    let communities = decode_communities(&section);
    let (med, local_pref) = (optional(&section, "med", parse_u32), optional(&section, "local_pref", parse_u32));
    let role = optional(&section, "role", str::parse::<Role>);
    let (gtsm, passive) = (flag("gtsm"), flag("passive"));

    let (address, next_hop6) = (address?, next_hop6?);
    let own = (address.is_ipv4(), address.is_ipv6() || next_hop6.is_some());
    let (ipv4, ipv6) = families?.unwrap_or(own);
    let neighbor = Neighbor {
        name: name?.unwrap_or_else(|| address.to_string()),
        address,
        remote_as: remote_as?,
        source: source?,
        port: port?.map_or(PORT, |port| port as u16),
        password: password?,
        multihop: multihop?.map(|hops| hops as u8),
        gtsm: gtsm?,
        hold_time: hold_time?.unwrap_or(HOLD_TIME),
        keepalive: keepalive?,
        ipv4: ipv4 || next_hop?.is_some(),
        ipv6,
        next_hop: next_hop?,
        next_hop6,
        communities: communities?,
        med: med?,
        prepend: prepend?.unwrap_or(0) as u8,
        local_pref: local_pref?,
        role: role?,
        passive: passive?,
    };
    section.accept(check(&neighbor, local_as))?;
    Some(neighbor)
}

/// Checks keys that are valid alone but not together.
fn check(neighbor: &Neighbor, local_as: Option<u32>) -> Result<(), String> {
    let Neighbor { address, source, hold_time, keepalive, ipv4, ipv6, next_hop6, prepend, local_pref, role, .. } =
        neighbor;
    if let Some(source) = source.filter(|source| source.is_ipv4() != address.is_ipv4()) {
        return Err(format!("source {source} and address {address} are of different families"));
    }
    if let Some(next_hop) = next_hop6.filter(IpAddr::is_ipv4) {
        return Err(format!("next_hop6 {next_hop} is IPv4; IPv6 prefixes need an IPv6 next hop"));
    }
    if *ipv6 && address.is_ipv4() && next_hop6.is_none() {
        return Err("IPv6 prefixes over an IPv4 session need next_hop6, our IPv6 address towards the neighbor".into());
    }
    if !ipv4 && !ipv6 {
        return Err("families is empty; allowed: ipv4, ipv6".into());
    }
    if let Some(keepalive) = keepalive.filter(|keepalive| *hold_time > 0 && keepalive >= hold_time) {
        return Err(format!("keepalive {keepalive}s is not below hold_time {hold_time}s"));
    }
    let Some(local_as) = local_as else { return Ok(()) };
    let internal = local_as == neighbor.remote_as;
    if !internal && local_pref.is_some() {
        return Err(format!("local_pref is for neighbors in AS {local_as}; this one is in {}", neighbor.remote_as));
    }
    if internal && (*prepend > 0 || role.is_some()) {
        return Err(format!("prepend and role are for neighbors in other ASes; this one is in {local_as} too"));
    }
    Ok(())
}

/// Whether IPv4 and IPv6 are among the families.
fn decode_families(field: &Field<'_>) -> Option<(bool, bool)> {
    let parse = |text: &str| match text {
        "ipv4" => Ok(false),
        "ipv6" => Ok(true),
        _ => Err(format!("{} is not a family; allowed: ipv4, ipv6", shown(text))),
    };
    let items = field.items()?;
    let families: Option<Vec<bool>> =
        items.iter().map(|item| item.parse(parse)).collect::<Vec<_>>().into_iter().collect();
    families.map(|families| (families.contains(&false), families.contains(&true)))
}

/// The password in a file. No report shows any part of it.
fn decode_password(field: &Field<'_>, Origin { file, read_secret }: Origin<'_>) -> Option<Password> {
    let path = decode_path(field, file)?;
    let text = field.accept(read_secret(&path))?;
    let password = Password::new(text.trim_end_matches(['\n', '\r']));
    field.accept(password.ok_or_else(|| {
        format!("{} holds no password; expected one line of 1 to {} characters", path.display(), Password::MAX)
    }))
}

fn parse_neighbor(text: &str) -> Result<IpAddr, String> {
    let address = parse_address(text).map_err(|error| error.to_string())?;
    match not_unicast(address).filter(|_| !address.is_loopback()) {
        Some(kind) => Err(format!("{address} is {kind}; no packet is sent there")),
        None => Ok(address),
    }
}

fn parse_hold_time(text: &str) -> Result<u16, String> {
    let found = seconds(text, 3, 65_535).or_else(|| seconds(text, 0, 0));
    found.ok_or_else(|| {
        format!("{} is not a hold time; allowed: 0s (never), or 3s to 65535s in whole seconds", shown(text))
    })
}

fn parse_keepalive(text: &str) -> Result<u16, String> {
    let found = seconds(text, 1, 21_845);
    found.ok_or_else(|| {
        format!("{} is not a time between KEEPALIVEs; allowed: 1s to 21845s in whole seconds", shown(text))
    })
}
