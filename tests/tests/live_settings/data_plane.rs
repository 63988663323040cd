//! Settings of the data plane that change with a reload: another one takes over, and no connection breaks.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use maglev_e2e::{
    client::held::{Kind as Connection, Plan},
    lab::{
        Affinity, Backend, Lab, NEAR, Pool, Services, UPLINK, Vip,
        addresses::{WWW4, WWW6},
        site::counter,
        skip,
    },
    matrix::Matrix,
};
use serde_json::{Value, json};

use super::Node;

/// The packet path of a node, as it must go on.
struct Before {
    sessions: [String; 2],
    /// The pinned link of the uplink: one that was detached has another inode.
    link: (String, u64),
    forwarded: u64,
}

impl Node {
    fn before(&mut self) -> Result<Before> {
        let sessions = [self.session("router")?, self.session("router6")?];
        let index = self.index(UPLINK)?;
        let links = self.balancer().links()?;
        let link = links.into_iter().find(|(name, _)| *name == index).context("no link of the uplink")?;
        let counters = self.balancer().maglev_json(&["counters"])?;
        Ok(Before { sessions, link, forwarded: counter(&counters, "transmitted")? })
    }

    /// An interface's index, as it is attached.
    fn index(&mut self, interface: &str) -> Result<String> {
        let status = self.balancer().maglev_json(&["status"])?;
        let all = status["interfaces"].as_array().into_iter().flatten();
        let found = all.into_iter().find(|found| found["name"] == interface && found["attached"] == true);
        Ok(found.with_context(|| format!("{interface} is not attached: {status}"))?["index"].to_string())
    }

    /// Reloads settings of the data plane, and checks that all else goes on.
    fn reload_data_plane(&mut self, keys: &[&str]) -> Result<Value> {
        let before = self.before()?;
        let planned = self.balancer().maglev_json(&["plan", "reload"])?;
        assert_eq!((&planned["data_plane"], &planned["restart_needed"]), (&json!(keys), &json!([])));
        let reloaded = self.reload()?;
        assert_eq!((&reloaded["data_plane"], &reloaded["restart_needed"]), (&json!(keys), &json!([])));
        let after = self.before()?;
        assert_eq!((&after.sessions, &after.link), (&before.sessions, &before.link));
        ensure!(after.forwarded > before.forwarded, "{} after {} packets", after.forwarded, before.forwarded);
        let status = self.balancer().maglev_json(&["status"])?;
        ensure!(status["out_of_sync"].is_null() && status["state_not_saved"].is_null(), "{status}");
        assert_eq!(status["forwarding"]["continued"], json!(keys));
        let sets = self.balancer().pinned()?;
        ensure!(sets.iter().filter(|name| name.starts_with('v')).count() == 1, "the old set is released: {sets:?}");
        assert_eq!(self.balancer().maglev_json(&["plan", "reload"])?["data_plane"], json!([]));
        Ok(reloaded)
    }
}

/// The MAC address of a virtual router.
const OTHER_MAC: &str = "00:00:5e:00:01:4d";

fn talking(lab: &Lab) -> Services {
    let affinity = Some(Affinity { tracking: "exception", learning: 60, idle: 60 });
    let pool = Pool { affinity, ..lab.pool("web", WWW4, &[(1, 100), (2, 100)]) };
    let vip = |name, vip| Vip::new(name, (vip, Backend::TALK_PORT), "tcp", "web");
    Services { pools: vec![pool], vips: vec![vip("www4", WWW4), vip("www6", WWW6)] }
}

#[test]
fn a_flow_table_from_before_is_freed_once_its_flows_are_idle() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let idle = |lab: &Lab| {
        let mut services = talking(lab);
        services.pools[0].affinity = Some(Affinity { tracking: "exception", learning: 10, idle: 10 });
        services
    };
    let mut node = Node::start_with(idle)?;
    node.established(&["router", "router6"])?;
    node.site.router()?.await_route(WWW4, &[1])?;
    let targets = vec![(WWW4, Backend::TALK_PORT).into()];
    let pace = Duration::from_millis(400);
    let held =
        node.site.lab.client().hold(Plan { targets, held: 100, arrivals: 100, pace, silence: 2 * pace, seed: 1 });
    held.await_open()?;
    node.balancer().maglev_ok(&["backend", "weight", "web", "web2", "30"])?;
    held.await_spoken(std::time::Instant::now())?;
    let before = |status: &Value| -> u64 {
        let maps = status["memory"]["maps"].as_array().into_iter().flatten();
        maps.filter(|map| map["name"] == "FLOWS_BEFORE").filter_map(|map| map["bytes"].as_u64()).sum()
    };
    Matrix::Hitless.row("reload", "flow_table: the old one is freed once its flows are idle", || {
        node.edit("bgp:\n", "flow_table: { flows: 100000 }\nbgp:\n")?;
        node.reload_data_plane(&["flow_table"])?;
        let bytes = before(&node.balancer().maglev_json(&["status"])?);
        let set = node.balancer().pinned()?;
        ensure!(bytes > 1_000_000, "{bytes} bytes");
        node.balancer().await_status("the memory", |status| before(status) == 0)?;
        let events = node.balancer().maglev_ok(&["events"])?;
        ensure!(events.contains("the flow table from before `flow_table` changed is freed"), "{events}");
        ensure!(node.balancer().pinned()? != set, "no other set has taken over: {set:?}");
        held.await_spoken(std::time::Instant::now())?;
        let report = held.finish()?;
        report.none_broken(&Connection::ALL)?;
        Ok(format!(
            "{bytes} bytes freed; {} held and {} new connections: 0 broken",
            report.held, report.counts.arrivals
        ))
    })
}

#[test]
fn interfaces_sources_and_sizes_change_with_a_reload_and_no_connection_breaks() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut node = Node::start_with(talking)?;
    node.established(&["router", "router6"])?;
    for vip in [WWW4, WWW6] {
        node.site.router()?.await_route(vip, &[1])?;
    }
    let targets = [WWW4, WWW6].map(|vip| (vip, Backend::TALK_PORT).into()).to_vec();
    let silence = Duration::from_secs(2);
    let plan = Plan { targets, held: 300, arrivals: 200, pace: Duration::from_millis(400), silence, seed: 1 };
    let held = node.site.lab.client().hold(plan);
    held.await_open()?;
    // A transition is under way all the while.
    node.balancer().maglev_ok(&["backend", "weight", "web", "web2", "30"])?;

    Matrix::Hitless.row("reload", "an interface less, another encap.source and flow_table", || {
        let near = node.index(NEAR)?;
        node.edit(&format!("  - {{ name: {NEAR}, mode: native }}\n"), "")?;
        let text = node.balancer().maglev_ok(&["plan", "reload"])?;
        ensure!(text.contains("would change: data plane: interfaces changed, connections go on\n"), "{text}");
        node.reload_data_plane(&["interfaces"])?;
        ensure!(
            node.balancer().links()?.iter().all(|(name, _)| *name != near),
            "the program is still attached to {NEAR}"
        );
        node.edit("10.64.1.0/24", "10.64.77.0/24")?;
        node.edit("fd64:0:1::/64", "fd64:0:77::/64")?;
        node.reload_data_plane(&["encap"])?;
        node.edit("bgp:\n", "flow_table: { flows: 100000 }\nlimits: { pools: 99 }\nbgp:\n")?;
        node.reload_data_plane(&["limits", "flow_table"])?;
        held.await_spoken(std::time::Instant::now())?;
        Ok("3 reloads".to_owned())
    })?;

    Matrix::Hitless.row("reload", "an interface more, in another order; what is refused changes nothing", || {
        let good = fs::read_to_string(node.balancer().config())?;
        node.edit("interfaces:\n", &format!("interfaces:\n  - {{ name: {NEAR}, mode: native }}\n"))?;
        let next = fs::read_to_string(node.balancer().config())?;
        node.edit("interfaces:\n", "interfaces:\n  - { name: eth9, mode: native }\n")?;
        let before = node.before()?;
        let refused = node.balancer().maglev(&["reload"])?;
        ensure!(refused.code == 1 && refused.stderr.contains("interface eth9 does not exist"), "{refused:?}");
        ensure!(node.index(NEAR).is_err() && node.before()?.link == before.link);
        fs::write(node.balancer().config(), &good)?;
        assert_eq!(node.reload()?["data_plane"], json!([]));
        fs::write(node.balancer().config(), &next)?;
        node.reload_data_plane(&["interfaces"])?;
        let index = node.index(NEAR)?;
        ensure!(node.balancer().links()?.iter().any(|(name, _)| *name == index), "no link on {NEAR}");
        let events = node.balancer().maglev_ok(&["events"])?;
        ensure!(events.contains("interfaces changed"), "{events}");
        // By the new interface and slot.
        let address = node.site.lab.backend_address(3, WWW4).to_string();
        node.balancer().maglev_ok(&["backend", "add", "web", "web3", "--address", &address])?;
        node.balancer().await_next_hops()?;
        held.await_spoken(std::time::Instant::now())?;
        let redirected = counter(&node.balancer().maglev_json(&["counters"])?, "redirected")?;
        ensure!(redirected > 0, "nothing is routed via {NEAR}");
        Ok(format!("{redirected} packets redirected"))
    })?;

    Matrix::Hitless.row("reload", "trace, dataplane.watchdog, packets, and an address of interfaces[].also", || {
        node.edit("bgp:\n", "trace: true\nbgp:\n")?;
        node.reload_data_plane(&["trace"])?;
        node.balancer().await_log("choice=")?;
        node.edit("trace: true\n", "packets: { echo: off }\n")?;
        node.edit("on_stop: detach", "on_stop: detach, watchdog: 60s")?;
        node.reload_data_plane(&["packets", "trace", "dataplane.watchdog"])?;
        node.edit(
            &format!("name: {UPLINK}, mode: native"),
            &format!("name: {UPLINK}, mode: native, also: [\"{OTHER_MAC}\"]"),
        )?;
        node.reload_data_plane(&["interfaces"])?;
        // From now on the clients' packets over IPv4 come to that address.
        node.site.lab.netns("router").ip(&[
            format!("neigh add 10.2.1.77 lladdr {OTHER_MAC} dev lb1 nud permanent"),
            "route add default via 10.2.1.77 dev lb1 table 77".to_owned(),
            "rule add iif client lookup 77".to_owned(),
        ])?;
        held.await_spoken(std::time::Instant::now())?;
        Ok("3 reloads".to_owned())
    })?;

    Matrix::Hitless.row("reload", "the next daemon adopts what a reload made", || {
        let before = node.before()?;
        node.balancer().kill()?;
        node.balancer().restart()?;
        let status = node.balancer().forwarding()?;
        ensure!(status["adopted"] == true, "{status}\n{}", node.balancer().log());
        let index = node.index(UPLINK)?;
        ensure!(node.balancer().links()?.contains(&(index, before.link.1)), "the link was made anew");
        let counters = node.balancer().maglev_json(&["counters"])?;
        ensure!(counter(&counters, "transmitted")? >= before.forwarded);
        held.await_spoken(std::time::Instant::now())?;
        let report = held.finish()?;
        report.none_broken(&Connection::ALL)?;
        Ok(format!("{} held and {} new connections: 0 broken, 0 failed", report.held, report.counts.arrivals))
    })
}
