//! The faults of a node.

use maglev_api::view::FindingLevel::{Error, Warning};
use maglev_api::view::{self, FindingLevel};

use super::{hold, problems, well};
use crate::facts::{Daemon, Device, Fact, Link, Mode, Node, Path, Probe, Program, Rehearsal};

/// What is changed in the facts, and the finding: its level, words of it, and words of its remedy.
type Fault = (&'static str, fn(&mut Node), FindingLevel, &'static str, &'static str);

fn device(node: &mut Node) -> &mut Device {
    node.interfaces.as_mut().unwrap()[0].device.as_mut().unwrap()
}

fn daemon(node: &mut Node) -> &mut Daemon {
    node.daemon.as_mut().unwrap()
}

fn mode(node: &mut Node, file: usize, bits: u32) {
    node.files[file].found = Ok(Some(Mode { bits, owner: 0 }));
}

fn first(paths: &mut Fact<Vec<Path>>) -> &mut Path {
    &mut paths.as_mut().unwrap()[0]
}

fn rehearsal(node: &mut Node) -> &mut Rehearsal {
    node.rehearsal.as_mut().unwrap().as_mut().unwrap()
}

/// The machine and the files.
const OF_THE_HOST: [Fault; 14] = [
    (
        "a kernel without a feature",
        |node| node.host.missing_feature = Ok(Some("eBPF helper bpf_jiffies64".into())),
        Error,
        "it has no eBPF helper bpf_jiffies64",
        "kernel of release 6.1",
    ),
    ("interpreted programs", |node| node.host.jit = Ok(Some(0)), Warning, "interpreted", "bpf_jit_enable=1"),
    (
        "no BPF file system",
        |node| node.host.pin.as_mut().unwrap().is_bpf = Ok(false),
        Error,
        "no BPF file system",
        "mount -t bpf",
    ),
    (
        "a clock that is not synchronised",
        |node| node.host.clock = Ok(false),
        Warning,
        "not synchronised",
        "systemd-timesyncd",
    ),
    ("few open files", |node| node.host.memory.open_files = Ok(1_024), Warning, "1024 files", "LimitNOFILE"),
    (
        "too little memory",
        |node| node.host.memory.available = Ok(100 << 20),
        Error,
        "take 200 MiB, and the machine has 100 MiB left",
        "flow_table.flows",
    ),
    ("a limit of memory", |node| node.host.memory.group_left = Ok(Some(10 << 20)), Error, "MemoryMax", "limits.pools"),
    (
        "a start that is refused",
        |node| rehearsal(node).refused = Some("the verifier says no".into()),
        Error,
        "the verifier says no",
        "maglevd preflight",
    ),
    (
        "a key that every user reads",
        |node| mode(node, 0, 0o644),
        Error,
        "every user can read the secrets",
        "chmod o= /etc",
    ),
    (
        "a configuration that every user writes",
        |node| mode(node, 0, 0o642),
        Error,
        "every user can write it",
        "chmod o-w",
    ),
    (
        "services that every user writes",
        |node| mode(node, 1, 0o666),
        Error,
        "every user can write it",
        "chmod o-w /var",
    ),
    ("a folder that every user writes", |node| mode(node, 2, 0o777), Error, "replace the files in it", "chmod o-w"),
    ("no folder for the state", |node| node.files[2].found = Ok(None), Error, "no change can be saved", "install -d"),
    ("a socket for every user", |node| mode(node, 3, 0o666), Error, "every user can connect", "chmod 660"),
];

/// The interfaces.
const OF_INTERFACES: [Fault; 16] = [
    (
        "an interface that does not exist",
        |node| node.interfaces.as_mut().unwrap()[0].device = None,
        Error,
        "does not exist",
        "correct the name in maglev.yaml",
    ),
    (
        "an interface that is down",
        |node| device(node).link = Link::Down,
        Error,
        "it is down",
        "ip link set dev eth0 up",
    ),
    ("no carrier", |node| device(node).link = Link::NoCarrier, Error, "no carrier", "check the cable"),
    (
        "an interface without Ethernet",
        |node| device(node).is_ethernet = false,
        Error,
        "no Ethernet address",
        "list an Ethernet",
    ),
    (
        "another XDP program",
        |node| {
            let program = Program { id: 9, name: Some("other".into()), native: true, is_ours: Some(false) };
            device(node).program = Some(program);
        },
        Error,
        "another XDP program is attached: other (id 9)",
        "xdpdrv off",
    ),
    (
        "another mode",
        |node| device(node).program.as_mut().unwrap().native = false,
        Warning,
        "attached in generic mode",
        "--cut",
    ),
    (
        "a limit of the driver",
        |node| {
            device(node).refusals =
                vec!["MTU 9000 is above the limit of driver igb for XDP, 3046: `ip link set dev eth0 mtu 3046`".into()];
        },
        Error,
        "MTU 9000 is above the limit",
        "`ip link set dev eth0 mtu 3046`",
    ),
    (
        "fewer queues than CPUs at the driver",
        |node| {
            device(node).advice =
                vec!["4 queues are fewer than 8 CPUs: packets are dropped; `ethtool -L eth0 combined 8`".into()];
        },
        Warning,
        "4 queues are fewer than 8 CPUs",
        "ethtool -L eth0 combined 8",
    ),
    (
        "generic mode on a driver with native XDP",
        |node| {
            node.interfaces.as_mut().unwrap()[0].native = false;
            let device = device(node);
            device.gro = Some(false);
            device.program.as_mut().unwrap().native = false;
        },
        Warning,
        "has native XDP",
        "`mode: native`",
    ),
    ("queues that are not used", |node| device(node).queues = Some(2), Warning, "2 of 8 possible queues", "combined 8"),
    (
        "interrupts on one CPU",
        |node| device(node).interrupts = Ok(vec![vec![0]; 8]),
        Warning,
        "go to CPU 0",
        "irqbalance",
    ),
    ("LRO", |node| device(node).lro = Some(true), Warning, "LRO merges packets", "lro off"),
    (
        "GRO in generic mode",
        |node| {
            node.interfaces.as_mut().unwrap()[0].native = false;
            let device = device(node);
            device.runs_native = Some(false);
            device.program.as_mut().unwrap().native = false;
        },
        Warning,
        "GRO merges packets",
        "gro off",
    ),
    (
        "a card that strips VLAN tags",
        |node| device(node).strips_tags = Some(true),
        Warning,
        "strips VLAN tags",
        "rxvlan off",
    ),
    (
        "rings that overflow",
        |node| device(node).lost = Ok(vec![("receive_missed".into(), 12)]),
        Warning,
        "receive_missed 12",
        "ethtool -G eth0",
    ),
    ("strict reverse path filter", |node| device(node).rp_filter = Ok(1), Warning, "rp_filter is 1", "rp_filter=0"),
];

/// Paths, VIPs and neighbors.
const OF_PATHS: [Fault; 9] = [
    (
        "no route to a backend",
        |node| first(&mut node.backends).hop = Err("no route to 10.0.1.11".into()),
        Error,
        "no route to 10.0.1.11: backend web1 of pool web",
        "ip route add",
    ),
    (
        "a neighbor that does not answer",
        |node| {
            first(&mut node.backends).hop = Err("neighbor 10.0.1.11 on eth0 does not answer".into());
        },
        Error,
        "does not answer",
        "answers ARP",
    ),
    (
        "a route by another interface",
        |node| {
            let hop = first(&mut node.backends).hop.as_mut().unwrap();
            (hop.interface, hop.is_listed) = ("eth9".into(), false);
        },
        Error,
        "routed via eth9",
        "add eth9 to `interfaces`",
    ),
    (
        "a small MTU",
        |node| first(&mut node.backends).hop.as_mut().unwrap().mtu = 1_500,
        Warning,
        "need 1520",
        "maglevd decap --mss auto",
    ),
    (
        "a path that loses long packets",
        |node| first(&mut node.backends).hop.as_mut().unwrap().probe = Probe::Lost,
        Error,
        "packets of 1600 bytes",
        "raise the MTU",
    ),
    (
        "a VIP that is an address of the node",
        |node| {
            node.conflicts = Ok(vec![("www".into(), "203.0.113.10 is an address of this node, on lo".into())]);
        },
        Error,
        "an address of this node",
        "ip address del",
    ),
    (
        "no route to a VIP",
        |node| first(&mut node.vips).hop = Err("no route to 203.0.113.10".into()),
        Error,
        "no route to 203.0.113.10: VIP www",
        "ip route add",
    ),
    (
        "a VIP's route by another interface",
        |node| {
            let hop = first(&mut node.vips).hop.as_mut().unwrap();
            (hop.interface, hop.is_listed) = ("eth9".into(), false);
        },
        Error,
        "routed via eth9",
        "through a gateway on one of `interfaces`",
    ),
    (
        "no route to a BGP neighbor",
        |node| first(&mut node.neighbors).hop = Err("no route to 10.0.0.1".into()),
        Error,
        "BGP neighbor tor1",
        "ip route add",
    ),
];

/// What the daemon says.
const OF_THE_DAEMON: [Fault; 14] = [
    (
        "a BGP session that is down",
        |node| {
            let session = &mut daemon(node).sessions[0];
            (session.state, session.last_error) = ("active".into(), Some("connection refused".into()));
        },
        Error,
        "not established (active): connection refused",
        "TCP port 179",
    ),
    (
        "a neighbor that is not loaded",
        |node| daemon(node).sessions.clear(),
        Warning,
        "the daemon does not know it",
        "maglev reload",
    ),
    (
        "a neighbor that is gone from the file",
        |node| {
            let old = view::BgpNeighbor { name: "tor9".into(), ..view::BgpNeighbor::default() };
            daemon(node).sessions.push(old);
        },
        Warning,
        "does not name any more",
        "maglev reload",
    ),
    (
        "a flow table that is too small",
        |node| {
            let table = &mut daemon(node).status.flow_table;
            (table.flow_table_full, table.since) = (7, Some(1));
        },
        Error,
        "7 flows were not recorded",
        "flow_table.flows",
    ),
    (
        "a flow table that is half full",
        |node| {
            let mut pool = maglev_api::testing::summary();
            pool.in_transition.pinned_flows = Some(300_000);
            daemon(node).status.pools.push(pool);
        },
        Warning,
        "more than half",
        "flow_table.flows",
    ),
    (
        "services that are not loaded",
        |node| daemon(node).status.services_digest = "0ld".into(),
        Warning,
        "is not loaded",
        "maglev plan reload",
    ),
    (
        "another hash key",
        |node| daemon(node).status.hash_key_digest = "0ld".into(),
        Error,
        "is not the key in use",
        "restart",
    ),
    (
        "a packet path out of sync",
        |node| {
            let failed = view::OutOfSync { reason: "no memory".into(), ..view::OutOfSync::default() };
            daemon(node).status.out_of_sync = Some(failed);
        },
        Error,
        "out of sync with the saved services: no memory",
        "maglev reload",
    ),
    (
        "a program that is not attached",
        |node| daemon(node).status.interfaces[0].attached = false,
        Error,
        "not attached to eth0",
        "journalctl",
    ),
    (
        "a node that does not forward",
        |node| daemon(node).status.node.unable = Some("eth0 is down".into()),
        Error,
        "does not forward: eth0 is down",
        "set an interface up",
    ),
    (
        "a drained node",
        |node| daemon(node).status.node.drain = Some(view::NodeDrain::default()),
        Warning,
        "draining by order",
        "maglev node undrain",
    ),
    (
        "state that is not saved",
        |node| daemon(node).status.state_not_saved = Some("read-only".into()),
        Error,
        "not saved: read-only",
        "writable",
    ),
    (
        "checks that all fail",
        |node| daemon(node).status.common_failure = true,
        Error,
        "every check fails at once",
        "the node's own link",
    ),
    (
        "checks that are not made",
        |node| {
            let shortage = view::CheckShortage { checks: 3, reason: "no port is free".into(), seconds_ago: 1 };
            daemon(node).status.check_shortage = Some(shortage);
        },
        Warning,
        "3 checks were not made: no port is free",
        "raise the limit",
    ),
];

#[test]
fn nothing_is_found_on_a_healthy_node() {
    let mut healthy = well::node();
    assert_eq!(problems(&crate::node(&healthy)), Vec::<&view::Finding>::new());
    (healthy.daemon, healthy.vips, healthy.neighbors) = (None, Ok(Vec::new()), Ok(Vec::new()));
    assert_eq!(problems(&crate::node(&healthy)), Vec::<&view::Finding>::new());
    (healthy.backends, healthy.rehearsal) = (Ok(Vec::new()), None);
    let found = crate::node(&healthy);
    assert_eq!(problems(&found), Vec::<&view::Finding>::new());
    assert!(found.0.len() > 15 && found.0.iter().all(|finding| finding.remedy.is_none()), "{found}");
}

#[test]
fn each_fault_of_a_node_is_found_alone_with_its_remedy() {
    let all = OF_THE_HOST.iter().chain(&OF_INTERFACES).chain(&OF_PATHS).chain(&OF_THE_DAEMON);
    for (fault, seed, level, found, remedy) in all {
        let mut facts = well::node();
        seed(&mut facts);
        hold(fault, &crate::node(&facts), *level, found, remedy);
    }
}

#[test]
fn every_mistake_of_the_configuration_is_an_error() {
    let mut facts = well::node();
    facts.config = Err(["maglev.yaml:3: hash_key: missing", "maglev.yaml:4: encap: missing"].map(str::to_owned).into());
    let findings = crate::node(&facts);
    let found: Vec<_> = problems(&findings).into_iter().map(|finding| finding.found.as_str()).collect();
    assert_eq!(found, ["maglev.yaml:3: hash_key: missing", "maglev.yaml:4: encap: missing"]);
}

#[test]
fn thousands_of_backends_behind_one_fault_are_one_finding() {
    let mut facts = well::node();
    let path = |n: u32| Path {
        hop: Err("interface eth0 is down".to_owned()),
        ..well::path(&format!("backend web{n} of pool web"), &std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string(), 20)
    };
    facts.backends = Ok((1..=4_000).map(path).collect());
    let words = "backend web5 of pool web (10.0.0.5) and 3995 more";
    hold("an interface that is down", &crate::node(&facts), Error, words, "ip link set dev NAME up");
}

#[test]
fn maps_that_exist_need_no_more_memory() {
    let mut facts = well::node();
    facts.host.memory.available = Ok(1 << 20);
    rehearsal(&mut facts).exists = true;
    assert_eq!(problems(&crate::node(&facts)), Vec::<&view::Finding>::new());
}
