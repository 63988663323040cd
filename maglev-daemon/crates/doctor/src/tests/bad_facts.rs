//! Facts that could not be read: each is a finding, and none is passed over.

use maglev_api::view::FindingLevel;

use super::{hold, problems, well};
use crate::facts::{Backend, Device, Node};

type Seed<T> = (&'static str, fn(&mut T));

fn device(node: &mut Node) -> &mut Device {
    node.interfaces.as_mut().unwrap()[0].device.as_mut().unwrap()
}

const OF_NODE: [Seed<Node>; 20] = [
    ("file", |node| node.files[0].found = Err("broken".into())),
    ("features", |node| node.host.missing_feature = Err("broken".into())),
    ("jit", |node| node.host.jit = Err("broken".into())),
    ("pin", |node| node.host.pin.as_mut().unwrap().is_bpf = Err("broken".into())),
    ("clock", |node| node.host.clock = Err("broken".into())),
    ("memory", |node| node.host.memory.available = Err("broken".into())),
    ("group", |node| node.host.memory.group_left = Err("broken".into())),
    ("open files", |node| node.host.memory.open_files = Err("broken".into())),
    ("interfaces", |node| node.interfaces = Err("broken".into())),
    ("backends", |node| node.backends = Err("broken".into())),
    ("VIPs", |node| node.vips = Err("broken".into())),
    ("neighbors", |node| node.neighbors = Err("broken".into())),
    ("conflicts", |node| node.conflicts = Err("broken".into())),
    ("rehearsal", |node| node.rehearsal = Some(Err("broken".into()))),
    ("interrupts", |node| device(node).interrupts = Err("broken".into())),
    ("lost packets", |node| device(node).lost = Err("broken".into())),
    ("rp_filter", |node| device(node).rp_filter = Err("broken".into())),
    ("CPUs", |node| node.host.cpus = Err("broken".into())),
    ("queues", |node| device(node).queues = None),
    ("program", |node| device(node).program.as_mut().unwrap().is_ours = None),
];

const OF_BACKEND: [Seed<Backend>; 5] = [
    ("interfaces", |backend| backend.interfaces = Err("broken".into())),
    ("own addresses", |backend| backend.own = Err("broken".into())),
    ("loopback", |backend| backend.loopback = Err("broken".into())),
    ("arp_ignore", |backend| of_backend(backend).arp_ignore = Err("broken".into())),
    ("arp_announce", |backend| of_backend(backend).arp_announce = Err("broken".into())),
];

fn of_backend(backend: &mut Backend) -> &mut Device {
    backend.interfaces.as_mut().unwrap()[0].device.as_mut().unwrap()
}

#[test]
fn a_fact_of_a_node_that_is_not_known_is_a_warning() {
    for (fact, seed) in OF_NODE {
        let mut facts = well::node();
        seed(&mut facts);
        let findings = crate::node(&facts);
        hold(fact, &findings, FindingLevel::Warning, "could not be checked: ", "as root");
    }
}

#[test]
fn a_fact_of_a_backend_that_is_not_known_is_a_warning() {
    for (fact, seed) in OF_BACKEND {
        let mut facts = well::backend();
        seed(&mut facts);
        let findings = crate::backend(&facts);
        hold(fact, &findings, FindingLevel::Warning, "could not be checked: broken", "as root");
    }
}

#[test]
fn a_path_that_was_not_measured_says_so_and_is_no_problem() {
    let mut facts = well::node();
    for path in facts.backends.as_mut().unwrap() {
        path.hop.as_mut().unwrap().probe = crate::facts::Probe::NotSent("no probe can be sent: EPERM".into());
    }
    let findings = crate::node(&facts);
    assert!(problems(&findings).is_empty(), "{findings}");
    let found = findings.0.iter().find(|finding| finding.subject == "path MTU").unwrap();
    let words = "0 measured by probes with DF, 2 by interface and route alone (no probe can be sent: EPERM)";
    assert!(found.found.ends_with(words), "{found:?}");
}
