//! All checks of a backend, in their order. It must not know how facts are read.

use std::net::IpAddr;

use ipnet::IpNet;
use maglev_api::view::Findings;

use super::facts::{Backend, DecapConfig, Device, Fact, Interface};
use super::report::{Report, page};
use super::{files, host, interface};

/// The longest packet of clients behind an ordinary link.
const CLIENTS: u32 = 1_500;

/// The findings about a backend.
pub fn backend(facts: &Backend) -> Findings {
    let Backend { config, files, host, interfaces, own, loopback } = facts;
    let mut report = Report::default();
    match config {
        Ok(_) => report.ok("configuration", "decap.yaml is valid", page::DECAP_CONFIG),
        Err(mistakes) => {
            for mistake in mistakes {
                let remedy = "correct the file; `maglevd decap --config FILE --check` lists every mistake";
                report.error("configuration", mistake.clone(), remedy, page::DECAP_CONFIG);
            }
        }
    }
    files::check(files, &mut report);
    host::check(host, &mut report);
    let config = config.as_ref().ok();
    let interfaces = match interfaces {
        Ok(interfaces) => interfaces.as_slice(),
        Err(reason) => {
            report.unchecked("interfaces", "the interfaces", reason);
            &[]
        }
    };
    let vips = config.and_then(|config| check_vips(config, own, loopback, &mut report)).unwrap_or_default();
    for found in interfaces {
        interface::check(found, &host.cpus, interface::Of::Backend, &mut report);
        if let Interface { name, device: Some(device), .. } = found {
            if vips.iter().any(|vip| matches!(vip, IpNet::V4(_))) {
                check_arp(name, device, &mut report);
            }
            if let Some(config) = config {
                check_mtu(name, device, config, &mut report);
            }
        }
    }
    if let Some(config) = config {
        check_sources(config, &mut report);
    }
    report.end()
}

/// Whether the VIPs are local. Returns them; `None` if that is not known.
fn check_vips(
    config: &DecapConfig,
    own: &Fact<Vec<(IpAddr, String)>>,
    loopback: &Fact<Vec<IpNet>>,
    report: &mut Report,
) -> Option<Vec<IpNet>> {
    let (own, loopback) = match (own, loopback) {
        (Ok(own), Ok(loopback)) => (own, loopback),
        (Err(reason), _) | (_, Err(reason)) => {
            report.unchecked("VIPs", "whether the VIPs are local", reason);
            return config.vips.clone();
        }
    };
    let usable = |net: &&IpNet| !net.addr().is_loopback() && !is_link_local(net.addr());
    let on_loopback: Vec<IpNet> = loopback.iter().filter(usable).copied().collect();
    let Some(named) = &config.vips else {
        if on_loopback.is_empty() {
            let found = "no VIP is on lo, and decap.yaml names none: every encapsulated packet is dropped";
            let remedy = "`ip address add VIP/32 dev lo` (IPv6: VIP/128 dev lo nodad), or `vips` in decap.yaml";
            report.error("VIPs", found, remedy, page::BACKEND);
        } else {
            report.ok("VIPs", format!("{} on lo", on_loopback.len()), page::BACKEND);
        }
        return Some(on_loopback);
    };
    for vip in named {
        let first = vip.addr();
        let local =
            own.iter().any(|(address, _)| vip.contains(address)) || loopback.iter().any(|net| net.contains(&first));
        if local {
            report.ok("VIPs", format!("{vip} is local"), page::BACKEND);
        } else {
            let found = format!("{vip} is on no interface: unwrapped packets for it are not received");
            let options = if first.is_ipv6() { " nodad" } else { "" };
            report.error("VIPs", found, format!("`ip address add {vip} dev lo{options}`"), page::BACKEND);
        }
    }
    Some(named.clone())
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// A VIP on `lo` must not be claimed on the link.
fn check_arp(name: &str, device: &Device, report: &mut Report) {
    let Device { arp_ignore, arp_announce, .. } = device;
    match arp_ignore {
        Ok(0) => {
            let found = "arp_ignore is 0: this backend answers ARP for the VIP, so that clients' packets may reach it past the load balancers";
            let remedy = "`sysctl -w net.ipv4.conf.all.arp_ignore=1`, and in /etc/sysctl.d";
            report.error(name, found, remedy, page::BACKEND);
        }
        Ok(value) => report.ok(name, format!("arp_ignore is {value}"), page::BACKEND),
        Err(reason) => report.unchecked(name, "arp_ignore", reason),
    }
    match arp_announce {
        Ok(value) if *value < 2 => {
            let found = format!("arp_announce is {value}: ARP requests may carry the VIP as their source");
            let remedy = "`sysctl -w net.ipv4.conf.all.arp_announce=2`, and in /etc/sysctl.d";
            report.error(name, found, remedy, page::BACKEND);
        }
        Ok(value) => report.ok(name, format!("arp_announce is {value}"), page::BACKEND),
        Err(reason) => report.unchecked(name, "arp_announce", reason),
    }
}

fn check_mtu(name: &str, device: &Device, config: &DecapConfig, report: &mut Report) {
    let DecapConfig { sources, lowers_mss, vips: _ } = config;
    let outer = if sources.iter().any(|source| matches!(source, IpNet::V6(_))) { 40 } else { 20 };
    let needed = CLIENTS + outer;
    if device.mtu >= needed || *lowers_mss {
        let how = if *lowers_mss { "the MSS is lowered" } else { "clients' packets fit with their outer header" };
        return report.ok(name, format!("MTU {}: {how}", device.mtu), page::MTU);
    }
    let found = format!("MTU {}: clients' packets of {CLIENTS} bytes need {needed} with the outer header", device.mtu);
    let remedy = format!("`ip link set dev {name} mtu {needed}`, or `mss: auto` in decap.yaml");
    report.warn(name, found, remedy, page::MTU);
}

fn check_sources(config: &DecapConfig, report: &mut Report) {
    let open: Vec<_> = config.sources.iter().filter(|source| source.prefix_len() == 0).collect();
    if open.is_empty() {
        let shown: Vec<_> = config.sources.iter().map(ToString::to_string).collect();
        return report.ok("sources", format!("packets are unwrapped from {}", shown.join(", ")), page::BACKEND);
    }
    let found = "packets from any source address are unwrapped: every host can send packets as any client";
    let remedy = "name the nodes' outer sources (`encap.source` in maglev.yaml) in `sources`";
    report.warn("sources", found, remedy, page::BACKEND);
}
