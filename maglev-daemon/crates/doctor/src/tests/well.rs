//! A node and a backend on which all is well.

use std::net::IpAddr;

use maglev_api::view::{self, BgpNeighbor, Status};

use crate::facts::{
    Backend, Config, Daemon, DecapConfig, Device, File, Hop, Host, Interface, Link, Memory, Mode, Node, Path, Pin,
    Probe, Program, Rehearsal, Role,
};

/// The digests of a node that runs by its files.
const DIGESTS: [&str; 2] = ["5e57", "c0de"];

fn file(path: &str, role: Role, bits: u32) -> File {
    File { path: path.to_owned(), role, found: Ok(Some(Mode { bits, owner: 0 })) }
}

fn host() -> Host {
    Host {
        missing_feature: Ok(None),
        jit: Ok(Some(1)),
        pin: Some(Pin { folder: "/sys/fs/bpf/maglev".to_owned(), is_bpf: Ok(true) }),
        clock: Ok(true),
        cpus: Ok(8),
        memory: Memory { available: Ok(8 << 30), group_left: Ok(None), open_files: Ok(65_536) },
    }
}

/// A physical interface with a program.
pub(super) fn device(program: &str) -> Device {
    Device {
        link: Link::Up,
        mtu: 1_600,
        is_ethernet: true,
        has_vlans: true,
        program: Some(Program { id: 7, name: Some(program.to_owned()), native: true, is_ours: Some(true) }),
        driver: Some("i40e".to_owned()),
        runs_native: Some(true),
        refusals: Vec::new(),
        advice: Vec::new(),
        is_physical: true,
        queues: Some(8),
        most_queues: Some(64),
        interrupts: Ok((0..8).map(|cpu| vec![cpu]).collect()),
        lro: Some(false),
        gro: Some(true),
        strips_tags: Some(false),
        lost: Ok(Vec::new()),
        rp_filter: Ok(0),
        arp_ignore: Ok(1),
        arp_announce: Ok(2),
    }
}

fn at(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn path(to: &str, address: &str, overhead: u32) -> Path {
    let hop = Hop { interface: "eth0".to_owned(), is_listed: true, mtu: 1_600, probe: Probe::Passed };
    Path { to: to.to_owned(), address: at(address), overhead, hop: Ok(hop) }
}

fn interface(program: &str) -> Interface {
    Interface { name: "eth0".to_owned(), native: true, device: Some(device(program)) }
}

fn session() -> BgpNeighbor {
    BgpNeighbor { name: "tor1".to_owned(), state: "established".to_owned(), prefixes_sent: 1, ..BgpNeighbor::default() }
}

/// What the daemon of a healthy node says.
pub(super) fn daemon() -> Daemon {
    let interface = view::Interface {
        name: "eth0".to_owned(),
        renamed_to: None,
        mode: "native".to_owned(),
        attached: true,
        link: "up".to_owned(),
        index: 2,
        mtu: 1_600,
    };
    let [services_digest, hash_key_digest] = DIGESTS.map(str::to_owned);
    let flow_table = view::FlowTable { entries: 10, room: 458_752, ..view::FlowTable::default() };
    let status =
        Status { services_digest, hash_key_digest, flow_table, interfaces: vec![interface], ..Status::default() };
    Daemon { status, sessions: vec![session()] }
}

/// A node.
pub(super) fn node() -> Node {
    let [services_digest, hash_key_digest] = DIGESTS.map(str::to_owned);
    Node {
        config: Ok(Config { neighbors: vec![("tor1".to_owned(), at("10.0.0.1"))], services_digest, hash_key_digest }),
        files: vec![
            file("/etc/maglev/maglev.yaml", Role::Secret, 0o640),
            file("/var/lib/maglev/services.yaml", Role::Services, 0o644),
            file("/var/lib/maglev", Role::State, 0o755),
            file("/run/maglev/maglev.sock", Role::Socket, 0o660),
        ],
        host: host(),
        interfaces: Ok(vec![interface("maglev")]),
        backends: Ok(vec![
            path("backend web1 of pool web", "10.0.1.11", 20),
            path("backend web2 of pool web", "10.0.1.12", 20),
        ]),
        vips: Ok(vec![path("VIP www", "203.0.113.10", 0)]),
        neighbors: Ok(vec![path("BGP neighbor tor1", "10.0.0.1", 0)]),
        conflicts: Ok(Vec::new()),
        rehearsal: Some(Ok(Rehearsal { refused: None, memory: 200 << 20, exists: false })),
        daemon: Some(daemon()),
    }
}

/// A backend.
pub(super) fn backend() -> Backend {
    let vip = "203.0.113.10/32".parse().unwrap();
    Backend {
        config: Ok(DecapConfig {
            sources: vec!["10.64.11.0/24".parse().unwrap()],
            vips: Some(vec![vip]),
            lowers_mss: false,
        }),
        files: vec![
            file("/etc/maglev/decap.yaml", Role::Settings, 0o644),
            file("/run/maglev-decap/maglev-decap.sock", Role::Socket, 0o660),
        ],
        host: host(),
        interfaces: Ok(vec![interface("decap")]),
        own: Ok(vec![(at("127.0.0.1"), "lo".to_owned()), (at("203.0.113.10"), "lo".to_owned())]),
        loopback: Ok(vec!["127.0.0.0/8".parse().unwrap(), vip]),
    }
}
