//! The faults of a backend.

use maglev_api::view::FindingLevel::{Error, Warning};
use maglev_api::view::{Finding, FindingLevel};

use super::{hold, problems, well};
use crate::facts::{Backend, DecapConfig, Device, Link, Mode, Program};

/// As for a node.
type Fault = (&'static str, fn(&mut Backend), FindingLevel, &'static str, &'static str);

fn device(backend: &mut Backend) -> &mut Device {
    backend.interfaces.as_mut().unwrap()[0].device.as_mut().unwrap()
}

fn config(backend: &mut Backend) -> &mut DecapConfig {
    backend.config.as_mut().unwrap()
}

const FAULTS: [Fault; 14] = [
    (
        "a VIP that is not local",
        |backend| {
            backend.own.as_mut().unwrap().pop();
            backend.loopback.as_mut().unwrap().pop();
        },
        Error,
        "203.0.113.10/32 is on no interface",
        "`ip address add 203.0.113.10/32 dev lo`",
    ),
    (
        "no VIP at all",
        |backend| {
            config(backend).vips = None;
            backend.own.as_mut().unwrap().pop();
            backend.loopback.as_mut().unwrap().pop();
        },
        Error,
        "no VIP is on lo",
        "ip address add VIP/32 dev lo",
    ),
    ("answers to ARP", |backend| device(backend).arp_ignore = Ok(0), Error, "arp_ignore is 0", "arp_ignore=1"),
    (
        "ARP requests from the VIP",
        |backend| device(backend).arp_announce = Ok(1),
        Error,
        "arp_announce is 1",
        "arp_announce=2",
    ),
    (
        "strict reverse path filter",
        |backend| device(backend).rp_filter = Ok(1),
        Warning,
        "clients' packets are dropped",
        "net.ipv4.conf.eth0.rp_filter=0",
    ),
    (
        "no program",
        |backend| device(backend).program = None,
        Error,
        "no program decapsulates",
        "systemctl start maglev-decap",
    ),
    (
        "another program",
        |backend| {
            let program = Program { id: 9, name: None, native: false, is_ours: Some(false) };
            device(backend).program = Some(program);
        },
        Error,
        "without a name (id 9)",
        "xdpgeneric off",
    ),
    (
        "any source",
        |backend| config(backend).sources = vec!["0.0.0.0/0".parse().unwrap()],
        Warning,
        "from any source",
        "encap.source",
    ),
    ("a small MTU", |backend| device(backend).mtu = 1_500, Warning, "need 1520", "`mss: auto` in decap.yaml"),
    (
        "no interface",
        |backend| backend.interfaces.as_mut().unwrap()[0].device = None,
        Error,
        "does not exist",
        "decap.yaml",
    ),
    (
        "an interface that is down",
        |backend| device(backend).link = Link::Down,
        Error,
        "it is down",
        "ip link set dev eth0 up",
    ),
    (
        "no BPF file system",
        |backend| backend.host.pin.as_mut().unwrap().is_bpf = Ok(false),
        Error,
        "no BPF file system",
        "mount -t bpf",
    ),
    (
        "a file that every user writes",
        |backend| {
            backend.files[0].found = Ok(Some(Mode { bits: 0o666, owner: 0 }));
        },
        Error,
        "every user can write it",
        "chmod o-w /etc/maglev/decap.yaml",
    ),
    (
        "a socket for every user",
        |backend| {
            backend.files[1].found = Ok(Some(Mode { bits: 0o777, owner: 0 }));
        },
        Error,
        "every user can connect",
        "chmod 660",
    ),
];

#[test]
fn nothing_is_found_on_a_healthy_backend() {
    let mut healthy = well::backend();
    assert_eq!(problems(&crate::backend(&healthy)), Vec::<&Finding>::new());
    // The VIPs on lo; an MTU of 1,500 with a smaller MSS; a VIP of IPv6 alone, for which ARP does not matter.
    config(&mut healthy).vips = None;
    (config(&mut healthy).lowers_mss, device(&mut healthy).mtu) = (true, 1_500);
    assert_eq!(problems(&crate::backend(&healthy)), Vec::<&Finding>::new());
    let vip: ipnet::IpNet = "2001:db8::10/128".parse().unwrap();
    config(&mut healthy).vips = Some(vec![vip]);
    healthy.own = Ok(vec![(vip.addr(), "lo".to_owned())]);
    device(&mut healthy).arp_ignore = Ok(0);
    assert_eq!(problems(&crate::backend(&healthy)), Vec::<&Finding>::new());
}

#[test]
fn each_fault_of_a_backend_is_found_alone_with_its_remedy() {
    for (fault, seed, level, found, remedy) in FAULTS {
        let mut facts = well::backend();
        seed(&mut facts);
        hold(fault, &crate::backend(&facts), level, found, remedy);
    }
}

#[test]
fn an_address_of_a_local_prefix_is_local() {
    let mut facts = well::backend();
    facts.loopback = Ok(vec!["203.0.113.0/28".parse().unwrap()]);
    facts.own = Ok(vec![("203.0.113.1".parse().unwrap(), "lo".to_owned())]);
    assert_eq!(problems(&crate::backend(&facts)), Vec::<&Finding>::new());
}
