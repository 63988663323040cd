//! `services.yaml`: pools with their backends, and VIPs. It must not know the disk.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use maglev_model::{
    AdminState, Affinity, Announce, AnnounceBy, Backend, Change, Mtu, Name, Pool, PoolHealth, PoolSettings, Ports,
    Protocol, Rules, Service, Services,
};
use maglev_model::{
    SettingsChange, TransitionSettings, UnixTime, Unserved, Vip, Weight, WrittenDuration, encap_word, shown_network,
    tracking_word, udp_word, unserved_word,
};
use maglev_model::{
    parse_address, parse_encap, parse_idle, parse_learning, parse_min_healthy, parse_network, parse_tracking,
    parse_udp, parse_unserved,
};

use super::decode::{Collector, Field, Section};
use super::health::{decode_health, write_health, write_override};
use super::{Problem, Problems, tree};

/// The message for a file without pools or VIPs: a key that is missing, or has no value, is more likely a mistake than an
/// order to remove everything.
const NO_POOLS: &str = "a list; write `pools: []` for none";
const NO_VIPS: &str = "a list; write `vips: []` for none";

/// The allowed values of a VIP's keys, for the message that one is missing.
const ADDRESSES: &str = "the VIP's IP address, or a prefix";
const PORTS: &str = "1 to 65535, a range such as 8000-8100, or any";
const PROTOCOLS: &str = "tcp, udp, sctp, udplite, esp, gre or any";

/// Reads the services. Each pool, backend and VIP is validated like an operator's change, so file and command line
/// follow the same rules.
///
/// # Errors
/// All errors, each with line and field.
pub fn decode(file: &Path, text: &str, rules: &Rules) -> Result<Services, Problems> {
    let root = tree::parse(file, text)?;
    if matches!(root.value, tree::Value::Null) {
        // More likely cut off by a full disk or an editor than meant as an order to remove everything.
        return Err(Problem::new(file, "empty; a file without services says `pools: []` and `vips: []`").into());
    }
    let out = Collector::new(file);
    let services = decode_root(&root, &out, Services::default(), rules);
    let problems = out.finish();
    if problems.is_empty() { Ok(services) } else { Err(problems) }
}

/// Adds a document's objects to services that were validated before.
pub(super) fn decode_root(root: &tree::Node, out: &Collector, mut services: Services, rules: &Rules) -> Services {
    if let Some(section) = Field::root(root, out).section(&["pools", "vips"], &[]) {
        for pool in section.need("pools", NO_POOLS).iter().filter_map(Field::items).flatten() {
            decode_pool(&pool, &mut services, rules);
        }
        let mut admission = services.vips_of_file(rules);
        for vip in section.need("vips", NO_VIPS).iter().filter_map(Field::items).flatten() {
            if let Some(decoded) = decode_vip(&vip) {
                vip.accept(admission.add(decoded));
            }
        }
    }
    services
}

fn decode_pool(field: &Field<'_>, services: &mut Services, rules: &Rules) {
    let known = [
        "name",
        "encap",
        "tracking",
        "transition",
        "min_healthy",
        "check",
        "panic",
        "slow_start",
        "on_all_dead",
        "backends",
    ];
    let Some(section) = field.section(&known, &[]) else { return };
    let name = section.need("name", "the pool's name").and_then(|name| name.parse(Name::parse));
    // A pool with invalid settings is replaced by a default one, so that its backends and VIPs are checked too.
    let settings = decode_settings(&section).unwrap_or_default();
    let health = decode_health(&section).unwrap_or_default();
    if let Some(name) = &name {
        let pool = Pool { settings, health, ..Pool::new(name.clone()) };
        field.accept(services.admit(Change::AddPool(pool), rules));
    }
    let mut admission = name.as_ref().map(|name| services.backends_of(name, rules));
    for item in section.get("backends").iter().filter_map(Field::items).flatten() {
        let backend = decode_backend(&item);
        if let (Some(admission), Some(backend)) = (&mut admission, backend) {
            item.accept(admission.add(backend));
        }
    }
}

fn decode_settings(pool: &Section<'_>) -> Option<PoolSettings> {
    let PoolSettings { tracking, transition, min_healthy, encap } = PoolSettings::default();
    let tracking = pool.get("tracking").map_or(Some(tracking), |field| field.parse(parse_tracking));
    let transition = pool.get("transition").map_or(Some(transition), |field| decode_transition(&field));
    let min_healthy = pool.get("min_healthy").map_or(Some(min_healthy), |field| field.parse(parse_min_healthy));
    let encap = pool.get("encap").map_or(Some(encap), |field| field.parse(parse_encap));
    Some(PoolSettings { tracking: tracking?, transition: transition?, min_healthy: min_healthy?, encap: encap? })
}

fn decode_transition(field: &Field<'_>) -> Option<TransitionSettings> {
    let section = field.section(&["learning", "idle", "udp"], &[])?;
    let TransitionSettings { learning, idle, udp } = TransitionSettings::default();
    let learning = section.get("learning").map_or(Some(learning), |field| field.parse(parse_learning));
    let idle = section.get("idle").map_or(Some(idle), |field| field.parse(parse_idle));
    let udp = section.get("udp").map_or(Some(udp), |field| field.parse(parse_udp));
    let settings = TransitionSettings { learning: learning?, idle: idle?, udp: udp? };
    field.accept(settings.check())?;
    Some(settings)
}

fn decode_backend(field: &Field<'_>) -> Option<Backend> {
    let section = field.section(&["name", "address", "weight", "state", "since", "check", "mtu"], &[])?;
    let name = section.need("name", "the backend's name").and_then(|name| name.parse(Name::parse));
    let address = section.need("address", "the backend's IP address").and_then(|address| address.parse(parse_address));
    let weight = match section.get("weight") {
        Some(weight) => weight.parse(Weight::parse),
        None => Some(Weight::DEFAULT),
    };
    let state = decode_state(&section);
    let mtu = match section.get("mtu") {
        Some(mtu) => Some(mtu.parse(str::parse::<Mtu>)?),
        None => None,
    };
    Some(Backend { name: name?, address: address?, weight: weight?, state: state?, mtu })
}

/// The state, and the time of the order if the file holds it.
fn decode_state(backend: &Section<'_>) -> Option<AdminState> {
    let state = match backend.get("state") {
        Some(state) => state.parse(str::parse::<AdminState>),
        None => Some(AdminState::Active),
    };
    let Some(since) = backend.get("since") else { return state };
    let time = since.parse(UnixTime::parse_seconds);
    match state? {
        AdminState::Active => since.accept(Err("only a draining or disabled backend has `since`; this one is active")),
        state => Some(state.set_at(time?)),
    }
}

fn decode_vip(field: &Field<'_>) -> Option<Vip> {
    let known = ["name", "address", "port", "protocol", "pool", "announce", "communities", "when_empty", "affinity"];
    let section = field.section(&known, &[])?;
    let name = section.need("name", "the VIP's name").and_then(|name| name.parse(Name::parse));
    let address = section.need("address", ADDRESSES).and_then(|address| address.parse(parse_network));
    let ports = section.need("port", PORTS).and_then(|port| port.parse(str::parse::<Ports>));
    let protocol = section.need("protocol", PROTOCOLS).and_then(|field| field.parse(str::parse::<Protocol>));
    let pool = section.need("pool", "the name of a pool").and_then(|pool| pool.parse(Name::parse));
    let by = section.get("announce").map_or(Some(AnnounceBy::default()), |field| field.parse(str::parse::<AnnounceBy>));
    let communities = super::bgp::decode_communities(&section);
    let when_empty = section.get("when_empty").map_or(Some(Unserved::default()), |field| field.parse(parse_unserved));
    let affinity =
        section.get("affinity").map_or(Some(Affinity::default()), |field| field.parse(str::parse::<Affinity>));
    let service = Service { network: address?, ports: ports?, protocol: protocol? };
    let announce = Announce { by: by?, communities: communities? };
    Some(Vip { name: name?, service, pool: pool?, announce, when_empty: when_empty?, affinity: affinity? })
}

/// Writes a pool as an item of the list of pools.
pub(super) fn write_pool(text: &mut String, pool: &Pool) -> std::fmt::Result {
    let Pool { name, settings, health, backends } = pool;
    writeln!(text, "  - name: {}", quoted(name))?;
    write_settings(text, &SettingsChange::from_default(settings))?;
    write_health(text, health)?;
    if backends.is_empty() {
        return writeln!(text, "    backends: []");
    }
    writeln!(text, "    backends:")?;
    for backend in backends.values() {
        write!(text, "      - ")?;
        write_backend(text, backend, health)?;
        writeln!(text)?;
    }
    Ok(())
}

fn write_backend(text: &mut String, backend: &Backend, health: &PoolHealth) -> std::fmt::Result {
    let Backend { name, address, weight, state, mtu } = backend;
    let (plain, address) = (quoted(name), quoted_address(*address));
    write!(text, "{{ name: {plain}, address: {address}, weight: {weight}")?;
    write_state(text, *state)?;
    write_override(text, health, name)?;
    if let Some(mtu) = mtu {
        write!(text, ", mtu: {mtu}")?;
    }
    write!(text, " }}")
}

/// Each pool, backend and VIP in one line with its settings, to compare two versions.
pub fn object_lines(services: &Services) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |name: String, write: &dyn Fn(&mut String) -> std::fmt::Result| {
        let mut text = format!("{name}: ");
        // Writing to a string cannot fail.
        let _ = write(&mut text);
        lines.push(text);
    };
    for pool in services.pools.values() {
        let Pool { name, settings, health, backends } = &**pool;
        line(format!("pool {name}"), &|text| {
            let mut fields = String::new();
            write_settings(&mut fields, &SettingsChange::from_default(settings))?;
            write_health(&mut fields, health)?;
            let fields: Vec<_> = fields.lines().map(str::trim).collect();
            write!(text, "{}", if fields.is_empty() { "default settings".to_owned() } else { fields.join(", ") })
        });
        for backend in backends.values() {
            line(format!("backend {name}/{}", backend.name), &|text| write_backend(text, backend, health));
        }
    }
    for vip in services.vips.values() {
        line(format!("VIP {}", vip.name), &|text| write_vip(text, vip));
    }
    lines
}

/// Settings are written where they are not the default ones.
fn write_settings(text: &mut String, settings: &SettingsChange) -> std::fmt::Result {
    let SettingsChange { tracking, learning, idle, udp, min_healthy, encap } = settings;
    if let Some(encap) = encap {
        writeln!(text, "    encap: {}", encap_word(*encap))?;
    }
    if let Some(tracking) = tracking {
        writeln!(text, "    tracking: {}", tracking_word(*tracking))?;
    }
    let transition = [
        learning.map(|learning| format!("learning: {}", WrittenDuration(learning))),
        idle.map(|idle| format!("idle: {}", WrittenDuration(idle))),
        udp.map(|udp| format!("udp: {}", udp_word(udp))),
    ];
    let transition: Vec<_> = transition.into_iter().flatten().collect();
    if !transition.is_empty() {
        writeln!(text, "    transition: {{ {} }}", transition.join(", "))?;
    }
    min_healthy.map_or(Ok(()), |number| writeln!(text, "    min_healthy: {number}"))
}

/// The state is written unless the backend is active.
fn write_state(text: &mut String, state: AdminState) -> std::fmt::Result {
    if state == AdminState::Active {
        return Ok(());
    }
    write!(text, ", state: {state}")?;
    state.since().map_or(Ok(()), |UnixTime(since)| write!(text, ", since: {since}"))
}

pub(super) fn write_vips(text: &mut String, services: &Services) -> std::fmt::Result {
    if services.vips.is_empty() {
        return writeln!(text, "vips: []");
    }
    writeln!(text, "vips:")?;
    for vip in services.vips.values() {
        write!(text, "  - ")?;
        write_vip(text, vip)?;
        writeln!(text)?;
    }
    Ok(())
}

fn write_vip(text: &mut String, vip: &Vip) -> std::fmt::Result {
    let Vip { name, service: Service { network, ports, protocol }, pool, announce, when_empty, affinity } = vip;
    let (name, address, pool) = (quoted(name), quoted_network(*network), quoted(pool));
    write!(text, "{{ name: {name}, address: {address}, port: {ports}, protocol: {protocol}, pool: {pool}")?;
    write_announce(text, announce)?;
    if *when_empty != Unserved::default() {
        write!(text, ", when_empty: {}", unserved_word(*when_empty))?;
    }
    if *affinity != Affinity::default() {
        write!(text, ", affinity: {affinity}")?;
    }
    write!(text, " }}")
}

/// The announcement is written unless it is the VIP's address without communities.
fn write_announce(text: &mut String, announce: &Announce) -> std::fmt::Result {
    let Announce { by, communities } = announce;
    match by {
        AnnounceBy::Address => {}
        AnnounceBy::Nothing => write!(text, ", announce: false")?,
        AnnounceBy::Prefix(prefix) => write!(text, ", announce: \"{prefix}\"")?,
    }
    if communities.is_empty() {
        return Ok(());
    }
    let communities: Vec<_> = communities.iter().map(|community| format!("\"{community}\"")).collect();
    write!(text, ", communities: [{}]", communities.join(", "))
}

/// A name, in quotes where a YAML parser could read it as a number, a boolean or null.
fn quoted(name: &Name) -> String {
    const RESERVED: [&str; 11] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "inf", "nan"];
    let text = name.as_str();
    let plain = text.starts_with(|first: char| first.is_ascii_alphabetic());
    if plain && !RESERVED.iter().any(|reserved| text.eq_ignore_ascii_case(reserved)) {
        return text.to_owned();
    }
    format!("\"{text}\"")
}

/// One address without its length. A prefix is quoted, as everywhere.
fn quoted_network(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        quoted_address(network.addr())
    } else {
        format!("\"{}\"", shown_network(network))
    }
}

fn quoted_address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"{address}\""),
    }
}
