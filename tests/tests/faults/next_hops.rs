//! Next hops, routes, addresses and interfaces that change beneath a node.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use maglev_e2e::{
    lab::{
        Backend, Balancer, Lab, NEAR, Netns, Services, Settings, Site, Topology, Vip, addresses::WWW4, site::counter,
        skip,
    },
    matrix::{Matrix, is_full},
};
use serde_json::Value;

/// A pool of one backend behind the router, and a VIP of each protocol.
fn one_backend(lab: &Lab) -> Services {
    let vips =
        ["tcp", "udp"].map(|protocol| Vip::new(&format!("www-{protocol}"), (WWW4, Backend::PORT), protocol, "four"));
    Services { pools: vec![lab.pool("four", WWW4, &[(1, 100)])], vips: vips.to_vec() }
}

fn site(settings: impl Fn(u8) -> Settings) -> Result<Site> {
    Site::with_settings(Topology::standard(1), one_backend, settings)
}

fn ip(netns: &Netns, lines: &[&str]) -> Result<()> {
    netns.ip(&lines.iter().map(ToString::to_string).collect::<Vec<_>>())
}

/// A second gateway from `lb1` to the backends behind the router, on the same segment: 10.2.1.3, by which nearly all go.
struct SecondGateway {
    router: Netns,
}

impl SecondGateway {
    fn new(site: &Site) -> Result<Self> {
        let router = site.lab.netns("router");
        router.sysctl(&[("net.ipv4.conf.all.arp_ignore", "1")])?;
        ip(
            &router,
            &[
                "link add gateway2 link lb1 type macvlan mode bridge",
                "link set gateway2 up",
                "address add 10.2.1.3/32 dev gateway2",
            ],
        )?;
        ip(
            site.balancers[0].netns(),
            &["route replace 10.3.0.0/16 nexthop via 10.2.1.1 nexthop via 10.2.1.3 weight 250"],
        )?;
        Ok(Self { router })
    }

    /// No carrier is lost: frames to it vanish.
    fn set(&self, state: &str) -> Result<()> {
        ip(&self.router, &[&format!("link set gateway2 {state}")])
    }
}

fn gateway_is(balancer: &mut Balancer, wanted: &str) -> Result<()> {
    balancer.await_status(&format!("gateway {wanted}"), |status| {
        status["backends"][0]["next_hop"]["gateway"] == wanted && status["publishing"] == false
    })
}

/// The longest time without an answer while a datagram is sent to the VIP each few milliseconds.
fn longest_gap(client: &Netns, lasts: Duration) -> Result<Duration> {
    client.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect((WWW4, Backend::PORT))?;
        socket.set_read_timeout(Some(Duration::from_millis(5)))?;
        let (began, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
        let mut buffer = [0; 2_048];
        while began.elapsed() < lasts {
            let _ = socket.send(b"ping");
            if socket.recv(&mut buffer).is_ok() {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
        }
        Ok(longest.max(last.elapsed()))
    })
}

#[test]
fn one_of_two_gateways_dies_under_load() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = site(Settings::new)?;
    let second = SecondGateway::new(&site)?;
    gateway_is(&mut site.balancers[0], "10.2.1.3")?;
    let client = site.lab.netns("client");
    // It is awaited twice as long each time: a fifth round would take a minute.
    for round in 1..=if is_full() { 4 } else { 1 } {
        Matrix::Fault.row("D2", &format!("one of two gateways dies silently under load, round {round}"), || {
            let lasts = Duration::from_secs(5);
            let measured = std::thread::scope(|scope| {
                let measuring = scope.spawn(|| longest_gap(&client, lasts));
                // Traffic flows by then.
                std::thread::sleep(Duration::from_millis(300));
                second.set("down")?;
                measuring.join().ok().context("the measuring thread failed")?
            })?;
            ensure!(measured > Duration::from_millis(200), "traffic did not go by the gateway that died: {measured:?}");
            ensure!(measured <= Duration::from_secs(3), "{measured:?} without an answer");
            gateway_is(&mut site.balancers[0], "10.2.1.1")?;
            second.set("up")?;
            gateway_is(&mut site.balancers[0], "10.2.1.3")?;
            let back = longest_gap(&client, Duration::from_millis(300))?;
            ensure!(back < Duration::from_millis(250), "{back:?} without an answer once it lives again");
            Ok(format!("{} ms of loss; used again once it lived", measured.as_millis()))
        })?;
    }
    Ok(())
}

/// Whether a datagram of 1,468 bytes is answered: with its outer header it takes 1,488. The answer, which names the backend
/// beside, still fits the client's link.
fn large_datagram(client: &Netns) -> Result<bool> {
    const PAYLOAD: usize = 1_468 - 20 - 8;
    client.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect((WWW4, Backend::PORT))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        socket.send(&[b'x'; PAYLOAD])?;
        Ok(socket.recv(&mut [0; 2_048]).is_ok())
    })
}

#[test]
fn routes_addresses_and_links_that_change() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let settings = |n| {
        let mut settings = Settings::new(n);
        settings.interfaces.push(("eth7".to_owned(), "generic"));
        settings
    };
    let mut site = site(settings)?;
    let (client, lb1) = (site.lab.netns("client"), site.balancers[0].netns().clone());
    late_interface(&mut site.balancers[0], &lb1)?;
    Matrix::Fault.row("D1", "a route's next hop object is deleted, traffic goes on", || {
        let lb = &mut site.balancers[0];
        ip(&lb1, &["nexthop add id 7 via 10.4.0.1 dev near", "route add 10.3.1.0/24 nhid 7"])?;
        gateway_is(lb, "10.4.0.1")?;
        ip(&lb1, &["nexthop del id 7"])?;
        gateway_is(lb, "10.2.1.1")?;
        ensure!(large_datagram(&client)?, "no answer");
        Ok(String::new())
    })?;
    Matrix::Fault.row("D4", "the route's MTU is smaller than the interface's", || {
        let lb = &mut site.balancers[0];
        let too_big = |lb: &Balancer| counter(&lb.maglev_json(&["counters"])?, "packet_too_big");
        let before = too_big(lb)?;
        ip(&lb1, &["route add 10.3.1.0/24 via 10.2.1.1 mtu 1480"])?;
        lb.await_answer("too_big", &["counters"], |counters| {
            // Whether it was answered does not matter here: it is not, once the daemon has followed.
            let _ = large_datagram(&client);
            counter(counters, "packet_too_big").is_ok_and(|now| now > before)
        })?;
        // It knows the MTU now, and sends fragments.
        ensure!(large_datagram(&client)?, "the backend does not answer its fragments");
        ip(&lb1, &["route replace 10.3.1.0/24 via 10.2.1.1"])?;
        // The node has answered with the MTU, which the client's kernel keeps for ten minutes.
        ip(&client, &["route flush cache"])?;
        lb.await_answer("an answer", &["counters"], |_| large_datagram(&client).unwrap_or(false))?;
        Ok(format!("packet_too_big {}", too_big(lb)? - before))
    })?;
    addresses_of_vips(&mut site.balancers[0], &lb1)?;
    links(&mut site.balancers[0], &lb1, &site.lab.netns("switch"))
}

fn interface<'a>(status: &'a Value, name: &str) -> &'a Value {
    let all = status["interfaces"].as_array().into_iter().flatten();
    all.into_iter().find(|interface| interface["name"] == name).unwrap_or(&Value::Null)
}

/// An interface that comes late.
fn late_interface(lb: &mut Balancer, lb1: &Netns) -> Result<()> {
    Matrix::Fault.row("C6", "an interface does not exist yet at the start", || {
        let status = lb.maglev_json(&["status"])?;
        ensure!(interface(&status, "eth7")["link"] == "absent", "{}", status["interfaces"]);
        ensure!(status["node"]["unable"] == "interface eth7 does not exist", "{}", status["node"]);
        ensure!(lb.log().contains("the interface does not exist yet"), "{}", lb.log());
        ip(lb1, &["link add eth7 type veth peer name peer7", "link set peer7 up", "link set eth7 up"])?;
        lb.await_status("eth7 attached", |status| {
            interface(status, "eth7")["attached"] == true && status["node"]["unable"].is_null()
        })?;
        Ok("attached once it exists".into())
    })
}

/// Addresses of VIPs that the node needs.
fn addresses_of_vips(lb: &mut Balancer, lb1: &Netns) -> Result<()> {
    Matrix::Fault.row("D5", "a VIP with the gateway's address is refused", || {
        let arguments = ["--address", "10.2.1.1", "--port", "80", "--protocol", "tcp", "--pool", "four"];
        let answer = lb.maglev(&[&["vip", "add", "gw"], &arguments[..]].concat())?;
        ensure!(
            answer.code == 1 && answer.stderr.contains("10.2.1.1 is the gateway of the default route"),
            "{answer:?}"
        );
        Ok(String::new())
    })?;
    let in_error = |status: &Value| {
        status["vips"].as_array().is_some_and(|all| {
            all.iter()
                .all(|vip| vip["error"].as_str().is_some_and(|error| error.contains("an address of this node, on lo")))
        })
    };
    Matrix::Fault.row("D5", "a VIP's address comes to the node, and goes", || {
        ip(lb1, &[&format!("address add {WWW4}/32 dev lo")])?;
        lb.await_status("the VIPs in error", in_error)?;
        let before = counter(&lb.maglev_json(&["counters"])?, "stray")?;
        // The node reaches itself by it: nothing of it is dropped.
        let reached = lb1.run(|| {
            let (own, peer) = (UdpSocket::bind((WWW4, Backend::PORT))?, UdpSocket::bind((WWW4, 0))?);
            peer.send_to(b"ping", (WWW4, Backend::PORT))?;
            own.set_read_timeout(Some(Duration::from_secs(5)))?;
            Ok(own.recv(&mut [0; 16]).is_ok())
        })?;
        ensure!(reached && counter(&lb.maglev_json(&["counters"])?, "stray")? == before, "the node is cut off");
        Ok(lb.maglev_ok(&["vip", "list"])?.lines().nth(1).unwrap_or_default().trim().to_owned())
    })?;
    Matrix::Fault.row("D5", "a start with such a VIP, and a reload, do not fail", || {
        lb.maglev_ok(&["reload"])?;
        lb.stop()?;
        lb.restart()?;
        lb.await_status("the VIPs in error", in_error)?;
        ip(lb1, &[&format!("address del {WWW4}/32 dev lo")])?;
        lb.await_status("the VIPs served", |status| {
            status["vips"].as_array().is_some_and(|all| all.iter().all(|vip| vip["error"].is_null()))
        })?;
        Ok(String::new())
    })
}

/// Links that go down and get other names.
fn links(lb: &mut Balancer, lb1: &Netns, switch: &Netns) -> Result<()> {
    Matrix::Fault.row("T4", "an interface is set down", || {
        ip(lb1, &[&format!("link set {NEAR} down")])?;
        lb.await_status("down", |status| interface(status, NEAR)["link"] == "down")?;
        ip(lb1, &[&format!("link set {NEAR} up")])?;
        lb.await_status("up", |status| interface(status, NEAR)["link"] == "up")?;
        Ok(String::new())
    })?;
    Matrix::Fault.row("T4", "an interface has no carrier", || {
        ip(switch, &["link set lb1 down"])?;
        lb.await_status("no carrier", |status| interface(status, NEAR)["link"] == "no carrier")?;
        ip(switch, &["link set lb1 up"])?;
        lb.await_status("up", |status| interface(status, NEAR)["link"] == "up")?;
        Ok(String::new())
    })?;
    Matrix::Fault.row("T4", "no interface is up: the node does not serve", || {
        ip(lb1, &[&format!("link set {NEAR} down"), "link set eth0 down", "link set eth7 down"])?;
        lb.await_status("trouble", |status| status["node"]["unable"] == "interface eth0 is down")?;
        let text = lb.maglev_ok(&["status"])?;
        ensure!(text.contains("NOT FORWARDING: interface eth0 is down"), "{text}");
        ip(lb1, &[&format!("link set {NEAR} up"), "link set eth0 up", "link set eth7 up"])?;
        ip(lb1, &["route replace default via 10.2.1.1"])?;
        lb.await_status("no trouble", |status| status["node"]["unable"].is_null())?;
        lb.await_next_hops()?;
        Ok(String::new())
    })?;
    renamed(lb, lb1)
}

/// An interface that gets another name.
fn renamed(lb: &mut Balancer, lb1: &Netns) -> Result<()> {
    let is_renamed = |status: &Value| {
        let eth7 = interface(status, "eth7");
        eth7["renamed_to"] == "lan0" && eth7["attached"] == true
    };
    Matrix::Fault.row("C17", "an interface is renamed: it works on, and that is an error", || {
        ip(lb1, &["link set eth7 down", "link set eth7 name lan0", "link set lan0 up"])?;
        lb.await_status("renamed", is_renamed)?;
        lb.await_log("was renamed to")?;
        let events = lb.maglev_ok(&["events"])?;
        ensure!(events.contains("interface eth7 was renamed to lan0"), "{events}");
        Ok(String::new())
    })?;
    Matrix::Fault.row("C17", "another interface takes its name: the program stays where it is", || {
        ip(lb1, &["link add eth7 type veth peer name other7", "link set eth7 up"])?;
        // The daemon has read the interfaces again once it shows this one's state.
        ip(lb1, &["link set lan0 down"])?;
        lb.await_status("down", |status| is_renamed(status) && interface(status, "eth7")["link"] == "down")?;
        ip(lb1, &["link del eth7"])?;
        Ok(String::new())
    })?;
    Matrix::Fault.row("C17", "it is renamed back", || {
        ip(lb1, &["link set lan0 name eth7", "link set eth7 up"])?;
        lb.await_status("renamed back", |status| interface(status, "eth7")["renamed_to"].is_null())?;
        let events = lb.maglev_ok(&["events"])?;
        ensure!(events.contains("interface eth7 has its name in maglev.yaml again"), "{events}");
        Ok(String::new())
    })
}
