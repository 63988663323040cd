//! The package in an emulated machine with Debian and systemd: installed, upgraded, rolled back, restarted, rebooted, cut off its power
//! and purged, while connections are held and begun through it. Another node beside it serves while it is away. In the suite some of the
//! rows.
//!
//! Each row starts where the last one ended.

use anyhow::{Context as _, Result};
use maglev_e2e::{
    lab::skip,
    machine::{Hardware, Node},
    matrix::{Matrix, is_full},
};

/// What a row does, and what it says.
type Case = dyn Fn(&mut Node) -> Result<String>;

/// A row: its subject, its name, whether it is among the suite's, and what it does.
type Row<'a> = (&'a str, &'a str, bool, &'a Case);

/// An upgrade that is refused with a bad configuration, and then goes to other sizes of the forwarding state and the flow table.
fn other_sizes(node: &mut Node) -> Result<String> {
    let sizes = "limits: { pools: 20 }\nflow_table: { flows: 100000 }\n";
    node.change_with_bad_config(1, sizes, &["limits", "flow_table"])
}

#[test]
fn a_package_in_a_machine_loses_nothing() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut node = Node::boot(Hardware::USUAL)?;
    let mut row = |subject: &str, name: &str, case: &Case| Matrix::Machines.row(subject, name, || case(&mut node));
    row("install", "apt install, configured as docs/deploy.md says", &Node::install)?;
    let rows: [Row<'_>; 11] = [
        ("install", "the unit is confined", true, &|node| node.machine.confined("maglevd")),
        ("upgrade", "apt install of the next release", true, &|node| node.change(1)),
        ("rollback", "apt install of the release before", false, &|node| node.change(0)),
        ("upgrade", "a bad configuration is refused; corrected, with other sizes of all maps", false, &other_sizes),
        ("rollback", "while a daemon started by hand holds the pins", false, &|node| node.change_beside_another(0)),
        ("restart", "systemctl restart maglevd", false, &|node| node.restart("systemctl restart maglevd")),
        ("restart", "killed, and started by systemd", false, &|node| {
            node.restart("systemctl kill --signal KILL maglevd")
        }),
        ("reboot", "drained by an operator, rebooted, put back", false, &Node::reboot_after_drain),
        ("reboot", "rebooted, drained by its unit", false, &Node::reboot),
        ("power", "power cut, and back at once", false, &Node::power_cut),
        ("purge", "apt remove, refused in service; after a drain; apt purge", false, &Node::purge),
    ];
    let mut rows = rows.into_iter().filter(|(_, _, always, _)| *always || is_full());
    rows.try_for_each(|(subject, name, _, case)| row(subject, name, case).context(name))
}
