//! Faults that were found by running the product, through the kernel: what a backend unwraps, and what is left in the BPF
//! file system.

mod packets;

use std::fs;

use ipnet::IpNet;
use maglev_common::maps::{DECAP_VIPS4, DECAP_VIPS6};
use maglev_testing::matrix::Row;

use super::outlive::Folder;
use super::*;

/// One fault's case: fails as an assertion does, and prints its row.
fn case(number: &'static str, name: &str, check: impl FnOnce() -> String) {
    let mut row = Row::fault(number, name);
    let said = check();
    row.says(said);
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Decapsulation on an interface for these VIPs.
pub(super) fn decap_settings(interface: &str, vips: &[&str], folder: Option<&Folder>) -> DecapSettings {
    DecapSettings {
        interfaces: interfaces(&[(interface, Mode::Native)]),
        sources: nets(&["10.64.0.0/16", "fd64::/32"]),
        vips: Prefixes::new(nets(vips)),
        mss: Mss::Off,
        pin: folder.map(|folder| folder.0.clone()),
    }
}

/// A frame: an IPv4 header from a load balancer around these bytes.
pub(super) fn wrapped(protocol: u8, inner: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0];
    frame.extend((20 + inner.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 64, 11, 95, 10, 0, 1, 11]);
    frame.extend(inner);
    frame
}

/// An IPv4 packet.
fn ipv4(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0, 0, 0, 60, protocol, 0, 0]);
    for address in [source, destination] {
        packet.extend(address.parse::<Ipv4Addr>().unwrap().octets());
    }
    packet.extend(payload);
    wrapped(4, &packet)
}

/// An IPv6 packet that no router forwarded.
fn ipv6(source: &str, destination: &str, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next_header, 255]);
    for address in [source, destination] {
        packet.extend(address.parse::<std::net::Ipv6Addr>().unwrap().octets());
    }
    packet.extend(payload);
    wrapped(41, &packet)
}

const CLIENT6: &str = "2001:db8:51::7";
const VIP4: &str = "203.0.113.10";
const VIP6: &str = "2001:db8:113::10";
const UDP: [u8; 8] = [0x9c, 0x40, 0, 80, 0, 8, 0, 0];
const ROUTER_ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];

/// Whether each frame is dropped, and counted so once.
fn dropped(vips: &[&str], rows: &[(&'static str, &str, Vec<u8>, DecapCounter)]) {
    let mut decap = Decap::start(&decap_settings("eth2", vips, None), &links()).unwrap();
    let index = decap.interfaces().next().unwrap().index;
    let mut harness = Harness::new(decap.ebpf(), DECAP_PROGRAM);
    for (number, name, frame, reason) in rows {
        case(number, name, || {
            let before = decap.snapshot().counter(*reason);
            let (verdict, after) = harness.run(index, frame);
            assert_eq!((verdict, &after), (action::DROP, frame));
            assert_eq!(decap.snapshot().counter(*reason), before + 1);
            format!("dropped as {}", reason.name())
        });
    }
    for frame in [ipv4("198.51.100.7", VIP4, 17, &UDP), ipv6(CLIENT6, VIP6, 17, &UDP)] {
        let (verdict, after) = harness.run(index, &frame);
        assert_eq!((verdict, &after[14..]), (action::PASS, &frame[34..]), "a client's packet is unwrapped");
    }
}

#[test]
fn unwrapped_packets_are_for_a_vip_and_from_a_possible_source() {
    use DecapCounter::{ForeignDestination, ImpossibleSource, NeighborDiscovery};
    in_namespace(|| {
        let _peer = two_veths();
        let client = "198.51.100.7";
        dropped(
            &[VIP4, VIP6].map(|vip| if vip.contains(':') { "2001:db8:113::/64" } else { "203.0.113.10/32" }),
            &[
                (
                    "D7",
                    "a router advertisement to all nodes",
                    ipv6("fe80::bad", "ff02::1", 58, &ROUTER_ADVERTISEMENT),
                    NeighborDiscovery,
                ),
                (
                    "D7",
                    "a router advertisement to a VIP, behind destination options",
                    ipv6(CLIENT6, VIP6, 60, &[&[58, 0, 1, 4, 0, 0, 0, 0], &ROUTER_ADVERTISEMENT[..]].concat()),
                    NeighborDiscovery,
                ),
                (
                    "D7",
                    "an ICMP redirect to a VIP",
                    ipv4(client, VIP4, 1, &[5, 1, 0, 0, 10, 0, 0, 1]),
                    NeighborDiscovery,
                ),
                ("D7", "UDP to the backend's own address", ipv4(client, "10.0.1.11", 17, &UDP), ForeignDestination),
                ("D7", "UDP to a multicast group", ipv6(CLIENT6, "ff02::fb", 17, &UDP), ForeignDestination),
                (
                    "D7",
                    "UDP to the limited broadcast address",
                    ipv4(client, "255.255.255.255", 17, &UDP),
                    ForeignDestination,
                ),
                ("D9", "from 127.0.0.1", ipv4("127.0.0.1", VIP4, 17, &UDP), ImpossibleSource),
                ("D9", "from the destination itself", ipv4(VIP4, VIP4, 17, &UDP), ImpossibleSource),
                ("D9", "from 255.255.255.255", ipv4("255.255.255.255", VIP4, 17, &UDP), ImpossibleSource),
                ("D9", "from ::1", ipv6("::1", VIP6, 17, &UDP), ImpossibleSource),
                ("D9", "from a link-local address", ipv6("fe80::7", VIP6, 17, &UDP), ImpossibleSource),
                ("D9", "from an IPv4-mapped address", ipv6("::ffff:198.51.100.7", VIP6, 17, &UDP), ImpossibleSource),
            ],
        );
    });
}

#[test]
fn lengths_that_contradict_each_other_are_malformed() {
    use DecapCounter::Malformed;
    in_namespace(|| {
        let _peer = two_veths();
        let found = "0200000003020200000003010800458b00270000400040041a9d0a400b5f0a03000245ae001be4694000440658babda501374eb4\
                     eb7a1e40e264af1977";
        let found: Vec<u8> =
            (0..found.len() / 2).map(|n| u8::from_str_radix(&found[2 * n..2 * n + 2], 16).unwrap()).collect();
        let changed = |mut frame: Vec<u8>, at: usize, value: u8| {
            frame[at] = value;
            frame
        };
        let v4 = || ipv4("198.51.100.7", VIP4, 17, &UDP);
        let behind = [v4(), vec![0; 4]].concat();
        dropped(
            &["78.180.235.122/32", "203.0.113.10/32", "2001:db8:113::/64"],
            &[
                ("D8", "an inner total length beyond the outer payload", found, Malformed),
                ("D8", "an inner header longer than the packet", changed(v4(), 34, 0x48), Malformed),
                (
                    "D8",
                    "an inner IPv6 payload length beyond the outer payload",
                    changed(ipv6(CLIENT6, VIP6, 17, &UDP), 39, 9),
                    Malformed,
                ),
                ("D8", "bytes in the outer packet behind the inner one", changed(behind, 17, 20 + 28 + 4), Malformed),
            ],
        );
    });
}

#[test]
fn vips_are_replaced_while_it_runs() {
    in_namespace(|| {
        let _peer = two_veths();
        let mut decap = Decap::start(&decap_settings("eth2", &[], None), &links()).unwrap();
        let index = decap.interfaces().next().unwrap().index;
        let mut harness = Harness::new(decap.ebpf(), DECAP_PROGRAM);
        let mut run = |to: &str| harness.run(index, &ipv4("198.51.100.7", to, 17, &UDP)).0;
        case("D7", "a VIP that comes to loopback later, and goes", || {
            assert_eq!(run(VIP4), action::DROP);
            decap.serve(&Prefixes::from_loopback(nets(&["203.0.113.0/24", "127.0.0.0/8"]))).unwrap();
            assert_eq!([VIP4, "203.0.113.254"].map(&mut run), [action::PASS; 2]);
            assert_eq!(run("203.0.113.255"), action::DROP, "the prefix's broadcast address");
            decap.serve(&Prefixes::from_loopback(nets(&["127.0.0.0/8"]))).unwrap();
            assert_eq!(run(VIP4), action::DROP);
            format!("{} dropped as foreign_destination", decap.snapshot().counter(DecapCounter::ForeignDestination))
        });
    });
}

#[test]
fn decapsulation_outlives_its_process() {
    in_namespace(|| {
        let (_peer, folder) = (two_veths(), Folder::new());
        let start =
            |interface: &str, vips: &[&str]| Decap::start(&decap_settings(interface, vips, Some(&folder)), &links());
        let run = |decap: &mut Decap| {
            let index = decap.interfaces().next().unwrap().index;
            Harness::new(decap.ebpf(), DECAP_PROGRAM).run(index, &ipv4("198.51.100.7", VIP4, 17, &UDP)).0
        };
        let count = |decap: &Decap| decap.snapshot().counter(DecapCounter::Decapsulated);
        let vip = ["203.0.113.10/32"];
        case("D14", "a second process on the same interface", || {
            let first = start("eth1", &vip).unwrap();
            let error = start("eth1", &vip).unwrap_err().to_string();
            let process = format!("another maglevd decap (process {}) runs on eth1", std::process::id());
            assert!(error.contains(&process), "{error}");
            start("eth2", &vip).unwrap().stop();
            drop(first);
            "refused with interface and process; another interface is free".to_owned()
        });
        case("D14", "adopted: counters go on, VIPs are changed in place, the program is the new process's own", || {
            let before = attached("eth1").unwrap();
            let mut decap = start("eth1", &vip).unwrap();
            assert_ne!(attached("eth1").unwrap().program, before.program);
            assert_eq!((run(&mut decap), count(&decap)), (action::PASS, 1));
            drop(decap);
            let mut decap = start("eth1", &[]).unwrap();
            assert_eq!((run(&mut decap), count(&decap)), (action::DROP, 1));
            drop(decap);
            let mut decap = start("eth1", &vip).unwrap();
            assert_eq!((run(&mut decap), count(&decap)), (action::PASS, 2));
            "counted 1, then 2".to_owned()
        });
        case("D14", "maps of another layout are replaced", || {
            let maps = folder.0.join("eth1/decap-v1");
            fs::remove_file(maps.join(DECAP_VIPS4)).unwrap();
            fs::rename(maps.join(DECAP_VIPS6), maps.join(DECAP_VIPS4)).unwrap();
            let mut decap = start("eth1", &vip).unwrap();
            assert_eq!((run(&mut decap), count(&decap)), (action::PASS, 1));
            decap.stop();
            assert_eq!((attached("eth1"), folder.0.exists()), (None, false));
            "counters begin anew".to_owned()
        });
        case("D14", "a program of others is not replaced", || {
            let foreign = Pass::start(&interfaces(&[("eth1", Mode::Native)]), &links()).unwrap();
            let before = attached("eth1");
            let error = start("eth1", &vip).unwrap_err().to_string();
            assert!(error.contains("eth1 already runs XDP program 'pass'"), "{error}");
            assert_eq!((attached("eth1"), folder.0.exists()), (before, false));
            drop(foreign);
            error
        });
        case("D14", "another mode than what is pinned", || {
            drop(start("eth1", &vip).unwrap());
            let settings = decap_settings("eth1", &vip, Some(&folder));
            let generic = DecapSettings { interfaces: interfaces(&[("eth1", Mode::Generic)]), ..settings };
            Decap::start(&generic, &links()).unwrap().stop();
            assert_eq!((attached("eth1"), folder.0.exists()), (None, false));
            "attached anew".to_owned()
        });
    });
}

#[test]
fn decapsulation_waits_for_its_interface() {
    in_namespace(|| {
        let (peer, folder) = (two_veths(), Folder::new());
        let mut settings = decap_settings("eth1", &[], Some(&folder));
        settings.interfaces = interfaces(&[("eth1", Mode::Native), ("eth7.1", Mode::Generic)]);
        let mut decap = Decap::start(&settings, &links()).unwrap();
        case("C6", "one interface of two is not there yet", || {
            assert_eq!(decap.waiting(), ["eth7.1"]);
            assert_eq!(decap.refresh(&links()).detached, ["eth7.1"]);
            assert!(attached("eth1").is_some());
            peer.connect("eth7.1", "eth7");
            assert_eq!((decap.refresh(&links()), decap.waiting().len()), (Refresh::default(), 0));
            assert_eq!(attached("eth7.1").unwrap().at, XdpAt::Generic);
            "attached when it came".to_owned()
        });
        case("C6", "it goes and comes", || {
            ip("link del eth7.1");
            assert_eq!(decap.refresh(&links()).detached, ["eth7.1"]);
            peer.connect("eth7.1", "eth7");
            assert_eq!((decap.refresh(&links()), attached("eth7.1").unwrap().at), (Refresh::default(), XdpAt::Generic));
            "attached anew".to_owned()
        });
        case("C6", "it is not there when the next process starts", || {
            drop(decap);
            ip("link del eth7.1");
            let mut decap = Decap::start(&settings, &links()).unwrap();
            assert_eq!(decap.waiting(), ["eth7.1"]);
            peer.connect("eth7.1", "eth7");
            assert_eq!(decap.refresh(&links()), Refresh::default());
            decap.stop();
            assert_eq!((attached("eth7.1"), attached("eth1"), folder.0.exists()), (None, None, false));
            "adopted, and attached when it came".to_owned()
        });
    });
}

#[test]
fn nothing_stays_in_the_pin_folder() {
    in_namespace(|| {
        let (_peer, folder) = (two_veths(), Folder::new());
        let wanted = settings(&[("eth1", Mode::Native)]);
        let started = || {
            let mut plane = Dataplane::replace(&wanted, &links(), &folder.hold()).unwrap();
            plane.outlive().unwrap();
            plane
        };
        case("T5", "a daemon that detaches", || {
            started().stop();
            assert!(!folder.0.exists());
            "no folder".to_owned()
        });
        case("T5", "a daemon that does not start", || {
            // It has no Ethernet address.
            let wrong = settings(&[("lo", Mode::Native)]);
            Dataplane::replace(&wrong, &links(), &folder.hold()).unwrap_err();
            assert!(!folder.0.exists());
            "no folder".to_owned()
        });
        case("T5", "beside what others pinned", || {
            let other = folder.0.join("other");
            fs::create_dir_all(&other).unwrap();
            started().stop();
            assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
            fs::remove_dir(other).unwrap();
            "theirs is left".to_owned()
        });
        case("T5", "a folder of folders", || {
            let deep = folder.0.join("a").join("b");
            drop(Pins::hold(&deep).unwrap());
            assert!(!folder.0.exists());
            "none is left".to_owned()
        });
    });
}
