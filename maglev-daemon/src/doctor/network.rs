//! Facts that netlink and drivers show: interfaces, next hops, MTUs. It must not know what is right.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use maglev_common::encap::Encap;
use maglev_common::maps::{CAPTURED_PROGRAM, DECAP_PROGRAM, PROGRAM, TRACED_PROGRAM, WATCHED_PROGRAM};
use maglev_config::{Mode, NodeConfig};
use maglev_dataplane::examine::{Examined, examine};
use maglev_doctor::facts::{Device, Fact, Hop, Interface, Link, Path, Probe, Program};
use maglev_doctor::gather::Gather;
use maglev_model::{Resolution, Services, Via};
use maglev_net::links::{self, LinkState, XdpAt};
use maglev_net::mtu_probe::{self, Measured};
use maglev_net::next_hop::Resolver;
use maglev_net::statistics::{self, LostPackets};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// How long next hops may take: a neighbor that does not answer is asked three times, a second apart.
const PATIENCE: Duration = Duration::from_secs(4);
/// The least time between two readings of the counters of lost packets.
const BETWEEN: Duration = Duration::from_secs(1);
/// The most addresses that probes are sent to.
const PROBED: usize = 256;

/// The names that the kernel has for our programs on a node, and on a backend.
pub(super) const OF_NODE: [&str; 4] = [PROGRAM, WATCHED_PROGRAM, TRACED_PROGRAM, CAPTURED_PROGRAM];
pub(super) const OF_BACKEND: [&str; 1] = [DECAP_PROGRAM];

/// The facts about a node's network.
pub(super) struct Network {
    pub(super) interfaces: Fact<Vec<Interface>>,
    pub(super) backends: Fact<Vec<Path>>,
    pub(super) vips: Fact<Vec<Path>>,
    pub(super) neighbors: Fact<Vec<Path>>,
}

/// The interfaces that are wanted, and those that exist.
pub(super) struct Wanted<'a> {
    pub(super) configured: &'a [maglev_config::Interface],
    pub(super) links: &'a [links::Link],
    /// The names of our programs.
    pub(super) ours: &'a [&'a str],
    /// The interfaces with our program, if the daemon says.
    pub(super) attached: Option<&'a [String]>,
}

/// Reads the network of the calling thread's namespace. Takes seconds.
pub(super) fn of_node(gather: &Gather, node: &NodeConfig, services: &Services, attached: Option<&[String]>) -> Network {
    let failed = |reason: &str| Network {
        interfaces: Err(reason.to_owned()),
        backends: Err(reason.to_owned()),
        vips: Err(reason.to_owned()),
        neighbors: Err(reason.to_owned()),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start an event loop: {error}")),
    };
    let read = runtime.block_on(async {
        let links = links::list().await?;
        let before = statistics::lost_packets().await;
        let began = Instant::now();
        let hops = next_hops(addresses(node, services)).await;
        tokio::time::sleep_until(began + BETWEEN).await;
        Ok::<_, maglev_net::NetError>((links, hops, lost(before, statistics::lost_packets().await)))
    });
    let (links, hops, lost) = match read {
        Ok(read) => read,
        Err(error) => return failed(&error.to_string()),
    };
    let wanted = Wanted { configured: &node.interfaces, links: &links, ours: &OF_NODE, attached };
    let interfaces = Ok(interfaces(gather, &wanted, &lost));
    let found = |paths: Vec<Path>| match &hops {
        Ok(hops) => Ok(resolved(paths, hops, &wanted)),
        Err(reason) => Err(reason.clone()),
    };
    let mut backends = found(backends(services));
    backends.iter_mut().for_each(|paths| probe(paths));
    Network { interfaces, backends, vips: found(vips(services)), neighbors: found(neighbors(node)) }
}

fn addresses(node: &NodeConfig, services: &Services) -> BTreeSet<IpAddr> {
    let all = [backends(services), vips(services), neighbors(node)];
    all.iter().flatten().map(|path| path.address).collect()
}

/// A path whose next hop is not known yet.
fn path(to: String, address: IpAddr, overhead: u32) -> Path {
    Path { to, address, overhead, hop: Err("it was not looked up".to_owned()) }
}

fn backends(services: &Services) -> Vec<Path> {
    let all = services.pools.values().flat_map(|pool| pool.backends.values().map(move |backend| (pool, backend)));
    all.map(|(pool, backend)| {
        let overhead = Encap::new(pool.settings.encap, backend.address.is_ipv6()).overhead() as u32;
        path(format!("backend {} of pool {}", backend.name, pool.name), backend.address, overhead)
    })
    .collect()
}

/// The VIPs that checks are addressed to: those of pools that check through the encapsulation.
fn vips(services: &Services) -> Vec<Path> {
    let is_checked = |vip: &&maglev_model::Vip| {
        let check = services.pools.get(&vip.pool).and_then(|pool| pool.health.check.as_ref());
        check.is_some_and(|check| match &check.via {
            Via::Direct => false,
            Via::Encap { vip: named } => named.as_ref().is_none_or(|name| *name == vip.name),
        })
    };
    let checked = services.vips.values().filter(is_checked).filter(|vip| vip.service.has_one_address());
    checked.map(|vip| path(format!("VIP {}", vip.name), vip.service.address(), 0)).collect()
}

fn neighbors(node: &NodeConfig) -> Vec<Path> {
    let all = node.bgp.iter().flat_map(|bgp| &bgp.neighbors);
    all.map(|neighbor| path(format!("BGP neighbor {}", neighbor.name), neighbor.address, 0)).collect()
}

/// The next hops, once all are known or the time is over.
async fn next_hops(addresses: BTreeSet<IpAddr>) -> Fact<BTreeMap<IpAddr, Resolution>> {
    const WAITING: usize = 1_024;
    let deadline = Instant::now() + PATIENCE;
    let (found, mut receive) = mpsc::channel(WAITING);
    let resolver = Resolver::start(found).map_err(|error| error.to_string())?;
    let mut hops = BTreeMap::new();
    resolver.follow(addresses.clone());
    let is_settled = |hop: Option<&Resolution>| hop.is_some_and(|hop| !hop.is_waiting());
    while !addresses.iter().all(|address| is_settled(hops.get(address))) {
        match timeout_at(deadline, receive.recv()).await {
            Ok(Some(found)) => drop(hops.insert(found.address, found.resolution)),
            Ok(None) | Err(_) => break,
        }
    }
    Ok(hops)
}

fn resolved(paths: Vec<Path>, hops: &BTreeMap<IpAddr, Resolution>, wanted: &Wanted<'_>) -> Vec<Path> {
    let with_hop = |path: Path| {
        let hop = match hops.get(&path.address) {
            Some(Resolution::Resolved { interface, mtu, .. }) => hop(*interface, *mtu, wanted),
            Some(Resolution::Unresolved(reason)) => Err(reason.clone()),
            None => Err("the kernel did not answer".to_owned()),
        };
        Path { hop, ..path }
    };
    paths.into_iter().map(with_hop).collect()
}

/// The interface of a next hop, which may be a VLAN device on one that is listed.
fn hop(index: u32, mtu: Option<u32>, wanted: &Wanted<'_>) -> Result<Hop, String> {
    let named = |index: u32| wanted.links.iter().find(|link| link.index == index);
    let link = named(index).ok_or_else(|| format!("interface {index} is gone"))?;
    let below = link.vlan.and_then(|vlan| named(vlan.on));
    let is_listed = |name: &str| wanted.configured.iter().any(|interface| interface.name == name);
    Ok(Hop {
        interface: link.name.clone(),
        is_listed: is_listed(&link.name) || below.is_some_and(|below| is_listed(&below.name)),
        mtu: mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
        probe: Probe::NotSent("not among the first addresses".to_owned()),
    })
}

/// Measures the paths.
fn probe(paths: &mut [Path]) {
    let resolved = paths.iter().filter_map(|path| Some((path.address, path.hop.as_ref().ok()?.mtu)));
    let targets: BTreeMap<IpAddr, u32> = resolved.take(PROBED).collect();
    let measured = mtu_probe::measure(&targets);
    for path in paths {
        let Ok(hop) = &mut path.hop else { continue };
        hop.probe = match &measured {
            Err(error) => Probe::NotSent(format!("no probe can be sent: {error}")),
            Ok(measured) => match measured.get(&path.address) {
                Some(Measured::Passed) => Probe::Passed,
                Some(Measured::Lost) => Probe::Lost,
                Some(Measured::Unanswered) => Probe::Unanswered,
                None => continue,
            },
        };
    }
}

/// The growth of counters of lost packets by interface.
pub(super) type Lost = Fact<BTreeMap<u32, Vec<(String, u64)>>>;

/// Compares two readings. `receive_dropped` is left out: some drivers count there what the program drops.
pub(super) fn lost(
    before: Result<BTreeMap<u32, LostPackets>, maglev_net::NetError>,
    after: Result<BTreeMap<u32, LostPackets>, maglev_net::NetError>,
) -> Lost {
    let text = |error: maglev_net::NetError| error.to_string();
    let (before, after) = (before.map_err(text)?, after.map_err(text)?);
    let growth = |(index, now): (&u32, &LostPackets)| {
        let then = before.get(index)?.named();
        let grown = now
            .named()
            .into_iter()
            .zip(then)
            .filter(|((name, now), (_, then))| now > then && *name != "receive_dropped");
        Some((*index, grown.map(|((name, now), (_, then))| (name.to_owned(), now - then)).collect()))
    };
    Ok(after.iter().filter_map(growth).collect())
}

/// The configured interfaces as they are.
pub(super) fn interfaces(gather: &Gather, wanted: &Wanted<'_>, lost: &Lost) -> Vec<Interface> {
    let found = wanted.configured.iter().map(|maglev_config::Interface { name, mode, also: _ }| {
        let link = wanted.links.iter().find(|link| link.name == *name);
        Interface {
            name: name.clone(),
            native: *mode == Mode::Native,
            device: link.map(|link| device(gather, link, wanted, lost)),
        }
    });
    found.collect()
}

fn device(gather: &Gather, link: &links::Link, wanted: &Wanted<'_>, lost: &Lost) -> Device {
    let Wanted { configured, links, .. } = wanted;
    let Examined { driver, bus, queues, most_queues, lro, gro, strips_tags, native, refusals, advice } =
        examine(link, links, configured.len() == 1);
    // A card on PCI has an address there; a virtual device has none, or its driver's name.
    let bus = bus.filter(|bus| bus.contains(':'));
    let of = |key: &str| gather.of_interface(&link.name, key);
    Device {
        link: match link.state {
            LinkState::Up => Link::Up,
            LinkState::NoCarrier => Link::NoCarrier,
            LinkState::Down => Link::Down,
        },
        mtu: link.mtu,
        is_ethernet: link.mac.is_some(),
        has_vlans: links.iter().any(|other| other.vlan.is_some_and(|vlan| vlan.on == link.index)),
        program: program(link, wanted),
        driver,
        runs_native: native,
        refusals,
        advice,
        is_physical: bus.is_some(),
        queues,
        most_queues,
        interrupts: bus.map_or(Ok(Vec::new()), |bus| gather.interrupts(&bus)),
        lro,
        gro,
        strips_tags,
        lost: lost.as_ref().map(|lost| lost.get(&link.index).cloned().unwrap_or_default()).map_err(String::clone),
        rp_filter: of("rp_filter"),
        arp_ignore: of("arp_ignore"),
        arp_announce: of("arp_announce"),
    }
}

fn program(link: &links::Link, wanted: &Wanted<'_>) -> Option<Program> {
    let attached = link.xdp?;
    let name = maglev_dataplane::program_name(attached.program);
    let said = wanted.attached.is_some_and(|attached| attached.contains(&link.name)).then_some(true);
    let by_name = name.as_deref().map(|name| wanted.ours.contains(&name));
    Some(Program { id: attached.program, native: attached.at == XdpAt::Native, is_ours: by_name.or(said), name })
}
