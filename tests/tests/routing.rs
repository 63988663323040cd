//! The lab itself, without a load balancer: the backends answer on their own addresses, through the router. What fails
//! here is the lab's fault.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use maglev_e2e::{
    bytes,
    lab::{Backend, Lab, Topology, addresses, router, skip},
};

const MB: u64 = 1_000_000;
/// How long packets may be under way, and how often they are looked for.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(2);

#[test]
fn backends_answer_on_their_own_addresses() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let lab = Lab::new(Topology::standard(2))?;
    let _backends = lab.start_servers()?;
    let client = lab.client();
    for like in [addresses::WWW4, addresses::WWW6] {
        for (n, name) in (1..).zip(lab.backend_names()) {
            let target = SocketAddr::new(lab.backend_address(n, like), Backend::PORT);
            let outcomes = client.requests(&[target], 20, 4)?;
            outcomes.all_answered()?;
            assert_eq!(outcomes.by_backend(), [(name.as_str(), 20)].into());

            let echoes = client.datagrams(target, 20)?;
            echoes.all_answered()?;
            assert_eq!(echoes.by_backend(), [(name.as_str(), 20)].into());
        }
    }
    Ok(())
}

#[test]
fn bulk_crosses_the_router_unharmed() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let lab = Lab::new(Topology::standard(1))?;
    let _backends = lab.start_servers()?;
    for like in [addresses::WWW4, addresses::WWW6] {
        let target = SocketAddr::new(lab.backend_address(1, like), Backend::PORT);
        let receipt = lab.client().upload(target, 50 * MB)?;
        assert_eq!((receipt.length, receipt.sha256), (50 * MB, bytes::digest(50 * MB)));
        assert_eq!(lab.client().download(target, 50 * MB)?, bytes::digest(50 * MB));
    }
    Ok(())
}

#[test]
fn vips_lead_to_the_load_balancers_and_no_further() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let lab = Lab::new(Topology::standard(2))?;
    let _backends = lab.start_servers()?;
    // The load balancers run no program yet and do not route: no host may answer for a VIP.
    for vip in addresses::VIPS {
        let routes =
            lab.netns("router").ip_json(&[family(vip.is_ipv4()), "route", "show", "match", &vip.to_string()])?;
        let hops: Vec<String> =
            routes.as_array().into_iter().flatten().flat_map(router::hops).map(|hop| hop.gateway).collect();
        let expected = [1, 2].map(|n| addresses::balancer(n, 2).like(vip).to_string());
        ensure!(hops == expected, "{vip}: {routes}");
        let forwards = lab.netns("lb1").run(|| Ok(fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?))?;
        assert_eq!(forwards.trim(), "0");
    }
    Ok(())
}

/// Connected sockets put hashes of their own on what they send, another one each; the router must not go by them.
#[test]
fn a_5_tuple_has_one_path_whichever_socket_sends_it() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let lab = Lab::new(Topology::standard(2))?;
    let mut ways = BTreeSet::new();
    for n in 0..16 {
        let before = sent_to_balancers(&lab)?;
        for _ in 0..8 {
            lab.netns("client").run(|| {
                let client = SocketAddr::new(addresses::client(2).v4.into(), 20_000 + n);
                let socket = bind(client)?;
                socket.connect((addresses::WWW4, Backend::PORT))?;
                socket.send(b"hello").context("send")
            })?;
        }
        let way = await_packets(&lab, &before, 8)?;
        ensure!(way == [8, 0] || way == [0, 8], "flow {n} of eight packets took both ways: {way:?}");
        ways.insert(way);
    }
    ensure!(ways.len() == 2, "all flows took one way");
    Ok(())
}

/// A socket at an address that another one had a moment ago: a process that some other test is about to start may hold that
/// one yet.
fn bind(address: SocketAddr) -> Result<UdpSocket> {
    let began = Instant::now();
    loop {
        match UdpSocket::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && began.elapsed() < PATIENCE => thread::yield_now(),
            bound => return Ok(bound?),
        }
    }
}

/// How many of so many further packets took each way, once all of them have arrived.
fn await_packets(lab: &Lab, before: &[u64], count: u64) -> Result<Vec<u64>> {
    let began = Instant::now();
    loop {
        let ways: Vec<u64> = sent_to_balancers(lab)?.iter().zip(before).map(|(now, then)| now - then).collect();
        if ways.iter().sum::<u64>() >= count {
            return Ok(ways);
        }
        ensure!(began.elapsed() < PATIENCE, "of {count} packets arrived {ways:?}");
        thread::sleep(LOOK);
    }
}

/// Packets for VIPs that the router has sent to each load balancer, as the load balancers' devices count them.
fn sent_to_balancers(lab: &Lab) -> Result<Vec<u64>> {
    ["lb1", "lb2"]
        .map(|node| {
            let text = lab.netns(node).run(|| Ok(fs::read_to_string("/proc/thread-self/net/snmp")?))?;
            let lines: Vec<Vec<&str>> =
                text.lines().filter(|line| line.starts_with("Ip: ")).map(|line| line.split(' ').collect()).collect();
            let place = lines[0].iter().position(|name| *name == "InAddrErrors").context("snmp")?;
            lines[1][place].parse().context("snmp")
        })
        .into_iter()
        .collect()
}

fn family(v4: bool) -> &'static str {
    if v4 { "-4" } else { "-6" }
}
