//! The program that captures: it does with every packet what the one that ships does, and what it captures is what came in and what
//! left.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use maglev_common::maps::CAPTURED_PROGRAM;
use maglev_ebpf::fixtures::{self, PORT, VIP4};

use super::outlive::Folder;
use super::packets::{Rig, pool, port};
use super::*;
use crate::capture::Captured;
use crate::{CaptureFilter, CaptureId, CaptureSource, CaptureTarget};

/// Takes everything.
fn all_packets() -> CaptureFilter {
    CaptureFilter {
        target: Some(CaptureTarget::default()),
        counters: u64::MAX,
        client: None,
        port: None,
        tcp_flags: (0, 0),
        one_in: 1,
        kept: 16_383,
        rate: u32::MAX,
        lasts: Duration::from_secs(60),
    }
}

fn begin(plane: &mut Dataplane, filter: &CaptureFilter) -> Result<(CaptureId, Receiver<Captured>), DataplaneError> {
    let (sender, receiver) = channel();
    let program = plane.capture_source()?.map(CaptureSource::load).transpose()?;
    let id = plane.capture(program, filter, Box::new(move |packet| sender.send(packet).is_ok()))?;
    Ok((id, receiver))
}

/// The harness before the program that captures.
fn harness(plane: &mut Dataplane) -> Harness {
    Harness::new(&mut plane.capturing.as_mut().unwrap().loaded, CAPTURED_PROGRAM)
}

/// The next packet: it comes by another thread.
fn next(packets: &Receiver<Captured>) -> Captured {
    packets.recv_timeout(Duration::from_secs(10)).expect("a captured packet")
}

fn is_silent(packets: &Receiver<Captured>) -> bool {
    // What was put into the ring is read within the thread's patience.
    packets.recv_timeout(Duration::from_millis(300)).is_err()
}

/// Frames of every kind.
fn frames() -> Vec<(String, Vec<u8>)> {
    let whole = [
        ("tcp4", fixtures::tcp4(b"hello")),
        ("tcp6", fixtures::tcp6(b"hello")),
        ("udp4", fixtures::udp4(VIP4, PORT)),
        ("udp6", fixtures::udp6(PORT)),
        ("too long", fixtures::tcp4(&vec![0; 1_441])),
        ("padded", [fixtures::tcp4(b""), vec![0; 6]].concat()),
    ];
    let named = |(what, frame): (&str, Vec<u8>)| (what.to_owned(), frame);
    let lists = [fixtures::peculiar(), fixtures::errors(), fixtures::echoes()].concat();
    let unbalanced = [fixtures::unbalanced4(), fixtures::unbalanced6(), fixtures::misaddressed(), fixtures::passed()];
    let unbalanced = unbalanced.concat().into_iter().map(|row| (row.what, row.frame));
    let fragments = fixtures::fragmented()
        .into_iter()
        .flat_map(|(what, _, fragments)| fragments.into_iter().map(move |fragment| (what, fragment)));
    whole.into_iter().chain(lists).chain(unbalanced).chain(fragments).map(named).collect()
}

#[test]
fn every_packet_fares_as_without_a_capture_and_is_captured_as_it_came_and_left() {
    let expected: Vec<_> = in_namespace(|| {
        let mut rig = Rig::new();
        frames().iter().map(|(_, frame)| rig.counted(frame)).collect()
    });
    in_namespace(move || {
        let folder = Folder::new();
        let mut rig = Rig::pinned(&folder.hold());
        let (_, packets) = begin(&mut rig.plane, &all_packets()).unwrap();
        rig.harness = harness(&mut rig.plane);
        for ((what, frame), expected) in frames().into_iter().zip(expected) {
            let (action, out, counter) = rig.counted(&frame);
            assert_eq!((action, counter), (expected.0, expected.2), "{what}");
            assert_eq!(out, expected.1, "{what}");
            let captured = next(&packets);
            assert_eq!((captured.counter, captured.ingress), (counter, rig.ingress()), "{what}");
            assert_eq!(captured.length as usize, frame.len(), "{what}");
            let padding = frame.len() - captured.bytes.len();
            assert!(frame.starts_with(&captured.bytes) && (padding == 0 || out.len() < frame.len() + 20), "{what}");
            match captured.left {
                Some((length, bytes)) => assert_eq!((length as usize, bytes), (out.len(), out), "{what}"),
                None => assert_eq!(out, frame, "{what}"),
            }
        }
        assert!(is_silent(&packets));
    });
}

#[test]
fn a_capture_takes_what_its_filter_says() {
    in_namespace(|| {
        let folder = Folder::new();
        let mut rig = Rig::pinned(&folder.hold());
        let sent = fixtures::tcp4(b"hello");
        let vip_at = |port: u16| {
            let mut frame = sent.clone();
            frame[36..38].copy_from_slice(&port.to_be_bytes());
            frame
        };
        let nobody = vip_at(port::EMPTY);
        let client = |prefix: &str| Some(prefix.parse().unwrap());
        let only = |counter: Counter| 1 << counter as u64;
        let member = |id: u16| Some(CaptureTarget { member: MemberId::new(id), ..CaptureTarget::default() });
        let in_pool = |pool| Some(CaptureTarget { pool: Some(pool), ..CaptureTarget::default() });
        let rows = [
            ("all", all_packets(), [true, true, true]),
            ("no backend", CaptureFilter { counters: only(Counter::NoBackend), ..all_packets() }, [false, true, false]),
            ("a pool", CaptureFilter { target: in_pool(pool::OUTER4), ..all_packets() }, [true, false, true]),
            ("another pool", CaptureFilter { target: in_pool(pool::EMPTY), ..all_packets() }, [false, true, false]),
            ("a backend", CaptureFilter { target: member(1), ..all_packets() }, [true, false, true]),
            ("another backend", CaptureFilter { target: member(77), ..all_packets() }, [false; 3]),
            ("what does not exist", CaptureFilter { target: None, ..all_packets() }, [false; 3]),
            ("clients", CaptureFilter { client: client("198.51.100.0/24"), ..all_packets() }, [true, true, false]),
            ("other clients", CaptureFilter { client: client("198.51.101.0/24"), ..all_packets() }, [false; 3]),
            ("IPv6 clients", CaptureFilter { client: client("::/0"), ..all_packets() }, [false, false, true]),
            ("a port", CaptureFilter { port: Some(PORT), ..all_packets() }, [true, false, true]),
            ("flags", CaptureFilter { tcp_flags: (0x02, 0x02), ..all_packets() }, [false; 3]),
            ("no flags", CaptureFilter { tcp_flags: (0x02, 0), ..all_packets() }, [true; 3]),
            ("no packet", CaptureFilter { rate: 0, ..all_packets() }, [false; 3]),
        ];
        for (what, filter, taken) in rows {
            let (id, packets) = begin(&mut rig.plane, &filter).unwrap();
            let mut before = harness(&mut rig.plane);
            for (frame, taken) in [&sent, &nobody, &fixtures::tcp6(b"hello")].into_iter().zip(taken) {
                before.run(rig.ingress(), frame);
                if taken {
                    assert_eq!(next(&packets).bytes, *frame, "{what}");
                }
            }
            assert!(is_silent(&packets), "{what}");
            let totals = rig.plane.capture_totals(id).unwrap();
            let count = taken.iter().filter(|taken| **taken).count() as u64;
            let expected = if filter.rate == 0 { (3, 3) } else { (count, 0) };
            assert_eq!((totals.matched, totals.limited), expected, "{what}");
            assert_eq!(totals.lost, 0, "{what}");
            rig.plane.end_capture(id);
            assert_eq!(rig.plane.capture_totals(id), None);
        }
    });
}

#[test]
fn bytes_chance_and_time_bound_a_capture() {
    in_namespace(|| {
        let folder = Folder::new();
        let mut rig = Rig::pinned(&folder.hold());
        let sent = fixtures::tcp4(&[7; 500]);
        let (_, few) = begin(&mut rig.plane, &CaptureFilter { kept: 64, ..all_packets() }).unwrap();
        let (_, whole) = begin(&mut rig.plane, &all_packets()).unwrap();
        let (chance, _some) = begin(&mut rig.plane, &CaptureFilter { one_in: 4, ..all_packets() }).unwrap();
        let over = CaptureFilter { lasts: Duration::ZERO, ..all_packets() };
        let (_, late) = begin(&mut rig.plane, &over).unwrap();
        let mut before = harness(&mut rig.plane);
        for _ in 0..400 {
            before.run(rig.ingress(), &sent);
        }
        for _ in 0..400 {
            let (cut, all) = (next(&few), next(&whole));
            assert_eq!((cut.bytes.as_slice(), cut.length as usize), (&sent[..64], sent.len()));
            assert_eq!(all.bytes, sent);
        }
        let sampled = rig.plane.capture_totals(chance).unwrap().matched;
        // Binomial, 400 × 1/4: 100 ± 8.7. Nine deviations.
        assert!((20..180).contains(&sampled), "{sampled}");
        assert!(is_silent(&late));
        let refused = (0..4).map(|_| begin(&mut rig.plane, &all_packets())).filter(Result::is_ok).count();
        assert_eq!(refused, 4);
        let error = begin(&mut rig.plane, &all_packets()).unwrap_err().to_string();
        assert_eq!(error, "8 captures run already: end one first");
    });
}

#[test]
fn the_last_capture_leaves_the_program_as_it_was_and_a_killed_daemon_too() {
    in_namespace(|| {
        let (_peer, folder) = (two_veths(), Folder::new());
        let settings = settings(&[("eth1", Mode::Native), ("eth2", Mode::Generic)]);
        let pins = folder.hold();
        let mut plane = Dataplane::replace(&settings, &links(), &pins).unwrap();
        plane.publish(&first_plan()).unwrap();
        plane.outlive().unwrap();
        let plain = [attached("eth1"), attached("eth2")];
        let programs = |plain: [Option<AttachedXdp>; 2]| plain.map(|at| at.unwrap().program);
        let (first, _packets) = begin(&mut plane, &all_packets()).unwrap();
        let (second, _more) = begin(&mut plane, &all_packets()).unwrap();
        let capturing = [attached("eth1"), attached("eth2")];
        assert!(programs(capturing).iter().all(|program| !programs(plain).contains(program)));
        plane.end_capture(first);
        plane.end_capture(first);
        assert_eq!([attached("eth1"), attached("eth2")], capturing);
        plane.end_capture(second);
        assert_eq!([attached("eth1"), attached("eth2")], plain);
        assert!(folder.entries().iter().all(|entry| !entry.ends_with("captured")));

        // Another one, and the daemon is killed.
        begin(&mut plane, &all_packets()).unwrap();
        let set = plane.set().unwrap().1.to_owned();
        drop((plane, pins));
        assert!(programs([attached("eth1"), attached("eth2")]).iter().all(|it| !programs(plain).contains(it)));
        let pins = folder.hold();
        assert_eq!(pins.current(), Some(set.clone()));
        let mut plane = Dataplane::adopt(&settings, &links(), &pins, &set).unwrap();
        plane.outlive().unwrap();
        assert_eq!(programs([attached("eth1"), attached("eth2")]), programs(plain));
        assert!(folder.entries().iter().all(|entry| !entry.ends_with("captured")));
        plane.stop();
        assert_eq!([attached("eth1"), attached("eth2")], [None, None]);
    });
}

#[test]
fn without_pins_there_is_no_capture() {
    in_namespace(|| {
        let _peer = two_veths();
        let plane = Dataplane::start(&settings(&[("eth1", Mode::Native)]), &links()).unwrap();
        let error = plane.capture_source().unwrap_err().to_string();
        assert_eq!(error, "`dataplane.pin` is off: a capture needs maps that are pinned");
    });
}
