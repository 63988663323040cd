//! Real devices with sockets on both ends: jumbo frames and IP options; and VLAN devices and bonds in the kernels that have them,
//! which `cargo xtask test kernels` boots.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use maglev_common::mark::Mark;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::*;
use crate::offloads;

/// The backend's address in [`first_plan`].
const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 11);
const PATIENCE: Duration = Duration::from_secs(30);

/// The other end of a link: clients, and the backend, which receives encapsulated packets.
struct Far {
    peer: Peer,
}

impl Far {
    /// A namespace in which the backend's address is local.
    fn new() -> Self {
        let peer = Peer::new();
        for path in ["ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"] {
            sysctl(path, "0");
            peer.sysctl(path, "0");
        }
        peer.ip(&format!("address add {BACKEND}/32 dev lo"));
        Self { peer }
    }

    /// Runs a program that passes all packets on an interface: a veth drops what is transmitted to it otherwise.
    fn pass(&self, name: &'static str) {
        self.peer.run(move || {
            let pass = Pass::start(&interfaces(&[(name, Mode::Native)]), &links()).unwrap();
            // It is to last as long as the namespace.
            std::mem::forget(pass);
        });
    }

    fn mac(&self, name: &'static str) -> [u8; 6] {
        self.peer.run(move || link_named(name).mac.unwrap())
    }

    /// Receives encapsulated packets that come in by one interface alone.
    fn backend(&self, interface: &str) -> OwnedFd {
        let name = interface.to_owned();
        self.peer.run(move || receiver(&name))
    }

    /// Sends datagrams to the VIP until an encapsulated one arrives: the first may wait for a neighbor.
    fn arrives(&self, at: &OwnedFd) -> bool {
        arrives(&self.peer.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()), at)
    }
}

/// A socket for packets of IP in IP (protocol 4) that come in by an interface.
fn receiver(interface: &str) -> OwnedFd {
    // SAFETY: the call makes a descriptor, which nothing else owns.
    let socket = unsafe {
        let fd = Errno::result(libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_IPIP)).unwrap();
        OwnedFd::from_raw_fd(fd)
    };
    setsockopt(&socket, sockopt::BindToDevice, &interface.into()).unwrap();
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(100)).unwrap();
    socket
}

fn arrives(from: &UdpSocket, at: &OwnedFd) -> bool {
    arrives_whole(from, at, b"request")
}

/// Sends a request until it arrives, encapsulated and unchanged.
fn arrives_whole(from: &UdpSocket, at: &OwnedFd, request: &[u8]) -> bool {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        // Refused as long as the neighbor is not known.
        let _ = from.send_to(request, (VIP_ADDRESS, 53));
        let mut packet = [0; 16_384];
        if let Ok(length) = nix::unistd::read(at, &mut packet) {
            assert_eq!(packet[16..20], BACKEND.octets(), "the outer destination");
            assert_eq!(&packet[length - request.len()..length], request);
            return true;
        }
    }
    false
}

fn set_ip_option(socket: &UdpSocket, name: libc::c_int, value: &[u8]) {
    let (value, length) = (value.as_ptr().cast(), value.len() as libc::socklen_t);
    // SAFETY: the kernel reads so many bytes, which are borrowed.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, name, value, length) };
    Errno::result(set).unwrap();
}

/// Whether a datagram of another test's time is still there to be received.
fn drained(at: &OwnedFd) -> bool {
    let mut packet = [0; 256];
    nix::unistd::read(at, &mut packet).is_err()
}

/// The first plan, with the checksum that a backend's kernel expects.
fn checked_plan() -> Vec<Step> {
    let record = record(0);
    record.state.set(MemberState::alive(POOL, Encap::IpIp4, packets::partial_checksum()).0);
    let mut steps = first_plan();
    steps[0] = Step::WriteMember { id: member(1), record };
    steps
}

/// Whether the kernel lacks a kind of device, of which this command makes one. The kernels that `cargo xtask test kernels` boots have
/// all of them.
fn lacks(command: &str) -> bool {
    let output = Command::new("ip").args(command.split_whitespace()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let lacking = text.contains("Unknown device type") || text.contains("not supported");
    assert!(output.status.success() || lacking && std::env::var_os("MAGLEV_DEVICES").is_none(), "{text}");
    lacking
}

/// Whether the kernel is at least this one.
fn is_linux(least: (u32, u32)) -> bool {
    let name = nix::sys::utsname::uname().unwrap();
    let mut numbers = name.release().to_str().unwrap().split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    version >= least
}

fn link_named(name: &str) -> Link {
    links().into_iter().find(|link| link.name == name).unwrap()
}

/// A client and a backend at the other end of two links of these MTUs; the backend is behind the second.
fn two_links(mtus: [u32; 2]) -> (Far, Dataplane) {
    let far = Far::new();
    for (name, mtu) in ["eth1", "eth2"].into_iter().zip(mtus) {
        far.peer.connect(name, name);
        let line = format!("link set {name} mtu {mtu}");
        ip(&line);
        far.peer.ip(&line);
        far.pass(name);
    }
    ip("address add 10.0.9.1/24 dev eth1");
    far.peer.ip("address add 10.0.9.2/24 dev eth1");
    far.peer.ip(&format!("route add {VIP_ADDRESS} via 10.0.9.1"));
    let mut plane = Dataplane::start(&settings(&[("eth1", Mode::Native), ("eth2", Mode::Native)]), &links()).unwrap();
    plane.publish(&checked_plan()).unwrap();
    (far, plane)
}

#[test]
fn jumbo_packets_of_a_real_sender_arrive_whole() {
    in_namespace(|| {
        let (far, mut plane) = two_links([9_000, 9_000]);
        let request: Vec<u8> = (0..8_900_u32).map(|n| (n * 7) as u8).collect();
        let client = far.peer.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        for (slot, name) in [(0, "eth1"), (1, "eth2")] {
            let next_hop = NextHop::new(far.mac(name), InterfaceSlot(slot));
            plane.publish(&[Step::SetNextHop { id: member(1), next_hop }]).unwrap();
            if slot == 1 && !is_linux((6, 3)) {
                println!("skipped: Linux before 6.3 redirects no packets in several pieces");
                return;
            }
            assert!(arrives_whole(&client, &far.backend(name), &request), "by {name}");
        }
        let snapshot = plane.snapshot();
        let sent = [Counter::Transmitted, Counter::Redirected].map(|counter| snapshot.counter(counter) > 0);
        assert_eq!((sent, snapshot.member(member(1)).bytes >= 2 * 8_900), ([true; 2], true));
    });
}

#[test]
fn a_sender_is_answered_with_the_mtu_of_another_interface() {
    in_namespace(|| {
        let (far, mut plane) = two_links([9_000, 1_500]);
        let next_hop = NextHop::new(far.mac("eth2"), InterfaceSlot(1));
        plane.publish(&[Step::SetNextHop { id: member(1), next_hop }]).unwrap();
        let backend = far.backend("eth2");
        let client = far.peer.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        set_ip_option(&client, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_DO.to_ne_bytes());
        assert!(arrives(&client, &backend), "a short packet");
        // The kernel takes the answer from the VIP, and refuses what is longer than its MTU from then on.
        let began = Instant::now();
        let refused = loop {
            match client.send_to(&[7; 4_000], (VIP_ADDRESS, 53)) {
                Err(error) => break error.raw_os_error(),
                Ok(_) if began.elapsed() > PATIENCE => break None,
                Ok(_) => {}
            }
        };
        assert_eq!(refused, Some(libc::EMSGSIZE));
        assert!(plane.snapshot().counter(Counter::PacketTooBig) > 0);
        assert!(arrives_whole(&client, &backend, &[7; 1_480 - 28]), "what fits the path");
    });
}

#[test]
fn packets_with_options_of_a_real_sender_arrive() {
    in_namespace(|| {
        let (far, mut plane) = two_links([1_500, 1_500]);
        let next_hop = NextHop::new(far.mac("eth1"), InterfaceSlot(0));
        plane.publish(&[Step::SetNextHop { id: member(1), next_hop }]).unwrap();
        let client = far.peer.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        // Record route (RFC 791 section 3.1), with room for one address.
        set_ip_option(&client, libc::IP_OPTIONS, &[7, 7, 4, 0, 0, 0, 0, 0]);
        assert!(arrives(&client, &far.backend("eth1")));
    });
}

#[test]
fn clients_and_backends_behind_vlan_devices() {
    in_namespace(|| {
        // Loopback devices carry no VLANs.
        ip("link add probe type veth peer name other");
        if lacks("link add link probe name probe.1 type vlan id 1") {
            return;
        }
        ip("link delete probe");
        let far = Far::new();
        far.peer.connect("eth1", "eth1");
        offloads::keep_tags_in_bytes("eth1");
        far.peer.run(|| offloads::keep_tags_in_bytes("eth1"));
        for vlan in [100, 200] {
            let add = format!("link add link eth1 name eth1.{vlan} type vlan id {vlan}");
            ip(&add);
            far.peer.ip(&add);
        }
        // The VLAN device has another address than its interface.
        ip("link set eth1.100 address 02:00:00:00:01:00");
        for vlan in [100, 200] {
            ip(&format!("link set eth1.{vlan} up"));
            far.peer.ip(&format!("link set eth1.{vlan} up"));
            ip(&format!("address add 10.0.{vlan}.1/24 dev eth1.{vlan}"));
            far.peer.ip(&format!("address add 10.0.{vlan}.2/24 dev eth1.{vlan}"));
        }
        far.peer.ip(&format!("route add {VIP_ADDRESS} via 10.0.100.1"));
        ip(&format!("route add {VIP_ADDRESS} via 10.0.100.2"));
        far.pass("eth1");

        let found = link_named("eth1.100");
        let vlan = found.vlan.unwrap();
        assert_eq!((vlan.on, vlan.id, vlan.protocol), (link_named("eth1").index, 100, 0x8100));
        let mut plane = Dataplane::start(&settings(&[("eth1", Mode::Native)]), &links()).unwrap();
        let slot = |plane: &Dataplane, vlan| plane.vlans().iter().find(|it| it.vlan() == vlan).unwrap().slot;
        plane.publish(&checked_plan()).unwrap();
        let mac = far.mac("eth1");
        let (plain, tagged) = (far.backend("eth1"), far.backend("eth1.200"));
        let to = |plane: &mut Dataplane, slot| {
            let next_hop = NextHop::new(mac, InterfaceSlot(slot));
            plane.publish(&[Step::SetNextHop { id: member(1), next_hop }]).unwrap();
        };
        let check = UdpSocket::bind("0.0.0.0:0").unwrap();
        setsockopt(&check, sockopt::Mark, &Mark::from_member(member(1)).0).unwrap();

        let vlan = slot(&plane, 200);
        to(&mut plane, vlan);
        assert!(far.arrives(&tagged), "a client in VLAN 100, its backend in VLAN 200");
        assert!(arrives(&check, &tagged), "a check that is routed by VLAN 100");
        assert!(drained(&plain), "not without a tag");
        to(&mut plane, 0);
        while !drained(&tagged) {}
        assert!(far.arrives(&plain), "its backend in no VLAN");
        assert!(arrives(&check, &plain));
        assert!(drained(&tagged));
        let snapshot = plane.snapshot();
        assert!(snapshot.counter(Counter::Transmitted) >= 2 && snapshot.counter(Counter::CheckSent) >= 2);
        assert_eq!(snapshot.counter(Counter::Redirected), 0);

        ip("link delete eth1.200");
        plane.refresh(&links());
        assert_eq!(plane.vlans().iter().map(VlanDevice::vlan).collect::<Vec<_>>(), [100]);
    });
}

/// A bond of two links, on both sides; and a second interface, so that the bond is not alone.
fn bonded(also: &[&'static str]) -> (Far, Dataplane) {
    let far = Far::new();
    far.peer.connect("one", "one");
    far.peer.connect("two", "two");
    for run in [&(|line: &str| ip(line)) as &dyn Fn(&str), &|line| far.peer.ip(line)] {
        run("link add bond type bond mode active-backup miimon 100");
        for member in ["one", "two"] {
            run(&format!("link set {member} down"));
            run(&format!("link set {member} master bond"));
            run(&format!("link set {member} up"));
        }
        run("link set bond up");
    }
    ip("address add 10.0.9.1/24 dev bond");
    far.peer.ip("address add 10.0.9.2/24 dev bond");
    far.peer.ip(&format!("route add {VIP_ADDRESS} via 10.0.9.1"));
    far.pass("bond");
    for name in also {
        far.peer.connect(name, name);
        far.pass(name);
    }
    let names: Vec<_> = ["bond"].iter().chain(also).map(|name| (*name, Mode::Native)).collect();
    let mut plane = Dataplane::start(&settings(&names), &links()).unwrap();
    plane.publish(&checked_plan()).unwrap();
    (far, plane)
}

#[test]
fn packets_come_in_by_a_bonds_members_and_leave_by_it() {
    for also in [&[][..], &["eth3"]] {
        in_namespace(move || {
            if lacks("link add probe type bond") {
                return;
            }
            if !also.is_empty() && !is_linux((6, 12)) {
                println!("skipped: Linux 6.1 sends no packet by a bond beside another interface");
                return;
            }
            let (far, mut plane) = bonded(also);
            let next_hop = NextHop::new(far.mac("bond"), InterfaceSlot(0));
            plane.publish(&[Step::SetNextHop { id: member(1), next_hop }]).unwrap();
            let backend = far.backend("bond");
            assert!(far.arrives(&backend));
            let snapshot = plane.snapshot();
            let sent = [Counter::Transmitted, Counter::Redirected].map(|counter| snapshot.counter(counter) > 0);
            println!("bond and {also:?}: transmitted {}, redirected {}", sent[0], sent[1]);
            assert!(sent[0] ^ sent[1]);
            // The other member takes over.
            ip("link set one down");
            while !drained(&backend) {}
            assert!(far.arrives(&backend), "by the other member");
            assert_eq!(snapshot.counter(Counter::OtherMac), 0);
        });
    }
}
