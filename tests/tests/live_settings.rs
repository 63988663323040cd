//! Settings of `maglev.yaml` that change with a reload: BGP neighbors, their timers and attributes, the address for scrapers, and the
//! data plane's. Sessions that they do not concern go on, in their connections, and so does the traffic.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use maglev_e2e::{
    client::held::{Kind as Connection, Plan},
    lab::{
        Affinity, Backend, Balancer, Lab, NEAR, Pool, Services, Settings, Site, Topology, UPLINK, Vip,
        addresses::{WWW4, WWW6},
        router::Kind,
        site::counter,
        skip,
    },
    matrix::Matrix,
};
use serde_json::{Value, json};

/// A node with sessions to BIRD, and its configuration.
struct Node {
    site: Site,
    /// The line of each neighbor in the node's file: over IPv4, over IPv6.
    lines: [String; 2],
}

impl Node {
    /// A node that announces over both families.
    fn start() -> Result<Self> {
        Self::start_with(services)
    }

    /// The same with other services.
    fn start_with(services: impl FnOnce(&Lab) -> Services) -> Result<Self> {
        let topology = Topology::standard(1).routed_by(Kind::Bird);
        let site = Site::with_settings(topology, services, Settings::announcing)?;
        let text = fs::read_to_string(site.balancers[0].config())?;
        let line = |name: &str| {
            let found = text.lines().find(|line| line.contains(&format!("name: {name},")));
            Ok(found.context("no such neighbor")?.to_owned() + "\n")
        };
        let lines: Result<Vec<String>> = ["router", "router6"].into_iter().map(line).collect();
        let Ok(lines) = <[String; 2]>::try_from(lines?) else { anyhow::bail!("two neighbors") };
        Ok(Self { site, lines })
    }

    fn balancer(&mut self) -> &mut Balancer {
        &mut self.site.balancers[0]
    }

    /// Replaces a text of the node's file.
    fn edit(&mut self, from: &str, to: &str) -> Result<()> {
        let file = self.balancer().config();
        let text = fs::read_to_string(&file)?;
        ensure!(text.contains(from), "{from:?} is not in {text}");
        Ok(fs::write(&file, text.replacen(from, to, 1))?)
    }

    fn reload(&mut self) -> Result<Value> {
        self.balancer().maglev_json(&["reload"])
    }

    /// Waits until these neighbors have sessions, and no others are there.
    fn established(&mut self, names: &[&str]) -> Result<()> {
        self.balancer().await_answer("sessions", &["bgp", "neighbors"], |neighbors| {
            let all = neighbors.as_array().into_iter().flatten();
            let up = |neighbor: &Value| neighbor["state"] == "established" && neighbor["prefixes_sent"] == 1;
            let found: Vec<_> = all.filter(|neighbor| up(neighbor)).map(|neighbor| neighbor["name"].clone()).collect();
            found == names && neighbors.as_array().is_some_and(|all| all.len() == names.len())
        })
    }

    /// A neighbor's session: since when, its number, and the connection, by its port and the number of its socket.
    fn session(&mut self, name: &str) -> Result<String> {
        let neighbors = self.balancer().maglev_json(&["bgp", "neighbors"])?;
        let all = neighbors.as_array().into_iter().flatten();
        let found = all.into_iter().find(|neighbor| neighbor["name"] == name).context("no such neighbor")?;
        let family = if name == "router6" { "-6" } else { "-4" };
        let mut ss = Command::new("ss");
        let ss = ss.args([family, "-Htne", "state", "established", "dport", "=", ":179"]);
        let text = String::from_utf8(self.balancer().netns().output(ss)?)?;
        let connections: Vec<&str> = text.lines().collect();
        ensure!(connections.len() == 1, "one connection: {text}");
        let words = connections[0].split_whitespace();
        let kept: Vec<&str> = words.filter(|word| word.contains(":179") || word.starts_with("ino:")).collect();
        let local = connections[0].split_whitespace().nth(2).context("no address")?;
        Ok(format!("{} {} {local} {}", found["since"], found["sessions"], kept.join(" ")))
    }

    /// Requests over both families, or over IPv4 alone.
    fn requests(&self, vips: &[std::net::IpAddr]) -> Result<()> {
        let targets: Vec<_> = vips.iter().map(|vip| (*vip, Backend::PORT).into()).collect();
        self.site.lab.client().requests(&targets, 100, 8)?.all_answered()
    }
}

fn services(lab: &Lab) -> Services {
    let pool = lab.pool("web", WWW4, &[(1, 100), (2, 100)]);
    let vip = |name, vip| Vip::new(name, (vip, Backend::PORT), "tcp", "web");
    Services { pools: vec![pool], vips: vec![vip("www4", WWW4), vip("www6", WWW6)] }
}

#[test]
fn neighbors_come_and_go_with_a_reload() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut node = Node::start()?;
    let [_, v6] = node.lines.clone();
    node.established(&["router", "router6"])?;
    let before = node.session("router")?;

    Matrix::Bgp.row("BIRD", "reload: a neighbor removed, the other session stays", || {
        node.edit(&v6, "")?;
        let planned = node.balancer().maglev_ok(&["plan", "reload"])?;
        assert_eq!(planned, "would change: no change\nwould change: BGP neighbor router6 removed\n");
        node.established(&["router", "router6"])?;
        let reloaded = node.reload()?;
        assert_eq!(reloaded["neighbors"], json!([{ "name": "router6", "session": "removed", "keys": [] }]));
        node.established(&["router"])?;
        node.site.router()?.await_route(WWW6, &[])?;
        assert_eq!(node.session("router")?, before);
        node.requests(&[WWW4])?;
        Ok(before.clone())
    })?;

    Matrix::Bgp.row("BIRD", "reload: a neighbor added, prefixes arrive at it", || {
        let [v4, _] = node.lines.clone();
        node.edit(&v4, &(v4.clone() + &v6))?;
        node.balancer().hang_up()?;
        node.established(&["router", "router6"])?;
        node.site.router()?.await_route(WWW6, &[1])?;
        assert_eq!(node.session("router")?, before);
        node.requests(&[WWW4, WWW6])?;
        Ok("SIGHUP".to_owned())
    })
}

#[test]
fn attributes_and_timers_change_with_a_reload() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut node = Node::start()?;
    node.established(&["router", "router6"])?;
    let (first, other) = (node.session("router")?, node.session("router6")?);
    let changes = node.site.router()?.watch()?;

    Matrix::Bgp.row("BIRD", "reload: MED and communities change in the same session", || {
        node.edit("name: router,", "name: tor1, med: 77, communities: [\"65010:77\"], keepalive: 1s,")?;
        let said = node.balancer().maglev_ok(&["reload"])?;
        let line = "BGP neighbor tor1: name, keepalive, communities, med changed, the session goes on\n";
        ensure!(said.ends_with(line), "{said}");
        let router = node.site.router()?;
        router.await_route_text(WWW4, |text| text.contains("BGP.med: 77") && text.contains("(65010,77)"))?;
        assert_eq!(node.session("tor1")?, first);
        Ok(first.clone())
    })?;

    Matrix::Bgp.row("BIRD", "reload: another hold time begins one session anew, no route is lost", || {
        node.edit("name: router6,", "name: router6, hold_time: 30s,")?;
        let reloaded = node.reload()?;
        let expected = json!([{ "name": "router6", "session": "reset", "keys": ["hold_time"] }]);
        assert_eq!(reloaded["neighbors"], expected);
        let again = |neighbors: &Value| neighbors[1]["sessions"] == 2 && neighbors[1]["prefixes_sent"] == 1;
        node.balancer().await_answer("another session", &["bgp", "neighbors"], again)?;
        node.requests(&[WWW4, WWW6])?;
        ensure!(node.session("router6")? != other, "{other}");
        assert_eq!(node.session("tor1")?, first);
        // A later route shows that all earlier changes were reported.
        node.balancer().maglev_ok(&["vip", "remove", "www6"])?;
        node.site.router()?.await_route(WWW6, &[])?;
        let seen = changes.changes(WWW6)?;
        let deleted = seen.iter().filter(|line| line.contains("Deleted")).count();
        ensure!(deleted == 1, "the route went once, with the VIP: {seen:?}");
        Ok(format!("{} changes of the route", seen.len()))
    })
}

#[test]
fn other_settings_of_bgp_wait_for_a_restart_and_are_named() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut node = Node::start()?;
    let [_, v6] = node.lines.clone();
    node.established(&["router", "router6"])?;
    let before = node.session("router")?;
    node.edit("graceful_restart: 30s", "graceful_restart: 60s")?;
    node.edit("router_id: ", "router_id: 10.99.0.1 # ")?;
    node.edit(&v6, "")?;
    let planned = node.balancer().maglev_ok(&["plan", "reload"])?;
    ensure!(planned.contains("needs a restart: bgp.router_id, bgp.graceful_restart in the node file"), "{planned}");
    // What needs none applies meanwhile, and the rest is named until it is restarted.
    for neighbors in [json!([{ "name": "router6", "session": "removed", "keys": [] }]), json!([])] {
        let reloaded = node.reload()?;
        assert_eq!(reloaded["restart_needed"], json!(["bgp.router_id", "bgp.graceful_restart"]));
        assert_eq!(reloaded["neighbors"], neighbors);
    }
    assert_eq!(node.session("router")?, before);
    node.balancer().stop()?;
    node.balancer().restart()?;
    node.established(&["router"])?;
    assert_eq!(node.reload()?["restart_needed"], json!([]));
    Ok(())
}

#[test]
fn bad_neighbors_change_nothing() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut node = Node::start()?;
    let [v4, v6] = node.lines.clone();
    node.established(&["router", "router6"])?;
    let before = [node.session("router")?, node.session("router6")?];
    let good = fs::read_to_string(node.balancer().config())?;
    // Another process has the port at which a passive neighbor would be expected.
    let port: TcpListener = node.balancer().netns().clone().run(|| Ok(TcpListener::bind(("0.0.0.0", 1790))?))?;
    let passive = "    - { name: other, address: 10.99.0.9, remote_as: 65099, passive: true, port: 1790 }\n";
    let vip = format!("    - {{ name: other, address: {WWW4}, remote_as: 65099 }}\n");
    for (line, expected) in [
        (passive, "cannot listen for BGP neighbors at 0.0.0.0:1790"),
        (&vip, "VIP www4: 203.0.113.10 is BGP neighbor other"),
        ("    - { address: 10.99.0.9 }\n", "remote_as"),
    ] {
        node.edit(&v4, &(v4.clone() + line))?;
        node.edit(&v6, "")?;
        let refused = node.balancer().maglev(&["reload"])?;
        ensure!(refused.code != 0 && refused.stderr.contains(expected), "{expected}: {refused:?}");
        fs::write(node.balancer().config(), &good)?;
        node.established(&["router", "router6"])?;
    }
    assert_eq!([node.session("router")?, node.session("router6")?], before);
    drop(port);
    node.edit(&v4, &(v4.clone() + passive))?;
    assert_eq!(node.reload()?["neighbors"][0]["session"], "added");
    Ok(())
}

#[test]
fn the_address_for_scrapers_changes_with_a_reload() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut node = Node::start()?;
    let netns = node.balancer().netns().clone();
    let answers = |port: u16| netns.run(|| Ok(TcpStream::connect(("127.0.0.1", port)).is_ok()));
    ensure!(answers(9642)? && !answers(9643)?);
    node.edit("127.0.0.1:9642", "127.0.0.1:9643")?;
    assert_eq!(node.reload()?["restart_needed"], json!([]));
    ensure!(answers(9643)?, "it listens once the reload is answered");
    let ends = |port: u16| (0..1_000).any(|_| answers(port).is_ok_and(|answers| !answers));
    ensure!(ends(9642));
    node.edit("\"127.0.0.1:9643\"", "off")?;
    node.reload()?;
    ensure!(ends(9643) && !answers(9642)?);
    Ok(())
}

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
