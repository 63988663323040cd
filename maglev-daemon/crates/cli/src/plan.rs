//! `maglev plan`: a preview of a change.

use std::fmt::Write as _;

use clap::Subcommand;
use maglev_api::view::{NewBackend, Plan, PlanShare, PlannedReload, PlannedRollback, Proposal, StateOrder, Tracking};
use maglev_model::{Mtu, Name};

use super::changes::Change;
use super::flow_table;
use super::output::{Printer, Text, table};
use super::{Client, Failure};

#[derive(Debug, Subcommand)]
pub(super) enum PlanCommand {
    /// Preview a change to a backend, in the form of its command
    #[command(subcommand)]
    Backend(Backend),
    /// Preview `maglev reload`: numbers of added, changed and removed objects, and the reason if it would be refused
    Reload,
    /// Preview `maglev rollback`: numbers of added, changed and removed objects, and the reason if it would be refused
    Rollback {
        /// The revision
        revision: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Backend {
    /// Send a backend no new connections; it keeps those it has
    Drain {
        /// Its pool
        pool: Name,
        /// Its name
        name: Name,
        /// Even if it is the pool's last available backend
        #[arg(long)]
        force: bool,
    },
    #[command(flatten)]
    Change(Change),
}

pub(super) fn run(command: PlanCommand, client: &Client, printer: &Printer) -> Result<(), Failure> {
    let command = match command {
        PlanCommand::Backend(command) => command,
        PlanCommand::Rollback { revision } => {
            return printer.answer(&client.get::<PlannedRollback>(&format!("/v1/plan/rollback/{revision}"))?);
        }
        PlanCommand::Reload => return printer.answer(&client.get::<PlannedReload>("/v1/plan/reload")?),
    };
    let plan: Plan = client.post("/v1/plan", &proposal(command))?;
    printer.answer(&plan)?;
    if let Some(warning) = flow_table::warning(client, plan.active_flows) {
        eprintln!("{warning}");
    }
    Ok(())
}

fn proposal(command: Backend) -> Proposal {
    let state = |pool: Name, name: Name, order, force| Proposal::State {
        pool: pool.to_string(),
        name: name.to_string(),
        order,
        force,
    };
    match command {
        Backend::Drain { pool, name, force } => state(pool, name, StateOrder::Drain, force),
        Backend::Change(Change::Undrain { pool, name }) => state(pool, name, StateOrder::Undrain, false),
        Backend::Change(Change::Disable { pool, name, force }) => state(pool, name, StateOrder::Disable, force),
        Backend::Change(Change::Enable { pool, name }) => state(pool, name, StateOrder::Enable, false),
        Backend::Change(Change::Add { pool, name, address, weight, mtu }) => {
            let mtu = mtu.map(Mtu::bytes);
            let backend = NewBackend { name: name.to_string(), address, weight: weight.0, mtu };
            Proposal::Add { pool: pool.to_string(), backend }
        }
        Backend::Change(Change::Remove { pool, name, force }) => {
            Proposal::Remove { pool: pool.to_string(), name: name.to_string(), force }
        }
        Backend::Change(Change::Weight { pool, name, weight, force }) => {
            Proposal::Weight { pool: pool.to_string(), name: name.to_string(), weight: weight.0, force }
        }
    }
}

impl Text for Plan {
    fn text(&self) -> String {
        let Self { change, pool: _, backend, slots, moved_slots, collateral_slots, .. } = self;
        let Self { active_flows, tracking, cuts, backends, .. } = self;
        let mut rows = vec![
            ("change", change.clone()),
            ("slots moved", format!("{moved_slots} of {slots}, {collateral_slots} of them collateral")),
            ("active flows", format!("{active_flows} known on these slots{}", bound(*tracking))),
        ];
        if *cuts {
            let owns = backends.iter().any(|share| share.name == *backend && share.slots_before > 0);
            rows.push((
                "dropped",
                match owns {
                    true => format!("the connections of {backend}; drain it first to keep them"),
                    false => format!("the remaining connections of {backend}"),
                },
            ));
        }
        let mut text = String::new();
        for (name, value) in rows {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<14}{value}");
        }
        text + "\n" + &shares(backends)
    }
}

impl Text for PlannedReload {
    fn text(&self) -> String {
        let Self { restart_needed, changes, refused, neighbors, data_plane } = self;
        let mut text = format!("would change: {changes}\n");
        neighbors.iter().for_each(|neighbor| text += &format!("would change: {neighbor}\n"));
        if !data_plane.is_empty() {
            text += &format!("would change: data plane: {} changed, connections go on\n", data_plane.join(", "));
        }
        if !restart_needed.is_empty() {
            text += &format!("needs a restart: {} in the node file\n", restart_needed.join(", "));
        }
        if let Some(refused) = refused {
            text += &format!("would be refused: {refused}\n");
        }
        text
    }
}

impl Text for PlannedRollback {
    fn text(&self) -> String {
        let Self { changes, refused } = self;
        let refused = refused.as_ref().map(|why| format!("would be refused: {why}\n")).unwrap_or_default();
        format!("would change: {changes}\n{refused}")
    }
}

/// The note that the number of flows is a lower bound, if it is.
const fn bound(tracking: Tracking) -> &'static str {
    match tracking {
        Tracking::Always => "",
        Tracking::Exception => "; there may be more: flows of settled slots are not recorded (tracking is exception)",
    }
}

fn shares(backends: &[PlanShare]) -> String {
    let row = |share: &PlanShare| {
        let PlanShare { name, slots_before, slots_after } = share;
        let change = i64::from(*slots_after) - i64::from(*slots_before);
        let change = if change == 0 { String::new() } else { format!("{change:+}") };
        [name.clone(), slots_before.to_string(), slots_after.to_string(), change]
    };
    let header = ["backend", "slots", "slots after", "change"];
    table(header, &["slots", "slots after", "change"], backends.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_api::view::{ChangeCounts, Changes, NeighborChange, SessionChange};

    fn plan() -> Plan {
        let share = |name: &str, slots_before, slots_after| PlanShare { name: name.into(), slots_before, slots_after };
        Plan {
            change: "remove backend web3 from pool web".into(),
            pool: "web".into(),
            backend: "web3".into(),
            slots: 65_537,
            moved_slots: 22_000,
            collateral_slots: 155,
            active_flows: 312,
            tracking: Tracking::Exception,
            cuts: true,
            backends: vec![share("web1", 21_846, 32_769), share("web10", 0, 0), share("web3", 21_845, 0)],
        }
    }

    #[test]
    fn a_plan_shows_slots_flows_and_shares() {
        let text = "\
change        remove backend web3 from pool web
slots moved   22000 of 65537, 155 of them collateral
active flows  312 known on these slots; there may be more: flows of settled slots are not recorded \
(tracking is exception)
dropped       the connections of web3; drain it first to keep them

BACKEND  SLOTS  SLOTS AFTER  CHANGE
web1     21846        32769  +10923
web10        0            0
web3     21845            0  -21845
";
        assert_eq!(plan().text(), text);
    }

    #[test]
    fn where_every_flow_is_tracked_the_number_is_all() {
        let text = Plan { tracking: Tracking::Always, cuts: false, ..plan() }.text();
        assert!(text.contains("312 known on these slots\n\n"), "{text}");
    }

    #[test]
    fn a_backend_without_slots_loses_its_remaining_connections() {
        let text = Plan { backend: "web10".into(), ..plan() }.text();
        assert!(text.contains("dropped       the remaining connections of web10\n"), "{text}");
    }

    #[test]
    fn a_planned_rollback_reads_like_a_planned_reload() {
        let changes = Changes { pools: ChangeCounts { removed: 1, ..ChangeCounts::default() }, ..Changes::default() };
        let planned = PlannedRollback { changes, refused: None };
        assert_eq!(planned.text(), "would change: pools 1 removed\n");
        let mut reload = PlannedReload { changes, ..PlannedReload::default() };
        assert_eq!(planned.text(), reload.text());
        let (name, session, keys) = ("tor1".to_owned(), SessionChange::Reset, vec!["hold_time".to_owned()]);
        reload.neighbors.push(NeighborChange { name, session, keys });
        let line = "would change: BGP neighbor tor1: hold_time changed, the session begins anew\n";
        assert_eq!(reload.text(), planned.text() + line);
        reload.data_plane = vec!["interfaces".to_owned(), "encap".to_owned()];
        let line = line.to_owned() + "would change: data plane: interfaces, encap changed, connections go on\n";
        assert_eq!(reload.text(), planned.text() + &line);
        let refused = PlannedRollback { refused: Some("it is the last backend".to_owned()), ..planned };
        assert_eq!(refused.text(), "would change: pools 1 removed\nwould be refused: it is the last backend\n");
    }
}
