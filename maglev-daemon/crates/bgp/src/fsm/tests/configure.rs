//! Other settings while a session runs.

use proptest::collection::btree_set;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::wire::GracefulRestart;
use maglev_model::bgp::{Effect, Password};

fn configured(settings: &Settings, change: impl FnOnce(&mut Neighbor)) -> Input<'static> {
    let mut neighbor = Neighbor::clone(&settings.neighbor);
    change(&mut neighbor);
    Input::Configure(Configured { neighbor: Arc::new(neighbor), on_drain: settings.on_drain })
}

/// A peer with a session, to which a prefix was announced.
fn announcing(settings: Settings, open: &Open) -> Peer {
    let mut peer = established(settings, open);
    peer.handle(Input::Announce(routes(&["203.0.113.10/32"])), NOW);
    peer.handle(Input::Flushed(Side::First), NOW);
    assert_eq!(peer.announced().len(), 1);
    peer
}

#[test]
fn other_attributes_are_sent_in_the_same_session() {
    let settings = settings(|_| {});
    let mut peer = announcing(settings.clone(), &their_open());
    assert_eq!(peer.handle(configured(&settings, |_| {}), NOW), [], "nothing changed");
    assert_eq!(peer.handle(configured(&settings, |neighbor| neighbor.name = "tor1".into()), NOW), []);
    let outputs = peer.handle(configured(&settings, |neighbor| neighbor.med = Some(7)), NOW);
    assert!(matches!(outputs[..], [Output::Send(Side::First, _)]), "{outputs:?}");
    assert_eq!(updates(&outputs)[0].announced, ["203.0.113.10/32".parse::<IpNet>().unwrap()]);
    peer.handle(Input::Flushed(Side::First), NOW);

    // Attributes of a drain are attributes too.
    let on_drain = OnDrain { med: Some(500), prepend: 0 };
    let mut neighbor = Neighbor::clone(&settings.neighbor);
    neighbor.med = Some(7);
    let configured = Configured { neighbor: Arc::new(neighbor), on_drain };
    assert_eq!(updates(&peer.handle(Input::Configure(configured), NOW)).len(), 1);
    assert_eq!((peer.state(), peer.announced().len()), (State::Established, 1));
}

#[test]
fn a_prefix_without_a_next_hop_any_more_is_withdrawn() {
    let over_v6 = settings(|neighbor| {
        (neighbor.ipv4, neighbor.next_hop6) = (false, "2001:db8::11".parse().ok());
    });
    let mut peer = established(over_v6.clone(), &their_open());
    peer.handle(Input::Announce(routes(&["2001:db8:1::1/128"])), NOW);
    peer.handle(Input::Flushed(Side::First), NOW);
    let outputs = peer.handle(configured(&over_v6, |neighbor| neighbor.next_hop6 = None), NOW);
    assert!(matches!(&outputs[0], Output::Log(text) if text.contains("no next hop")), "{outputs:?}");
    assert_eq!(updates(&outputs)[0].withdrawn.len(), 1);
}

#[test]
fn keepalives_follow_other_settings_at_once() {
    let settings = settings(|neighbor| neighbor.hold_time = 90);
    let mut peer = established(settings.clone(), &their_open());
    let before = peer.connections[0].keepalive_at.unwrap();
    assert!(before > NOW + SECOND * 20, "a third of 90 s, jittered");
    assert_eq!(peer.handle(configured(&settings, |neighbor| neighbor.keepalive = Some(2)), NOW), []);
    assert_eq!(peer.deadline(), Some(NOW + SECOND * 2));
    let outputs = peer.handle(Input::Tick, NOW + SECOND * 2);
    assert_eq!(messages(&outputs), [Message::Keepalive]);
    assert!(peer.connections[0].keepalive_at.unwrap() <= NOW + SECOND * 4);
}

#[test]
fn another_hold_time_begins_a_session_with_a_reason() {
    let settings = settings(|_| {});
    let mut peer = announcing(settings.clone(), &their_open());
    let outputs = peer.handle(configured(&settings, |neighbor| neighbor.hold_time = 30), NOW);
    let expected = Notification::new(Fault::CONFIGURATION);
    assert_eq!(messages(&outputs), [Message::Notification(expected)]);
    let text = "closed by us: cease, other configuration change (6/6)";
    assert_eq!(outputs[1..], [Output::Close(Side::First), ended(text, true), Output::Dial]);
    assert!(peer.announced().is_empty());
    let outputs = peer.handle(Input::Connected(LOCAL), NOW);
    assert!(matches!(&messages(&outputs)[..], [Message::Open(open)] if open.hold_time == 30), "{outputs:?}");
}

#[test]
fn a_neighbor_with_graceful_restart_keeps_prefixes_meanwhile() {
    let settings = Settings { graceful_restart: Some(120), ..settings(|_| {}) };
    let mut open = their_open();
    open.capabilities.graceful_restart =
        Some(GracefulRestart { restarting: false, time: 120, families: BTreeMap::new() });
    let mut peer = announcing(settings.clone(), &open);
    let outputs = peer.handle(configured(&settings, |neighbor| neighbor.hold_time = 30), NOW);
    let expected = [Output::Close(Side::First), ended("closed by us: other settings", false), Output::Dial];
    assert_eq!(outputs, expected);
    let outputs = peer.handle(Input::Connected(LOCAL), NOW);
    let [Message::Open(ours)] = &messages(&outputs)[..] else { panic!("{outputs:?}") };
    assert!(ours.capabilities.graceful_restart.as_ref().unwrap().families[&Family::Ipv4], "forwarding went on");
    // It may be another speaker in another AS: that one is sent the reason.
    let mut peer = announcing(settings.clone(), &open);
    let outputs = peer.handle(configured(&settings, |neighbor| neighbor.remote_as = 65_001), NOW);
    assert_eq!(messages(&outputs), [Message::Notification(Notification::new(Fault::CONFIGURATION))]);
}

#[test]
fn a_pause_ends_with_other_settings_and_roles_of_connections_change() {
    let settings = settings(|_| {});
    let mut peer = greeting(settings.clone());
    peer.handle(Input::Closed(Side::First, "refused".into()), NOW);
    assert_eq!(peer.state(), State::Active);
    assert_eq!(peer.handle(configured(&settings, |neighbor| neighbor.port = 1790), NOW), [Output::Dial]);
    // While dialling: the attempt is given up.
    let outputs = peer.handle(configured(&settings, |neighbor| neighbor.passive = true), NOW);
    assert!(matches!(outputs[..], [Output::Close(Side::First), Output::Down(_)]), "{outputs:?}");
    assert_eq!((peer.deadline(), peer.refusal()), (None, None), "it is listened for");
}

#[test]
fn a_removed_neighbor_is_sent_the_reason() {
    let mut peer = established(settings(|_| {}), &their_open());
    let outputs = peer.handle(Input::Stop(End::Removed), NOW);
    assert_eq!(notification(&outputs), Notification::new(Fault::DE_CONFIGURED));
    assert_eq!((peer.state(), peer.deadline()), (State::Idle, None));
}

fn any_neighbor() -> impl Strategy<Value = Neighbor> {
    let hop = || option::of(prop_oneof![Just("10.0.0.9"), Just("fd00::9")]);
    let place = (any::<bool>(), 0_u32..3, option::of(0_u8..2), any::<[bool; 4]>());
    let times = (prop_oneof![Just(3_u16), Just(9)], option::of(1_u16..3));
    let routes = (hop(), option::of(Just("fd00::11")), option::of(0_u32..2), 0_u8..2, btree_set(0_u8..2, 0..2));
    let role = option::of(prop_oneof![Just(Role::Customer), Just(Role::Peer)]);
    (place, times, routes, role).prop_map(|(place, times, routes, role)| {
        let (v6, remote_as, hops, [ipv4, ipv6, gtsm, signed]) = place;
        let (next_hop, next_hop6, med, prepend, communities) = routes;
        let parse = |text: &str| text.parse().unwrap();
        Neighbor {
            multihop: hops,
            gtsm,
            password: signed.then(|| Password::new("secret").unwrap()),
            hold_time: times.0,
            keepalive: times.1,
            ipv4,
            ipv6,
            next_hop: next_hop.map(parse),
            next_hop6: next_hop6.map(parse),
            communities: communities.into_iter().map(|n| format!("65010:{n}").parse().unwrap()).collect(),
            med,
            prepend,
            role,
            ..Neighbor::new(parse(if v6 { "2001:db8::1" } else { "10.0.0.1" }), 65_000 + remote_as)
        }
    })
}

proptest! {
    /// A session that goes on was opened with the OPEN that these settings would send.
    #[test]
    fn a_session_goes_on_only_if_its_open_stands(before in any_neighbor(), mut next in any_neighbor()) {
        next.address = before.address;
        let of = |neighbor: &Neighbor| settings(|it| *it = neighbor.clone());
        let begins_anew = before.changes(&next).iter().any(|(_, effect)| *effect == Effect::Session);
        for again in [false, true] {
            prop_assert!(begins_anew || of(&before).open(again) == of(&next).open(again));
        }
        // A setting that differs is named.
        prop_assert_eq!(before.changes(&next).is_empty(), before == next);
    }
}
