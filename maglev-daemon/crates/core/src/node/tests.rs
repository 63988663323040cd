//! Tests of [`super`]: single histories, and random ones in virtual time.

use super::*;
use crate::reconcile::tests::maps::Maps;
use maglev_common::backend::InterfaceSlot;
use maglev_model::bgp::NeighborStatus;
use maglev_model::plan::Step;
use maglev_model::{
    AdminState, Announce, Backend, Change, Limits, OuterSources, Pool, Resolution, Rules, Service, Services, UnixTime,
    Vip, Weight,
};
use maglev_testing::matrix::Row;
use reconcile::Interfaces;
use std::collections::BTreeSet;

mod histories;

const NOW: Duration = Duration::from_secs(100);

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn rules() -> Rules {
    Rules { limits: Limits::default(), outer: OuterSources { v4: Some("10.64.0.0/24".parse().unwrap()), v6: None } }
}

/// Two neighbors are configured, and prefixes are announced again after 10 s.
fn settings() -> Settings {
    let interfaces = Interfaces { slots: [(2, InterfaceSlot(0))].into(), ..Interfaces::default() };
    let reconcile = reconcile::Settings { rules: rules(), interfaces, ..reconcile::Settings::default() };
    let drain = maglev_model::node_drain::Settings { lead: Duration::from_secs(1), ..Default::default() };
    Settings { reconcile, drain, announces: true, hold_down: Duration::from_secs(10), keeps: true }
}

fn vip(n: u8) -> Vip {
    let service = Service::parse(&format!("203.0.113.{n}"), "80", "tcp").unwrap();
    Vip {
        name: name(&format!("v{n}")),
        service,
        pool: name("web"),
        announce: Announce::default(),
        when_empty: maglev_model::Unserved::Drop,
        affinity: maglev_model::Affinity::default(),
    }
}

fn backend(n: u8) -> Backend {
    let address = [10, 0, 1, n].into();
    Backend { name: name(&format!("b{n}")), address, weight: Weight::DEFAULT, state: AdminState::Active, mtu: None }
}

/// Pool `web` with backends `b1` and `b2`, and these VIPs.
fn services(vips: &[u8]) -> Services {
    let mut services = Services::default();
    let backends = [1, 2].map(|n| Change::AddBackend { pool: name("web"), backend: backend(n) });
    let changes = [Change::AddPool(Pool::new(name("web")))].into_iter().chain(backends);
    for change in changes.chain(vips.iter().map(|n| Change::AddVip(vip(*n)))) {
        services.admit(change, &rules()).unwrap();
    }
    services
}

fn resolved(n: u8) -> Event {
    let resolution = Resolution::Resolved { interface: 2, mac: [2, 0, 0, 0, 0, n], gateway: None, mtu: None };
    Event::Reconcile(reconcile::Event::NextHop { address: [10, 0, 1, n].into(), resolution })
}

fn published() -> Event {
    Event::Reconcile(reconcile::Event::Published(Ok(())))
}

/// A session that was sent this version, and holds these VIPs' prefixes.
fn session(sent: u64, holds: &[u8]) -> NeighborStatus {
    let holds = holds.iter().map(|n| format!("203.0.113.{n}/32").parse().unwrap()).collect();
    NeighborStatus {
        name: "tor".into(),
        state: "established".into(),
        sent,
        announced: Arc::new(holds),
        ..Default::default()
    }
}

/// Whether the packet path serves other VIPs after a plan.
fn changes_vips(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| matches!(step, Step::SwitchDirectory4 { .. }))
}

/// What effects do, in short and in their order: `announce 1 2`, `publish`, `reply 3 ok`, `save drain`, …
fn shown(effects: &[Effect]) -> Vec<String> {
    let one = |effect: &Effect| match effect {
        Effect::Persist(_) => Some("persist".to_owned()),
        Effect::Publish(plan) => Some(if changes_vips(plan) { "publish vips" } else { "publish" }.to_owned()),
        Effect::Announce { wanted, .. } => {
            let last = |prefix: &ipnet::IpNet| prefix.to_string()["203.0.113.".len()..].replace("/32", "");
            let all: Vec<_> = wanted.routes.keys().map(last).collect();
            Some(format!("announce [{}] as {}", all.join(" "), wanted.version))
        }
        Effect::SaveDrain(record) => Some(if record.is_some() { "save drain" } else { "save no drain" }.to_owned()),
        Effect::Reply { request, outcome: Ok(()) } => Some(format!("reply {}", request.0)),
        Effect::Reply { request, outcome: Err(refusal) } => Some(format!("refuse {}: {refusal}", request.0)),
        Effect::Survey(_) | Effect::Follow(_) | Effect::Check(_) | Effect::Count(_) | Effect::News(_) => None,
    };
    effects.iter().filter_map(one).collect()
}

/// Handles events at one time; returns their effects.
fn all(node: &mut Node, now: Duration, events: impl IntoIterator<Item = Event>) -> Vec<String> {
    let mut effects: Vec<Effect> = Vec::new();
    for event in events {
        effects.extend(node.handle(event, now));
    }
    effects.extend(node.handle(Event::Flush, now));
    shown(&effects)
}

/// A node that serves these VIPs, and has announced them to a neighbor as version 1.
fn serving(vips: &[u8]) -> Node {
    let mut node = Node::new(settings(), None, NOW);
    let load = reconcile::Event::Load { request: RequestId(0), services: services(vips) };
    let begun = all(&mut node, NOW, [resolved(1), resolved(2), Event::Reconcile(load)]);
    assert_eq!(begun, ["announce [] as 0", "publish vips"], "all are withheld, and it is said why");
    let done = all(&mut node, NOW, [published()]);
    assert_eq!(done.last().unwrap(), "reply 0");
    let version = node.announcements.wanted().version;
    all(&mut node, NOW, [Event::Sessions(vec![session(version, vips)])]);
    node
}

fn change(request: u64, change: Change) -> Event {
    Event::Reconcile(reconcile::Event::Change { request: RequestId(request), change, force: true })
}

fn saved() -> Event {
    Event::Reconcile(reconcile::Event::Persisted(Ok(())))
}

#[test]
fn a_vip_is_announced_once_it_is_served_and_its_request_is_answered_last() {
    let mut node = serving(&[1]);
    assert_eq!(all(&mut node, NOW, [change(1, Change::AddVip(vip(2)))]), ["persist"]);
    let version = node.announcements.wanted().version;
    let withheld = format!("announce [1] as {version}");
    assert_eq!(all(&mut node, NOW, [saved()]), [withheld, "publish vips".to_owned()]);
    assert_eq!(
        all(&mut node, NOW, [published()]),
        [format!("announce [1 2] as {}", version + 1), "reply 1".to_owned()]
    );
}

/// A node that begins to serve VIP 1, and knows the next hop of one of its backends.
fn beginning() -> Node {
    let mut node = Node::new(settings(), None, NOW);
    let load = reconcile::Event::Load { request: RequestId(0), services: services(&[1]) };
    let begun = all(&mut node, NOW, [resolved(1), waiting(2), Event::Reconcile(load)]);
    assert_eq!(begun, ["announce [] as 0", "publish vips"]);
    assert_eq!(all(&mut node, NOW, [published()]), ["announce [] as 0", "reply 0"]);
    let reason = node.announcements.prefixes()[0].withheld.clone();
    let expected = "VIP v1: the next hops of 1 backends of pool web are being resolved first";
    assert_eq!(reason.as_deref(), Some(expected));
    node
}

/// The kernel asks for a backend's neighbor.
fn waiting(n: u8) -> Event {
    let resolution = Resolution::waiting("neighbor");
    Event::Reconcile(reconcile::Event::NextHop { address: [10, 0, 1, n].into(), resolution })
}

#[test]
fn a_prefix_is_announced_once_the_next_hops_of_its_backends_are_known_and_published() {
    let mut node = beginning();
    assert_eq!(all(&mut node, NOW, [resolved(2)]), ["announce [] as 0", "publish"], "for another reason");
    assert_eq!(all(&mut node, NOW, [published()]), ["announce [1] as 1"]);
    // A backend that joins later holds nothing up.
    let joins = change(1, Change::AddBackend { pool: name("web"), backend: backend(3) });
    assert_eq!(all(&mut node, NOW, [joins]), ["persist"]);
    let joined = all(&mut node, NOW, [saved(), published()]);
    assert!(joined.iter().all(|effect| !effect.starts_with("announce []")), "{joined:?}");
    assert_eq!(node.announcements.wanted().routes.len(), 1);
}

#[test]
fn a_prefix_does_not_wait_for_a_neighbor_that_does_not_answer_nor_for_ever() {
    let mut node = beginning();
    assert_eq!(all(&mut node, NOW, [lost(2)]), ["announce [1] as 1"]);

    let mut node = beginning();
    let until = NOW + Duration::from_secs(10);
    all(&mut node, until - Duration::from_millis(1), [Event::Tick]);
    assert_eq!((node.announcements.wanted().routes.len(), node.deadline()), (0, Some(until)));
    assert_eq!(all(&mut node, until, [Event::Tick]), ["announce [1] as 1"]);
}

#[test]
fn a_vip_is_withdrawn_before_the_packet_path_forgets_it() {
    let _row =
        Row::fault("R8", "through the node: a VIP is removed, and a neighbor is sent its withdrawal after 40 ms");
    let mut node = serving(&[1, 2]);
    let version = node.announcements.wanted().version + 1;
    assert_eq!(all(&mut node, NOW, [change(1, Change::RemoveVip(name("v2")))]), ["persist"]);
    assert_eq!(all(&mut node, NOW, [saved()]), [format!("announce [1] as {version}")]);
    let sent = NOW + Duration::from_millis(40);
    assert!(all(&mut node, sent, [Event::Sessions(vec![session(version, &[1])])]).is_empty());
    let due = node.deadline().unwrap();
    assert_eq!(due, sent + release::TURNED);
    assert_eq!(all(&mut node, due, [Event::Tick]), ["publish vips"]);
    assert_eq!(all(&mut node, due, [published()]), ["reply 1"]);
}

#[test]
fn a_neighbor_that_takes_nothing_holds_a_removal_up_for_a_second() {
    let mut node = serving(&[1, 2]);
    all(&mut node, NOW, [change(1, Change::RemoveVip(name("v2")))]);
    all(&mut node, NOW, [saved()]);
    let due = node.deadline().unwrap();
    assert_eq!(due, NOW + release::SENT + release::TURNED);
    assert_eq!(all(&mut node, due, [Event::Tick]), ["publish vips"]);
}

#[test]
fn a_removal_waits_for_a_withdrawal_that_came_long_before_its_plan() {
    let _row =
        Row::fault("R8", "through the node: a plan fails, its VIP is withdrawn, the next attempt is due at once");
    let mut node = serving(&[1, 2]);
    let failed = Event::Reconcile(reconcile::Event::Published(Err("no memory".to_owned())));
    all(&mut node, NOW, [change(1, Change::SetWeight { pool: name("web"), backend: name("b1"), weight: Weight(7) })]);
    assert_eq!(all(&mut node, NOW, [saved()]), ["publish"]);
    assert!(all(&mut node, NOW, [failed])[0].starts_with("refuse 1: saved, but not applied"));
    let version = node.announcements.wanted().version + 1;
    all(&mut node, NOW, [change(2, Change::RemoveVip(name("v2")))]);
    let after = all(&mut node, NOW, [saved()]);
    assert_eq!(after, [format!("announce [1] as {version}"), "publish".to_owned()], "what failed comes first");
    assert!(all(&mut node, NOW, [published()]).is_empty(), "then the removal, which waits");
    let due = NOW + release::SENT + release::TURNED;
    assert_eq!(all(&mut node, due, [Event::Tick]), ["publish vips"]);
}

#[test]
fn a_stop_carries_out_what_waits_for_neighbors() {
    let _row = Row::fault("R8", "through the node: a stop while a removal waits");
    let mut node = serving(&[1, 2]);
    all(&mut node, NOW, [change(1, Change::RemoveVip(name("v2")))]);
    all(&mut node, NOW, [saved()]);
    assert!(node.handle(Event::SessionsEnded { kept: true }, NOW).is_empty(), "neighbors still send packets");
    assert_eq!(shown(&node.handle(Event::SessionsEnded { kept: false }, NOW)), ["publish vips"]);
    assert!(node.handle(Event::SessionsEnded { kept: false }, NOW).is_empty());
}

#[test]
fn without_neighbors_nothing_waits() {
    let mut node = Node::new(settings(), None, NOW);
    let load = reconcile::Event::Load { request: RequestId(0), services: services(&[1, 2]) };
    all(&mut node, NOW, [resolved(1), resolved(2), Event::Reconcile(load)]);
    all(&mut node, NOW, [published()]);
    all(&mut node, NOW, [replace(1, services(&[1]))]);
    let gone = all(&mut node, NOW, [saved()]);
    assert!(gone.len() == 2 && gone[0].starts_with("announce [1]") && gone[1] == "publish vips", "{gone:?}");
}

#[test]
fn a_drain_goes_on_when_its_own_withdrawal_was_sent_and_not_another_one_s() {
    let _row =
        Row::fault("R8", "neighbors are sent the withdrawal of an earlier drain: a later one does not go on by it");
    let mut node = serving(&[1]);
    let order = || node_drain::Order { since: UnixTime(0), reason: None, last_node: false };
    let begin = |node: &mut Node, request, now| {
        let request = RequestId(request);
        all(node, now, [Event::Drain(node_drain::Event::Drain { request, order: order() })]);
        all(node, now, [Event::Drain(node_drain::Event::Saved(Ok(())))]);
        let withdrawing = now + Duration::from_secs(1);
        let reported = all(node, withdrawing, [Event::Tick]);
        assert!(reported.iter().any(|effect| effect.starts_with("announce []")), "{reported:?}");
        all(node, withdrawing, [Event::Drain(node_drain::Event::Saved(Ok(())))]);
        assert_eq!(node.drain.stage(), Some(Stage::Withdrawing));
        node.announcements.wanted().version
    };
    let first = begin(&mut node, 1, NOW);
    let undrained = NOW + Duration::from_millis(1_100);
    all(&mut node, undrained, [Event::Drain(node_drain::Event::Undrain { request: RequestId(2) })]);
    let served = all(&mut node, undrained, [Event::Drain(node_drain::Event::Saved(Ok(())))]);
    assert!(served[0].starts_with("announce [1]") && served[1] == "reply 2", "{served:?}");
    let second = begin(&mut node, 3, undrained);
    let later = undrained + Duration::from_millis(1_050);
    all(&mut node, later, [Event::Sessions(vec![session(first, &[1])])]);
    assert_eq!(node.drain.stage(), Some(Stage::Withdrawing), "that was the first drain's");
    all(&mut node, later, [Event::Sessions(vec![session(second, &[])])]);
    assert_eq!(node.drain.stage(), Some(Stage::Waiting));
}

#[test]
fn checks_that_confirm_the_health_change_nothing_that_is_shown() {
    let mut node = serving(&[1]);
    let before = node.generation();
    all(&mut node, NOW, []);
    assert_eq!(node.generation(), before);
    let (wanted, same) = (node.announcements.wanted(), session(node.announcements.wanted().version, &[1]));
    assert!(all(&mut node, NOW, [Event::Sessions(vec![same])]).is_empty());
    assert_eq!((node.generation(), node.announcements.wanted()), (before, wanted));
}

#[test]
fn a_vip_that_cannot_be_served_is_reported_and_again_when_it_can_be() {
    let mut node = serving(&[1]);
    let own = |address: Option<[u8; 4]>| {
        let own = address.map(|address| (address.into(), "eth0".to_owned())).into_iter().collect();
        Event::Reconcile(reconcile::Event::Host(maglev_model::Host { own, ..Default::default() }))
    };
    let mut reported = Vec::new();
    for address in [Some([203, 0, 113, 1]), None] {
        node.handle(own(address), NOW);
        let effects = node.handle(Event::Flush, NOW);
        reported.extend(effects.into_iter().filter_map(|effect| match effect {
            Effect::News(News::Vip { vip, conflict }) => Some((vip, conflict.is_some())),
            _ => None,
        }));
        let later = NOW + Duration::from_secs(2);
        all(&mut node, later, [Event::Tick]);
        all(&mut node, later, [published()]);
    }
    assert_eq!(reported, [(name("v1"), true), (name("v1"), false)]);
}

fn failed() -> Event {
    Event::Reconcile(reconcile::Event::Published(Err("no memory".to_owned())))
}

fn weigh(request: u64, weight: u16) -> Event {
    change(request, Change::SetWeight { pool: name("web"), backend: name("b1"), weight: Weight(weight) })
}

fn lost(n: u8) -> Event {
    let resolution = Resolution::Unresolved("no answer".to_owned());
    Event::Reconcile(reconcile::Event::NextHop { address: [10, 0, 1, n].into(), resolution })
}

#[test]
fn a_tick_in_a_burst_releases_no_plan_before_its_withdrawal() {
    let _row = Row::fault("R8", "through the node: a removal is saved, and a deadline comes within the same burst");
    let mut node = serving(&[1, 2]);
    let version = node.announcements.wanted().version + 1;
    all(&mut node, NOW, [change(1, Change::RemoveVip(name("v2")))]);
    assert_eq!(all(&mut node, NOW, [saved(), Event::Tick]), [format!("announce [1] as {version}")]);
}

#[test]
fn a_slow_disk_does_not_delay_results_of_checks_and_next_hops() {
    let _row = Row::fault("R8", "through the node: a change is being saved, and a next hop changes");
    let mut node = serving(&[1]);
    assert_eq!(all(&mut node, NOW, [weigh(1, 7)]), ["persist"]);
    let moved = Resolution::Resolved { interface: 2, mac: [2, 0, 0, 0, 9, 9], gateway: None, mtu: None };
    let moved = Event::Reconcile(reconcile::Event::NextHop { address: [10, 0, 1, 1].into(), resolution: moved });
    assert_eq!(all(&mut node, NOW, [moved]), [""; 0], "a disk that answers soon saves a plan");
    let due = node.deadline().unwrap();
    assert_eq!(due, NOW + Duration::from_millis(100));
    assert_eq!(all(&mut node, due, [Event::Tick]), ["publish"]);
    // Saved while that plan is under way: it has the next one, and is answered by it.
    assert_eq!(all(&mut node, due, [saved()]), [""; 0]);
    assert_eq!(all(&mut node, due, [published()]), ["publish"]);
    assert_eq!(all(&mut node, due, [published()]), ["reply 1"]);
}

#[test]
fn an_attempt_at_an_earlier_plan_saves_the_vips_that_are_still_served() {
    let _row =
        Row::fault("R8", "through the node: a plan fails, a VIP is removed, the daemon is killed in the next attempt");
    let mut node = serving(&[1, 2]);
    all(&mut node, NOW, [weigh(1, 7)]);
    all(&mut node, NOW, [saved()]);
    all(&mut node, NOW, [failed()]);
    all(&mut node, NOW, [change(2, Change::RemoveVip(name("v2")))]);
    node.handle(saved(), NOW);
    let effects = node.handle(Event::Flush, NOW);
    let plan = effects.iter().find_map(|effect| match effect {
        Effect::Publish(plan) => Some(plan),
        _ => None,
    });
    let served = plan.unwrap().saved.as_ref().unwrap().served();
    let served: Vec<String> = served.iter().map(|vip| vip.name.to_string()).collect();
    assert_eq!(served, ["v1", "v2"]);
}

#[test]
fn a_removal_is_not_held_up_by_withdrawals_that_come_after_it() {
    let _row = Row::fault("R8", "through the node: a removal waits for a neighbor, and other prefixes are withdrawn");
    let mut node = serving(&[1, 2]);
    all(&mut node, NOW, [change(1, Change::RemoveVip(name("v2")))]);
    all(&mut node, NOW, [saved()]);
    let due = node.deadline().unwrap();
    let interfaces = settings().reconcile.interfaces;
    let trouble = Event::Interfaces { interfaces, trouble: Some("eth0 is down".to_owned()) };
    let later = NOW + Duration::from_secs(1);
    let withdrawn = all(&mut node, later, [trouble]);
    assert!(withdrawn[0].starts_with("announce []"), "{withdrawn:?}");
    assert_eq!(node.deadline().unwrap(), due);
    assert_eq!(all(&mut node, due, [Event::Tick]), ["publish vips"]);
}

#[test]
fn a_vip_is_withdrawn_while_a_plan_fails_if_no_backend_can_be_reached() {
    let _row = Row::fault("R1", "through the node: plans fail, and every next hop is lost");
    let mut node = serving(&[1]);
    all(&mut node, NOW, [weigh(1, 7)]);
    all(&mut node, NOW, [saved()]);
    all(&mut node, NOW, [failed()]);
    let mut reported = all(&mut node, NOW, [lost(1), lost(2)]);
    let mut now = NOW;
    while now < NOW + Duration::from_secs(60) {
        let due = node.deadline().unwrap();
        assert!(due > now);
        now = due;
        reported.extend(all(&mut node, now, [Event::Tick]));
        reported.extend(all(&mut node, now, [failed()]));
    }
    assert!(reported.iter().any(|reported| reported.starts_with("announce []")), "{reported:?}");
    assert!(
        reported.iter().filter(|reported| *reported == "publish").count() < 12,
        "the attempts are no more than before"
    );
}

fn moved(last: u8) -> Event {
    let resolution = Resolution::Resolved { interface: 2, mac: [2, 0, 0, 0, 9, last], gateway: None, mtu: None };
    Event::Reconcile(reconcile::Event::NextHop { address: [10, 0, 1, 1].into(), resolution })
}

#[test]
fn a_vip_is_announced_though_next_hops_change_all_the_time() {
    let _row =
        Row::fault("R8", "through the node: a VIP is added, and a next hop changes before each plan is carried out");
    let mut node = serving(&[1]);
    all(&mut node, NOW, [change(1, Change::AddVip(vip(2)))]);
    all(&mut node, NOW, [saved()]);
    let mut after = Vec::new();
    for n in 0..100 {
        let now = NOW + Duration::from_millis(10 * u64::from(n));
        assert!(all(&mut node, now, [moved(n)]).is_empty(), "a plan is under way");
        after.push(all(&mut node, now, [published()]));
    }
    assert!(after[0][0].starts_with("announce [1 2]"), "{after:?}");
}

#[test]
fn a_removal_that_waits_delays_neither_next_hops_nor_other_changes() {
    let _row = Row::fault("R8", "through the node: a removal waits for a neighbor, and a next hop and a weight change");
    let mut node = serving(&[1, 2]);
    all(&mut node, NOW, [change(1, Change::RemoveVip(name("v2")))]);
    all(&mut node, NOW, [saved()]);
    assert_eq!(all(&mut node, NOW, [moved(9)]), ["publish"]);
    assert!(all(&mut node, NOW, [published()]).is_empty(), "the removal is not answered yet");
    assert_eq!(all(&mut node, NOW, [weigh(2, 7)]), ["persist"]);
    assert_eq!(all(&mut node, NOW, [saved()]), ["publish"]);
    assert_eq!(all(&mut node, NOW, [published()]), ["reply 2"]);
    let due = node.deadline().unwrap();
    assert_eq!(due, NOW + release::SENT + release::TURNED);
    assert!(all(&mut node, due - Duration::from_millis(1), [moved(8)]) == ["publish"]);
    // A plan is under way when it is due: the next one forgets it, however often next hops change.
    assert!(all(&mut node, due, [Event::Tick, moved(7)]).is_empty());
    assert_eq!(all(&mut node, due, [published()]), ["publish vips"]);
    assert_eq!(all(&mut node, due, [published()]), ["reply 1"]);
    assert!(node.reconciler.is_idle());
}

#[test]
fn neighbors_are_sent_that_all_is_known_though_next_hops_change_all_the_time() {
    let _row = Row::fault("R8", "through the node: the start, and a next hop changes before each plan is carried out");
    let mut node = Node::new(settings(), None, NOW);
    let load = reconcile::Event::Load { request: RequestId(0), services: services(&[1]) };
    all(&mut node, NOW, [resolved(1), resolved(2), Event::Reconcile(load)]);
    assert!(!node.announcements.wanted().complete);
    all(&mut node, NOW, [moved(1)]);
    all(&mut node, NOW, [published()]);
    assert!(node.announcements.wanted().complete, "what the first plan did is known");
}

#[test]
fn a_vip_is_not_announced_by_backends_that_the_packet_path_does_not_know_yet() {
    let _row = Row::fault("R8", "through the node: a VIP without usable backends is served, and one is reached");
    let mut node = serving(&[1]);
    let second = Vip { pool: name("dns"), ..vip(2) };
    let is_announced = |node: &Node| node.announcements.wanted().routes.contains_key(&vip(2).prefix().unwrap());
    let added = [
        Change::AddPool(Pool::new(name("dns"))),
        Change::AddBackend { pool: name("dns"), backend: backend(3) },
        Change::AddVip(second),
    ];
    all(&mut node, NOW, (1..).zip(added).map(|(request, added)| change(request, added)));
    all(&mut node, NOW, [saved()]);
    all(&mut node, NOW, [published()]);
    assert_eq!((is_announced(&node), node.reconciler.is_idle()), (false, true), "its backend is not reached");
    assert_eq!(all(&mut node, NOW, [resolved(3)]).last().unwrap(), "publish");
    assert_eq!(all(&mut node, NOW, [moved(7)]), [""; 0]);
    assert!(!is_announced(&node), "the packet path does not reach it yet");
    all(&mut node, NOW, [published()]);
    assert!(is_announced(&node));
}

#[test]
fn a_vip_that_is_added_again_after_its_removal_is_not_announced_by_its_earlier_state() {
    let _row = Row::fault("R8", "through the node: a VIP is added again while the plan that removes it is under way");
    let mut node = serving(&[1, 2]);
    all(&mut node, NOW, [change(1, Change::RemoveVip(name("v2")))]);
    all(&mut node, NOW, [saved()]);
    let due = node.deadline().unwrap();
    assert_eq!(all(&mut node, due, [Event::Tick]), ["publish vips"]);
    assert!(all(&mut node, due, [change(2, Change::AddVip(vip(2)))]).is_empty());
    assert_eq!(all(&mut node, due, [published()]), ["persist", "reply 1"]);
    let (again, served) = (all(&mut node, due, [saved()]), all(&mut node, due, [published()]));
    assert!(again[0].starts_with("announce [1] ") && again[1] == "publish vips", "{again:?}");
    assert!(served[0].starts_with("announce [1 2] "), "{served:?}");
}

#[test]
fn a_neighbor_without_a_session_holds_a_removal_up_for_a_second() {
    let _row =
        Row::fault("R8", "through the node: a VIP is removed while a neighbor has no session, and keeps its prefix");
    let mut node = serving(&[1, 2]);
    let down = NeighborStatus { state: "connect".into(), sent: u64::MAX, ..session(0, &[]) };
    all(&mut node, NOW, [Event::Sessions(vec![down])]);
    all(&mut node, NOW, [change(1, Change::RemoveVip(name("v2")))]);
    all(&mut node, NOW, [saved()]);
    assert_eq!(node.deadline().unwrap(), NOW + release::SENT + release::TURNED);
    let version = node.announcements.wanted().version;
    all(&mut node, NOW, [Event::Sessions(vec![session(version, &[1])])]);
    assert_eq!(node.deadline().unwrap(), NOW + release::TURNED);
}

/// The plan among effects, and whether packets for these VIPs are taken after it.
fn plan_takes(effects: &[Effect], vips: &[u8]) -> Vec<bool> {
    let plan = effects.iter().find_map(|effect| match effect {
        Effect::Publish(plan) => Some(plan),
        _ => None,
    });
    let mut maps = Maps::default();
    let directories = plan.unwrap().steps.iter().filter(|step| matches!(step, Step::SwitchDirectory4 { .. }));
    // VIPs without a table are skipped.
    directories.for_each(|step| maps.carry_out(step));
    vips.iter().map(|n| maps.takes(vip(*n).service)).collect()
}

fn replace(request: u64, services: Services) -> Event {
    Event::Reconcile(reconcile::Event::Replace { request: RequestId(request), services })
}

#[test]
fn a_vip_that_changes_its_address_has_the_old_one_until_neighbors_turned_elsewhere() {
    let _row = Row::fault("R8", "through the node: v1 gets the address of v2, which is removed, by one reload");
    let mut node = serving(&[1, 2]);
    let mut other = services(&[1]);
    other.vips.get_mut(&name("v1")).unwrap().service = vip(2).service;
    all(&mut node, NOW, [replace(1, other)]);
    let version = node.announcements.wanted().version + 1;
    let withdrawn = format!("announce [2] as {version}");
    assert_eq!(all(&mut node, NOW, [saved()]), [withdrawn], "v2 serves its address still");
    all(&mut node, NOW, [Event::Sessions(vec![session(version, &[2])])]);
    let due = NOW + release::TURNED;
    let mut effects = node.handle(Event::Tick, due);
    effects.extend(node.handle(Event::Flush, due));
    assert_eq!((shown(&effects), plan_takes(&effects, &[1, 2])), (vec!["publish vips".to_owned()], vec![false, true]));
    assert_eq!(all(&mut node, due, [published()]), ["reply 1"]);
}

#[test]
fn a_pool_that_is_removed_with_its_vip_stays_until_neighbors_turned_elsewhere() {
    let _row =
        Row::fault("R8", "through the node: a VIP and its pool are removed by one reload, and a next hop changes");
    let mut node = serving(&[1]);
    all(&mut node, NOW, [replace(1, Services::default())]);
    assert!(all(&mut node, NOW, [saved()])[0].starts_with("announce []"));
    assert_eq!(all(&mut node, NOW, [moved(9)]), ["publish"], "packets find its backends");
    assert_eq!(all(&mut node, NOW, [published()]), [""; 0]);
    let due = node.deadline().unwrap();
    assert_eq!(all(&mut node, due, [Event::Tick]), ["publish vips"]);
    assert_eq!(all(&mut node, due, [published()]), ["reply 1"]);
    assert!(node.view().pools.is_empty() && node.reconciler.is_idle());
}

#[test]
fn a_vip_that_is_added_again_while_its_removal_waits_is_announced_at_once_and_both_are_answered() {
    let mut node = serving(&[1, 2]);
    all(&mut node, NOW, [change(1, Change::RemoveVip(name("v2")))]);
    all(&mut node, NOW, [saved()]);
    assert_eq!(all(&mut node, NOW, [change(2, Change::AddVip(vip(2)))]), ["persist"]);
    let again = all(&mut node, NOW, [saved()]);
    assert!(again[0].starts_with("announce [1 2] ") && again[1..] == ["reply 1", "reply 2"], "{again:?}");
    assert!(node.reconciler.is_idle());
}

#[test]
fn a_vip_that_is_added_again_after_its_removal_failed_is_announced_once_it_is_served() {
    let _row =
        Row::fault("R8", "through the node: the plan that removes a VIP fails half-way, and the VIP is added again");
    let mut node = serving(&[1, 2]);
    all(&mut node, NOW, [change(1, Change::RemoveVip(name("v2")))]);
    all(&mut node, NOW, [saved()]);
    let due = node.deadline().unwrap();
    assert_eq!(all(&mut node, due, [Event::Tick]), ["publish vips"]);
    all(&mut node, due, [failed()]);
    all(&mut node, due, [change(2, Change::AddVip(vip(2)))]);
    let again = all(&mut node, due, [saved()]);
    assert!(again[0].starts_with("announce [1] ") && again[1] == "publish vips", "the removal first: {again:?}");
    let again = all(&mut node, due, [published()]);
    assert_eq!(again, ["publish vips"], "then the VIP");
    let served = all(&mut node, due, [published()]);
    assert!(served[0].starts_with("announce [1 2] ") && served[1] == "reply 2", "{served:?}");
}

#[test]
fn a_drain_goes_on_by_no_session_that_is_reported_before_its_withdrawal() {
    let _row = Row::fault("R8", "a drain withdraws, and a session is reported within the same burst");
    let mut node = serving(&[1]);
    let order = node_drain::Order { since: UnixTime(0), reason: None, last_node: false };
    all(&mut node, NOW, [Event::Drain(node_drain::Event::Drain { request: RequestId(1), order })]);
    all(&mut node, NOW, [Event::Drain(node_drain::Event::Saved(Ok(())))]);
    let version = node.announcements.wanted().version;
    let known = || Event::Sessions(vec![session(version, &[1])]);
    all(&mut node, NOW, [known()]);
    all(&mut node, NOW + Duration::from_secs(1), [Event::Tick, known()]);
    assert_eq!(node.drain.stage(), Some(Stage::Withdrawing));
}

/// A node that starts with v1 where another one served v1 and v9.
fn after_another(host: maglev_model::Host) -> Node {
    let mut node = Node::new(settings(), None, NOW);
    node.keep_serving(vec![vip(1), vip(9)]);
    let load = reconcile::Event::Load { request: RequestId(0), services: services(&[1]) };
    all(&mut node, NOW, [Event::Reconcile(reconcile::Event::Host(host)), resolved(1), resolved(2)]);
    all(&mut node, NOW, [Event::Reconcile(load)]);
    all(&mut node, NOW, [published()]);
    node
}

fn serves(node: &mut Node) -> Vec<String> {
    node.reconciler.save().served().iter().map(|vip| vip.name.to_string()).collect()
}

#[test]
fn a_vip_of_another_daemon_is_not_served_on_an_address_that_the_node_needs() {
    let own = [([203, 0, 113, 9].into(), "eth0".to_owned())].into();
    assert_eq!(serves(&mut after_another(maglev_model::Host::default())), ["v1", "v9"]);
    assert_eq!(serves(&mut after_another(maglev_model::Host { own, ..Default::default() })), ["v1"]);
}

#[test]
fn a_vip_of_another_daemon_is_served_until_every_neighbor_is_back_and_up_to_date() {
    let _row =
        Row::fault("R8", "through the node: after a restart, one of two neighbors is not back, or was not sent all");
    let mut node = after_another(maglev_model::Host::default());
    let wanted = node.announcements.wanted();
    assert!(wanted.complete);
    let down = NeighborStatus { state: "connect".into(), sent: u64::MAX, ..session(0, &[]) };
    let (knows, behind) = (session(wanted.version, &[1]), session(wanted.version - 1, &[1]));
    for (seconds, other) in (1..).zip([down, behind]) {
        let now = NOW + Duration::from_secs(seconds);
        all(&mut node, now, [Event::Sessions(vec![knows.clone(), other])]);
        all(&mut node, now + release::TURNED, [Event::Tick]);
        assert_eq!(serves(&mut node), ["v1", "v9"]);
    }
    let now = NOW + Duration::from_secs(3);
    all(&mut node, now, [Event::Sessions(vec![knows.clone(), knows])]);
    assert_eq!(serves(&mut node), ["v1", "v9"]);
    assert_eq!(all(&mut node, now + release::TURNED, [Event::Tick]), ["publish vips"]);
    assert_eq!(serves(&mut node), ["v1"]);
}
