//! GUE with the stock kernel at the other end: its receiver takes what the load balancer sends, and what its tunnels send is
//! decapsulated here. Linux has that in modules (`fou`, `fou6`): Debian's kernels do, the host's may not, and then there is nothing
//! to test.

use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::Duration;

use maglev_common::encap::EncapKind;
use maglev_common::settings::Mss;
use maglev_ebpf::fixtures::{self, CLIENT4, CLIENT6, HOP_MAC, NODE_MAC, PORT, VIP4, VIP6};
use maglev_model::OuterSources;
use maglev_model::plan::member_record;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto, socket,
};

use super::*;
use crate::harness::{Harness, action};

/// The outer addresses of the load balancer, and those of the backend.
const NODE: [&str; 2] = ["10.64.11.1", "fd00:64::1"];
const BACKEND: [&str; 2] = ["10.0.1.11", "fd00:1::11"];

const PATIENCE: Duration = Duration::from_secs(10);

fn has_gue() -> bool {
    ["fou", "fou6", "ipip", "sit", "ip6_tunnel"].iter().all(|module| Path::new("/sys/module").join(module).is_dir())
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// The stock kernel: tunnels in GUE for every combination of families, between its addresses and the load balancer's.
fn stock() -> Peer {
    let peer = Peer::new();
    peer.connect("eth1", "eth1");
    ip(&format!("link set eth1 address {}", mac(NODE_MAC)));
    peer.ip(&format!("link set eth1 address {}", mac(HOP_MAC)));
    for (node, backend, length) in [(NODE[0], BACKEND[0], 32), (NODE[1], BACKEND[1], 128)] {
        let nodad = if length == 128 { " nodad" } else { "" };
        peer.ip(&format!("address add {backend}/{length} dev eth1{nodad}"));
        peer.ip(&format!("route add {node} dev eth1"));
        peer.ip(&format!("neighbour replace {node} lladdr {} dev eth1 nud permanent", mac(NODE_MAC)));
    }
    let [node4, node6] = NODE;
    let [backend4, backend6] = BACKEND;
    let gue = "encap gue encap-sport auto encap-dport 6080";
    for command in [
        "fou add port 6080 gue".to_owned(),
        "-6 fou add port 6080 gue".to_owned(),
        format!("link add ipip4 type ipip remote {node4} local {backend4} ttl 64 {gue}"),
        format!("link add sit4 type sit remote {node4} local {backend4} ttl 64 {gue}"),
        format!("link add any6 type ip6tnl mode any remote {node6} local {backend6} encaplimit none {gue}"),
        "link set ipip4 up".to_owned(),
        "link set sit4 up".to_owned(),
        "link set any6 up".to_owned(),
    ] {
        peer.ip(&command);
    }
    peer
}

/// The VIPs are the host's, and it answers to the clients by the link.
const VIPS_HERE: [&str; 2] = ["address add 203.0.113.10/32 dev lo", "address add 2001:db8:2::a/128 dev lo nodad"];

fn listen() -> [UdpSocket; 2] {
    [IpAddr::from(VIP4), IpAddr::from(VIP6)].map(|vip| {
        let socket = UdpSocket::bind((vip, PORT)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    })
}

/// Receives the datagram that the fixtures make.
fn receive(socket: &UdpSocket, client: IpAddr, what: &str) {
    let mut bytes = [0; 16];
    let (length, from) = socket.recv_from(&mut bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!((&bytes[..length], from.ip()), (&b"query"[..], client), "{what}");
}

fn send_frame(frame: &[u8]) {
    let mut links = getifaddrs().unwrap().filter(|interface| interface.interface_name == "eth1");
    let link: LinkAddr = links.find_map(|interface| interface.address?.as_link_addr().copied()).unwrap();
    let raw = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), Some(SockProtocol::EthAll)).unwrap();
    assert_eq!(sendto(raw.as_raw_fd(), frame, &link, MsgFlags::empty()).unwrap(), frame.len());
}

/// Sends an IP packet as it is.
fn send_packet(packet: &[u8]) {
    let raw = |family| socket(family, SockType::Raw, SockFlag::empty(), Some(SockProtocol::Raw)).unwrap();
    let sent = if packet[0] >> 4 == 4 {
        let to = SockaddrIn::from(std::net::SocketAddrV4::new(VIP4.into(), 0));
        sendto(raw(AddressFamily::Inet).as_raw_fd(), packet, &to, MsgFlags::empty())
    } else {
        let to = SockaddrIn6::from(std::net::SocketAddrV6::new(VIP6.into(), 0, 0, 0));
        sendto(raw(AddressFamily::Inet6).as_raw_fd(), packet, &to, MsgFlags::empty())
    };
    assert_eq!(sent.unwrap(), packet.len());
}

#[test]
fn the_stock_kernel_receives_gue() {
    if !has_gue() {
        return;
    }
    in_namespace(|| {
        let peer = stock();
        VIPS_HERE.iter().for_each(|command| peer.ip(command));
        peer.ip("route add default dev eth1");
        peer.ip("-6 route add default dev eth1");
        let mut plane = Dataplane::start(&settings(&[("eth1", Mode::Native)]), &links()).unwrap();
        let outer =
            OuterSources { v4: format!("{}/32", NODE[0]).parse().ok(), v6: format!("{}/128", NODE[1]).parse().ok() };
        let next_hop = NextHop::new(HOP_MAC, InterfaceSlot(0));
        let (address4, [high, low]) = (u32::from_le_bytes(VIP4), [0, 8].map(|n| word(&VIP6[n..])));
        let vip = VipWord::vip(VIP, POOL);
        let mut steps = vec![
            Step::SwitchDirectory4 { contents: keys(vec![(Key4::new(address4, PORT.swap_bytes(), 17), vip)]) },
            Step::SwitchDirectory6 { contents: keys(vec![(Key6::new([high, low], PORT.swap_bytes(), 17), vip)]) },
        ];
        for (id, backend) in (1..).zip(BACKEND) {
            let record = member_record(POOL, backend.parse().unwrap(), EncapKind::Gue, &outer, next_hop);
            steps.push(Step::WriteMember { id: member(id), record });
            steps.push(Step::FillTable { table: TableIndex(id), slots: table(member(id)) });
        }
        plane.publish(&steps).unwrap();
        let index = plane.interfaces()[0].index;
        let mut harness = Harness::from_dataplane(&mut plane);
        let [socket4, socket6] = peer.run(listen);
        for id in 1..=2 {
            plane.publish(&[Step::SwitchPool { pool: POOL, word: PoolWord::settled(TableIndex(id)) }]).unwrap();
            for (frame, socket, client) in [
                (fixtures::udp4(VIP4, PORT), &socket4, IpAddr::from(CLIENT4)),
                (fixtures::udp6(PORT), &socket6, IpAddr::from(CLIENT6)),
            ] {
                let (done, out) = harness.run(index, &frame);
                assert_eq!(done, action::TX);
                send_frame(&out);
                receive(socket, client, &format!("from {client} to {}", BACKEND[usize::from(id) - 1]));
            }
        }
    });
}

#[test]
fn what_the_stock_kernel_sends_in_gue_is_decapsulated() {
    if !has_gue() {
        return;
    }
    in_namespace(|| {
        let peer = stock();
        VIPS_HERE.iter().for_each(|command| ip(command));
        ip("route add default dev eth1");
        ip("-6 route add default dev eth1");
        let sockets = listen();
        let settings = DecapSettings {
            mss: Mss::Off,
            interfaces: interfaces(&[("eth1", Mode::Native)]),
            sources: vec!["10.0.1.11/32".parse().unwrap(), "fd00:1::11/128".parse().unwrap()],
            vips: Prefixes::new([IpAddr::from(VIP4), IpAddr::from(VIP6)].map(Into::into)),
            pin: None,
        };
        let decap = Decap::start(&settings, &links()).unwrap();
        let (frames, mut count) = ([fixtures::udp4(VIP4, PORT), fixtures::udp6(PORT)], 0);
        for [via4, via6] in [["ipip4", "sit4"], ["any6", "any6"]] {
            peer.ip(&format!("route replace 203.0.113.10 dev {via4}"));
            peer.ip(&format!("-6 route replace 2001:db8:2::a dev {via6}"));
            for ((frame, socket), client) in
                frames.iter().zip(&sockets).zip([IpAddr::from(CLIENT4), IpAddr::from(CLIENT6)])
            {
                let packet = frame[14..].to_vec();
                peer.run(move || send_packet(&packet));
                receive(socket, client, &format!("from {client} by {via4} or {via6}"));
                count += 1;
                assert_eq!(decap.snapshot().counter(DecapCounter::Decapsulated), count);
            }
        }
    });
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}
