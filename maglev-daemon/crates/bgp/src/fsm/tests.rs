//! One neighbor, step by step: our messages, their times, and the reasons for the end.

use std::collections::BTreeMap;
use std::net::IpAddr;

use maglev_model::Community;
use maglev_model::bgp::{Cause, OnDrain, Role};

use super::*;
use crate::wire::{Capabilities, Family, Fault, Update, decode};

mod configure;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 11));
const SECOND: Duration = Duration::from_secs(1);
const NOW: Duration = Duration::from_secs(100);

fn settings(change: impl FnOnce(&mut Neighbor)) -> Settings {
    let mut neighbor = Neighbor::new([10, 0, 0, 1].into(), 65_000);
    change(&mut neighbor);
    Settings {
        local_as: 65_010,
        router_id: [10, 0, 0, 11].into(),
        dial: !neighbor.passive,
        listen: neighbor.passive,
        neighbor: Arc::new(neighbor),
        graceful_restart: None,
        restarted: false,
        forwarding_kept: false,
        on_drain: OnDrain::default(),
        seed: 1,
    }
}

/// The neighbor's OPEN.
fn their_open() -> Open {
    let capabilities = Capabilities {
        families: Family::ALL.into(),
        four_octet_as: Some(65_000),
        route_refresh: true,
        enhanced_refresh: true,
        ..Capabilities::default()
    };
    Open { asn: 65_000, hold_time: 90, router_id: [10, 0, 0, 1].into(), capabilities }
}

fn bytes(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// The messages in these outputs.
fn messages(outputs: &[Output]) -> Vec<Message> {
    let mut messages = Vec::new();
    for output in outputs {
        if let Output::Send(_, bytes) = output {
            let mut rest = bytes.as_slice();
            while let Some((message, length)) = decode(rest).unwrap() {
                messages.push(message);
                rest = &rest[length..];
            }
        }
    }
    messages
}

/// The one NOTIFICATION in these outputs, after which the connection is closed.
fn notification(outputs: &[Output]) -> Notification {
    let position = |wanted: fn(&Output) -> bool| outputs.iter().rposition(wanted);
    let sent = position(|output| matches!(output, Output::Send(..)));
    assert!(sent < position(|output| matches!(output, Output::Close(_))), "{outputs:?}");
    match messages(outputs).as_slice() {
        [Message::Notification(notification)] => notification.clone(),
        other => panic!("{other:?} is not a NOTIFICATION alone"),
    }
}

fn down(outputs: &[Output]) -> &str {
    match outputs {
        [.., Output::Down(cause)] => &cause.text,
        other => panic!("{other:?} does not end with Down"),
    }
}

/// The end of a session, or of an attempt at one.
fn ended(text: &str, notified: bool) -> Output {
    Output::Down(Cause { text: text.to_owned(), notified })
}

fn receive(peer: &mut Peer, bytes: &[u8], now: Duration) -> Vec<Output> {
    peer.handle(Input::Bytes(Side::First, bytes), now)
}

/// A peer whose OPEN is out.
fn greeting(settings: Settings) -> Peer {
    let mut peer = Peer::new(settings);
    assert_eq!(peer.handle(Input::Start, NOW), [Output::Dial]);
    let outputs = peer.handle(Input::Connected(LOCAL), NOW);
    assert!(matches!(messages(&outputs)[..], [Message::Open(_)]));
    peer.handle(Input::Flushed(Side::First), NOW);
    assert_eq!(peer.state(), State::OpenSent);
    peer
}

/// A peer with a session, to which the neighbor has sent this OPEN.
fn established(settings: Settings, open: &Open) -> Peer {
    let mut peer = greeting(settings);
    let outputs = receive(&mut peer, &bytes(|out| open.encode(out)), NOW);
    assert_eq!(messages(&outputs), [Message::Keepalive]);
    peer.handle(Input::Flushed(Side::First), NOW);
    assert_eq!(peer.state(), State::OpenConfirm);
    let outputs = receive(&mut peer, &bytes(wire::keepalive), NOW);
    assert!(outputs.contains(&Output::Up));
    assert_eq!(peer.state(), State::Established);
    peer
}

fn routes(prefixes: &[&str]) -> Vec<(IpNet, Arc<Route>)> {
    let route = Arc::new(Route::default());
    prefixes.iter().map(|prefix| (prefix.parse().unwrap(), Arc::clone(&route))).collect()
}

fn updates(outputs: &[Output]) -> Vec<Update> {
    let update = |message| match message {
        Message::Update(update) => update,
        other => panic!("{other:?} is no update"),
    };
    messages(outputs).into_iter().map(update).collect()
}

#[test]
fn wanted_prefixes_are_announced_and_end_of_rib_is_sent() {
    let mut peer = greeting(settings(|_| {}));
    peer.handle(Input::Announce(routes(&["203.0.113.10/32", "203.0.113.11/32"])), NOW);
    receive(&mut peer, &bytes(|out| their_open().encode(out)), NOW);
    peer.handle(Input::Flushed(Side::First), NOW);
    let outputs = receive(&mut peer, &bytes(wire::keepalive), NOW);
    assert_eq!(updates(&outputs)[0].announced.len(), 2);
    assert_eq!(updates(&outputs).len(), 1, "one message for both, and no end before it is known");
    peer.handle(Input::Flushed(Side::First), NOW);
    let ends: Vec<_> = updates(&peer.handle(Input::Complete, NOW)).iter().map(|update| update.end_of_rib).collect();
    assert_eq!(ends, [Some(Family::Ipv4), Some(Family::Ipv6)]);
    peer.handle(Input::Flushed(Side::First), NOW);
    assert_eq!(peer.announced().len(), 2);

    assert_eq!(peer.handle(Input::Announce(routes(&["203.0.113.10/32"])), NOW), [], "nothing new");
    let outputs = peer.handle(Input::Withdraw(vec!["203.0.113.10/32".parse().unwrap()]), NOW);
    assert_eq!(updates(&outputs)[0].withdrawn, ["203.0.113.10/32".parse::<IpNet>().unwrap()]);
    assert_eq!(peer.announced().len(), 1);
}

#[test]
fn a_neighbor_that_reads_slowly_holds_no_memory() {
    let mut peer = established(settings(|_| {}), &their_open());
    let many = |n: u32| (Ipv4Addr::from(0x0a00_0000 + n).to_string() + "/32").parse().unwrap();
    let route = Arc::new(Route::default());
    let outputs = peer.handle(Input::Announce((0..50_000).map(|n| (many(n), Arc::clone(&route))).collect()), NOW);
    let sizes = |outputs: &[Output]| match outputs {
        [Output::Send(_, bytes)] => bytes.len(),
        other => panic!("{} outputs", other.len()),
    };
    assert!(sizes(&outputs) < 64 * 1024, "{} octets at once", sizes(&outputs));
    assert_eq!(peer.handle(Input::Withdraw(vec![many(49_999)]), NOW), [], "until these are out, nothing more is said");
    let mut count = updates(&outputs).iter().map(|update| update.announced.len()).sum::<usize>();
    loop {
        let outputs = peer.handle(Input::Flushed(Side::First), NOW);
        if outputs.is_empty() {
            break;
        }
        count += updates(&outputs).iter().map(|update| update.announced.len()).sum::<usize>();
    }
    assert_eq!((count, peer.announced().len()), (49_999, 49_999), "what was withdrawn meanwhile is never said");
    // Eight minutes later it has still not read the rest.
    peer.handle(Input::Announce(routes(&["192.0.2.1/32"])), NOW);
    let mut at = NOW;
    while at < NOW + Duration::from_secs(479) {
        receive(&mut peer, &bytes(wire::keepalive), at);
        at += SECOND;
    }
    assert_eq!(peer.state(), State::Established);
    receive(&mut peer, &bytes(wire::keepalive), at);
    let outputs = peer.handle(Input::Tick, at + SECOND);
    assert_eq!(notification(&outputs).fault, Fault::SEND_HOLD_TIMER_EXPIRED);
}

#[test]
fn silence_ends_a_session_after_the_hold_time() {
    let mut peer = established(settings(|_| {}), &their_open());
    let mut sent = 0;
    let mut at = NOW;
    while at < NOW + 9 * SECOND {
        at = peer.deadline().unwrap();
        let outputs = peer.handle(Input::Tick, at);
        match messages(&outputs).as_slice() {
            [Message::Keepalive] => sent += 1,
            [Message::Notification(notification)] => {
                assert_eq!(notification.fault, Fault::HOLD_TIMER_EXPIRED);
                assert_eq!(down(&outputs), "closed by us: hold timer expired (4/0)");
            }
            other => panic!("{other:?}"),
        }
        peer.handle(Input::Flushed(Side::First), at);
    }
    assert_eq!(at, NOW + 9 * SECOND, "the shorter of both hold times");
    assert!((3..=4).contains(&sent), "{sent} KEEPALIVEs in 9 s");
    assert_eq!(peer.state(), State::Active);
    let retry = peer.deadline().unwrap() - at;
    assert!(retry <= SECOND && retry >= SECOND * 3 / 4, "after a good session, soon: {retry:?}");
    assert_eq!(peer.handle(Input::Tick, at + SECOND), [Output::Dial]);
}

#[test]
fn a_hold_time_of_zero_needs_no_keepalives() {
    let peer = established(settings(|_| {}), &Open { hold_time: 0, ..their_open() });
    assert_eq!(peer.connections[0].hold_at, None);
    assert_eq!(peer.connections[0].keepalive_at, None);
}

#[test]
fn an_unacceptable_open_is_answered_with_its_error() {
    type Row = (&'static str, fn(&mut Neighbor), Open, Option<Fault>);
    let internal = |open: Open| Open { asn: 65_010, router_id: [10, 0, 0, 11].into(), ..open };
    let role =
        |role| Open { capabilities: Capabilities { role: Some(role), ..their_open().capabilities }, ..their_open() };
    let only = |family| Capabilities { families: [family].into(), ..their_open().capabilities };
    let as_internal: fn(&mut Neighbor) = |neighbor| neighbor.remote_as = 65_010;
    let as_customer: fn(&mut Neighbor) = |neighbor| neighbor.role = Some(Role::Customer);
    let only_v4: fn(&mut Neighbor) = |neighbor| neighbor.ipv6 = false;
    let mut same = internal(their_open());
    same.capabilities.four_octet_as = Some(65_010);
    let rows: [Row; 6] = [
        ("another AS", as_internal, their_open(), Some(Fault::BAD_PEER_AS)),
        ("our own identifier in our AS", as_internal, same, Some(Fault::BAD_IDENTIFIER)),
        ("two customers", as_customer, role(Role::Customer), Some(Fault::ROLE_MISMATCH)),
        ("customer and provider", as_customer, role(Role::Provider), None),
        ("a role on one side only", as_customer, their_open(), None),
        (
            "no family in common",
            only_v4,
            Open { capabilities: only(Family::Ipv6), ..their_open() },
            Some(Fault::UNSUPPORTED_CAPABILITY),
        ),
    ];
    for (what, change, open, fault) in rows {
        let mut peer = greeting(settings(change));
        let outputs = receive(&mut peer, &bytes(|out| open.encode(out)), NOW);
        match fault {
            Some(fault) => assert_eq!(notification(&outputs).fault, fault, "{what}"),
            None => assert_eq!(peer.state(), State::OpenConfirm, "{what}"),
        }
    }
}

#[test]
fn the_neighbors_reason_is_reported() {
    let mut peer = established(settings(|_| {}), &their_open());
    let cease = bytes(|out| Notification::with_text(Fault::SHUTDOWN, "new line card").encode(out));
    let outputs = receive(&mut peer, &cease, NOW);
    let text = "closed by the peer: cease, administrative shutdown (6/2): \"new line card\"";
    assert_eq!(outputs, [Output::Close(Side::First), ended(text, true)]);
}

#[test]
fn a_stop_ends_with_a_reason_or_without_a_word() {
    let mut peer = established(settings(|_| {}), &their_open());
    let outputs = peer.handle(Input::Stop(End::Cease("upgrade".into())), NOW);
    assert_eq!(notification(&outputs), Notification::with_text(Fault::SHUTDOWN, "upgrade"));
    assert_eq!((peer.state(), peer.deadline()), (State::Idle, None));

    let mut peer = established(settings(|_| {}), &their_open());
    let outputs = peer.handle(Input::Stop(End::Silent), NOW);
    assert_eq!(outputs, [Output::Close(Side::First), ended("stopped for a restart", false)]);

    let mut peer = established(settings(|_| {}), &their_open());
    let outputs = peer.handle(Input::Reset("by hand".into()), NOW);
    assert!(matches!(messages(&outputs)[..], [Message::Notification(Notification { fault: Fault::RESET, .. })]));
    assert_eq!(outputs.last(), Some(&Output::Dial), "and begins again at once");
}

#[test]
fn a_refresh_is_answered_with_all_of_a_family_between_marks() {
    let mut peer = established(settings(|_| {}), &their_open());
    peer.handle(Input::Announce(routes(&["203.0.113.10/32", "203.0.113.11/32"])), NOW);
    peer.handle(Input::Flushed(Side::First), NOW);
    let ask = bytes(|out| wire::route_refresh(out, Family::Ipv4, Boundary::Request));
    let answer = messages(&receive(&mut peer, &ask, NOW));
    let mark = |boundary| Message::RouteRefresh(RouteRefresh { family: Some(Family::Ipv4), boundary: Some(boundary) });
    assert_eq!((answer.first(), answer.last()), (Some(&mark(Boundary::Begin)), Some(&mark(Boundary::End))));
    assert!(matches!(&answer[1..answer.len() - 1], [Message::Update(update)] if update.announced.len() == 2));
    peer.handle(Input::Flushed(Side::First), NOW);
    // A family that was not negotiated, and a mark of the neighbor's own, ask for nothing.
    let mark = bytes(|out| wire::route_refresh(out, Family::Ipv4, Boundary::Begin));
    assert_eq!(receive(&mut peer, &mark, NOW), []);
}

#[test]
fn our_open_lists_our_capabilities() {
    let open = |settings: &Settings, again| settings.open(again).capabilities;
    let plain = open(&settings(|_| {}), false);
    assert_eq!((plain.graceful_restart, plain.role, plain.extended_next_hop), (None, None, false));
    let kept = |kept| BTreeMap::from([(Family::Ipv4, kept), (Family::Ipv6, kept)]);
    // A process that follows none that forwarded, and one that does; each at first, and when a session ended meanwhile.
    for (after_another, expected) in [(false, [(false, false), (false, true)]), (true, [(true, true), (false, true)])] {
        let restarted = Settings {
            graceful_restart: Some(120),
            restarted: after_another,
            forwarding_kept: after_another,
            ..settings(|_| {})
        };
        for (again, (restarting, forwarding)) in [false, true].into_iter().zip(expected) {
            let restart = open(&restarted, again).graceful_restart.unwrap();
            assert_eq!((restart.restarting, restart.time, restart.families), (restarting, 120, kept(forwarding)));
        }
    }
    let over_v6 = open(&settings(|neighbor| neighbor.address = "2001:db8::1".parse().unwrap()), false);
    assert!(over_v6.extended_next_hop);
}

#[test]
fn the_restart_bit_is_set_on_the_first_session_only() {
    let restarted = Settings { graceful_restart: Some(120), restarted: true, ..settings(|_| {}) };
    let mut peer = Peer::new(restarted);
    let mut bits = Vec::new();
    for _ in 0..2 {
        let now = NOW + SECOND * 60;
        peer.handle(Input::Start, now);
        peer.handle(Input::Tick, now);
        let outputs = peer.handle(Input::Connected(LOCAL), now);
        let [Message::Open(open)] = &messages(&outputs)[..] else { panic!("{outputs:?}") };
        bits.push(open.capabilities.graceful_restart.as_ref().unwrap().restarting);
        receive(&mut peer, &bytes(|out| their_open().encode(out)), now);
        receive(&mut peer, &bytes(wire::keepalive), now);
        peer.handle(Input::Stop(End::Silent), now);
    }
    assert_eq!(bits, [true, false]);
}

#[test]
fn all_is_said_once_it_is_sent() {
    let mut peer = established(settings(|_| {}), &their_open());
    assert!(peer.is_all_said(), "there is nothing to say");
    for input in [Input::Announce(routes(&["203.0.113.10/32"])), Input::Complete, Input::Withdraw(prefixes())] {
        let outputs = peer.handle(input, NOW);
        assert!(matches!(messages(&outputs)[..], [Message::Update(_), ..]), "{outputs:?}");
        assert!(!peer.is_all_said(), "it is being sent");
        peer.handle(Input::Flushed(Side::First), NOW);
        assert!(peer.is_all_said());
    }
    peer.handle(Input::Closed(Side::First, "closed".into()), NOW);
    peer.handle(Input::Announce(routes(&["203.0.113.10/32"])), NOW);
    assert!(peer.is_all_said(), "there is no session");

    // The neighbor may keep prefixes of another process: those are corrected first.
    let mut peer = greeting(Settings { graceful_restart: Some(120), restarted: true, ..settings(|_| {}) });
    assert!(!peer.is_all_said());
    peer.handle(Input::Complete, NOW);
    receive(&mut peer, &bytes(|out| their_open().encode(out)), NOW);
    peer.handle(Input::Flushed(Side::First), NOW);
    let outputs = receive(&mut peer, &bytes(wire::keepalive), NOW);
    assert!(messages(&outputs).iter().any(|message| matches!(message, Message::Update(_))), "the end is marked");
    assert!(!peer.is_all_said());
    peer.handle(Input::Flushed(Side::First), NOW);
    assert!(peer.is_all_said());
}

fn prefixes() -> Vec<IpNet> {
    vec!["203.0.113.10/32".parse().unwrap()]
}

#[test]
fn attributes_follow_the_neighbors_settings() {
    let leaving = Route { communities: [Community::GRACEFUL_SHUTDOWN].into() };
    let of = |change: fn(&mut Neighbor), family, route: &Route| {
        let settings = settings(change);
        let open = Open { asn: settings.neighbor.remote_as, ..their_open() };
        let session = settings.agree(&open).unwrap();
        settings.attributes(&session, LOCAL, family, route)
    };
    let plain = of(|_| {}, Family::Ipv4, &Route::default()).unwrap();
    assert_eq!((plain.as_path, plain.next_hop, plain.med, plain.local_pref), (vec![65_010], LOCAL, None, None));
    assert_eq!(of(|_| {}, Family::Ipv6, &Route::default()), None, "an IPv4 address is no next hop of IPv6");

    let change: fn(&mut Neighbor) = |neighbor| {
        neighbor.next_hop6 = Some("2001:db8::11".parse().unwrap());
        (neighbor.med, neighbor.prepend, neighbor.role) = (Some(7), 2, Some(Role::Peer));
        neighbor.communities = ["65010:1".parse().unwrap()].into();
    };
    let changed = of(change, Family::Ipv6, &leaving).unwrap();
    assert_eq!((changed.as_path.len(), changed.med, changed.local_pref), (3, Some(7), None));
    assert_eq!((changed.communities.len(), changed.only_to_customer), (2, Some(65_010)));

    let draining = Settings { on_drain: OnDrain { med: Some(1_000), prepend: 3 }, ..settings(change) };
    let session = draining.agree(&their_open()).unwrap();
    let said = |route: &Route| {
        let found = draining.attributes(&session, LOCAL, Family::Ipv4, route).unwrap();
        (found.as_path.len(), found.med)
    };
    assert_eq!(said(&Route::default()), (3, Some(7)));
    assert_eq!(said(&leaving), (6, Some(1_000)), "what is configured for a drain comes on top");

    let internal: fn(&mut Neighbor) = |neighbor| (neighbor.remote_as, neighbor.local_pref) = (65_010, Some(300));
    let preference = |route: &Route| of(internal, Family::Ipv4, route).map(|found| (found.as_path, found.local_pref));
    assert_eq!(preference(&Route::default()), Some((vec![], Some(300))));
    assert_eq!(preference(&leaving), Some((vec![], Some(0))));
}

/// A passive peer to which the neighbor has connected, and where.
fn passive() -> (Peer, Side) {
    let mut peer = Peer::new(settings(|neighbor| neighbor.passive = true));
    assert!(peer.refusal().is_some(), "it has not started");
    assert_eq!(peer.handle(Input::Start, NOW), []);
    assert_eq!((peer.state(), peer.refusal()), (State::Active, None));
    let side = connect(&mut peer, NOW);
    (peer, side)
}

/// The neighbor connects; the place of the connection.
fn connect(peer: &mut Peer, now: Duration) -> Side {
    peer.handle(Input::Incoming, now);
    let side = peer.vacancy().unwrap();
    let outputs = peer.handle(Input::Accepted(side, LOCAL), now);
    assert!(matches!(messages(&outputs)[..], [Message::Open(_)]));
    side
}

/// The neighbor goes on to a session on this connection; returns what is done at its OPEN.
fn greet(peer: &mut Peer, side: Side) -> Vec<Output> {
    let outputs = peer.handle(Input::Bytes(side, &bytes(|out| their_open().encode(out))), NOW);
    peer.handle(Input::Flushed(side), NOW);
    let up = peer.handle(Input::Bytes(side, &bytes(wire::keepalive)), NOW);
    assert!(up.contains(&Output::Up), "{up:?}");
    outputs
}

#[test]
fn a_passive_speaker_waits_for_the_next_connection() {
    let (mut peer, side) = passive();
    let outputs = peer.handle(Input::Closed(side, "closed".into()), NOW);
    assert_eq!(outputs, [Output::Close(side), ended("closed", false)]);
    assert_eq!((peer.deadline(), peer.refusal(), peer.vacancy()), (None, None, Some(Side::First)));
}

mod faults {
    use super::*;
    use maglev_testing::matrix::Row;

    #[test]
    fn a_passive_neighbor_that_connects_again_takes_the_place_of_its_silent_session() {
        let _row = Row::fault(
            "R5",
            "a passive neighbor connects again: the old session ends at its OPEN, without a NOTIFICATION",
        );
        let (mut peer, old) = passive();
        peer.handle(Input::Announce(routes(&["203.0.113.10/32"])), NOW);
        greet(&mut peer, old);
        assert_eq!(peer.announced().len(), 1);
        let new = connect(&mut peer, NOW);
        assert_eq!((peer.state(), peer.announced().len()), (State::Established, 1), "a connection alone ends nothing");
        let outputs = greet(&mut peer, new);
        assert_eq!(outputs[..2], [Output::Close(old), ended("the neighbor connected again", false)]);
        assert_eq!(
            (messages(&outputs), peer.announced().len()),
            (vec![Message::Keepalive], 1),
            "all is announced anew"
        );
        // And again, and again.
        let newer = connect(&mut peer, NOW);
        greet(&mut peer, newer);
        assert_eq!((newer, peer.state()), (old, State::Established));
    }

    #[test]
    fn a_new_connection_without_a_valid_open_ends_no_session() {
        let _row = Row::fault("R5", "a new connection with a bad OPEN, or with none: the session stays");
        let (mut peer, old) = passive();
        greet(&mut peer, old);
        let new = connect(&mut peer, NOW);
        let wrong = Open { asn: 65_001, capabilities: Capabilities::default(), ..their_open() };
        let outputs = peer.handle(Input::Bytes(new, &bytes(|out| wrong.encode(out))), NOW);
        assert_eq!(notification(&outputs).fault, Fault::BAD_PEER_AS);
        assert_eq!((peer.state(), peer.vacancy()), (State::Established, Some(new)));
        connect(&mut peer, NOW);
        let outputs = peer.handle(Input::Closed(new, "closed".into()), NOW);
        assert_eq!((outputs, peer.state()), (vec![Output::Close(new)], State::Established));
    }

    #[test]
    fn of_three_connections_the_newest_is_never_refused() {
        let _row = Row::fault("R5", "a third connection: the oldest without a session makes room");
        let (mut peer, first) = passive();
        let second = connect(&mut peer, NOW + SECOND);
        let outputs = peer.handle(Input::Incoming, NOW + 2 * SECOND);
        assert_eq!((notification(&outputs).fault, peer.vacancy()), (Fault::COLLISION, Some(first)), "the older one");
        let third = connect(&mut peer, NOW + 2 * SECOND);
        greet(&mut peer, third);
        assert_eq!(peer.vacancy(), Some(second), "its OPEN ended the other one");
        connect(&mut peer, NOW);
        peer.handle(Input::Incoming, NOW);
        assert_eq!((peer.state(), peer.vacancy()), (State::Established, Some(second)), "the session makes no room");
    }

    #[test]
    fn unread_octets_count_before_the_hold_timer() {
        let _row = Row::fault("C2", "data at the end of the hold time: read before the timer counts");
        let mut peer = established(settings(|_| {}), &their_open());
        let late = NOW + 20 * SECOND;
        assert_eq!(peer.overdue(NOW + 8 * SECOND).count(), 0);
        assert_eq!(peer.overdue(late).collect::<Vec<_>>(), [Side::First]);
        let outputs = receive(&mut peer, &bytes(wire::keepalive), late);
        assert!(matches!(messages(&outputs)[..], [Message::Keepalive]), "ours is late, and sent: {outputs:?}");
        assert_eq!((peer.state(), peer.overdue(late).count()), (State::Established, 0));
        // A part of a message does not reset the hold timer.
        let much_later = late + 20 * SECOND;
        peer.handle(Input::Flushed(Side::First), late);
        let outputs = receive(&mut peer, &bytes(wire::keepalive)[..18], much_later);
        assert_eq!(notification(&outputs).fault, Fault::HOLD_TIMER_EXPIRED);
    }
}

#[test]
fn garbage_ends_only_the_session() {
    let mut peer = established(settings(|_| {}), &their_open());
    let outputs = receive(&mut peer, b"GET / HTTP/1.1\r\n\r\n", NOW);
    assert_eq!(notification(&outputs).fault, Fault::NOT_SYNCHRONIZED);
    assert_eq!(receive(&mut peer, &bytes(wire::keepalive), NOW), [], "octets after the end are ignored");
    // A message that never ends: the hold timer does.
    let mut peer = established(settings(|_| {}), &their_open());
    let stalled = bytes(|out| wire::end_of_rib(out, Family::Ipv6));
    for at in 0..9 {
        let at = at as usize;
        assert!(
            !receive(&mut peer, &stalled[at..=at], NOW + SECOND * at as u32)
                .iter()
                .any(|o| matches!(o, Output::Down(_)))
        );
    }
    assert_eq!(peer.state(), State::Established);
    let outputs = peer.handle(Input::Tick, NOW + 9 * SECOND);
    assert!(
        outputs.iter().any(|output| matches!(output, Output::Down(cause) if cause.text.contains("hold timer expired")))
    );
}

#[test]
fn received_octets_are_not_kept() {
    let mut peer = established(settings(|_| {}), &their_open());
    let update = bytes(|out| wire::end_of_rib(out, Family::Ipv4));
    let flood: Vec<u8> = update.iter().copied().cycle().take(1 << 20).collect();
    for chunk in flood.chunks(16 * 1024 + 1) {
        receive(&mut peer, chunk, NOW);
        assert!(peer.connections[0].kept() < wire::MAX_MESSAGE, "{} octets", peer.connections[0].kept());
    }
    assert_eq!(peer.state(), State::Established);
}
