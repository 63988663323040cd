//! How many load balancers and backends, where each backend stands, and the kernel settings and links that make the
//! drawing in [`crate::addresses`] true. It starts no process.

use anyhow::{Context, Result};

use super::{registry::Claim, router::Kind, unhash};
use crate::addresses::{self, FLOWS_CPU, Pair};
use crate::netns::{Netns, ip_batch};

/// MTU of the links that carry encapsulated packets: 1500 and an outer IPv6 header fit.
const INNER_MTU: u16 = 1600;
/// MTU towards the client.
const CLIENT_MTU: u16 = 1500;
/// The load balancers' interface towards the router.
pub const UPLINK: &str = "eth0";
/// The load balancers' interface on the shared segment.
pub const NEAR: &str = "near";

/// Where a backend stands, seen from a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Behind the router: encapsulated packets are sent on the interface they came in by.
    BehindRouter,
    /// On a second interface's own segment: they are redirected.
    OnLink,
}

/// The topology to build.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Load balancers, `lb1` and so on; at least one.
    pub balancers: u8,
    /// Backends, `web1` and so on.
    pub backends: Vec<Place>,
    /// How traffic for the VIPs reaches the load balancers: by a router that they announce them to, or by fixed routes.
    pub router: Option<Kind>,
}

impl Topology {
    /// Two backends behind the router, one on-link, and a fourth behind the router.
    pub fn standard(balancers: u8) -> Self {
        Self::new(balancers, 4)
    }

    /// So many of each: every third backend on-link, the others behind the router.
    pub fn new(balancers: u8, backends: u8) -> Self {
        let place = |n: u8| if n.is_multiple_of(3) { Place::OnLink } else { Place::BehindRouter };
        Self { balancers, backends: (1..=backends).map(place).collect(), router: None }
    }

    /// The same with a router that learns the VIPs' prefixes.
    #[must_use]
    pub fn routed_by(self, kind: Kind) -> Self {
        Self { router: Some(kind), ..self }
    }

    /// The address of the `n`th backend, counted from 1, if it stands at `place`.
    pub(super) fn backend_address(n: u8, place: Place) -> Pair {
        match place {
            Place::BehindRouter => addresses::behind_router(n, 2),
            Place::OnLink => addresses::on_link(10 + n),
        }
    }

    fn backends(&self) -> impl Iterator<Item = (u8, Place)> {
        (1..).zip(self.backends.iter().copied())
    }
}

/// One veth pair: the two nodes, the device's name in each.
struct Link {
    ends: [(String, String); 2],
    mtu: u16,
}

impl Link {
    fn new(a: (&str, &str), b: (&str, &str), mtu: u16) -> Self {
        Self { ends: [a, b].map(|(node, device)| (node.to_owned(), device.to_owned())), mtu }
    }
}

/// Makes the namespaces and links, settings first: they hold for devices that come later.
///
/// # Errors
/// If the kernel or `ip` refuses a step.
pub(super) fn build(topology: &Topology, claim: &Claim) -> Result<()> {
    let nodes = nodes(topology);
    let links = links(topology);
    ip_batch(&nodes.iter().map(|node| format!("netns add {}", claim.netns(node).name())).collect::<Vec<_>>())?;
    for node in &nodes {
        settings(node, &claim.netns(node))?;
    }
    ip_batch(&links.iter().map(|link| add_line(link, claim)).collect::<Vec<_>>())?;
    for node in &nodes {
        let devices: Vec<&str> = devices(&links, node).collect();
        let netns = claim.netns(node);
        disable_offloads(&netns, &devices)?;
        netns.ip(&addressing(topology, node, &devices)?)?;
    }
    unhash::attach(&claim.netns("router"), "client", &claim.directory())?;
    one_cpu_a_flow(devices(&links, "router"), &claim.netns("router"), FLOWS_CPU)
}

fn nodes(topology: &Topology) -> Vec<String> {
    let named = |prefix: &str, count: u8| (1..=count).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
    let backends = topology.backends.len() as u8;
    let fixed = ["client", "router", "switch"].map(String::from).to_vec();
    [fixed, named("lb", topology.balancers), named("web", backends)].concat()
}

fn links(topology: &Topology) -> Vec<Link> {
    let mut links = vec![
        Link::new(("router", "client"), ("client", "eth0"), CLIENT_MTU),
        Link::new(("router", "switch"), ("switch", "router"), INNER_MTU),
    ];
    for n in 1..=topology.balancers {
        let lb = format!("lb{n}");
        links.push(Link::new(("router", &lb), (&lb, UPLINK), INNER_MTU));
        links.push(Link::new(("switch", &lb), (&lb, NEAR), INNER_MTU));
    }
    for (n, place) in topology.backends() {
        let web = format!("web{n}");
        let other = if place == Place::OnLink { "switch" } else { "router" };
        links.push(Link::new((other, &web), (&web, "eth0"), INNER_MTU));
    }
    links
}

fn add_line(Link { ends: [(a, a_device), (b, b_device)], mtu }: &Link, claim: &Claim) -> String {
    let (a, b) = (claim.netns(a), claim.netns(b));
    format!(
        "link add {a_device} netns {} mtu {mtu} type veth peer name {b_device} netns {} mtu {mtu}",
        a.name(),
        b.name()
    )
}

fn devices<'a>(links: &'a [Link], node: &str) -> impl Iterator<Item = &'a str> {
    links.iter().flat_map(|link| &link.ends).filter(move |end| end.0 == node).map(|end| end.1.as_str())
}

fn settings(node: &str, netns: &Netns) -> Result<()> {
    netns.sysctl(&[
        // An address is usable at once.
        ("net.ipv6.conf.all.accept_dad", "0"),
        ("net.ipv6.conf.default.accept_dad", "0"),
        ("net.ipv6.conf.all.disable_ipv6", "0"),
        ("net.ipv6.conf.default.disable_ipv6", "0"),
        // Outer source addresses have no route back: they name a load balancer and a flow, not a place.
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
    ])?;
    let role = node.trim_end_matches(|c: char| c.is_ascii_digit());
    netns.sysctl(match role {
        "router" => &[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv4.fib_multipath_hash_policy", "1"),
            ("net.ipv6.fib_multipath_hash_policy", "1"),
            ("net.ipv4.conf.all.send_redirects", "0"),
        ],
        // The VIP is on `lo` but must not be claimed on the link.
        "web" => &[
            ("net.ipv4.conf.all.arp_ignore", "1"),
            ("net.ipv4.conf.all.arp_announce", "2"),
            ("net.ipv4.tcp_max_syn_backlog", "4096"),
        ],
        _ => &[],
    })
}

/// XDP must meet neither an unfinished checksum, which encapsulation would spoil for good, nor a packet above the MTU.
fn disable_offloads(netns: &Netns, devices: &[&str]) -> Result<()> {
    for device in devices {
        let mut ethtool = std::process::Command::new("ethtool");
        ethtool.args(["-K", device, "tx", "off", "tso", "off", "gso", "off", "gro", "off"]);
        netns.output(&mut ethtool).context("is the Debian package ethtool installed?")?;
    }
    Ok(())
}

/// Does for the veth what a network card's RSS does: all packets of a flow meet the same CPU, and so the same per-CPU
/// flow table. A veth runs on the sender's CPU, which changes whenever the scheduler moves the client. It runs once for all
/// that waits, so everything the router hands to a load balancer must come from that CPU: its own answers to BGP messages,
/// and the backends' answers to health checks.
pub(super) fn one_cpu_a_flow<'a>(devices: impl Iterator<Item = &'a str>, router: &Netns, cpu: usize) -> Result<()> {
    let mask = 1 << cpu;
    // sysfs shows a namespace's devices only where it was mounted, which is what `ip netns exec` does.
    let write = devices.map(|device| format!("echo {mask:x} > /sys/class/net/{device}/queues/rx-0/rps_cpus"));
    let write = write.collect::<Vec<_>>().join(" && ");
    let mut command = std::process::Command::new("ip");
    let output =
        command.args(["netns", "exec", router.name(), "sh", "-c", &write]).output().context("ip netns exec")?;
    anyhow::ensure!(output.status.success(), "receive packet steering: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Lines of `ip` for one node: bring its devices up, give them addresses, set its routes.
fn addressing(topology: &Topology, node: &str, devices: &[&str]) -> Result<Vec<String>> {
    let mut lines: Vec<String> = devices.iter().map(|device| format!("link set {device} up")).collect();
    lines.push("link set lo up".to_owned());
    let role = node.trim_end_matches(|c: char| c.is_ascii_digit());
    let number: u8 = node[role.len()..].parse().unwrap_or(0);
    match role {
        "client" => {
            lines.extend(addresses::CLIENTS.flat_map(|host| addresses::client(host).assign("eth0")));
            lines.extend(addresses::client(1).default_route());
        }
        "lb" => {
            lines.extend(addresses::balancer(number, 2).assign(UPLINK));
            lines.extend(addresses::on_link(100 + number).assign(NEAR));
            lines.extend(addresses::balancer(number, 1).default_route());
        }
        "web" => lines.extend(backend(topology, number)?),
        "router" => lines.extend(router(topology)),
        _ => {
            lines.push("link add segment mtu 1600 type bridge stp_state 0 mcast_snooping 0".to_owned());
            lines.extend(devices.iter().map(|device| format!("link set {device} master segment")));
            lines.push("link set segment up".to_owned());
        }
    }
    Ok(lines)
}

fn backend(topology: &Topology, number: u8) -> Result<Vec<String>> {
    let (_, place) = topology.backends().find(|(n, _)| *n == number).context("no such backend")?;
    let gateway = match place {
        Place::BehindRouter => addresses::behind_router(number, 1),
        Place::OnLink => addresses::on_link(1),
    };
    let mut lines = Topology::backend_address(number, place).assign("eth0").to_vec();
    lines.extend(gateway.default_route());
    lines.extend(addresses::VIPS.map(|vip| match vip {
        std::net::IpAddr::V4(vip) => format!("address add {vip}/32 dev lo"),
        std::net::IpAddr::V6(vip) => format!("address add {vip}/128 dev lo nodad"),
    }));
    Ok(lines)
}

fn router(topology: &Topology) -> Vec<String> {
    let mut lines = addresses::client(1).assign("client").to_vec();
    lines.extend(addresses::on_link(1).assign("switch"));
    for n in 1..=topology.balancers {
        lines.extend(addresses::balancer(n, 1).assign(&format!("lb{n}")));
    }
    for (n, place) in topology.backends() {
        if place == Place::BehindRouter {
            lines.extend(addresses::behind_router(n, 1).assign(&format!("web{n}")));
        }
    }
    lines.push(format!("route add blackhole {}", addresses::NOWHERE));
    if topology.router.is_none() {
        lines.extend(vip_routes("add", &(1..=topology.balancers).collect::<Vec<_>>()));
    }
    lines
}

/// Lines of `ip` that lead the VIPs to these load balancers, an equal part of the flows to each.
pub(super) fn vip_routes(action: &str, through: &[u8]) -> [String; 2] {
    addresses::VIP_PREFIXES.map(|prefix| {
        let vip = if prefix.contains(':') { addresses::WWW6 } else { addresses::WWW4 };
        let hops = through.iter().map(|&n| format!(" nexthop via {}", addresses::balancer(n, 2).like(vip)));
        format!("route {action} {prefix}{}", hops.collect::<String>())
    })
}
