//! What drivers of the running kernel demand: read, and refused before any program is attached.

use super::*;
use crate::driver_report;
use maglev_net::xdp::XdpFeatures;

/// Whether the kernel reports features of native XDP: Linux since 6.3.
fn reports() -> bool {
    maglev_net::xdp::features(1).is_some()
}

fn with_bridge() -> (Peer, Settings) {
    let peer = two_veths();
    ip("link add bridge type bridge");
    (peer, settings(&[("eth1", Mode::Native), ("bridge", Mode::Native)]))
}

#[test]
fn the_facts_of_a_veth_are_read() {
    in_namespace(|| {
        let _peer = two_veths();
        ip("link set eth1 mtu 9000");
        let link = links().into_iter().find(|link| link.name == "eth1").unwrap();
        let facts = driver_report::facts("eth1", link.index, link.mtu);
        assert_eq!((facts.driver.as_deref(), facts.out_of_tree, facts.mtu), (Some("veth"), false, 9_000));
        assert_eq!((facts.lro, facts.channels.is_some(), facts.page.is_some()), (Some(false), true, true));
        assert_eq!(facts.cpus, machine::possible_cpus().ok());
        // With that, no MTU is refused; and the driver itself refuses none, since the programs take packets in several buffers.
        let frags = facts.features.map(|features| features.has(XdpFeatures::BASIC.and(XdpFeatures::FRAGS)));
        assert_eq!(frags, reports().then_some(true));
        let wanted = settings(&[("eth1", Mode::Native), ("eth2", Mode::Native)]);
        assert_eq!(Dataplane::rehearse(&wanted, &links(), None).unwrap().warnings, [""; 0]);
        drop(Dataplane::start(&wanted, &links()).unwrap());
    });
}

#[test]
fn a_refusal_comes_before_any_program_is_attached() {
    in_namespace(|| {
        let (_peer, wanted) = with_bridge();
        if !reports() {
            println!("skipped: Linux before 6.3 reports no features");
            return;
        }
        let expected =
            "bridge: native XDP is not possible: driver bridge has no native XDP; or set `mode: generic` (slower)";
        let before = links();
        assert_eq!(Dataplane::rehearse(&wanted, &before, None).unwrap_err().to_string(), expected);
        assert_eq!(Dataplane::start(&wanted, &before).unwrap_err().to_string(), expected);
        assert_eq!(attached("eth1"), None);
        let generic = settings(&[("eth1", Mode::Native), ("bridge", Mode::Generic)]);
        assert!(Dataplane::rehearse(&generic, &before, None).is_ok());
    });
}

#[test]
fn an_interface_that_comes_later_is_refused_as_a_problem() {
    in_namespace(|| {
        let (_peer, wanted) = with_bridge();
        ip("link delete bridge");
        let mut plane = Dataplane::start(&wanted, &links()).unwrap();
        ip("link add bridge type bridge");
        let refresh = plane.refresh(&links());
        let expected = if reports() { "driver bridge has no native XDP" } else { "refused native XDP" };
        assert!(refresh.problems.iter().any(|problem| problem.contains(expected)), "{refresh:?}");
        assert_eq!(refresh.detached, ["bridge"]);
    });
}

#[test]
fn the_probable_cause_of_a_refusal_is_named() {
    in_namespace(|| {
        ip("link add eth3 numrxqueues 1 numtxqueues 1 type veth peer name eth4 numrxqueues 1 numtxqueues 2");
        let error = Dataplane::start(&settings(&[("eth3", Mode::Native)]), &links()).unwrap_err().to_string();
        assert!(error.contains("eth3: the driver refused native XDP") && error.contains("generic"), "{error}");
        assert!(error.contains("probably") && error.contains("fewer receive queues than its peer"), "{error}");
        drop(Dataplane::start(&settings(&[("eth3", Mode::Generic)]), &links()).unwrap());
    });
}
