//! The samples of output in the pages: each is what `maglev` prints for an answer that stands here. Reasons within an answer are the
//! daemon's words and stand here as text.

use maglev_api::view::{
    self, BackendState, BgpNeighbor, BgpNeighbors, BgpRoute, BgpRoutes, Explanation, NeighborChange, Plan, PlanShare,
    PlannedReload, SessionChange,
};
use maglev_api::{client::Received, testing};
use maglev_common::counters::Counter;
use maglev_model::{Name, runbook};
use maglev_testing::docs;

use crate::output::{Format, Text};
use crate::{backend, capture, events, interrupt, node, text, top};

#[test]
fn the_samples_in_the_pages_are_what_is_printed() {
    docs::hold_samples(&[
        ("status", prompted("maglev status", &status::whole().text())),
        ("status after an adoption", line_of(&status::adopted().text(), "forwarding")),
        ("events", prompted("maglev events --follow", &followed())),
        ("plan", prompted("maglev plan backend drain web web3", &plan().text())),
        ("plan reload", prompted("maglev plan reload", &plan_reload().text())),
        ("backend drain", backend_drain()),
        ("node drain", node_drain()),
        ("flow explain", prompted("maglev flow explain 198.51.100.2:40000 203.0.113.10:80 tcp", &explanation().text())),
        ("capture", capture()),
        ("capture read", capture_read()),
        ("bgp", bgp()),
        ("top", prompted("maglev top --once", &top::sample())),
        ("counters --why", explained("maglev counters --why too_big")),
        ("decap status", prompted("maglev decap status", &decap().text())),
    ]);
}

fn prompted(command: &str, output: &str) -> String {
    format!("# {command}\n{output}")
}

fn capture() -> String {
    let command = "maglev capture --vip www --outcome dropped -w lost.pcapng";
    prompted(command, &format!("^C{}\n", interrupt::line(&capture::summary(1, "lost.pcapng", Default::default()))))
}

/// What tshark prints of a file with this packet: its fields, and its comment.
fn capture_read() -> String {
    let counter = Counter::NoSuchVip;
    let (outcome, reason) = (counter.outcome().as_str().to_owned(), counter.name().to_owned());
    let comment = view::CapturedPacket { outcome, reason, ..view::CapturedPacket::default() };
    let command = "tshark -r lost.pcapng -T fields -e ip.src -e ip.dst -e tcp.dstport -e frame.comment";
    prompted(command, &format!("198.51.100.2\t203.0.113.10\t8443\t{comment}\n"))
}

fn explained(command: &str) -> String {
    let counter = command.split(' ').next_back().unwrap();
    prompted(command, &runbook::parse_balancer(counter).unwrap().text())
}

fn line_of(text: &str, name: &str) -> String {
    text.lines().find(|line| line.starts_with(name)).unwrap().to_owned() + "\n"
}

fn followed() -> String {
    let health = |health, reason: Option<&str>| view::What::BackendHealth {
        pool: "web".into(),
        backend: "web1".into(),
        health,
        reason: reason.map(str::to_owned),
    };
    let withdrawn = view::What::Prefix {
        prefix: "203.0.113.10/32".parse().unwrap(),
        announced: false,
        vips: vec!["www".into()],
        reason: Some("VIP www: pool web has 1 usable backends, fewer than its min_healthy 2".into()),
    };
    let happened = [
        (1_795_552_886_123, health(view::HealthState::Unhealthy, Some("HTTP 503"))),
        (1_795_552_886_124, withdrawn),
        (1_795_552_901_873, health(view::HealthState::Healthy, None)),
    ];
    let lines = happened.map(|(unix_milliseconds, what)| {
        let (level, text) = (what.level(), what.to_string());
        let event = view::Event { sequence: 0, unix_milliseconds, level, text, what };
        events::line(Format::Text, &Received::Event(Box::new(event)))
    });
    lines.concat()
}

fn plan() -> Plan {
    let share = |name: &str, slots_before, slots_after| PlanShare { name: name.into(), slots_before, slots_after };
    Plan {
        change: "drain backend web3 of pool web".into(),
        pool: "web".into(),
        backend: "web3".into(),
        slots: 65_537,
        moved_slots: 13_141,
        collateral_slots: 34,
        active_flows: 6_230,
        tracking: view::Tracking::Exception,
        cuts: false,
        backends: vec![share("web1", 39_323, 49_153), share("web3", 13_107, 0), share("web4", 13_107, 16_384)],
    }
}

fn plan_reload() -> PlannedReload {
    let neighbor = |name: &str, session, keys: &[&str]| NeighborChange {
        name: name.into(),
        session,
        keys: keys.iter().map(|&key| key.into()).collect(),
    };
    PlannedReload {
        restart_needed: vec!["hash_key".into()],
        data_plane: vec!["interfaces".into()],
        neighbors: vec![
            neighbor("tor3", SessionChange::Added, &[]),
            neighbor("tor1", SessionChange::Reset, &["hold_time"]),
        ],
        ..PlannedReload::default()
    }
}

fn backend_drain() -> String {
    let name = Name::parse("web3").unwrap();
    let left = |learning_slots, pinned_flows, learning_seconds_left| {
        let state = BackendState::Draining;
        let backend = view::Backend { state, learning_slots, pinned_flows, ..testing::backend("web3") };
        let in_transition = view::InTransition { learning_seconds_left, ..view::InTransition::default() };
        let pool = view::Pool { in_transition, ..testing::pool() };
        format!("{name}: {}\n", backend::drain::left(&pool, &backend))
    };
    let waits = [left(13_107, None, Some(120)), left(0, Some(2_897), None)].concat();
    let end = backend::drain::drained(&name);
    prompted("maglev backend drain web web3 --wait --timeout 20m", &format!("{waits}{end}\n"))
        + &prompted("maglev backend remove web web3", "backend web3 removed from pool web\n")
}

fn node_drain() -> String {
    let drained = testing::draining(view::Stage::Drained);
    let drain = drained.drain.as_ref().unwrap();
    let mut lines = node::news(&drained, drain, &mut None);
    lines.push(text::node::proof(&drained, drain));
    prompted("maglev node drain --wait --timeout 5m --reason \"new disk\"", &(lines.join("\n") + "\n"))
}

fn explanation() -> Explanation {
    Explanation {
        client: "198.51.100.2:40000".parse().unwrap(),
        service: "203.0.113.10:80".parse().unwrap(),
        protocol: view::Protocol::Tcp,
        outcome: "forwarded".into(),
        vip: Some("www".into()),
        pool: Some("web".into()),
        slot: Some(5_293),
        backend: Some("web1".into()),
        reason: "the backend owns the flow's slot; no flow table knows the flow".into(),
    }
}

fn bgp() -> String {
    // In the middle of an hour, so that the text is the same when the test is slow.
    let since = maglev_api::now().0 - (2 * 24 + 3) * 3_600 - 1_800;
    let neighbor = |name: &str| BgpNeighbor {
        name: name.into(),
        remote_as: 65_000,
        state: "established".into(),
        since,
        prefixes_sent: 1,
        ..BgpNeighbor::default()
    };
    let route = BgpRoute {
        prefix: "203.0.113.10/32".parse().unwrap(),
        announced: true,
        announced_to: 2,
        neighbors: 2,
        reason: None,
        vips: vec!["www".into()],
        communities: vec!["65010:100".into()],
    };
    prompted("maglev bgp neighbors", &BgpNeighbors(vec![neighbor("tor1"), neighbor("tor2")]).text())
        + &prompted("maglev bgp routes", &BgpRoutes(vec![route]).text())
}

fn decap() -> view::DecapStatus {
    let interface = view::DecapInterface {
        name: "eth0".into(),
        mode: "native".into(),
        attached: true,
        since: Some(1_767_225_600),
        index: 2,
        mtu: 1_500,
        set: Some("/sys/fs/bpf/maglev-decap/eth0/decap-v1".into()),
        adopted: true,
        replaced: None,
    };
    view::DecapStatus {
        version: "0.1.0".into(),
        object: "5c1c0a1d3c0c9c93a0bbf4f0ac6ba1a9f9b0a2f7b5f1d0c8e7d6b5a493827160".into(),
        uptime_seconds: 22,
        file: "/etc/maglev/decap.yaml".into(),
        interfaces: vec![interface],
        sources: vec!["10.64.0.0/16".into()],
        vips: vec!["203.0.113.10".into(), "2001:db8:113::10".into()],
        vips_on_loopback: true,
        mss: "auto".into(),
        pin: Some("/sys/fs/bpf/maglev-decap".into()),
        kept_on_stop: true,
        ..view::DecapStatus::default()
    }
}

/// The node of the manual: three backends, one of them on-link, and a VIP of each family.
mod status {
    use super::*;
    use maglev_api::view::{NextHop, Status};

    pub(super) fn whole() -> Status {
        Status {
            version: "0.1.0".into(),
            object: "066cc4f77d18200e691944e2992988b8d8c64c7ac86f9d1022729a82fd7e58b8".into(),
            uptime_seconds: 22,
            services_file: "/var/lib/maglev/services.yaml".into(),
            services_digest: "c44d770769e2".into(),
            hash_key_digest: "9b70a0bbe985".into(),
            memory: view::Memory { total_bytes: 100 << 20, maps: Vec::new() },
            forwarding: forwarding(false),
            flow_table: view::FlowTable { entries: 917_504, ..view::FlowTable::default() },
            bgp: Some(view::BgpSummary { neighbors: 1, established: 1, prefixes: 2, announced: 2 }),
            interfaces: [("eth0", 2), ("near", 3)].map(interface).into(),
            vips: vec![vip("www", "203.0.113.10"), vip("www6", "2001:db8:113::10")],
            pools: vec![pool()],
            backends: vec![
                backend(("web1", "10.3.1.2"), (300, 0.6), 400, "56:c8:c0:ef:0c:05"),
                backend(("web3", "10.4.0.13"), (100, 0.2), 300, "2e:12:88:7e:b9:d1"),
                backend(("web4", "10.3.4.2"), (100, 0.2), 400, "56:c8:c0:ef:0c:05"),
            ],
            ..Status::default()
        }
    }

    pub(super) fn adopted() -> Status {
        Status { forwarding: forwarding(true), ..whole() }
    }

    fn forwarding(adopted: bool) -> view::Forwarding {
        let pin = Some("/sys/fs/bpf/maglev".into());
        view::Forwarding { pin, adopted, since: 1_767_225_600, ..view::Forwarding::default() }
    }

    fn interface((name, index): (&str, u32)) -> view::Interface {
        let (mode, link) = ("native".into(), "up".into());
        view::Interface { name: name.into(), renamed_to: None, mode, attached: true, link, index, mtu: 1_600 }
    }

    fn vip(name: &str, address: &str) -> view::Vip {
        let known = |to| view::VipHealth {
            serving: 3,
            backends: 3,
            announced: Some(true),
            announced_to: Some(to),
            neighbors: Some(to),
            ..view::VipHealth::default()
        };
        view::Vip {
            name: name.into(),
            address: address.parse().unwrap(),
            port: "80".parse().unwrap(),
            protocol: view::Protocol::Tcp,
            pool: "web".into(),
            when_empty: view::Unserved::Drop,
            affinity: "5-tuple".into(),
            error: None,
            health: known(1),
        }
    }

    fn pool() -> view::PoolSummary {
        let health = Some(view::PoolHealth { healthy: 3, ..view::PoolHealth::default() });
        view::PoolSummary { health, backends: 3, usable: 3, table_digest: "0aa5ec2b5b75".into(), ..testing::summary() }
    }

    fn backend(
        (name, address): (&str, &str),
        (weight, share): (u16, f64),
        microseconds: u64,
        mac: &str,
    ) -> view::Backend {
        let known = view::Health {
            state: view::HealthState::Healthy,
            since: 0,
            age_seconds: 20,
            weight_percent: 100,
            last: Some(view::LastCheck { at: 0, microseconds, error: None }),
            waiting: None,
            held_back_seconds: None,
            clock: view::HealthClock::default(),
            checks: view::CheckCounts::default(),
        };
        let on_link = address.starts_with("10.4.");
        let gateway = (!on_link).then(|| "10.2.1.1".parse().unwrap());
        let interface = if on_link { "near" } else { "eth0" };
        view::Backend {
            address: address.parse().unwrap(),
            weight,
            share,
            health: Some(Box::new(known)),
            next_hop: NextHop::Resolved {
                interface: interface.into(),
                vlan: None,
                mac: mac.into(),
                gateway,
                longest_packet: Some(1_580),
            },
            ..testing::backend(name)
        }
    }
}
