//! Packets with more headers than plain ones: VLAN tags, IPv4 options and IPv6 extension headers. They arrive at the backend's server.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use maglev_e2e::{
    lab::{
        Backend, Lab, Netns, Services, Site, UPLINK, Vip, addresses,
        addresses::{ALT4, ALT6, WWW4, WWW6},
        site::counter,
        skip,
    },
    matrix::Matrix,
    packets::{DESTINATION, HOP_BY_HOP, UDP, datagram, extended, packet},
    wire::Wire,
};
use nix::{
    libc, setsockopt_impl, sockopt_impl,
    sys::socket::{AddressFamily, SetSockOpt, SockFlag, SockType, SockaddrStorage, connect, socket},
};

/// How many datagrams a case sends.
const COUNT: usize = 20;
/// How long the answers to them may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Each VIP with two backends behind the router, and the address by which they are reached.
const VIPS: [(&str, IpAddr, IpAddr); 4] =
    [("4in4", WWW4, WWW4), ("6in4", WWW6, WWW4), ("4in6", ALT4, WWW6), ("6in6", ALT6, WWW6)];

/// Tags of one frame, outermost first: IEEE 802.1Q, 802.1ad, and both.
const TAGS: [&[(u16, u16)]; 4] =
    [&[(0x8100, 100)], &[(0x88a8, 100)], &[(0x88a8, 200), (0x8100, 100)], &[(0x8100, 200), (0x8100, 100)]];

sockopt_impl!(
    /// IPv4 options of each of the sender's packets.
    Options4,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_OPTIONS,
    [u8; 8]
);
sockopt_impl!(
    /// A hop-by-hop options header in each of them.
    HopByHop,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_HOPOPTS,
    [u8; 8]
);
sockopt_impl!(
    /// A destination options header in each of them.
    Destination,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_DSTOPTS,
    [u8; 8]
);

/// Record route with room for one address (RFC 791 section 3.1), router alert (RFC 2113), and no operation.
const OPTIONS4: [(&str, [u8; 8]); 3] = [
    ("record route", [7, 7, 4, 0, 0, 0, 0, 0]),
    ("router alert", [148, 4, 0, 0, 0, 0, 0, 0]),
    ("no operation", [1, 1, 1, 1, 1, 1, 1, 0]),
];
/// A header with PadN alone (RFC 8200 section 4.2).
const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

fn services(lab: &Lab) -> Services {
    let mut services = Services::default();
    for (name, vip, like) in VIPS {
        services.pools.push(lab.pool(name, like, &[(1, 100), (2, 100)]));
        for protocol in ["tcp", "udp"] {
            services.vips.push(Vip::new(&format!("{name}-{protocol}"), (vip, Backend::PORT), protocol, name));
        }
    }
    services
}

fn at(vip: IpAddr) -> SocketAddr {
    SocketAddr::new(vip, Backend::PORT)
}

fn row(name: &str, case: impl FnOnce() -> Result<String>) -> Result<()> {
    Matrix::Packets.row("header", name, case)
}

/// Makes each VIP's packets in both encapsulations.
fn encapsulate(site: &Site, encap: &str) -> Result<()> {
    VIPS.iter()
        .try_for_each(|(pool, ..)| site.balancers[0].maglev_ok(&["pool", "set", pool, "--encap", encap]).map(drop))
}

#[test]
fn packets_with_tags_and_chains_of_headers_arrive() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::new(1, services)?;
    let (router, client) = (site.lab.netns("router"), site.lab.netns("client"));
    let wire = Wire::open(&router, "lb1", (&site.lab.netns("lb1"), UPLINK))?;
    for encap in ["ipip", "gue"] {
        encapsulate(&site, encap)?;
        for (name, vip, _) in VIPS {
            row(&format!("frames with one VLAN tag and with two, {name}, {encap}"), || {
                let mut arrived = 0;
                for tags in TAGS {
                    arrived += answered(&client, vip, |source| {
                        let body = datagram(source, at(vip), b"tagged");
                        wire.send(&packet(source.ip(), vip, UDP, &body), tags)
                    })?;
                }
                all_arrived(arrived, TAGS.len())
            })?;
        }
        for (name, vip) in [("6in4", WWW6), ("6in6", ALT6)] {
            row(&format!("chains of 1 to 8 extension headers, 512 bytes at most, {name}, {encap}"), || {
                let chains = [(1, 8), (2, 8), (7, 8), (8, 8), (8, 64)];
                let mut arrived = 0;
                for (headers, length) in chains {
                    let mut chain = vec![(DESTINATION, length); headers];
                    chain[0].0 = HOP_BY_HOP;
                    let answered = answered(&client, vip, |source| {
                        let body = datagram(source, at(vip), b"behind");
                        wire.send(&extended(source.ip(), vip, &chain, UDP, &body), &[])
                    })?;
                    ensure!(answered == COUNT, "{headers} headers of {length} bytes: {answered} of {COUNT} arrived");
                    arrived += answered;
                }
                all_arrived(arrived, chains.len())
            })?;
        }
    }
    Ok(())
}

/// Sends datagrams from a socket's address as `send` does; returns how many the server answers to that socket.
fn answered(client: &Netns, vip: IpAddr, send: impl Fn(SocketAddr) -> Result<()> + Send) -> Result<usize> {
    let socket = client.run(|| Ok(UdpSocket::bind((addresses::client(2).like(vip), 0))?))?;
    for _ in 0..COUNT {
        send(socket.local_addr()?)?;
    }
    answers(&socket)
}

/// How many answers a socket receives, until all are there or none comes any more.
fn answers(socket: &UdpSocket) -> Result<usize> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let (began, mut received) = (Instant::now(), 0);
    while received < COUNT && began.elapsed() < PATIENCE {
        match socket.recv(&mut [0; 512]) {
            Ok(_) => received += 1,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => return Err(error).context("an answer"),
        }
    }
    Ok(received)
}

fn all_arrived(arrived: usize, kinds: usize) -> Result<String> {
    ensure!(arrived == kinds * COUNT, "{arrived} of {} arrived", kinds * COUNT);
    Ok(format!("{arrived} of {arrived} arrived"))
}

#[test]
fn packets_of_sockets_with_options_arrive() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::new(1, services)?;
    let client = site.lab.netns("client");
    for (name, vip) in [("4in4", WWW4), ("4in6", ALT4)] {
        for (option, bytes) in OPTIONS4 {
            row(&format!("a socket with IP_OPTIONS, {option}: UDP and TCP, {name}"), || {
                client.run(|| real(vip, |socket| Ok(Options4.set(socket, &bytes)?)))
            })?;
        }
    }
    for (name, vip) in [("6in4", WWW6), ("6in6", ALT6)] {
        row(&format!("a socket with IPV6_HOPOPTS: UDP and TCP, {name}"), || {
            client.run(|| real(vip, |socket| Ok(HopByHop.set(socket, &PADDING)?)))
        })?;
        row(&format!("a socket with IPV6_DSTOPTS: UDP and TCP, {name}"), || {
            client.run(|| real(vip, |socket| Ok(Destination.set(socket, &PADDING)?)))
        })?;
        row(&format!("a socket with both: UDP and TCP, {name}"), || {
            client.run(|| {
                real(vip, |socket| {
                    HopByHop.set(socket, &PADDING)?;
                    Ok(Destination.set(socket, &PADDING)?)
                })
            })
        })?;
    }
    row("none of these packets was refused", || {
        let counters = site.balancers[0].maglev_json(&["counters"])?;
        for reason in ["malformed", "extension_header", "source_route", "other_protocol"] {
            ensure!(counter(&counters, reason)? == 0, "{reason}: {counters}");
        }
        Ok(String::new())
    })
}

/// Datagrams and a request by sockets that `set` gives their options.
fn real(vip: IpAddr, set: impl Fn(&OwnedFd) -> Result<()>) -> Result<String> {
    let any: IpAddr = if vip.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let datagrams = UdpSocket::bind((any, 0))?;
    datagrams.connect(at(vip))?;
    let datagrams = OwnedFd::from(datagrams);
    set(&datagrams).context("options of UDP")?;
    let datagrams = UdpSocket::from(datagrams);
    for _ in 0..COUNT {
        datagrams.send(b"optional")?;
    }
    let received = answers(&datagrams)?;
    ensure!(received == COUNT, "{received} of {COUNT} datagrams arrived");

    let family = if vip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let stream = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    set(&stream).context("options of TCP")?;
    connect(stream.as_raw_fd(), &SockaddrStorage::from(at(vip))).context("connect")?;
    let mut stream = TcpStream::from(stream);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /bytes/100000 HTTP/1.1\r\nhost: vip\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("the answer")?;
    ensure!(answer.starts_with(b"HTTP/1.1 200") && answer.len() > 100_000, "{} bytes", answer.len());
    Ok(format!("{received} of {COUNT} datagrams and a request of {} bytes", answer.len()))
}
