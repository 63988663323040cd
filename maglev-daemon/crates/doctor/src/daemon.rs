//! What the running daemon says of itself against its files: sync, sessions, flow tables, saved state. It must not know how views are
//! made.

use maglev_api::view::{BgpNeighbor, Status};

use super::facts::{Config, Daemon};
use super::report::{Report, few, page};

/// Adds the findings about the daemon.
pub(crate) fn check(daemon: &Daemon, config: Option<&Config>, report: &mut Report) {
    let Daemon { status, sessions } = daemon;
    check_forwarding(status, report);
    check_sync(status, config, report);
    check_flow_table(status, report);
    check_checks(status, report);
    if let Some(config) = config {
        check_sessions(sessions, config, report);
    }
}

fn check_forwarding(status: &Status, report: &mut Report) {
    let detached = status.interfaces.iter().filter(|interface| !interface.attached);
    let detached: Vec<_> = detached.map(|interface| interface.name.clone()).collect();
    if !detached.is_empty() {
        let remedy = "the log names the cause (`journalctl -u maglevd`); the daemon retries every few seconds";
        report.error("forwarding", format!("the program is not attached to {}", few(&detached)), remedy, page::LATE);
    }
    match (&status.node.unable, status.node.state()) {
        (Some(reason), _) => {
            let remedy = "set an interface up, or attach the program: the findings about interfaces name the command";
            report.error("forwarding", format!("the node does not forward: {reason}"), remedy, page::LATE);
        }
        (None, "serving") if detached.is_empty() => report.ok("forwarding", "the node serves", page::FORWARDING),
        (None, "serving") => {}
        (None, state) => {
            let remedy = "`maglev node undrain` puts it back into service";
            report.warn("forwarding", format!("the node is {state} by order"), remedy, page::FORWARDING);
        }
    }
    if let Some(reason) = &status.state_not_saved {
        let remedy = "make the pin folder writable again: the next daemon has no history of transitions until then";
        report.error("state", format!("it is not saved: {reason}"), remedy, page::DIES);
    }
}

fn check_sync(status: &Status, config: Option<&Config>, report: &mut Report) {
    if let Some(failed) = &status.out_of_sync {
        let found = format!("the packet path is out of sync with the saved services: {}", failed.reason);
        report.error("services", found, "`maglev reload` retries at once; the log names the step", page::SYNC);
    }
    let Some(Config { services_digest, hash_key_digest, .. }) = config else { return };
    if status.hash_key_digest != *hash_key_digest {
        let remedy = "the same key on every node; a change needs a restart of a drained node";
        let found = "hash_key in maglev.yaml is not the key in use: after a restart every flow finds another slot";
        report.error("hash key", found, remedy, page::RELOAD);
    } else {
        report.ok("hash key", format!("digest {hash_key_digest}: compare it with the other nodes'"), page::CONFIG);
    }
    if status.services_digest != *services_digest {
        let found = "services.yaml was changed and is not loaded";
        report.warn("services", found, "`maglev plan reload`, then `maglev reload`", page::RELOAD);
    } else if status.out_of_sync.is_none() {
        report.ok(
            "services",
            format!("in sync, digest {services_digest}: compare it with the other nodes'"),
            page::SYNC,
        );
    }
}

fn check_flow_table(status: &Status, report: &mut Report) {
    let table = &status.flow_table;
    let remedy = "raise flow_table.flows in maglev.yaml; `maglev reload` applies it";
    let lost = table.flow_table_full + table.flow_evicted;
    if table.since.is_some() {
        let found = format!("they are too small: {lost} flows were not recorded or evicted");
        report.error("flow tables", found, remedy, page::FLOWS);
    } else if let Some(warning) = table.warning(status.pinned_flows()) {
        report.warn("flow tables", warning, remedy, page::FLOWS);
    } else {
        let found = format!("{} flows are pinned, and there is room for {}", status.pinned_flows(), table.room);
        report.ok("flow tables", found, page::FLOWS);
    }
}

fn check_checks(status: &Status, report: &mut Report) {
    if status.common_failure {
        let remedy = "check the node's own link, routes and rp_filter; then the backends";
        report.error("health checks", "every check fails at once, which points to this node", remedy, page::CHECKS);
    }
    if let Some(shortage) = &status.check_shortage {
        let found = format!("{} checks were not made: {}", shortage.checks, shortage.reason);
        report.warn("health checks", found, "raise the limit that the reason names", page::CHECKS);
    }
}

/// The sessions against the configuration.
fn check_sessions(sessions: &[BgpNeighbor], config: &Config, report: &mut Report) {
    for (name, _) in &config.neighbors {
        match sessions.iter().find(|session| session.name == *name) {
            None => {
                let found = "it is in maglev.yaml, and the daemon does not know it";
                report.warn(&format!("BGP {name}"), found, "`maglev reload`", page::BGP_CHANGES);
            }
            Some(session) if session.state != "established" => {
                let cause = session.last_error.as_deref().unwrap_or("no error yet");
                let found = format!("the session is not established ({}): {cause}", session.state);
                let remedy = "check address, AS number, password and TCP port 179 on both ends; `maglev bgp neighbors`";
                report.error(&format!("BGP {name}"), found, remedy, page::BGP);
            }
            Some(session) => {
                let found = format!("established, {} prefixes sent", session.prefixes_sent);
                report.ok(&format!("BGP {name}"), found, page::BGP);
            }
        }
    }
    let known = |session: &&BgpNeighbor| config.neighbors.iter().any(|(name, _)| *name == session.name);
    for session in sessions.iter().filter(|session| !known(session)) {
        let found = "the daemon has a session that maglev.yaml does not name any more";
        report.warn(&format!("BGP {}", session.name), found, "`maglev reload`", page::BGP_CHANGES);
    }
}
