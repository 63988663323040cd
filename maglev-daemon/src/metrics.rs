//! `/metrics` in the OpenMetrics text format, made from the same views as the command line's answers. It must not know
//! the source of the numbers.

pub(crate) mod decap;
#[cfg(test)]
mod docs;
mod text;

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use maglev_api::view::{self, BackendState, BgpNeighbor, BgpNeighbors, BgpRoutes, Counters, NextHop, Status};
use maglev_common::table::SLOTS;
use tokio::net::TcpListener;

use crate::http::{Bodies, Caller, Handle, Page, Reading, Refused, Rendered, Request, Subject, Wanted, server};
use text::{Registry, count, measure, measure_seconds};

/// The content type.
const CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves `/metrics`. Ends only by being dropped.
pub async fn serve(listener: TcpListener, handle: Handle) {
    let router = Router::new().route("/metrics", get(scrape)).with_state(handle);
    server::serve_router(listener, router, Bodies::new(|_| false), |_| Caller::default()).await;
}

/// Scrapes at the same time receive the same page.
async fn scrape(State(handle): State<Handle>) -> Result<Page, Refused> {
    let render = async {
        let counters = handle.ask(|reply| Request::Counters { reply }).await?;
        let render = |reading: &Reading| {
            let (neighbors, routes) = (reading.bgp().neighbors(), reading.bgp().routes());
            Rendered::text(CONTENT, || render(&reading.status(), &counters.make(), (&neighbors, &routes)))
        };
        handle.compute(render).await
    };
    // A page may be slightly old: it need not show the last change.
    handle.pages.page(Subject::Metrics, Wanted { generation: 0, privileged: false }, render).await.map_err(Refused)
}

/// Bytes of the series of a backend, and of all others: a buffer with enough room is not copied while it grows.
const BYTES_PER_BACKEND: usize = 1_024;
const BYTES_BESIDE: usize = 16 * 1024;

/// The metrics of a node as text.
fn render(status: &Status, counters: &Counters, bgp: (&BgpNeighbors, &BgpRoutes)) -> String {
    registered(status, counters, bgp).end()
}

fn registered(status: &Status, counters: &Counters, (neighbors, routes): (&BgpNeighbors, &BgpRoutes)) -> Registry {
    let mut registry = Registry::with_capacity(BYTES_BESIDE + status.backends.len() * BYTES_PER_BACKEND);
    register_traffic(&mut registry, counters);
    register_services(&mut registry, status);
    register_node(&mut registry, status);
    register_bgp(&mut registry, neighbors, routes);
    registry
}

fn register_traffic(registry: &mut Registry, counters: &Counters) {
    let Counters { counters, vips, backends, interfaces } = counters;
    let packets = counters.iter().map(|counter| {
        let labels = [("reason", counter.name.clone()), ("outcome", counter.outcome.clone())];
        (labels, counter.packets)
    });
    count(registry, "packets", "Packets by outcome; maglev counters explains each reason", packets);

    let vip = |vip: &view::VipTraffic| [("vip", vip.name.clone())];
    let help = "Packets for a VIP, including packets dropped for lack of a backend or a next hop";
    count(registry, "vip_packets", help, vips.iter().map(|traffic| (vip(traffic), traffic.packets)));
    let help = "Bytes of these packets as received, Ethernet header included";
    count(registry, "vip_bytes", help, vips.iter().map(|traffic| (vip(traffic), traffic.bytes)));

    let backend =
        |traffic: &view::BackendTraffic| [("pool", traffic.pool.clone()), ("backend", traffic.backend.clone())];
    let help = "Packets sent to a backend";
    count(registry, "backend_packets", help, backends.iter().map(|traffic| (backend(traffic), traffic.packets)));
    let help = "Bytes of these packets as received, Ethernet header included";
    count(registry, "backend_bytes", help, backends.iter().map(|traffic| (backend(traffic), traffic.bytes)));

    let lost = interfaces.iter().map(|counter| {
        let view::InterfaceCounter { interface, source, name, packets } = counter;
        let labels = [("interface", interface.clone()), ("source", source.clone()), ("reason", name.clone())];
        (labels, *packets)
    });
    let help = "Packets lost at an interface, as kernel and driver count them: one packet may be in several; some drivers count \
                drops of the program too";
    count(registry, "interface_lost_packets", help, lost);
}

fn register_services(registry: &mut Registry, status: &Status) {
    let mut in_state: BTreeMap<(&str, BackendState), u64> = BTreeMap::new();
    for backend in &status.backends {
        *in_state.entry((&backend.pool, backend.state)).or_default() += 1;
    }
    let by_state = status.pools.iter().flat_map(|pool| {
        BackendState::ALL.map(|state| {
            let labels = [("pool", pool.name.clone()), ("state", state.as_str().to_owned())];
            (labels, in_state.get(&(pool.name.as_str(), state)).copied().unwrap_or(0))
        })
    });
    measure(registry, "backends", "Backends of a pool by state", by_state);

    register_transitions(registry, status);
    register_health(registry, status);

    let resolved = status.backends.iter().map(|backend| {
        let labels = [("pool", backend.pool.clone()), ("backend", backend.name.clone())];
        (labels, u64::from(matches!(backend.next_hop, NextHop::Resolved { .. })))
    });
    measure(registry, "next_hop_resolved", "Whether the next hop of a backend is resolved", resolved);

    let tables = status.pools.iter().map(|pool| {
        let labels = [("pool", pool.name.clone()), ("digest", pool.table_digest.clone())];
        (labels, 1)
    });
    measure(registry, "table_info", "Digest of a pool's table: equal on nodes that choose the same backends", tables);

    let digests =
        [("services_digest", status.services_digest.clone()), ("hash_key_digest", status.hash_key_digest.clone())];
    let help = "Digests of the services and the hash key: equal on the nodes of a fleet";
    measure(registry, "services_info", help, [(digests, 1)].into_iter());
}

/// Health; for pools that are not checked, only the number of usable backends.
fn register_health(registry: &mut Registry, status: &Status) {
    let pools = || status.pools.iter().filter_map(|pool| Some((pool, pool.health.as_ref()?)));
    let usable = status.pools.iter().map(|pool| ([("pool", pool.name.clone())], pool.usable as u64));
    let help = "Usable backends of a pool: active, not unhealthy, and with a next hop";
    measure(registry, "pool_usable_backends", help, usable);
    let by_health = pools().flat_map(|(pool, known)| {
        view::HealthState::ALL.map(|state| {
            let labels = [("pool", pool.name.clone()), ("health", state.as_str().to_owned())];
            (labels, known.count(state) as u64)
        })
    });
    measure(registry, "pool_backends", "Checked backends of a pool by health", by_health);
    let panic = pools().map(|(pool, _)| ([("pool", pool.name.clone())], u64::from(pool.panic)));
    measure(
        registry,
        "pool_panic",
        "Whether a pool is fail-open: all active backends are used since too few are healthy",
        panic,
    );
    let dead = pools().map(|(pool, known)| ([("pool", pool.name.clone())], u64::from(known.all_dead)));
    measure(registry, "pool_all_dead", "Whether no backend of a pool has answered a check for 60 s", dead);
    let not_made = status.check_shortage.as_ref().map_or(0, |shortage| shortage.checks);
    let help = "Checks that were not made since this node lacks descriptors, memory or ports";
    count(registry, "checks_not_made", help, [([], not_made)].into_iter());
    let help = "Whether every check fails at once, which is assumed to be a local fault";
    measure(registry, "health_common_failure", help, [([], u64::from(status.common_failure))].into_iter());

    let checked = || status.backends.iter().filter_map(|backend| Some((backend, backend.health.as_deref()?)));
    let labels = |backend: &view::Backend| [("pool", backend.pool.clone()), ("backend", backend.name.clone())];
    let healthy = |known: &view::Health| u64::from(known.state == view::HealthState::Healthy);
    let all = checked().map(|(backend, known)| (labels(backend), healthy(known)));
    measure(registry, "backend_healthy", "Whether a checked backend is healthy and reachable", all);
    let percent = checked().map(|(backend, known)| (labels(backend), u64::from(known.weight_percent)));
    let help = "The percentage of its weight that a backend has: less than 100 in slow start";
    measure(registry, "backend_weight_percent", help, percent);
    let changes = checked().map(|(backend, known)| (labels(backend), known.checks.changes));
    count(registry, "backend_health_changes", "Changes of a backend's health by checks", changes);
    let by_result = checked().flat_map(|(backend, known)| {
        [("passed", known.checks.passed), ("failed", known.checks.failed)].map(|(result, count)| {
            let [pool, backend] = labels(backend);
            ([pool, backend, ("result", result.to_owned())], count)
        })
    });
    count(registry, "backend_checks", "Finished checks of a backend by result", by_result);
    let latencies = checked().filter_map(|(backend, known)| {
        let seconds = known.last.as_ref()?.microseconds as f64 / 1e6;
        Some((labels(backend), seconds))
    });
    measure_seconds(registry, "backend_check_latency_seconds", "How long the last check of a backend took", latencies);
}

fn register_transitions(registry: &mut Registry, status: &Status) {
    let slots = status.pools.iter().flat_map(|pool| {
        let view::InTransition { learning_slots, tracked_slots, .. } = pool.in_transition;
        let settled = (SLOTS as u32).saturating_sub(learning_slots + tracked_slots);
        [("learning", learning_slots), ("tracked", tracked_slots), ("settled", settled)].map(|(phase, slots)| {
            let labels = [("pool", pool.name.clone()), ("phase", phase.to_owned())];
            (labels, u64::from(slots))
        })
    });
    measure(registry, "pool_slots", "Slots of a pool by phase; learning and tracked slots are in transition", slots);

    let pinned = status
        .pools
        .iter()
        .filter_map(|pool| Some(([("pool", pool.name.clone())], u64::from(pool.in_transition.pinned_flows?))));
    let help = "Flows pinned to another backend than their slot's owner, by the last survey of the flow tables";
    measure(registry, "pool_pinned_flows", help, pinned);
}

fn register_node(registry: &mut Registry, status: &Status) {
    let build = [("version", status.version.clone()), ("object", status.object.clone())];
    measure(registry, "build_info", "The release, and SHA-256 of the eBPF object", [(build, 1)].into_iter());

    register_drain(registry, &status.node);

    let attached = status.interfaces.iter().map(|interface| {
        let labels = [("interface", interface.name.clone()), ("mode", interface.mode.clone())];
        (labels, u64::from(interface.attached))
    });
    let errors = status.vips.iter().map(|vip| ([("vip", vip.name.clone())], u64::from(vip.error.is_some())));
    measure(registry, "vip_error", "Whether a VIP is not served because its address is needed by the node", errors);
    let up = status
        .interfaces
        .iter()
        .map(|interface| ([("interface", interface.name.clone())], u64::from(interface.link == "up")));
    measure(registry, "interface_up", "Whether an interface is up and has a carrier", up);
    measure(registry, "interface_attached", "Whether the XDP program is attached to an interface", attached);

    let entries = [([], status.flow_table.entries)].into_iter();
    measure(registry, "flow_table_entries", "Entries of the flow tables of all CPUs", entries);

    let maps = status.memory.maps.iter().map(|map| ([("map", map.name.clone())], map.bytes));
    measure(registry, "map_memory_bytes", "Memory of the data plane's maps", maps);

    let files = [("state", &status.state_not_saved), ("node_state", &status.node.not_saved)];
    let files = files.map(|(file, reason)| ([("file", file.to_owned())], u64::from(reason.is_some())));
    let help = "Whether the last write of a file of the daemon failed";
    measure(registry, "file_write_failed", help, files.into_iter());

    let reload = status.last_reload.iter();
    let help = "Whether the last reload of the configuration succeeded";
    measure(registry, "reload_successful", help, reload.clone().map(|last| ([], u64::from(last.successful))));
    let help = "Time of the last reload, in seconds since 1970";
    measure(registry, "reload_timestamp_seconds", help, reload.map(|last| ([], last.unix_seconds)));
    measure(registry, "uptime_seconds", "Seconds since maglevd started", [([], status.uptime_seconds)].into_iter());
}

fn register_drain(registry: &mut Registry, node: &view::Node) {
    let drain = node.drain.as_ref();
    let stage = drain.map_or("serving", |drain| drain.stage().as_str());
    let stages = std::iter::once("serving").chain(view::Stage::ALL.map(view::Stage::as_str));
    let stages = stages.map(|name| ([("stage", name.to_owned())], u64::from(name == stage)));
    measure(registry, "node_stage", "The stage of the node: serving, or the stage of its drain", stages);
    let since = drain.iter().map(|drain| ([], drain.since));
    let help = "Time of the order to drain the node, in seconds since 1970";
    measure(registry, "node_drain_timestamp_seconds", help, since);
}

fn register_bgp(registry: &mut Registry, neighbors: &BgpNeighbors, routes: &BgpRoutes) {
    let labels = |neighbor: &BgpNeighbor| [("neighbor", neighbor.name.clone())];
    let up = neighbors.0.iter().map(|neighbor| (labels(neighbor), u64::from(neighbor.state == "established")));
    measure(registry, "bgp_session_up", "Whether the session with a neighbor is established", up);
    let sent = neighbors.0.iter().map(|neighbor| (labels(neighbor), neighbor.prefixes_sent as u64));
    measure(registry, "bgp_prefixes_sent", "Prefixes announced to a neighbor", sent);
    let sessions = neighbors.0.iter().map(|neighbor| (labels(neighbor), neighbor.sessions));
    count(registry, "bgp_sessions", "Sessions established with a neighbor", sessions);
    let announced = routes.0.iter().map(|route| ([("prefix", route.prefix.to_string())], u64::from(route.announced)));
    measure(registry, "bgp_prefix_announced", "Whether a prefix of VIPs is announced to any neighbor", announced);
    let to = routes.0.iter().map(|route| ([("prefix", route.prefix.to_string())], route.announced_to as u64));
    measure(registry, "bgp_prefix_neighbors", "Neighbors that a prefix of VIPs is announced to", to);
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_api::testing;

    /// Answers of a node on which everything happens.
    pub(super) fn everything() -> (Status, Counters, BgpNeighbors, BgpRoutes) {
        let next_hop = NextHop::Unresolved { reason: "no route".into() };
        let backend = view::Backend { next_hop, ..testing::backend("web1") };
        let known = view::Health {
            state: view::HealthState::Healthy,
            since: 0,
            age_seconds: 0,
            weight_percent: 29,
            last: Some(view::LastCheck { at: 0, microseconds: 1_500, error: None }),
            waiting: None,
            held_back_seconds: None,
            clock: view::HealthClock::default(),
            checks: view::CheckCounts { passed: 40, failed: 2, changes: 3 },
        };
        let checked = view::Backend { health: Some(Box::new(known)), ..testing::backend("web2") };
        let health = Some(view::PoolHealth { healthy: 1, unreachable: 1, ..view::PoolHealth::default() });
        let in_transition = view::InTransition {
            learning_slots: 6_554,
            tracked_slots: 37,
            pinned_flows: Some(120),
            ..view::InTransition::default()
        };
        let status = Status {
            object: "abcd".into(),
            flow_table: view::FlowTable { entries: 917_504, ..view::FlowTable::default() },
            pools: vec![
                view::PoolSummary { in_transition, panic: true, health, ..testing::summary() },
                view::PoolSummary { name: "dns".into(), ..testing::summary() },
            ],
            common_failure: true,
            state_not_saved: Some("cannot write".into()),
            backends: vec![backend, checked],
            node: view::Node {
                drain: Some(view::NodeDrain {
                    since: 1_700_000_001,
                    stages: vec![view::PassedStage { stage: view::Stage::Waiting, at: 0, seconds: 0 }],
                    ..view::NodeDrain::default()
                }),
                ..view::Node::default()
            },
            last_reload: Some(view::LastReload { unix_seconds: 1_700_000_000, successful: false }),
            ..Status::default()
        };
        let counters = Counters {
            counters: vec![view::Counter {
                name: "transmitted".into(),
                outcome: "forwarded".into(),
                packets: 7,
                help: String::new(),
            }],
            vips: vec![view::VipTraffic { name: "www".into(), packets: 7, bytes: 420 }],
            ..Counters::default()
        };
        let neighbor = BgpNeighbor {
            name: "tor1".into(),
            state: "established".into(),
            prefixes_sent: 2,
            sessions: 3,
            ..BgpNeighbor::default()
        };
        let route = view::BgpRoute {
            prefix: "203.0.113.10/32".parse().unwrap(),
            announced: true,
            announced_to: 2,
            neighbors: 3,
            reason: None,
            vips: vec![],
            communities: vec![],
        };
        (status, counters, BgpNeighbors(vec![neighbor]), BgpRoutes(vec![route]))
    }

    #[test]
    fn the_text_holds_every_kind_of_series() {
        let (status, counters, neighbors, routes) = everything();
        let text = render(&status, &counters, (&neighbors, &routes));
        for line in [
            r#"maglev_packets_total{reason="transmitted",outcome="forwarded"} 7"#,
            r#"maglev_vip_bytes_total{vip="www"} 420"#,
            r#"maglev_backends{pool="web",state="active"} 2"#,
            r#"maglev_backends{pool="web",state="draining"} 0"#,
            r#"maglev_backends{pool="web",state="disabled"} 0"#,
            r#"maglev_backends{pool="web",state="out"} 0"#,
            r#"maglev_pool_slots{pool="web",phase="learning"} 6554"#,
            r#"maglev_pool_slots{pool="web",phase="tracked"} 37"#,
            r#"maglev_pool_slots{pool="web",phase="settled"} 58946"#,
            r#"maglev_pool_pinned_flows{pool="web"} 120"#,
            r#"maglev_next_hop_resolved{pool="web",backend="web1"} 0"#,
            r#"maglev_table_info{pool="web",digest="1234"} 1"#,
            r#"maglev_build_info{version="",object="abcd"} 1"#,
            "maglev_flow_table_entries 917504",
            r#"maglev_pool_backends{pool="web",health="healthy"} 1"#,
            r#"maglev_pool_backends{pool="web",health="checking"} 0"#,
            r#"maglev_pool_backends{pool="web",health="unreachable"} 1"#,
            r#"maglev_pool_panic{pool="web"} 1"#,
            "maglev_health_common_failure 1",
            r#"maglev_backend_healthy{pool="web",backend="web2"} 1"#,
            r#"maglev_backend_weight_percent{pool="web",backend="web2"} 29"#,
            r#"maglev_backend_health_changes_total{pool="web",backend="web2"} 3"#,
            r#"maglev_backend_checks_total{pool="web",backend="web2",result="passed"} 40"#,
            r#"maglev_backend_checks_total{pool="web",backend="web2",result="failed"} 2"#,
            r#"maglev_backend_check_latency_seconds{pool="web",backend="web2"} 0.0015"#,
            r#"maglev_bgp_session_up{neighbor="tor1"} 1"#,
            r#"maglev_bgp_prefixes_sent{neighbor="tor1"} 2"#,
            r#"maglev_bgp_sessions_total{neighbor="tor1"} 3"#,
            r#"maglev_bgp_prefix_announced{prefix="203.0.113.10/32"} 1"#,
            r#"maglev_bgp_prefix_neighbors{prefix="203.0.113.10/32"} 2"#,
            r#"maglev_node_stage{stage="serving"} 0"#,
            r#"maglev_node_stage{stage="waiting"} 1"#,
            r#"maglev_node_stage{stage="drained"} 0"#,
            "maglev_node_drain_timestamp_seconds 1700000001",
            "maglev_reload_successful 0",
            r#"maglev_file_write_failed{file="state"} 1"#,
            r#"maglev_file_write_failed{file="node_state"} 0"#,
            "maglev_reload_timestamp_seconds 1700000000",
            "# TYPE maglev_packets counter",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        for absent in [r#"maglev_pool_panic{pool="dns"}"#, r#"maglev_backend_healthy{pool="web",backend="web1"}"#] {
            assert!(!text.contains(absent), "{absent} is in\n{text}");
        }
    }
}
