//! `maglev counters`: packets by outcome, and the traffic of each VIP and backend; or one counter's meaning and remedy.

use maglev_api::view::{BackendTraffic, Counter, Counters, InterfaceCounter, VipTraffic};
use maglev_model::runbook::{Entry, parse_balancer};

use super::output::{Printer, Text, bytes, table};
use super::{Client, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Explain one counter, without the daemon: its packets, the checks to make, and the remedy
    #[arg(id = "counter", long = "why", value_name = "COUNTER", value_parser = parse_balancer)]
    counter: Option<Entry>,
}

pub(super) fn run(args: &Args, client: &Client, printer: &Printer) -> Result<(), Failure> {
    match &args.counter {
        Some(entry) => printer.answer(entry),
        None => printer.answer(&client.get::<Counters>("/v1/counters")?),
    }
}

/// Counters of packets, each with its meaning.
pub(super) fn list(counters: &[Counter]) -> String {
    let row = |counter: &Counter| {
        let Counter { name, outcome, packets, help } = counter;
        [name.clone(), outcome.clone(), packets.to_string(), help.clone()]
    };
    table(["counter", "outcome", "packets", "meaning"], &["packets"], counters.iter().map(row))
}

impl Text for Counters {
    fn text(&self) -> String {
        let vip = |vip: &VipTraffic| {
            let VipTraffic { name, packets, bytes: count } = vip;
            [name.clone(), packets.to_string(), bytes(*count)]
        };
        let backend = |traffic: &BackendTraffic| {
            let BackendTraffic { pool, backend, packets, bytes: count } = traffic;
            [pool.clone(), backend.clone(), packets.to_string(), bytes(*count)]
        };
        let numbers = ["packets", "bytes"];
        let counters = list(&self.counters);
        let vips = table(["vip", "packets", "bytes"], &numbers, self.vips.iter().map(vip));
        let backends = table(["pool", "backend", "packets", "bytes"], &numbers, self.backends.iter().map(backend));
        format!("{counters}\n{vips}\n{backends}{}", lost(&self.interfaces))
    }
}

/// What was lost at interfaces; nothing if nothing was.
fn lost(interfaces: &[InterfaceCounter]) -> String {
    let row = |counter: &InterfaceCounter| {
        let InterfaceCounter { interface, source, name, packets } = counter;
        [interface.clone(), source.clone(), name.clone(), packets.to_string()]
    };
    let lost: Vec<_> = interfaces.iter().filter(|counter| counter.packets > 0).map(row).collect();
    if lost.is_empty() {
        return String::new();
    }
    format!("\n{}", table(["interface", "counted by", "lost", "packets"], &["packets"], lost.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_at_interfaces_are_shown_where_there_are_some() {
        let counter = |name: &str, packets| InterfaceCounter {
            interface: "eth0".into(),
            source: "driver".into(),
            name: name.into(),
            packets,
        };
        let shown = |interfaces| Counters { interfaces, ..Counters::default() }.text();
        assert_eq!(shown(vec![counter("tx_drops", 0)]), shown(vec![]));
        let text = shown(vec![counter("tx_drops", 7), counter("rx_errors", 0)]);
        let row = text.lines().last().unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(row, ["eth0", "driver", "tx_drops", "7"]);
        assert!(!text.contains("rx_errors"), "{text}");
    }
}
