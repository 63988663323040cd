//! Packets that no honest host sends, byte by byte onto a node's link: each is counted by its reason, nothing is forwarded wrong, and
//! no answer is longer or more frequent than what came in.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use maglev_e2e::{
    lab::{
        Backend, Lab, Netns, Services, Site, UPLINK, Vip,
        addresses::{WWW4, WWW6},
        skip,
    },
    matrix::{Matrix, is_full},
    packets::{
        DESTINATION, HOP_BY_HOP, TCP, UDP, datagram, extended, fragment, header, icmp, icmp_of, octets, packet, sum,
        syn,
    },
    wire::Wire,
};

/// How long a node's counters may take to agree with what was sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// Answers that a node gives in a second.
const ANSWERS: usize = 1_000;
/// Sources without a host: the router drops what is sent to them.
const NOBODY4: &str = "198.18.0.7";
const NOBODY6: &str = "2001:db8:dead::7";
/// A port of these hosts.
const PORT: u16 = 40_000;

/// VIPs of both families, each with two backends behind the router that are reached by the same family.
const VIPS: [(&str, IpAddr); 2] = [("4", WWW4), ("6", WWW6)];

fn services(lab: &Lab) -> Services {
    let mut services = Services::default();
    for (name, vip) in VIPS {
        services.pools.push(lab.pool(name, vip, &[(1, 100), (2, 100)]));
        for protocol in ["tcp", "udp"] {
            services.vips.push(Vip::new(&format!("{name}-{protocol}"), (vip, Backend::PORT), protocol, name));
        }
    }
    services
}

/// A site whose node's link is open to the test.
struct Rig {
    site: Site,
    wire: Wire,
    /// How many messages of each type a flood has.
    most: usize,
}

/// What became of the packets of a case: the node's counters that changed, and those of `decap`.
type Counts = BTreeMap<String, u64>;

impl Rig {
    fn new() -> Result<Self> {
        let site = Site::new(1, services)?;
        let router = site.lab.netns("router");
        router.ip(&["route add blackhole 2001:db8:dead::/64".to_owned()])?;
        let wire = Wire::open(&router, "lb1", (&site.lab.netns("lb1"), UPLINK))?;
        Ok(Self { site, wire, most: if is_full() { 40 } else { 5 } })
    }

    /// A row: these packets, and how many of them each counter must have in the end.
    fn row(&self, name: &str, packets: &[Vec<u8>], expected: &[(&str, usize)]) -> Result<()> {
        Matrix::Packets.row("bad", name, || {
            let counts = self.play(packets, expected)?;
            let shown = expected.iter().map(|(counter, _)| format!("{counter} {}", counts[*counter]));
            Ok(format!("{} packets: {}", packets.len(), shown.collect::<Vec<_>>().join(", ")))
        })
    }

    /// Sends the packets, waits until all are counted, and judges what the node sent.
    fn play(&self, packets: &[Vec<u8>], expected: &[(&str, usize)]) -> Result<Counts> {
        let before = self.counts()?;
        self.wire.seen()?;
        packets.iter().try_for_each(|packet| self.wire.send(packet, &[]))?;
        let expected: Counts = expected.iter().map(|(name, count)| ((*name).to_owned(), *count as u64)).collect();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.counts()?;
            let changed = |(name, count): (String, u64)| {
                let more = count - before.get(&name).copied().unwrap_or(0);
                (more > 0).then_some((name, more))
            };
            let counts: Counts = now.into_iter().filter_map(changed).collect();
            if counts == expected {
                self.judge(packets)?;
                return Ok(counts);
            }
            ensure!(Instant::now() < deadline, "counted {counts:?}, not {expected:?}");
            thread::yield_now();
        }
    }

    /// Counters of the node by packets' outcomes, and those of `decap` as `backend:…`. Left out is what hosts on the link have to
    /// say to each other.
    fn counts(&self) -> Result<Counts> {
        let shown = self.site.balancers[0].maglev_json(&["counters"])?;
        let all = shown["counters"].as_array().context("counters")?;
        let own = all.iter().filter_map(|one| Some((one["name"].as_str()?.to_owned(), one["packets"].as_u64()?)));
        let mut counts: Counts = own.filter(|(name, _)| !["not_ip", "not_vip"].contains(&name.as_str())).collect();
        for backend in &self.site.backends {
            for (name, count) in backend.counters()?.into_iter().filter(|(name, _)| name != "not_encapsulated") {
                *counts.entry(format!("backend:{name}")).or_default() += count;
            }
        }
        Ok(counts)
    }

    /// What the node sent is one of these packets, whole and to a backend; or an answer. Of these there are no more than packets, and
    /// each is no longer than the longest.
    fn judge(&self, packets: &[Vec<u8>]) -> Result<()> {
        let longest = packets.iter().map(Vec::len).max().unwrap_or(0).max(46);
        let mut answers = 0;
        for frame in self.wire.seen()? {
            let Some(outer) = frame.get(14..).filter(|_| matches!(frame[12..14], [0x08, 0x00] | [0x86, 0xdd])) else {
                continue;
            };
            if let Some(inner) = unwrapped(outer) {
                let of_these = packets.iter().any(|packet| packet.starts_with(inner) || inner.starts_with(packet));
                ensure!(of_these, "forwarded, and not sent like this: {inner:02x?}");
            } else if VIPS.iter().any(|(_, vip)| source(outer) == octets(*vip)) {
                answers += 1;
                ensure!(outer.len() <= longest, "an answer of {} bytes to packets of {longest}", outer.len());
            }
        }
        ensure!(answers <= packets.len(), "{answers} answers to {} packets", packets.len());
        Ok(())
    }
}

/// What an outer header of a node holds.
fn unwrapped(outer: &[u8]) -> Option<&[u8]> {
    let (own, protocol, length) = if outer[0] >> 4 == 4 {
        (outer[12..14] == [10, 64], outer[9], 20)
    } else {
        (outer[8..10] == [0xfd, 0x64], outer[6], 40)
    };
    (own && [4, 41].contains(&protocol)).then(|| &outer[length..])
}

fn source(packet: &[u8]) -> &[u8] {
    if packet[0] >> 4 == 4 { &packet[12..16] } else { &packet[8..24] }
}

fn nobody(vip: IpAddr) -> Result<IpAddr> {
    Ok(if vip.is_ipv4() { NOBODY4 } else { NOBODY6 }.parse()?)
}

fn at(vip: IpAddr) -> SocketAddr {
    SocketAddr::new(vip, Backend::PORT)
}

/// A UDP packet from this source.
fn udp(from: IpAddr, vip: IpAddr, payload: &[u8]) -> Vec<u8> {
    packet(from, vip, UDP, &datagram(SocketAddr::new(from, PORT), at(vip), payload))
}

/// Datagrams that the servers of all backends have received.
fn received(site: &Site) -> Result<u64> {
    let of = |netns: &Netns| {
        netns.run(|| {
            let four = fs::read_to_string("/proc/thread-self/net/snmp")?;
            let six = fs::read_to_string("/proc/thread-self/net/snmp6")?;
            let four = four.lines().filter_map(|line| line.strip_prefix("Udp: ")).nth(1).context("no UDP in snmp")?;
            let four: u64 = four.split(' ').next().context("no InDatagrams")?.parse()?;
            let six = six.lines().find_map(|line| line.strip_prefix("Udp6InDatagrams")).context("no UDP in snmp6")?;
            Ok(four + six.trim().parse::<u64>()?)
        })
    };
    site.lab.backend_names().iter().map(|name| of(&site.lab.netns(name))).sum()
}

#[test]
fn fragments_that_lie() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let rig = Rig::new()?;
    for (family, vip) in VIPS {
        let ends = [nobody(vip)?, vip];
        let whole = datagram(SocketAddr::new(ends[0], PORT), at(vip), &[7; 1_000]);
        let segment = syn(SocketAddr::new(ends[0], PORT), at(vip));
        let before = received(&rig.site)?;
        let sent = |count: usize| [("transmitted", count), ("backend:decapsulated", count), ("fragment_noted", 1)];

        let overlapping = [
            fragment(ends, UDP, 1, (0, true), &whole[..512]),
            fragment(ends, UDP, 1, (256, true), &[9; 512]),
            fragment(ends, UDP, 1, (512, false), &whole[512..]),
        ];
        rig.row(&format!("overlapping fragments, IPv{family}"), &overlapping, &sent(3))?;
        let into = [fragment(ends, TCP, 2, (8, false), &segment[8..])];
        rig.row(&format!("a fragment that overlaps a TCP header, IPv{family}"), &into, &[("malformed", 1)])?;
        let tiny = [8, 16].map(|length| fragment(ends, TCP, 3, (0, true), &segment[..length]));
        rig.row(&format!("tiny first fragments, IPv{family}"), &tiny, &[("malformed", 2)])?;
        let endless: Vec<_> =
            (0..120).map(|n| fragment(ends, UDP, 4, (n * 512, true), [&whole[..512], &[7; 512]][n.min(1)])).collect();
        rig.row(&format!("fragments of a datagram without end, IPv{family}"), &endless, &sent(120))?;
        let beyond = [fragment(ends, UDP, 5, (65_528, false), &[7; 64])];
        rig.row(&format!("a fragment that ends beyond 65,535 bytes, IPv{family}"), &beyond, &[("malformed", 1)])?;
        Matrix::Packets.row("bad", &format!("none of these reached a server, IPv{family}"), || {
            let reached = received(&rig.site)? - before;
            ensure!(reached == 0, "{reached} datagrams");
            Ok("0 datagrams".to_owned())
        })?;
    }
    Ok(())
}

#[test]
fn headers_and_lengths_that_lie() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let rig = Rig::new()?;
    let six = nobody(WWW6)?;
    let body = datagram(SocketAddr::new(six, PORT), at(WWW6), b"behind");
    let chain = |count: usize, length| {
        let mut chain = vec![(DESTINATION, length); count];
        chain[0].0 = HOP_BY_HOP;
        extended(six, WWW6, &chain, UDP, &body)
    };
    let chains = [chain(9, 8), chain(8, 80), chain(30, 8)];
    rig.row("chains of 9 and 30 headers, and of 8 with 640 bytes", &chains, &[("extension_header", 3)])?;
    for (family, vip) in VIPS {
        let from = nobody(vip)?;
        let plain = udp(from, vip, b"ping");
        let at_length = if vip.is_ipv4() { 2 } else { 4 };
        let long = |length: u16| {
            let mut packet = plain.clone();
            packet[at_length..at_length + 2].copy_from_slice(&length.to_be_bytes());
            sum(&mut packet);
            packet
        };
        let own = u16::from_be_bytes([plain[at_length], plain[at_length + 1]]);
        // A frame has at least 46 bytes of packet and padding; the wire here sends none.
        let longer = [long(own + 1), long(1_500), long(65_535)];
        rig.row(&format!("lengths beyond the frame, IPv{family}"), &longer, &[("malformed", 3)])?;
        let before = received(&rig.site)?;
        let empty = vec![udp(from, vip, b""); 20];
        let sent = [("transmitted", 20), ("backend:decapsulated", 20)];
        rig.row(&format!("datagrams without a payload, IPv{family}"), &empty, &sent)?;
        let mut zero = plain.clone();
        zero[header(vip) + 4..header(vip) + 6].fill(0);
        rig.row(&format!("UDP with a length of 0, IPv{family}"), &vec![zero; 20], &sent)?;
        Matrix::Packets.row("bad", &format!("the first 20 of these reached servers, IPv{family}"), || {
            let reached = received(&rig.site)? - before;
            ensure!(reached == 20, "{reached} datagrams");
            Ok("20 datagrams".to_owned())
        })?;
    }
    Ok(())
}

#[test]
fn sources_that_no_host_has() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let rig = Rig::new()?;
    for (family, vip) in VIPS {
        let sources: &[(&str, &str)] = if vip.is_ipv4() {
            &[
                ("multicast", "224.0.0.1"),
                ("broadcast", "255.255.255.255"),
                ("loopback", "127.0.0.1"),
                ("none", "0.0.0.0"),
            ]
        } else {
            &[("multicast", "ff02::1"), ("loopback", "::1"), ("none", "::")]
        };
        let mut all: Vec<(&str, IpAddr)> = vec![("the VIP itself", vip)];
        for (name, source) in sources {
            all.push((name, source.parse()?));
        }
        for (name, from) in all {
            // Land: both ends are the same.
            let land = SocketAddr::new(from, Backend::PORT);
            let packets = [udp(from, vip, b"ping"), packet(from, vip, TCP, &syn(land, at(vip)))];
            let refused = [("transmitted", 2), ("backend:impossible_source", 2)];
            rig.row(&format!("from {name}: the backend drops them, IPv{family}"), &packets, &refused)?;
            let echo = icmp(from, vip, [if vip.is_ipv4() { 8 } else { 128 }, 0], 7, &[7; 56]);
            let pings = vec![packet(from, vip, icmp_of(vip), &echo); 20];
            rig.row(&format!("pings from {name}, IPv{family}"), &pings, &[("unanswerable", 20)])?;
        }
    }
    Ok(())
}

#[test]
fn icmp_that_lies_and_floods() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let rig = Rig::new()?;
    for (family, vip) in VIPS {
        let from = nobody(vip)?;
        let kind = if vip.is_ipv4() { [3, 4] } else { [2, 0] };
        let error = |word: u32, quoted: &[u8]| packet(from, vip, icmp_of(vip), &icmp(from, vip, kind, word, quoted));
        // A packet of the VIP's flow with this host.
        let reply = packet(vip, from, UDP, &datagram(at(vip), SocketAddr::new(from, PORT), &[7; 100]));
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut quoted = reply.clone();
            change(&mut quoted);
            error(1_280, &quoted)
        };
        let (next, ports) = if vip.is_ipv4() { (9, 20) } else { (6, 40) };

        let mtus = [0, 68, 70_000].map(|mtu| error(mtu, &reply));
        let sent = [("transmitted", 3), ("icmp_error", 3), ("backend:decapsulated", 3)];
        rig.row(&format!("packets too big with MTUs of 0, 68 and 70,000, IPv{family}"), &mtus, &sent)?;
        let lengths: Vec<_> = [0, 1, 20, 65_535_u16]
            .map(|length| {
                let at_length = if vip.is_ipv4() { 2 } else { 4 };
                changed(&|quoted| quoted[at_length..at_length + 2].copy_from_slice(&length.to_be_bytes()))
            })
            .to_vec();
        let sent = [("transmitted", 4), ("icmp_error", 4), ("backend:decapsulated", 4)];
        rig.row(&format!("errors that quote packets of lengths 0, 1, 20 and 65,535, IPv{family}"), &lengths, &sent)?;
        let mut broken = vec![
            changed(&|quoted| quoted[0] ^= 0x20),
            changed(&|quoted| quoted.truncate(ports + 3)),
            changed(&|quoted| quoted.truncate(8)),
            changed(&Vec::clear),
            changed(&|quoted| quoted[next] = FRAGMENTED[usize::from(!vip.is_ipv4())]),
        ];
        if vip.is_ipv4() {
            broken.push(changed(&|quoted| (quoted[0] = 0x4f, quoted.truncate(28)).1));
            broken.push(changed(&|quoted| quoted[0] = 0x44));
            broken.push(changed(&|quoted| (quoted[0] = 0x4f, quoted.truncate(48)).1));
        }
        let strays = broken.len();
        rig.row(
            &format!("errors whose quoted headers lie or end early, IPv{family}"),
            &broken,
            &[("icmp_stray", strays)],
        )?;
        let tunnels = [4, 41, 47, 50, 51, 137].map(|protocol| changed(&|quoted| quoted[next] = protocol));
        let gue = changed(&|quoted| quoted[ports..ports + 4].copy_from_slice(&[0xc0, 0, 0x17, 0xc0]));
        let tunnels: Vec<_> = tunnels.into_iter().chain([gue]).collect();
        rig.row(&format!("errors that quote tunnels, IPv{family}"), &tunnels, &[("icmp_stray", 7)])?;
        flood(&rig, family, vip, &reply)?;
    }
    // Last: they use up the answers of their second.
    VIPS.iter().try_for_each(|(family, vip)| pings(&rig, family, *vip))
}

/// Protocols of quoted packets that have no ports where they are looked for: none that is known.
const FRAGMENTED: [u8; 2] = [253, 59];

/// Messages of every type, many of each.
fn flood(rig: &Rig, family: &str, vip: IpAddr, reply: &[u8]) -> Result<()> {
    let from = nobody(vip)?;
    let errors = if vip.is_ipv4() { 3 } else { 4 };
    let message = |kind: u8| packet(from, vip, icmp_of(vip), &icmp(from, vip, [kind, 0], 0, reply));
    let kinds: Vec<_> = (0..=255_u8).map(message).collect();
    let packets: Vec<Vec<u8>> = (0..rig.most).flat_map(|_| kinds.clone()).collect();
    let [others, errors] = [255 - errors, errors].map(|kinds| kinds * rig.most);
    let expected = [
        ("icmp", others),
        ("icmp_error", errors),
        ("transmitted", errors),
        ("backend:decapsulated", errors),
        ("echo_reply", rig.most),
    ];
    rig.row(&format!("a flood of ICMP messages of every type, IPv{family}"), &packets, &expected)
}

/// Echo requests alone: answers to them are limited.
fn pings(rig: &Rig, family: &str, vip: IpAddr) -> Result<()> {
    let from = nobody(vip)?;
    let kind = if vip.is_ipv4() { 8 } else { 128 };
    let ping = packet(from, vip, icmp_of(vip), &icmp(from, vip, [kind, 0], 7, &[7; 56]));
    Matrix::Packets.row("bad", &format!("a flood of pings alone, IPv{family}"), || {
        let pings = vec![ping; rig.most * 250];
        let (before, began) = (rig.counts()?, Instant::now());
        rig.wire.seen()?;
        pings.iter().try_for_each(|packet| rig.wire.send(packet, &[]))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let counts = rig.counts()?;
            let [answered, limited] = ["echo_reply", "answer_limit"].map(|name| counts[name] - before[name]);
            if answered + limited == pings.len() as u64 {
                let most = ANSWERS * (began.elapsed().as_secs() as usize + 2);
                ensure!(answered <= most as u64, "{answered} answers");
                rig.judge(&pings)?;
                return Ok(format!("{} requests: {answered} answered, {limited} not", pings.len()));
            }
            ensure!(Instant::now() < deadline, "{answered} and {limited} of {}", pings.len());
            thread::yield_now();
        }
    })
}
