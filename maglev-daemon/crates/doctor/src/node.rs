//! All checks of a node, in their order. It must not know how facts are read.

use maglev_api::view::Findings;

use super::facts::{Fact, Node, Path, Rehearsal};
use super::report::{Report, page};
use super::{daemon, files, host, interface, paths};

/// The findings about a node.
pub fn node(facts: &Node) -> Findings {
    let Node { config, files, host, daemon, .. } = facts;
    let mut report = Report::default();
    check_config(config.as_ref().err().map(Vec::as_slice), &mut report);
    files::check(files, &mut report);
    host::check(host, &mut report);
    // Without a configuration there is nothing to hold them against.
    if config.is_ok() {
        check_network(facts, &mut report);
    }
    if let Some(daemon) = daemon {
        daemon::check(daemon, config.as_ref().ok(), &mut report);
    }
    report.end()
}

fn check_network(facts: &Node, report: &mut Report) {
    let Node { host, interfaces, backends, vips, neighbors, conflicts, rehearsal, .. } = facts;
    match interfaces {
        Ok(interfaces) => {
            for interface in interfaces {
                interface::check(interface, &host.cpus, interface::Of::Node, report);
            }
        }
        Err(reason) => report.unchecked("interfaces", "the interfaces", reason),
    }
    each(backends, "backends", "the paths to backends", report, paths::check_backends);
    each(vips, "VIPs", "the routes to VIPs", report, paths::check_vips);
    each(neighbors, "BGP neighbors", "the routes to BGP neighbors", report, paths::check_neighbors);
    check_conflicts(conflicts, report);
    if let Some(rehearsal) = rehearsal {
        check_rehearsal(rehearsal, facts, report);
    }
}

fn each(fact: &Fact<Vec<Path>>, subject: &str, what: &str, report: &mut Report, check: fn(&[Path], &mut Report)) {
    match fact {
        Ok(paths) => check(paths, report),
        Err(reason) => report.unchecked(subject, what, reason),
    }
}

fn check_config(mistakes: Option<&[String]>, report: &mut Report) {
    match mistakes {
        None => report.ok("configuration", "maglev.yaml and services.yaml are valid", page::CONFIG),
        Some(mistakes) => {
            for mistake in mistakes {
                let remedy = "correct the file; `maglevd check` lists every mistake";
                report.error("configuration", mistake.clone(), remedy, page::CONFIG);
            }
        }
    }
}

fn check_conflicts(conflicts: &Fact<Vec<(String, String)>>, report: &mut Report) {
    match conflicts {
        Ok(conflicts) if conflicts.is_empty() => {
            report.ok("VIPs", "no VIP is an address that this node has or needs", page::VIP);
        }
        Ok(conflicts) => {
            for (vip, reason) in conflicts {
                let remedy = "remove the address from this node (`ip address del`), or give the VIP another one";
                report.error(&format!("VIP {vip}"), format!("it cannot be served: {reason}"), remedy, page::VIP);
            }
        }
        Err(reason) => report.unchecked("VIPs", "whether a VIP is an address of this node", reason),
    }
}

fn check_rehearsal(rehearsal: &Fact<Rehearsal>, facts: &Node, report: &mut Report) {
    let Rehearsal { refused, memory, exists } = match rehearsal {
        Ok(rehearsal) => rehearsal,
        Err(reason) => return report.unchecked("start", "what a start would do", reason),
    };
    if let Some(reason) = refused {
        let remedy = "remove the cause that the message names; `maglevd preflight` rehearses a start again";
        return report.error(
            "start",
            format!("the kernel or a driver refuses the programs: {reason}"),
            remedy,
            page::NODE,
        );
    }
    report.ok("start", "the kernel accepts the programs and maps", page::NODE);
    host::check_room(&facts.host.memory, if *exists { 0 } else { *memory }, *memory, report);
}
