//! The text of `maglev decap`.

use std::fmt::Write as _;

use maglev_api::view::{DecapCounters, DecapInterface, DecapReloaded, DecapStatus};
use maglev_model::{ShownDuration, UnixTime};

use super::status::{reload, section};
use crate::counters;
use crate::output::{Text, table};

impl Text for DecapStatus {
    fn text(&self) -> String {
        let mut text = facts(self);
        let abandoned = self.abandoned.iter().map(|name| {
            let pin = self.pin.as_deref().unwrap_or_default();
            let remedy = format!("list it, or `rm -r {pin}/{}`", name.replace('.', ":"));
            (
                "abandoned",
                format!(
                    "{name}: an earlier process left decapsulation running, and the file does not list it: {remedy}"
                ),
            )
        });
        let problems = self.problems.iter().map(|problem| ("problem", format!("{problem}; retrying")));
        let replaced = self.interfaces.iter().filter_map(|interface| {
            let reason = interface.replaced.as_ref()?;
            Some(("replaced", format!("{}: counters began anew: {reason}", interface.name)))
        });
        for (name, value) in replaced.chain(abandoned).chain(problems) {
            line(&mut text, name, &value);
        }
        section(&mut text, "Interfaces", &interfaces(&self.interfaces));
        text
    }
}

fn facts(status: &DecapStatus) -> String {
    let restart = &status.restart_needed;
    let rows = [
        ("version", status.version.clone()),
        ("object", status.object.clone()),
        ("up", ShownDuration::from_secs(status.uptime_seconds).to_string()),
        ("file", status.file.clone()),
        ("sources", list(&status.sources)),
        ("vips", vips(status)),
        ("mss", status.mss.clone()),
        ("pinned", pinned(status)),
        ("last reload", reload(status.last_reload.as_ref())),
        ("restart needed", if restart.is_empty() { "no".to_owned() } else { format!("for {}", restart.join(", ")) }),
    ];
    let mut text = String::new();
    rows.iter().for_each(|(name, value)| line(&mut text, name, value));
    text
}

fn line(text: &mut String, name: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{name:<16}{value}");
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

fn vips(status: &DecapStatus) -> String {
    let place = if status.vips_on_loopback { " (on lo)" } else { "" };
    let beyond = match status.vips_beyond_limit {
        0 => String::new(),
        beyond => format!("; {beyond} MORE ARE BEYOND THE LIMIT: their packets are dropped"),
    };
    format!("{}{place}{beyond}", list(&status.vips))
}

fn pinned(status: &DecapStatus) -> String {
    match (&status.pin, status.kept_on_stop) {
        (None, _) => "nothing: decapsulation ends with the service".to_owned(),
        (Some(pin), true) => format!("in {pin}; decapsulation goes on while the service is stopped"),
        (Some(pin), false) => format!("in {pin}; a stop detaches, a crash does not"),
    }
}

fn interfaces(interfaces: &[DecapInterface]) -> String {
    let row = |interface: &DecapInterface| {
        let DecapInterface { name, mode, attached, since, index, mtu, set: _, adopted, replaced: _ } = interface;
        let attached = match since.filter(|_| *attached) {
            Some(since) => format!("since {}", UnixTime(since)),
            None => "NO: awaited".to_owned(),
        };
        let adopted = if *adopted { "yes" } else { "no" };
        [name.clone(), mode.clone(), index.to_string(), mtu.to_string(), adopted.to_owned(), attached]
    };
    table(["name", "mode", "index", "mtu", "adopted", "attached"], &["index", "mtu"], interfaces.iter().map(row))
}

impl Text for DecapCounters {
    fn text(&self) -> String {
        counters::list(&self.counters)
    }
}

impl Text for DecapReloaded {
    fn text(&self) -> String {
        let Self { changes, restart_needed } = self;
        let changes = if changes.is_empty() { "no change".to_owned() } else { changes.join("; ") };
        let mut text = format!("reloaded: {changes}\n");
        if !restart_needed.is_empty() {
            text += &format!("these decap.yaml changes need a restart: {}\n", restart_needed.join(", "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_stands_in_the_status() {
        let interface = DecapInterface {
            name: "eth1".into(),
            mode: "native".into(),
            replaced: Some("map DECAP_VIPS4 is missing".into()),
            ..DecapInterface::default()
        };
        let status = DecapStatus {
            interfaces: vec![interface],
            vips_on_loopback: true,
            vips_beyond_limit: 3,
            abandoned: vec!["eth9".into()],
            pin: Some("/pins".into()),
            restart_needed: vec!["api.socket".into()],
            problems: vec!["eth1: cannot attach".into()],
            ..DecapStatus::default()
        };
        let text = status.text();
        for line in [
            "vips            none (on lo); 3 MORE ARE BEYOND THE LIMIT: their packets are dropped",
            "pinned          in /pins; a stop detaches, a crash does not",
            "abandoned       eth9: an earlier process left decapsulation running, and the file does not list it: list it, or `rm -r /pins/eth9`",
            "restart needed  for api.socket",
            "replaced        eth1: counters began anew: map DECAP_VIPS4 is missing",
            "problem         eth1: cannot attach; retrying",
            "  eth1  native      0    0  no       NO: awaited",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_reload_names_what_changed_and_what_did_not() {
        let reloaded = DecapReloaded { changes: vec![], restart_needed: vec![] };
        assert_eq!(reloaded.text(), "reloaded: no change\n");
        let changes = vec!["vips: 1 added".to_owned(), "mss: auto".to_owned()];
        let reloaded = DecapReloaded { changes, restart_needed: vec!["dataplane.pin".into()] };
        let expected = "reloaded: vips: 1 added; mss: auto\nthese decap.yaml changes need a restart: dataplane.pin\n";
        assert_eq!(reloaded.text(), expected);
    }
}
