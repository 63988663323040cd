//! A backend's programs are replaced under a stream of packets: by another release's, by another MSS, and with maps of another shape.
//! A process that is killed drops all it holds, as the kernel does for it.

use std::ffi::CString;
use std::fs;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use maglev_common::maps::{DECAP_VIPS4, DECAP_VIPS6};
use maglev_harness::EARLIER;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::faults::{decap_settings, wrapped};
use super::outlive::Folder;
use super::*;
use crate::{bpf, object};

const VIP: &str = "203.0.113.10/32";

/// A load balancer that sends encapsulated packets to a VIP, at the other end of `eth1`.
struct Stream {
    peer: Peer,
    ends: Arc<AtomicBool>,
    sent: Option<JoinHandle<u64>>,
}

impl Stream {
    /// Makes both ends.
    fn new() -> Self {
        let peer = two_veths();
        ip("address add 10.9.0.1/24 dev eth1");
        peer.ip("address add 10.64.11.95/24 dev eth1");
        peer.ip("route add 10.9.0.1/32 dev eth1 src 10.64.11.95");
        peer.ip("neighbour replace 10.9.0.1 lladdr 02:00:00:00:00:01 nud permanent dev eth1");
        Self { peer, ends: Arc::default(), sent: None }
    }

    fn begin(&mut self) {
        self.ends.store(false, Ordering::Relaxed);
        let ends = Arc::clone(&self.ends);
        self.sent = Some(self.peer.run(move || thread::spawn(move || send(&ends))));
    }

    /// Ends the stream; returns how many packets were sent.
    fn end(&mut self) -> u64 {
        self.ends.store(true, Ordering::Relaxed);
        self.sent.take().unwrap().join().unwrap()
    }
}

fn send(ends: &AtomicBool) -> u64 {
    // With protocol 255 the packet has its own header.
    let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), Some(SockProtocol::Raw)).unwrap();
    let raw = UdpSocket::from(raw);
    let frame = wrapped(4, &datagram(9)[14..]);
    let mut packet = frame[14..].to_vec();
    packet[16..20].copy_from_slice(&[10, 9, 0, 1]);
    let mut sent = 0;
    while !ends.load(Ordering::Relaxed) {
        raw.send_to(&packet, "10.9.0.1:0").unwrap();
        sent += 1;
        // A veth has room for 256 packets.
        thread::sleep(Duration::from_micros(20));
    }
    sent
}

fn counts(decap: &Decap) -> [u64; 2] {
    [DecapCounter::Decapsulated, DecapCounter::MssLowered].map(|counter| decap.snapshot().counter(counter))
}

/// Waits until so many packets were unwrapped; fails if there come no more.
fn await_count(decap: &Decap, expected: u64) {
    let began = Instant::now();
    while counts(decap)[0] != expected {
        assert!(began.elapsed() < Duration::from_secs(10), "{} of {expected} packets", counts(decap)[0]);
        thread::yield_now();
    }
}

/// Waits until some more packets were unwrapped.
fn await_more(decap: &Decap) {
    let before = counts(decap)[0];
    let began = Instant::now();
    while counts(decap)[0] < before + 20 {
        assert!(began.elapsed() < Duration::from_secs(10), "no packet is unwrapped");
        thread::yield_now();
    }
}

#[test]
fn programs_of_two_releases_take_turns_without_losing_a_packet() {
    in_namespace(|| {
        let (mut stream, folder) = (Stream::new(), Folder::new());
        let settings = decap_settings("eth1", &[VIP], Some(&folder));
        let start = |object| Decap::start_of(object, &settings, &links()).unwrap();
        let mut decap = start(EARLIER);
        assert!(!decap.places()[0].adopted);
        stream.begin();
        for object in [object::BACKEND_OBJECT, EARLIER].into_iter().cycle().take(10) {
            await_more(&decap);
            let before = attached("eth1").unwrap();
            // It is killed, and the other release starts.
            drop(decap);
            assert_eq!(attached("eth1"), Some(before));
            decap = start(object);
            assert_ne!(attached("eth1").unwrap().program, before.program);
            let place = decap.places().remove(0);
            assert_eq!((place.adopted, place.replaced), (true, None));
            assert_eq!(fs::read_dir(folder.0.join("eth1/links")).unwrap().count(), 1);
        }
        await_more(&decap);
        let sent = stream.end();
        await_count(&decap, sent);
        let [all, earlier] = counts(&decap);
        assert!(earlier > 0 && earlier < all, "{earlier} of {all} packets met the earlier release");
        decap.stop();
        assert!(!folder.0.exists());
    });
}

#[test]
fn settings_change_under_a_stream_without_losing_a_packet() {
    in_namespace(|| {
        let (mut stream, folder) = (Stream::new(), Folder::new());
        let mut decap = Decap::start(&decap_settings("eth1", &[VIP], Some(&folder)), &links()).unwrap();
        let sources = decap.settings().sources.clone();
        stream.begin();
        for mss in [Mss::Auto, Mss::Limit(1_300), Mss::Off, Mss::Limit(1_200), Mss::Auto, Mss::Off] {
            await_more(&decap);
            let before = attached("eth1").unwrap();
            decap.set_mss(mss).unwrap();
            assert_ne!(attached("eth1").unwrap().program, before.program);
            decap.accept(&[&sources[..], &["10.65.0.0/16".parse().unwrap()]].concat()).unwrap();
            decap.serve(&Prefixes::new(["203.0.113.0/24", VIP].map(|vip| vip.parse().unwrap()))).unwrap();
            await_more(&decap);
            decap.accept(&sources).unwrap();
            decap.serve(&Prefixes::new([VIP.parse().unwrap()])).unwrap();
            decap.add(&interfaces(&[("eth2", Mode::Generic)])[0], &links()).unwrap();
            assert_eq!(attached("eth2").unwrap().at, XdpAt::Generic);
            decap.remove("eth2");
            assert_eq!((attached("eth2"), folder.0.join("eth2").exists()), (None, false));
        }
        await_more(&decap);
        let sent = stream.end();
        await_count(&decap, sent);
        // Its counters stay, and so does what was counted.
        decap.remove("eth1");
        assert_eq!((counts(&decap)[0], attached("eth1")), (sent, None));
    });
}

#[test]
fn what_does_not_fit_is_replaced_with_the_difference_or_refused() {
    in_namespace(|| {
        let (mut stream, folder) = (Stream::new(), Folder::new());
        let settings = decap_settings("eth1", &[VIP], Some(&folder));
        let maps = folder.0.join("eth1/decap-v1");
        drop(Decap::start(&settings, &links()).unwrap());
        let unfit: [(&str, &dyn Fn()); 3] = [
            ("map DECAP_VIPS6 is missing", &|| fs::remove_file(maps.join(DECAP_VIPS6)).unwrap()),
            ("map DECAP_VIPS4: its key's size is 20, expected 8", &|| {
                fs::rename(maps.join(DECAP_VIPS6), maps.join(DECAP_VIPS4)).unwrap();
            }),
            ("decap-v2 is of another release, this one has decap-v1", &|| {
                fs::rename(&maps, maps.with_file_name("decap-v2")).unwrap();
            }),
        ];
        for (reason, change) in unfit {
            change();
            let before = attached("eth1").unwrap();
            stream.begin();
            let decap = Decap::start(&settings, &links()).unwrap();
            let place = decap.places().remove(0);
            assert_eq!((place.adopted, place.replaced.as_deref()), (false, Some(reason)));
            assert_ne!(attached("eth1").unwrap().program, before.program, "it ran until it was replaced");
            await_more(&decap);
            stream.end();
            assert!(!maps.with_file_name("decap-v2").exists());
        }
        let stranger = folder.0.join("eth1/links/1");
        let path = CString::new(stranger.to_str().unwrap()).unwrap();
        bpf::pin(&path, bpf::create_array(None).unwrap().as_fd()).unwrap();
        let before = attached("eth1");
        let error = Decap::start(&settings, &links()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot inspect {}", stranger.display())), "{error}");
        assert_eq!((attached("eth1"), maps.exists()), (before, true), "nothing changed");
        fs::remove_file(stranger).unwrap();
        Decap::start(&settings, &links()).unwrap().stop();
        assert!(!folder.0.exists());
    });
}

#[test]
fn an_interface_that_cannot_be_added_changes_nothing() {
    in_namespace(|| {
        let (_peer, folder) = (two_veths(), Folder::new());
        let mut decap = Decap::start(&decap_settings("eth1", &[VIP], Some(&folder)), &links()).unwrap();
        let eth2 = &interfaces(&[("eth2", Mode::Native)])[0];
        let foreign = Pass::start(std::slice::from_ref(eth2), &links()).unwrap();
        let before = attached("eth2");
        let error = decap.add(eth2, &links()).unwrap_err().to_string();
        assert!(error.contains("eth2 already runs XDP program 'pass'"), "{error}");
        assert_eq!((decap.places().len(), attached("eth2"), folder.0.join("eth2").exists()), (1, before, false));
        drop(foreign);
        decap.add(eth2, &links()).unwrap();
        let error = decap.add(eth2, &links()).unwrap_err().to_string();
        assert_eq!(error, "interfaces: eth2 is named twice");
        decap.take_back("eth2");
        assert_eq!((attached("eth2"), folder.0.join("eth2").exists()), (None, false));
        decap.stop();
        let mut unpinned = Decap::start(&decap_settings("eth1", &[VIP], None), &links()).unwrap();
        let error = unpinned.set_mss(Mss::Auto).unwrap_err().to_string();
        assert_eq!(error, "mss: nothing is pinned: a restart is needed");
        unpinned.set_mss(Mss::Off).unwrap();
    });
}

#[test]
fn an_interface_that_no_process_holds_any_more_is_named() {
    in_namespace(|| {
        let (_peer, folder) = (two_veths(), Folder::new());
        let one = decap_settings("eth1", &[VIP], Some(&folder));
        let other = decap_settings("eth2", &[VIP], Some(&folder));
        let decap = Decap::start(&one, &links()).unwrap();
        let held = Decap::start(&other, &links()).unwrap();
        assert_eq!(decap.abandoned(), Vec::<String>::new());
        drop(held);
        assert_eq!(decap.abandoned(), ["eth2"]);
        assert!(attached("eth2").is_some());
        // As the message says.
        fs::remove_dir_all(folder.0.join("eth2")).unwrap();
        assert_eq!(decap.abandoned(), Vec::<String>::new());
        // The kernel frees what was unpinned a moment later.
        let began = Instant::now();
        while attached("eth2").is_some() {
            assert!(began.elapsed() < Duration::from_secs(10), "it is still attached");
            thread::yield_now();
        }
        decap.stop();
    });
}
