//! `services.yaml`: pools with their backends, and VIPs. It must not know the disk.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use super::decode::{Collector, Field};
use super::{Problem, Problems, tree};
use crate::model::{Backend, Change, Name, Pool, Protocol, Rules, Service, Services, Vip, Weight};
use crate::model::{parse_address, parse_port, shown};

/// Reads the services. Each pool, backend and VIP is admitted like a change of an operator's, so file and command line
/// follow the same rules.
///
/// # Errors
/// Everything that is wrong, each with line and field.
pub fn decode(file: &Path, text: &str, rules: &Rules) -> Result<Services, Problems> {
    let root = tree::parse(file, text)?;
    if matches!(root.value, tree::Value::Null) {
        // More likely cut off by a full disk or an editor than meant as an order to remove everything.
        return Err(Problem::of_file(file, "empty; a file without services says `pools: []` and `vips: []`").into());
    }
    let out = Collector::new(file);
    let mut services = Services::default();
    if let Some(section) = Field::root(&root, &out).section(&["pools", "vips"], &[]) {
        for pool in section.get("pools").iter().filter_map(Field::items).flatten() {
            decode_pool(&pool, &mut services, rules);
        }
        for vip in section.get("vips").iter().filter_map(Field::items).flatten() {
            decode_vip(&vip, &mut services, rules);
        }
    }
    let problems = out.finish();
    if problems.is_empty() { Ok(services) } else { Err(problems) }
}

fn decode_pool(field: &Field<'_>, services: &mut Services, rules: &Rules) {
    let later = ["check", "transition", "panic", "slow_start", "min_healthy"];
    let Some(section) = field.section(&["name", "tracking", "backends"], &later) else { return };
    if let Some(tracking) = section.get("tracking") {
        tracking.parse(|text| match text {
            "always" => Ok(()),
            _ => Err(format!("{} is not supported by this release; allowed: always", shown(text))),
        });
    }
    let name = section.need("name", "the pool's name").and_then(|name| name.parse(Name::parse));
    if let Some(name) = &name {
        field.accept(services.admit(Change::AddPool(Pool::new(name.clone())), rules));
    }
    for item in section.get("backends").iter().filter_map(Field::items).flatten() {
        let backend = decode_backend(&item);
        if let (Some(pool), Some(backend)) = (name.clone(), backend) {
            item.accept(services.admit(Change::AddBackend { pool, backend }, rules));
        }
    }
}

fn decode_backend(field: &Field<'_>) -> Option<Backend> {
    let section = field.section(&["name", "address", "weight"], &[])?;
    let name = section.need("name", "the backend's name").and_then(|name| name.parse(Name::parse));
    let address = section.need("address", "the backend's IP address").and_then(|address| address.parse(parse_address));
    let weight = match section.get("weight") {
        Some(weight) => weight.parse(Weight::parse),
        None => Some(Weight::DEFAULT),
    };
    Some(Backend { name: name?, address: address?, weight: weight? })
}

fn decode_vip(field: &Field<'_>, services: &mut Services, rules: &Rules) {
    let Some(section) = field.section(&["name", "address", "port", "protocol", "pool"], &[]) else { return };
    let name = section.need("name", "the VIP's name").and_then(|name| name.parse(Name::parse));
    let address = section.need("address", "the VIP's IP address").and_then(|address| address.parse(parse_address));
    let port = section.need("port", "1 to 65535, or any").and_then(|port| port.parse(parse_port));
    let protocol = section.need("protocol", "tcp or udp").and_then(|field| field.parse(str::parse::<Protocol>));
    let pool = section.need("pool", "the name of a pool").and_then(|pool| pool.parse(Name::parse));
    if let (Some(name), Some(address), Some(port), Some(protocol), Some(pool)) = (name, address, port, protocol, pool) {
        let vip = Vip { name, service: Service { address, port, protocol }, pool };
        field.accept(services.admit(Change::AddVip(vip), rules));
    }
}

/// Writes the services: pools, backends and VIPs in the order of their names, so the same services are the same bytes.
pub fn encode(services: &Services) -> String {
    let mut text = String::from(
        "# Services: the same on every node. maglevd rewrites this file with every change made by `maglev`;\n\
         # comments are not kept. After editing it by hand: `maglev reload`.\n",
    );
    // Writing to a string cannot fail.
    let _ = write_pools(&mut text, services).and_then(|()| write_vips(&mut text, services));
    text
}

fn write_pools(text: &mut String, services: &Services) -> std::fmt::Result {
    if services.pools.is_empty() {
        return writeln!(text, "pools: []");
    }
    writeln!(text, "pools:")?;
    for pool in services.pools.values() {
        writeln!(text, "  - name: {}", quoted(&pool.name))?;
        if pool.backends.is_empty() {
            writeln!(text, "    backends: []")?;
            continue;
        }
        writeln!(text, "    backends:")?;
        for Backend { name, address, weight } in pool.backends.values() {
            let (name, address) = (quoted(name), quoted_address(*address));
            writeln!(text, "      - {{ name: {name}, address: {address}, weight: {weight} }}")?;
        }
    }
    Ok(())
}

fn write_vips(text: &mut String, services: &Services) -> std::fmt::Result {
    if services.vips.is_empty() {
        return writeln!(text, "vips: []");
    }
    writeln!(text, "vips:")?;
    for Vip { name, service: Service { address, port, protocol }, pool } in services.vips.values() {
        let (name, address, pool) = (quoted(name), quoted_address(*address), quoted(pool));
        let port = port.map_or_else(|| "any".to_owned(), |port| port.to_string());
        let what = format_args!("address: {address}, port: {port}, protocol: {protocol}");
        writeln!(text, "  - {{ name: {name}, {what}, pool: {pool} }}")?;
    }
    Ok(())
}

/// A name, in quotes where some reader of YAML could take it for a number, a truth value or nothing.
fn quoted(name: &Name) -> String {
    const RESERVED: [&str; 11] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "inf", "nan"];
    let text = name.as_str();
    let plain = text.starts_with(|first: char| first.is_ascii_alphabetic());
    if plain && !RESERVED.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    format!("\"{text}\"")
}

fn quoted_address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"{address}\""),
    }
}
