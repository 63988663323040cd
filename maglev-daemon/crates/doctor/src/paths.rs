//! The paths to backends, VIPs and BGP neighbors: their next hops and MTUs. It must not know how a next hop is found.

use std::collections::BTreeMap;

use super::facts::{Hop, Path, Probe};
use super::report::{Report, few, page};

/// The longest packet of clients behind an ordinary link.
const CLIENTS: u32 = 1_500;

/// Adds the findings about the paths to backends.
pub(crate) fn check_backends(paths: &[Path], report: &mut Report) {
    if paths.is_empty() {
        return report.ok("backends", "there are none", page::NEXT_HOPS);
    }
    unresolved(paths, "backends", page::NEXT_HOPS, report);
    let hops: Vec<_> = paths.iter().filter_map(|path| Some((path, path.hop.as_ref().ok()?))).collect();
    let unlisted = hops.iter().filter(|(_, hop)| !hop.is_listed);
    for (interface, names) in grouped(unlisted.map(|(path, hop)| (hop.interface.clone(), name(path)))) {
        let found = format!("routed via {interface}, which is not listed in `interfaces`: {}", few(&names));
        let remedy = format!("add {interface} to `interfaces` in maglev.yaml, or route them via one that is there");
        report.error("backends", found, remedy, page::NEXT_HOPS);
    }
    check_mtus(&hops, report);
    if hops.len() == paths.len() && hops.iter().all(|(_, hop)| hop.is_listed) {
        report.ok("backends", format!("all {} have a next hop", paths.len()), page::NEXT_HOPS);
    }
}

/// The MTU of each path, as a probe has measured it, or else as interface and route say.
fn check_mtus(hops: &[(&Path, &Hop)], report: &mut Report) {
    let lost = hops.iter().filter(|(_, hop)| hop.probe == Probe::Lost);
    for (mtu, names) in grouped(lost.map(|(path, hop)| (hop.mtu, name(path)))) {
        let found =
            format!("packets of {mtu} bytes, the MTU of interface and route, are lost on the way to {}", few(&names));
        let remedy =
            "raise the MTU of the links between, or name the smaller one: `mtu` beside the backend in services.yaml";
        report.error("path MTU", found, remedy, page::MTU);
    }
    let short = hops.iter().filter(|(path, hop)| hop.mtu < CLIENTS + path.overhead);
    for ((mtu, needed), names) in grouped(short.map(|(path, hop)| ((hop.mtu, CLIENTS + path.overhead), name(path)))) {
        let found = format!(
            "it is {mtu} to {}: clients' packets of {CLIENTS} bytes need {needed} with the outer header",
            few(&names)
        );
        let remedy = format!(
            "give interfaces and routes to these backends an MTU of at least {needed}, or have the backends lower the MSS: \
             `maglevd decap --mss auto`"
        );
        report.warn("path MTU", found, remedy, page::MTU);
    }
    let is_well = |(path, hop): &&(&Path, &Hop)| hop.mtu >= CLIENTS + path.overhead && hop.probe != Probe::Lost;
    let well: Vec<_> = hops.iter().filter(is_well).map(|(_, hop)| *hop).collect();
    let Some(least) = well.iter().map(|hop| hop.mtu).min() else { return };
    let measured = well.iter().filter(|hop| hop.probe == Probe::Passed).count();
    let reason = well.iter().find_map(|hop| match &hop.probe {
        Probe::Unanswered => Some("no answer to probes"),
        Probe::NotSent(reason) => Some(reason.as_str()),
        Probe::Passed | Probe::Lost => None,
    });
    let reason = reason.map_or(String::new(), |reason| format!(" ({reason})"));
    let found = format!(
        "at least {least} to {} backends: {measured} measured by probes with DF, {} by interface and route alone{reason}",
        well.len(),
        well.len() - measured
    );
    report.ok("path MTU", found, page::MTU);
}

/// Adds the findings about the routes to VIPs that checks are sent to.
pub(crate) fn check_vips(paths: &[Path], report: &mut Report) {
    if paths.is_empty() {
        return;
    }
    unresolved(paths, "routes to VIPs", page::CHECKS, report);
    let hops: Vec<_> = paths.iter().filter_map(|path| Some((path, path.hop.as_ref().ok()?))).collect();
    let unlisted = hops.iter().filter(|(_, hop)| !hop.is_listed);
    for (interface, names) in grouped(unlisted.map(|(path, hop)| (hop.interface.clone(), name(path)))) {
        let found = format!("routed via {interface}, which is not listed in `interfaces`: {}", few(&names));
        let remedy = "add a route to the VIPs through a gateway on one of `interfaces`";
        report.error("routes to VIPs", found, remedy, page::CHECKS);
    }
    if hops.len() == paths.len() && hops.iter().all(|(_, hop)| hop.is_listed) {
        report.ok("routes to VIPs", format!("checks can be sent to all {}", paths.len()), page::CHECKS);
    }
}

/// Adds the findings about the routes to BGP neighbors.
pub(crate) fn check_neighbors(paths: &[Path], report: &mut Report) {
    if paths.is_empty() {
        return;
    }
    unresolved(paths, "BGP neighbors", page::BGP, report);
    if paths.iter().all(|path| path.hop.is_ok()) {
        report.ok("BGP neighbors", format!("all {} have a next hop", paths.len()), page::BGP);
    }
}

/// The paths without a next hop, by the reason.
fn unresolved(paths: &[Path], subject: &str, document: &str, report: &mut Report) {
    let failed = paths.iter().filter_map(|path| Some((path.hop.as_ref().err()?.clone(), name(path))));
    for (reason, names) in grouped(failed) {
        let remedy = remedy(&reason);
        report.error(subject, format!("{reason}: {}", few(&names)), remedy, document);
    }
}

/// The remedy for an unresolved next hop, by the words of its reason.
fn remedy(reason: &str) -> &'static str {
    if reason.contains("no route") {
        "add a route (`ip route add`) via one of `interfaces`"
    } else if reason.contains("is down") {
        "`ip link set dev NAME up`"
    } else if reason.contains("no carrier") {
        "check the cable and the switch's port"
    } else if reason.contains("is an address of this host") {
        "give this machine another address: it is both node and destination"
    } else if reason.contains("blackhole") {
        "remove the blackhole, unreachable or prohibit route"
    } else {
        "check that the neighbor is up, on this link, and answers ARP or neighbor discovery (`ip neighbor`)"
    }
}

fn name(Path { to, address, .. }: &Path) -> String {
    format!("{to} ({address})")
}

fn grouped<K: Ord>(found: impl Iterator<Item = (K, String)>) -> BTreeMap<K, Vec<String>> {
    let mut groups = BTreeMap::<K, Vec<String>>::new();
    found.for_each(|(key, name)| groups.entry(key).or_default().push(name));
    groups
}
