//! VIPs with `affinity: source`: all connections of a client, or of a network of clients, are at one backend by whatever node they
//! come; a drain takes new ones to another backend and leaves old ones where they are.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use maglev_e2e::{
    lab::{
        Backend, Lab, Services, Site, addresses,
        addresses::{WWW4, WWW6},
        skip,
    },
    matrix::{Matrix, is_full},
};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

/// Networks of clients, and hosts in each.
const NETWORKS: u16 = 20;
const HOSTS: u16 = 3;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A VIP and its pool, of each family; and the prefix length of a network of clients.
const VIPS: [(&str, IpAddr, u8); 2] = [("four", WWW4, 24), ("six", WWW6, 64)];

fn services(lab: &Lab) -> Services {
    let pools = VIPS.map(|(pool, vip, _)| lab.pool(pool, vip, &[(1, 100), (2, 100), (4, 100)]));
    Services { pools: pools.to_vec(), vips: Vec::new() }
}

/// Two nodes, among which the router spreads each client's connections, and clients in many networks.
fn site() -> Result<Site> {
    let site = Site::new(2, services)?;
    let own: Vec<_> = VIPS.iter().flat_map(|(_, vip, _)| clients(*vip).into_iter().flatten()).collect();
    let own = own.iter().map(|address| format!("address add {address} dev lo{}", nodad(*address)));
    site.lab.netns("client").ip(&own.collect::<Vec<_>>())?;
    let gateway = addresses::client(2);
    site.lab.netns("router").ip(&[
        format!("route add 10.9.0.0/16 via {}", gateway.v4),
        format!("route add fd09::/16 via {}", gateway.v6),
    ])?;
    Ok(site)
}

fn nodad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}

/// The hosts of each network, of this family.
fn clients(like: IpAddr) -> Vec<Vec<IpAddr>> {
    let host = |network: u16, host: u16| -> IpAddr {
        match like {
            IpAddr::V4(_) => [10, 9, network as u8, host as u8].into(),
            IpAddr::V6(_) => [0xfd09, network, 0, 0, 0, 0, 0, host].into(),
        }
    };
    (1..=NETWORKS).map(|network| (1..=HOSTS).map(|number| host(network, number)).collect()).collect()
}

/// Puts the VIP there with this affinity, on every node.
fn serve(site: &Site, (pool, vip, _): (&str, IpAddr, u8), affinity: &str) -> Result<()> {
    let (address, port) = (vip.to_string(), Backend::PORT.to_string());
    for balancer in &site.balancers {
        if balancer.maglev(&["vip", "show", "www"])?.code == 0 {
            balancer.maglev_ok(&["vip", "remove", "www"])?;
        }
        let place = ["vip", "add", "www", "--address", &address, "--port", &port, "--protocol", "tcp", "--pool", pool];
        balancer.maglev_ok(&[&place[..], &["--affinity", affinity]].concat())?;
        let shown = balancer.maglev_json(&["vip", "show", "www"])?;
        ensure!(shown["affinity"] == affinity, "{shown}");
    }
    Ok(())
}

/// A connection that is kept open.
struct Open(BufReader<TcpStream>);

impl Open {
    /// Connects from an address. In the client's namespace.
    fn from(source: IpAddr, vip: IpAddr) -> Result<Self> {
        let family = if vip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let stream = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(stream.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0))).context("bind")?;
        let target = SocketAddr::new(vip, Backend::PORT);
        connect(stream.as_raw_fd(), &SockaddrStorage::from(target)).with_context(|| format!("from {source}"))?;
        let stream = TcpStream::from(stream);
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// The backend that answers on it.
    fn backend(&mut self) -> Result<String> {
        self.0.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: vip\r\n\r\n").context("ask")?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).context("the answer")?;
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse()?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut name = vec![0; length];
        self.0.read_exact(&mut name).context("the answer")?;
        ensure!(length > 0, "no answer");
        Ok(String::from_utf8(name)?)
    }
}

/// The backends that so many new connections from each of these addresses meet.
fn backends(sources: &[IpAddr], vip: IpAddr, connections: usize) -> Result<BTreeSet<String>> {
    let asked = sources.iter().flat_map(|source| std::iter::repeat_n(*source, connections));
    asked.map(|source| Open::from(source, vip)?.backend()).collect()
}

fn row(name: &str, case: impl FnOnce() -> Result<String>) -> Result<()> {
    Matrix::Packets.row("source", name, case)
}

#[test]
fn connections_of_one_source_are_at_one_backend() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = site()?;
    let client = site.lab.netns("client");
    let each = if is_full() { 30 } else { 5 };
    for case in VIPS {
        let (family, vip, length) = case;
        let networks = clients(vip);
        let hosts: Vec<_> = networks.iter().flatten().map(|host| vec![*host]).collect();
        let network = format!("source/{length}");
        for (affinity, sources) in [("source", &hosts), (&*network, &networks)] {
            row(&format!("{affinity}: {} sources over two nodes, {family}", sources.len()), || {
                serve(&site, case, affinity)?;
                let met = client
                    .run(|| sources.iter().map(|source| backends(source, vip, each)).collect::<Result<Vec<_>>>())?;
                let apart = met.iter().filter(|met| met.len() != 1).count();
                let all: BTreeSet<_> = met.iter().flatten().collect();
                ensure!(apart == 0 && all.len() == 3, "{apart} at several backends; all met {all:?}");
                let connections = hosts.len() * each;
                Ok(format!("{connections} connections, each source at one of 3 backends"))
            })?;
        }
        row(&format!("control: 5-tuple: a source meets several backends, {family}"), || {
            serve(&site, case, "5-tuple")?;
            let met =
                client.run(|| hosts.iter().map(|source| backends(source, vip, each)).collect::<Result<Vec<_>>>())?;
            let apart = met.iter().filter(|met| met.len() > 1).count();
            ensure!(apart > hosts.len() / 2, "{apart} of {}", hosts.len());
            Ok(format!("{apart} of {} sources", hosts.len()))
        })?;
    }
    Ok(())
}

#[test]
fn a_drain_leaves_old_connections_of_a_source_and_takes_new_ones_elsewhere() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = site()?;
    let client = site.lab.netns("client");
    for case in VIPS {
        let (pool, vip, _) = case;
        row(&format!("a drain: two old connections and a new one of each source, {pool}"), || {
            serve(&site, case, "source")?;
            let sources: Vec<IpAddr> = clients(vip).into_iter().flatten().collect();
            let opened = || {
                let pair = |source: &IpAddr| Ok([Open::from(*source, vip)?, Open::from(*source, vip)?]);
                let mut open = sources.iter().map(pair).collect::<Result<Vec<_>>>()?;
                let homes = open.iter_mut().map(both).collect::<Result<Vec<_>>>()?;
                Ok((open, homes))
            };
            let (mut open, homes) = client.run(opened)?;
            for balancer in &site.balancers {
                balancer.maglev_ok(&["backend", "drain", pool, "web1"])?;
            }
            let new =
                client.run(|| sources.iter().map(|source| backends(&[*source], vip, 3)).collect::<Result<Vec<_>>>())?;
            let still = open.iter_mut().map(both).collect::<Result<Vec<_>>>().context("an old one broke")?;
            ensure!(still == homes, "old ones moved: {homes:?}, {still:?}");
            let moved = homes.iter().filter(|home| *home == "web1").count();
            for (home, new) in homes.iter().zip(&new) {
                let elsewhere = new.len() == 1 && !new.contains("web1") && (home == "web1" || new.contains(home));
                ensure!(elsewhere, "from {home} to {new:?}");
            }
            ensure!(moved > 0, "no source was at web1");
            Ok(format!("{} old ones, 0 broken; new ones of {moved} sources at another backend", 2 * sources.len()))
        })?;
    }
    Ok(())
}

/// The one backend of two connections.
fn both(pair: &mut [Open; 2]) -> Result<String> {
    let [one, two] = pair;
    let (one, two) = (one.backend()?, two.backend()?);
    ensure!(one == two, "one source at {one} and {two}");
    Ok(one)
}
