//! Settings of `maglev.yaml` that change with a reload: BGP neighbors, their timers and attributes, the address for scrapers, and the
//! data plane's. Sessions that they do not concern go on, in their connections, and so does the traffic.

mod data_plane;

use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use maglev_e2e::{
    lab::{
        Backend, Balancer, Lab, Services, Settings, Site, Topology, Vip,
        addresses::{WWW4, WWW6},
        router::Kind,
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
