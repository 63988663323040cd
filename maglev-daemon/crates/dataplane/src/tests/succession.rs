//! A data plane that continues another one's flow table and counters, with programs and forwarding state of its own.

use std::collections::BTreeMap;
use std::process::Command;

use maglev_common::maps as names;

use super::outlive::{Folder, killed, stay};
use super::*;
use crate::egress::{Egress, Means};

/// A set by a daemon with these settings; the flow from port 9 is known, and counted once.
struct Killed {
    peer: Peer,
    folder: Folder,
    set: String,
    before: Fingerprint,
}

impl Killed {
    fn with(settings: &Settings) -> Self {
        let (peer, folder) = (two_veths(), Folder::new());
        stay();
        let set = killed(&folder, settings);
        Self { peer, folder, set, before: Fingerprint::from_settings(settings).unwrap() }
    }

    fn succeed(&self, settings: &Settings, members: &[(MemberId, MemberRecord)]) -> Dataplane {
        let from = (self.set.as_str(), &self.before);
        let mut plane = Dataplane::succeed(settings, &links(), &self.folder.hold(), from).unwrap();
        plane.continue_members(&members.iter().cloned().collect::<BTreeMap<_, _>>()).unwrap();
        plane
    }

    fn sets(&self) -> Vec<String> {
        let mut sets: Vec<_> = self.folder.entries();
        sets.retain(|entry| entry.ends_with("/program"));
        sets
    }
}

fn both() -> Settings {
    settings(&[("eth1", Mode::Native), ("eth2", Mode::Native)])
}

/// Member 2 owns the pool from now on; flows of member 1 stay.
fn plan_of(owner: u16, slot: u16) -> Vec<Step> {
    vec![
        Step::WriteMember { id: member(owner), record: record(slot) },
        Step::FillTable { table: TableIndex(3), slots: table(member(owner)) },
        Step::SwitchPool { pool: POOL, word: always(3) },
    ]
    .into_iter()
    .chain(first_plan().into_iter().filter(|step| matches!(step, Step::SwitchDirectory4 { .. })))
    .collect()
}

#[test]
fn another_program_goes_on_with_flows_and_counters_and_the_old_one_forwards_until_it_can() {
    in_namespace(|| {
        let old = both();
        let from = Killed::with(&old);
        let before = attached("eth1").unwrap();
        let new = Settings { limits: Limits { pools: 9, ..old.limits }, answers: 5, ..old };
        let mine = Fingerprint::from_settings(&new).unwrap();
        assert_eq!(mine.differences(&from.before), ["`limits`", "the rates of answers"]);
        assert!(mine.has_same_slots(&from.before) && mine.keeps(&from.before) == Kept::ALL);

        let mut plane = from.succeed(&new, &[(member(1), record(0))]);
        assert!(!plane.is_adopted());
        let known = plane.explain(flow(9));
        assert_eq!(plane.snapshot().member(member(1)).packets, 1, "counters go on: {known:?}");
        assert_eq!(plane.live().members.into_iter().collect::<Vec<_>>(), [(member(1), record(0))]);
        assert_eq!((attached("eth1"), from.sets().len()), (Some(before), 2), "the old one forwards");

        plane.publish(&plan_of(2, 0)).unwrap();
        let index = plane.interfaces()[0].index;
        let mut harness = Harness::from_dataplane(&mut plane);
        assert_eq!([9, 8].map(|port| harness.run(index, &datagram(port)).0), [action::TX; 2]);
        let snapshot = plane.snapshot();
        assert_eq!([1, 2].map(|id| snapshot.member(member(id)).packets), [2, 1], "a known flow stays where it is");
        plane.outlive().unwrap();
        let after = attached("eth1").unwrap();
        assert_ne!(after.program, before.program);
        assert_eq!((attached("eth2"), from.sets().len()), (Some(after), 2), "the old set stays for a while");
        let (folder, set) = plane.set().map(|(folder, set)| (folder.to_owned(), set.to_owned())).unwrap();
        assert_eq!(Pins::read(&folder).current(), Some(set.clone()), "the one that forwards is found");
        plane.release();
        assert_eq!(from.sets(), [format!("{set}/program")]);
        drop((harness, plane));
        assert_eq!(attached("eth1"), Some(after));
        assert!(Pins::hold(&folder).unwrap().uninstall().unwrap());
        assert_eq!((attached("eth1"), attached("eth2"), folder.exists()), (None, None, false));
        drop(from.peer);
    });
}

#[test]
fn the_set_before_takes_over_again_with_the_flows_of_meanwhile() {
    in_namespace(|| {
        let old = both();
        let from = Killed::with(&old);
        let new = Settings { limits: Limits { pools: 9, ..old.limits }, ..old.clone() };
        let mut plane = from.succeed(&new, &[(member(1), record(0))]);
        let members = [(member(1), record(0)), (member(2), record(0))];
        plane.publish(&plan_of(2, 0)).unwrap();
        let index = plane.interfaces()[0].index;
        Harness::from_dataplane(&mut plane).run(index, &datagram(8));
        plane.outlive().unwrap();
        let (newer, newest) = (plane.set().unwrap().1.to_owned(), Fingerprint::from_settings(&new).unwrap());
        drop(plane);
        // The release before knows the newer one's maps: it continues them as any other does.
        let back = Dataplane::succeed(&old, &links(), &from.folder.hold(), (&newer, &newest)).unwrap();
        let mut back = back;
        back.continue_members(&members.into_iter().collect()).unwrap();
        back.publish(&plan_of(1, 0)).unwrap();
        let mut harness = Harness::from_dataplane(&mut back);
        assert_eq!([9, 8, 7].map(|port| harness.run(index, &datagram(port)).0), [action::TX; 3]);
        assert_eq!([1, 2].map(|id| back.snapshot().member(member(id)).packets), [3, 2]);
        back.outlive().unwrap();
        assert_eq!(from.sets().len(), 2, "the set before the one before is gone");
        drop(harness);
        back.stop();
        assert_eq!(from.folder.entries(), Vec::<String>::new());
    });
}

/// Entries in the flow table, and in the one before.
fn entries(plane: &Dataplane) -> [usize; 2] {
    let used = |buckets: &[Bucket]| buckets.iter().flat_map(Bucket::entries).filter(|word| word.get() != 0).count();
    [used(plane.maps.flows.values()), plane.maps.flows_before.as_ref().map_or(0, |before| used(before.values()))]
}

fn promoted(plane: &Dataplane) -> u64 {
    plane.snapshot().counter(Counter::FlowPromoted)
}

#[test]
fn a_flow_table_of_another_size_takes_over_the_entries_of_flows_that_come() {
    for flow_sets in [16, 256] {
        in_namespace(move || {
            let old = both();
            let from = Killed::with(&old);
            let new = Settings { flow_sets, ..old.clone() };
            let mine = Fingerprint::from_settings(&new).unwrap();
            assert_eq!((mine.differences(&from.before), mine.keeps(&from.before)), (vec!["`flow_table`"], Kept::ALL));
            let mut plane = from.succeed(&new, &[(member(1), record(0))]);
            assert_eq!((entries(&plane), plane.snapshot().member(member(1)).packets), ([0, 1], 1));
            let active = |plane: &Dataplane| plane.active_flows(POOL, &[true; SLOTS], 60).unwrap();
            assert_eq!(active(&plane), 1);

            plane.publish(&plan_of(2, 0)).unwrap();
            let known = plane.explain(flow(9)).unwrap().remembered;
            assert_eq!(known.iter().map(|known| known.member).collect::<Vec<_>>(), [member(1)]);
            let index = plane.interfaces()[0].index;
            let mut harness = Harness::from_dataplane(&mut plane);
            assert_eq!([8, 9, 9].map(|port| harness.run(index, &datagram(port)).0), [action::TX; 3]);
            let packets = |plane: &Dataplane| [1, 2].map(|id| plane.snapshot().member(member(id)).packets);
            assert_eq!((packets(&plane), promoted(&plane)), ([3, 1], 1), "a known flow stays where it is");
            assert_eq!((entries(&plane), active(&plane)), ([2, 1], 2), "it counts once");
            plane.outlive().unwrap();
            plane.release();
            let set = plane.set().unwrap().1.to_owned();
            drop((harness, plane));

            // Adopted and continued with what is not taken over yet.
            let plane = Dataplane::adopt(&new, &links(), &from.folder.hold(), &set).unwrap();
            assert_eq!((entries(&plane), plane.maps.sizes.sets_before), ([2, 1], old.flow_sets));
            drop(plane);
            let newest = Settings { answers: 5, ..new };
            let mut plane = Dataplane::succeed(&newest, &links(), &from.folder.hold(), (&set, &mine)).unwrap();
            plane.continue_members(&[(member(1), record(0)), (member(2), record(0))].into()).unwrap();
            assert_eq!(entries(&plane), [2, 1]);
            plane.publish(&plan_of(2, 0)).unwrap();
            plane.publish(&[Step::KillMember { id: member(1) }, Step::PurgeFlows { ids: vec![member(1)] }]).unwrap();
            assert_eq!(entries(&plane), [1, 0], "a member that dies is forgotten in both");
            plane.outlive().unwrap();
            plane.stop();
            assert_eq!(from.folder.entries(), Vec::<String>::new());
        });
    }
}

#[test]
fn a_flow_table_before_is_freed_once_its_flows_are_idle() {
    in_namespace(|| {
        let old = both();
        let from = Killed::with(&old);
        let new = Settings { flow_sets: 16, ..old };
        let mut plane = from.succeed(&new, &[(member(1), record(0))]);
        plane.publish(&plan_of(1, 0)).unwrap();
        plane.outlive().unwrap();
        let seen = |ago: u16| FlowEntry::new(7, member(1), Seconds(explain::now().unwrap().0.wrapping_sub(ago))).0;
        let mut words = plane.maps.flows_before.as_ref().unwrap().values().iter().flat_map(Bucket::entries);
        let word = words.find(|word| word.get() != 0).unwrap();
        let idle = plane.maps.forwarding().longest_idle();
        // The clock may tick on while the test runs.
        word.set(seen(idle - 60));
        assert!(!plane.sweep().unwrap());
        assert_eq!(entries(&plane), [0, 1], "its flow may come");
        word.set(seen(idle + 1));
        assert!(plane.sweep().unwrap());
        assert_eq!((entries(&plane), plane.sweep_interval().as_secs()), ([0, 0], idle.into()));
        let (set, mine) = (plane.set().unwrap().1.to_owned(), Fingerprint::from_settings(&new).unwrap());
        drop(plane);
        let newest = Settings { answers: 5, ..new };
        let plane = Dataplane::succeed(&newest, &links(), &from.folder.hold(), (&set, &mine)).unwrap();
        assert_eq!((plane.maps.sizes.sets_before, plane.sweep_interval()), (0, flows::SWEEP));
        assert!(!plane.sweep().unwrap(), "there is none");
        plane.stop();
    });
}

#[test]
fn a_flow_that_is_silent_while_the_flow_table_changes_its_size_twice_stays() {
    for sizes in [[256, 16], [16, 256]] {
        in_namespace(move || {
            let old = both();
            let from = Killed::with(&old);
            let (mut set, mut before) = (from.set.clone(), from.before.clone());
            for (n, flow_sets) in sizes.into_iter().enumerate() {
                let next = Settings { flow_sets, ..old.clone() };
                let mut plane = Dataplane::succeed(&next, &links(), &from.folder.hold(), (&set, &before)).unwrap();
                plane.continue_members(&[(member(1), record(0)), (member(2), record(0))].into()).unwrap();
                plane.publish(&plan_of(2, 0)).unwrap();
                let index = plane.interfaces()[0].index;
                // Of ports 9 and 8, the one that came first is silent at first.
                let ports: &[u16] = if n == 0 { &[8] } else { &[8, 9] };
                for port in ports {
                    assert_eq!(Harness::from_dataplane(&mut plane).run(index, &datagram(*port)).0, action::TX);
                }
                plane.outlive().unwrap();
                plane.release();
                (set, before) = (plane.set().unwrap().1.to_owned(), Fingerprint::from_settings(&next).unwrap());
                let packets = [1, 2].map(|id| plane.snapshot().member(member(id)).packets);
                assert_eq!(packets, [[1, 1], [2, 2]][n], "{sizes:?}");
            }
            Dataplane::adopt(&Settings { flow_sets: sizes[1], ..old }, &links(), &from.folder.hold(), &set)
                .unwrap()
                .stop();
        });
    }
}

#[test]
fn counters_of_another_layout_are_added_and_go_on() {
    in_namespace(|| {
        let old = both();
        let mut from = Killed::with(&old);
        let counted = |plane: &Dataplane| {
            let snapshot = plane.snapshot();
            let totals = [snapshot.vip(VIP), snapshot.member(member(1))].map(|totals| (totals.packets, totals.bytes));
            (totals, snapshot.counter(Counter::Transmitted), snapshot.sent_by_cpu().iter().sum::<u64>())
        };
        // As if its counters lay elsewhere: what is called transmitted now was called redirected.
        from.before.counts.exchange("transmitted", "redirected");
        let mine = Fingerprint::from_settings(&old).unwrap();
        assert_eq!(mine.differences(&from.before), ["the layout of the maps"]);
        assert_eq!(mine.keeps(&from.before), Kept::ALL);
        let mut plane = from.succeed(&old, &[(member(1), record(0))]);
        let bytes = datagram(9).len() as u64;
        assert_eq!(counted(&plane), ([(1, bytes), (1, bytes)], 0, 0));
        assert_eq!(plane.snapshot().counter(Counter::Redirected), 1, "by its name");

        // The other program counts on until it ends.
        let index = plane.interfaces()[0].index;
        let mut earlier = object::Loaded::pinned(&Pins::read(&from.folder.0), &from.set, names::PROGRAM).unwrap();
        Harness::new(&mut earlier, names::PROGRAM).run(index, &datagram(9));
        drop(earlier);
        plane.publish(&plan_of(1, 0)).unwrap();
        plane.outlive().unwrap();
        Harness::from_dataplane(&mut plane).run(index, &datagram(9));
        assert_eq!(counted(&plane), ([(3, 3 * bytes), (3, 3 * bytes)], 1, 1));
        assert_eq!(plane.snapshot().counter(Counter::Redirected), 2);
        let set = plane.set().unwrap().1.to_owned();
        drop(plane);
        let plane = Dataplane::adopt(&old, &links(), &from.folder.hold(), &set).unwrap();
        assert_eq!(counted(&plane), ([(3, 3 * bytes), (3, 3 * bytes)], 1, 1), "they stay in the set");
        plane.stop();
    });
}

#[test]
fn interfaces_that_were_reordered_have_other_slots_and_members_follow() {
    in_namespace(|| {
        let from = Killed::with(&both());
        let new = settings(&[("eth2", Mode::Native), ("eth1", Mode::Native)]);
        let slots = Slots([(0, Device::Interface("eth1".into())), (1, Device::Interface("eth2".into()))].into());
        let mut plane = from.succeed(&new, &[(member(1), record(1))]);
        let now = plane.slots();
        let moved = |slot| now.slot_of(slots.device(slot).unwrap());
        assert_eq!([0, 1].map(moved), [Some(1), Some(0)]);
        plane.publish(&plan_of(1, 1)).unwrap();
        let index = plane.interfaces().iter().find(|interface| interface.name == "eth1").unwrap().index;
        let mut harness = Harness::from_dataplane(&mut plane);
        assert_eq!(harness.run(index, &datagram(9)).0, action::TX, "by the interface it came in by");
        plane.outlive().unwrap();
        drop(harness);
        plane.stop();
    });
}

/// A data plane of this process, whose flow from port 9 is known, and counted once.
fn running(folder: &Folder, settings: &Settings) -> Dataplane {
    let mut plane = Dataplane::replace(settings, &links(), &folder.hold()).unwrap();
    plane.publish(&first_plan()).unwrap();
    plane.outlive().unwrap();
    let index = plane.interfaces()[0].index;
    assert_eq!(Harness::from_dataplane(&mut plane).run(index, &datagram(9)).0, action::TX);
    plane
}

/// The programs at an interface's egress: those that links hold, and those of filters.
fn at_egress(interface: &str) -> Vec<u32> {
    let attach = aya::programs::tc::TcAttachType::Egress;
    let links = if features::has_egress_links() {
        aya::programs::SchedClassifier::query_tcx(interface, attach).unwrap().1
    } else {
        Vec::new()
    };
    let listing = Command::new("tc").args(["filter", "show", "dev", interface, "egress"]).output().unwrap();
    assert!(listing.status.success(), "{listing:?}");
    let listing = String::from_utf8(listing.stdout).unwrap();
    let words = listing.split_whitespace();
    let filters = words.clone().zip(words.skip(1)).filter(|(key, _)| *key == "id").map(|(_, id)| id.parse().unwrap());
    links.iter().map(aya::programs::ProgramInfo::id).chain(filters).collect()
}

#[test]
fn a_data_plane_of_this_process_takes_over_with_another_interface() {
    takes_over_with_another_interface(Means::detect());
}

#[test]
fn a_data_plane_of_this_process_takes_over_at_the_egress_where_it_has_no_links() {
    takes_over_with_another_interface(Means::Filter);
}

fn takes_over_with_another_interface(means: Means) {
    in_namespace(move || {
        let (peer, folder) = (two_veths(), Folder::new());
        stay();
        let old = settings(&[("eth1", Mode::Native)]);
        let mut plane = running(&folder, &old);
        plane.egress = Egress::by(means);
        plane.guard().unwrap();
        let (before, egress) = (attached("eth1").unwrap(), at_egress("eth1"));
        let pins = Arc::clone(&plane.left.as_ref().unwrap().pins);
        let set = plane.set().unwrap().1.to_owned();
        let from = |plane: &Dataplane, settings: &Settings, to: &Settings| {
            let before = Fingerprint::from_settings(settings).unwrap();
            let set = plane.set().unwrap().1.to_owned();
            let mut next = Dataplane::prepare(to, &links(), &pins, (&set, &before), plane.interfaces())?;
            next.egress.set_means(means);
            Ok::<_, DataplaneError>(next)
        };
        let unknown = settings(&[("eth1", Mode::Native), ("eth9", Mode::Native)]);
        assert!(from(&plane, &old, &unknown).unwrap_err().to_string().starts_with("interface eth9 does not exist"));

        let new = settings(&[("eth2", Mode::Native), ("eth1", Mode::Native)]);
        let unused = from(&plane, &old, &new).unwrap();
        assert!(attached("eth2").is_some());
        drop(unused);
        assert_eq!((attached("eth1"), attached("eth2")), (Some(before), None), "one that is dropped leaves nothing");
        assert_eq!(pins.sets().collect::<Vec<_>>(), [&*set]);

        let mut next = from(&plane, &old, &new).unwrap();
        next.continue_members(&[(member(1), record(1))].into()).unwrap();
        next.publish(&plan_of(2, 1)).unwrap();
        assert_eq!((attached("eth1"), at_egress("eth1")), (Some(before), egress.clone()), "the old one forwards");
        next.take_over(&mut plane).unwrap();
        drop(std::mem::replace(&mut plane, next));
        plane.release();
        assert_eq!(plane.refresh(&links()), Refresh::default());
        let after = attached("eth1").unwrap();
        assert_ne!(after.program, before.program);
        assert_eq!(attached("eth2"), Some(after));
        let guards = [at_egress("eth1"), at_egress("eth2")];
        assert!(guards[0].len() == 1 && guards[0] == guards[1] && guards[0] != egress, "{egress:?} {guards:?}");
        let index = plane.interfaces().iter().find(|interface| interface.name == "eth1").unwrap().index;
        let mut harness = Harness::from_dataplane(&mut plane);
        assert_eq!([9, 8].map(|port| harness.run(index, &datagram(port)).0), [action::TX; 2]);
        assert_eq!([1, 2].map(|id| plane.snapshot().member(member(id)).packets), [2, 1], "a known flow stays");
        drop(harness);

        let mut last = from(&plane, &new, &settings(&[("eth2", Mode::Native)])).unwrap();
        last.continue_members(&[(member(1), record(0)), (member(2), record(0))].into()).unwrap();
        last.publish(&plan_of(2, 0)).unwrap();
        last.take_over(&mut plane).unwrap();
        drop(std::mem::replace(&mut plane, last));
        plane.release();
        assert_eq!(plane.refresh(&links()), Refresh::default());
        assert_eq!((attached("eth1"), at_egress("eth1").len(), at_egress("eth2").len()), (None, 0, 1));
        assert_eq!(pins.sets().count(), 1);
        drop(pins);
        plane.stop();
        assert_eq!((attached("eth2"), folder.entries()), (None, Vec::<String>::new()));
        drop(peer);
    });
}

#[test]
fn a_pinned_map_of_another_shape_is_not_continued() {
    in_namespace(|| {
        let old = both();
        let from = Killed::with(&old);
        // A stranger puts the counters where the flow table was.
        let at = |part: &str| from.folder.0.join(&from.set).join(part);
        std::fs::remove_file(at(FLOWS)).unwrap();
        std::fs::rename(at(names::COUNTS), at(FLOWS)).unwrap();
        let error = Dataplane::adopt(&old, &links(), &from.folder.hold(), &from.set).unwrap_err().to_string();
        assert!(error.contains(FLOWS) || error.contains(names::COUNTS), "{error}");
        let mut plane = from.succeed(&old, &[(member(1), record(0))]);
        assert_eq!(plane.snapshot().member(member(1)).packets, 0, "counters begin anew");
        plane.publish(&plan_of(1, 0)).unwrap();
        plane.outlive().unwrap();
        plane.stop();
        assert_eq!((attached("eth1"), from.folder.entries()), (None, Vec::new()));
    });
}

#[test]
fn saved_bytes_are_replaced_as_a_whole_and_go_with_their_set() {
    in_namespace(|| {
        let from = Killed::with(&both());
        let pins = from.folder.hold();
        assert_eq!((pins.state(&from.set).unwrap(), pins.trial().unwrap()), (None, None));
        for bytes in [&b"one"[..], &[7; 100_003], b"three"] {
            pins.save_state(&from.set, bytes).unwrap();
            pins.save_trial(&bytes[..1]).unwrap();
            assert_eq!(pins.state(&from.set).unwrap().as_deref(), Some(bytes));
            assert_eq!(pins.trial().unwrap().as_deref(), Some(&bytes[..1]));
        }
        assert!(pins.save_state(&from.set, b"").is_err() && pins.save_state("v4-none-1", b"x").is_err());
        assert_eq!(pins.state(&from.set).unwrap().as_deref(), Some(&b"three"[..]));
        pins.forget_state(&from.set);
        assert_eq!(pins.state(&from.set).unwrap(), None);
        let pins = Arc::into_inner(pins).unwrap();
        assert!(pins.uninstall().unwrap() && !from.folder.0.exists());
    });
}

#[test]
fn a_rehearsal_changes_nothing() {
    in_namespace(|| {
        let from = Killed::with(&both());
        let (before, entries) = (attached("eth1"), from.folder.entries());
        let pins = Pins::read(&from.folder.0);
        let rehearsal = Dataplane::rehearse(&both(), &links(), Some(&pins)).unwrap();
        assert!(rehearsal.memory_bytes > 1 << 20 && rehearsal.warnings.is_empty(), "{rehearsal:?}");
        let other = settings(&[("eth1", Mode::Generic)]);
        assert!(Dataplane::rehearse(&other, &links(), Some(&pins)).unwrap_err().to_string().contains("--cut"));
        assert!(Dataplane::rehearse(&Settings { cut: true, ..other }, &links(), Some(&pins)).is_ok());
        drop(pins);
        assert_eq!((attached("eth1"), from.folder.entries()), (before, entries));
        assert!(Arc::into_inner(from.folder.hold()).unwrap().uninstall().unwrap());
    });
}
