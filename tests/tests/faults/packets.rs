//! Packets that a node must not balance, or must refuse by their reason.

use std::{
    fs,
    net::{IpAddr, UdpSocket},
    ops::RangeInclusive,
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use maglev_e2e::{
    lab::{
        Backend, Balancer, Netns, Site, UPLINK,
        addresses::{WWW4, balancer},
        site::counter,
        skip,
    },
    matrix::{Matrix, is_full},
};
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, sendto, setsockopt, socket, sockopt,
    },
};

/// How long something is awaited that is certain to come.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer is awaited that may not come.
const SILENCE: Duration = Duration::from_millis(500);
/// How many datagrams a case sends.
const COUNT: usize = 20;
/// A MAC address that no interface of the lab has.
const STRANGER: &str = "02:00:00:00:00:99";

#[test]
fn frames_that_are_not_addressed_to_the_node_are_not_balanced() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    let (router, client, lb) = (site.lab.netns("router"), site.lab.netns("client"), site.balancers[0].netns().clone());
    let node = balancer(1, 2).v4;
    let reach = |mac: &str| router.ip(&[format!("neighbour replace {node} lladdr {mac} nud permanent dev lb1")]);
    let answers = || client.run(|| answered(COUNT));
    let own = mac(&lb)?;
    ensure!(answers()? == COUNT, "the VIP answers");

    for (case, mac) in [
        ("frames to a MAC address that a switch floods", STRANGER),
        ("frames to the broadcast address", "ff:ff:ff:ff:ff:ff"),
        ("frames to a multicast address", "01:00:5e:00:71:0a"),
    ] {
        Matrix::Fault.row("D3", case, || {
            let before = site.balancers[0].maglev_json(&["counters"])?;
            reach(mac)?;
            let answered = answers()?;
            let after = site.balancers[0].maglev_json(&["counters"])?;
            let counted = |name: &str| Ok::<_, anyhow::Error>(counter(&after, name)? - counter(&before, name)?);
            ensure!(answered == 0 && counted("other_mac")? >= COUNT as u64, "{answered}: {after}");
            Ok(format!("{} passed, none balanced", counted("other_mac")?))
        })?;
    }
    Matrix::Fault.row("D3", "`also` names the MAC address: it is balanced", || {
        let path = site.balancers[0].config();
        let text = fs::read_to_string(&path).context("maglev.yaml")?;
        let also = format!("name: {UPLINK}, also: [\"{STRANGER}\"]");
        fs::write(&path, text.replace(&format!("name: {UPLINK}"), &also)).context("maglev.yaml")?;
        site.balancers[0].stop()?;
        site.balancers[0].restart()?;
        reach(STRANGER)?;
        ensure!(answers()? == COUNT, "the VIP answers");
        reach(&own)?;
        ensure!(answers()? == COUNT, "and so it does by its own");
        Ok(STRANGER.to_owned())
    })?;
    Matrix::Fault.row("D3", "the interface's own MAC address changes", || {
        let new = "02:00:00:00:00:98";
        lb.ip(&[format!("link set {UPLINK} address {new}")])?;
        reach(new)?;
        await_answers(&client)?;
        Ok(format!("{own} to {new}"))
    })
}

#[test]
fn frames_with_trailers_and_without_hops() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(1)?;
    let router = site.lab.netns("router");
    let node = mac(site.balancers[0].netns())?;
    for (number, case, frame, expected) in [
        (
            "D6",
            "trailers of 1,500 bytes: what is counted as sent arrives",
            Frame { hops: 61, trailer: 1_500 },
            "arrives",
        ),
        ("D6", "trailers of 8 bytes", Frame { hops: 61, trailer: 8 }, "arrives"),
        ("D9", "a TTL of 0 is dropped, counted by its reason", Frame { hops: 0, trailer: 0 }, "hop_limit"),
    ] {
        Matrix::Fault.row(number, case, || {
            let before = fates(&site)?;
            router.run(|| (0..COUNT as u16).try_for_each(|n| send(&frame.bytes(&node, 40_000 + n)?)))?;
            let [sent, arrived, dropped] = await_fates(&site, before)?;
            let (all, none) = (COUNT as u64, 0);
            let wanted = if expected == "arrives" { [all, all, none] } else { [none, none, all] };
            ensure!([sent, arrived, dropped] == wanted, "sent {sent}, arrived {arrived}, dropped {dropped}");
            Ok(format!("{sent} counted as sent, {arrived} arrived, {dropped} hop_limit"))
        })?;
    }
    Ok(())
}

#[test]
fn removed_backends_numbers_are_dead_at_egress() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(1)?;
    let node = &site.balancers[0];
    let rounds = if is_full() { 45 } else { 4 };
    let name = format!("backends replaced {rounds} times: no number of a removed one is served");
    Matrix::Fault.row("D15", &name, || {
        for round in 0..rounds {
            let (added, removed) = if round % 2 == 0 { ("web4", "web2") } else { ("web2", "web4") };
            let address = site.lab.backend_address(if round % 2 == 0 { 4 } else { 2 }, WWW4).to_string();
            node.maglev_ok(&["backend", "add", "four", added, "--address", &address])?;
            node.maglev_ok(&["backend", "remove", "four", removed, "--force"])?;
        }
        // Three backends in each of two pools, and every change made a new member.
        let numbers = 6 + u32::try_from(rounds)?;
        let served = served_marks(node, 1..=numbers + 10)?;
        ensure!(served == 6, "{served} numbers are served, for 6 backends");
        Ok(format!("{numbers} numbers given out, {served} served"))
    })?;
    Matrix::Fault.row("D15", "a pool that was removed with all its backends", || {
        for family in ["alt", "alt6"] {
            for protocol in ["tcp", "udp"] {
                node.maglev_ok(&["vip", "remove", &format!("{family}-{protocol}")])?;
            }
        }
        node.maglev_ok(&["pool", "remove", "six", "--force"])?;
        let served = served_marks(node, 1..=80)?;
        ensure!(served == 3, "{served} numbers are served, for 3 backends");
        Ok(format!("{served} served"))
    })?;
    Matrix::Fault.row("D15", "a disabled backend", || {
        node.maglev_ok(&["backend", "disable", "four", "web1", "--force"])?;
        let served = served_marks(node, 1..=80)?;
        ensure!(served == 2, "{served} numbers are served, for 2 backends");
        Ok(format!("{served} served"))
    })
}

/// A datagram to the VIP in a frame with bytes behind it.
#[derive(Clone, Copy, Debug)]
struct Frame {
    hops: u8,
    trailer: usize,
}

impl Frame {
    fn bytes(self, to: &str, port: u16) -> Result<Vec<u8>> {
        let IpAddr::V4(vip) = WWW4 else { bail!("the VIP's address is IPv4") };
        let mut frame = to.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<Vec<_>, _>>()?;
        frame.extend([2, 0, 0, 0, 0, 5, 0x08, 0x00]);
        // 32 bytes of UDP, and no checksum of its own.
        let mut ip = vec![0x45, 0, 0, 32, 0, 0, 0x40, 0, self.hops, 17, 0, 0, 198, 51, 100, 7];
        ip.extend(vip.octets());
        let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        frame.extend(ip);
        frame.extend([port, Backend::PORT, 12, 0].map(u16::to_be_bytes).concat());
        frame.extend(b"ping");
        frame.resize(frame.len() + self.trailer, 0xee);
        Ok(frame)
    }
}

/// Sends a frame by the router's interface towards the node.
fn send(frame: &[u8]) -> Result<()> {
    let interfaces = getifaddrs().context("interfaces")?.filter(|interface| interface.interface_name == "lb1");
    let mut links = interfaces.filter_map(|interface| interface.address?.as_link_addr().copied());
    let link: LinkAddr = links.next().context("no interface lb1")?;
    let raw = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), Some(SockProtocol::EthAll));
    let raw = raw.context("socket")?;
    let sent = sendto(raw.as_raw_fd(), frame, &link, MsgFlags::empty()).context("sendto")?;
    ensure!(sent == frame.len(), "{sent} bytes of {} were sent", frame.len());
    Ok(())
}

/// Packets that the node counts as sent, that arrived at the backends, and that had no hops left. The client's errors about answers
/// that no socket of it awaits are left out.
fn fates(site: &Site) -> Result<[u64; 3]> {
    let counters = site.balancers[0].maglev_json(&["counters"])?;
    let errors = counter(&counters, "icmp_error")?;
    let arrived = site.backends.iter().map(|backend| Ok(backend.counters()?["decapsulated"])).sum::<Result<u64>>()?;
    let sent = counter(&counters, "transmitted")? + counter(&counters, "redirected")?;
    let [sent, arrived] = [sent, arrived].map(|packets: u64| packets.saturating_sub(errors));
    Ok([sent, arrived, counter(&counters, "hop_limit")?])
}

/// The same since `before`, once all that was sent arrived, or is overdue.
fn await_fates(site: &Site, before: [u64; 3]) -> Result<[u64; 3]> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = fates(site)?;
        let [sent, arrived, dropped] = [0, 1, 2].map(|n| now[n] - before[n]);
        let all = sent.max(arrived) + dropped >= COUNT as u64 && sent == arrived;
        if all || Instant::now() > deadline {
            return Ok([sent, arrived, dropped]);
        }
        thread::yield_now();
    }
}

/// How many of these members' marks the node encapsulates a packet for.
fn served_marks(node: &Balancer, numbers: RangeInclusive<u32>) -> Result<u64> {
    /// The mark of member 0.
    const PREFIX: u32 = 0x4d41_0000;
    let counted = || -> Result<[u64; 3]> {
        let counters = node.maglev_json(&["counters"])?;
        Ok([counter(&counters, "check_sent")?, counter(&counters, "check_unsent")?, counter(&counters, "stray")?])
    };
    let before = counted()?;
    let all = u64::from(numbers.end() - numbers.start() + 1);
    node.netns().run(|| {
        for number in numbers {
            let socket = UdpSocket::bind("0.0.0.0:0").context("bind")?;
            setsockopt(&socket, sockopt::Mark, &(PREFIX | number)).context("mark")?;
            // A packet that is dropped at egress is an error of its socket.
            let _ = socket.send_to(b"ping", (WWW4, Backend::PORT));
        }
        Ok(())
    })?;
    let after = counted()?;
    let [sent, unsent, stray] = [0, 1, 2].map(|n| after[n] - before[n]);
    // The answers find no socket: the node's own ICMP errors for them are stray, too.
    ensure!(sent + unsent + stray >= all, "{sent} sent, {unsent} unsent, {stray} stray of {all}");
    Ok(sent + unsent)
}

/// The MAC address of a node's interface towards the router.
fn mac(netns: &Netns) -> Result<String> {
    let links = netns.ip_json(&["link", "show", "dev", UPLINK])?;
    links[0]["address"].as_str().map(str::to_owned).context("no MAC address")
}

/// How many of so many datagrams to the VIP are answered. In the client's namespace.
fn answered(count: usize) -> Result<usize> {
    let socket = UdpSocket::bind("0.0.0.0:0").context("bind")?;
    socket.set_read_timeout(Some(SILENCE))?;
    let mut answered = 0;
    for _ in 0..count {
        socket.send_to(b"ping", (WWW4, Backend::PORT)).context("send")?;
        match socket.recv(&mut [0; 512]) {
            Ok(_) => answered += 1,
            // Without one answer there will be none: the rest is sent without waiting.
            Err(_) if answered == 0 => socket.set_read_timeout(Some(Duration::from_millis(1)))?,
            Err(_) => {}
        }
    }
    Ok(answered)
}

/// Waits until the VIP answers.
fn await_answers(client: &Netns) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while client.run(|| answered(1))? == 0 {
        ensure!(Instant::now() < deadline, "the VIP does not answer");
    }
    Ok(())
}
