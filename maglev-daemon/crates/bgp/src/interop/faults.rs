//! Faults of the speaker that were found by running it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use maglev_model::UnixTime;
use maglev_model::bgp::NeighborStatus;
use maglev_model::bgp::{Neighbor, OnDrain};
use maglev_testing::matrix::Row;
use maglev_testing::network::{in_namespace, in_namespace_async};
use tokio::sync::{mpsc, watch};

use super::rogue::{BAD, GOOD, Talk, bytes, connect, open};
use super::router::{Kind, Router, Session};
use super::{LOCAL_AS, Node, PATIENCE, neighbor, prefix, route};
use crate::driver::{Driver, Inputs};
use crate::fsm;
use crate::wire::{self, Fault, Notification};

/// The shortest hold time there is, in seconds.
const HOLD: u16 = 3;

/// Longer than it.
const LATE: Duration = Duration::from_millis(4_500);

#[test]
fn a_session_outlasts_a_daemon_whose_event_loop_is_blocked() {
    in_namespace(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let session = Session::default();
            let router = Router::start(Kind::Bird, session);
            let node = Node::start(vec![Neighbor { hold_time: HOLD, ..neighbor(&session) }]);
            node.announce([(prefix("203.0.113.10/32"), route(&[]))]);
            node.established().await;
            router.until_received("203.0.113.10/32").await;
            let mut row = Row::fault("C2", "both workers and the main task blocked, hold time 3 s: the session stays");
            let before = node.status().errors;
            for _ in 0..2 {
                tokio::spawn(async { thread::sleep(LATE) });
            }
            thread::sleep(LATE);
            let status = node.status();
            assert_eq!((status.state.as_str(), status.sessions, status.announced.len()), ("established", 1, 1));
            assert_eq!(status.errors, before);
            router.until_received("203.0.113.10/32").await;
            row.says(format!("blocked for {} ms", LATE.as_millis()));
        });
    });
}

/// Establishes a session, and then sends a KEEPALIVE every 300 ms until the connection is closed.
fn live(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut received = [0; 4_096];
    let read = stream.read(&mut received).unwrap();
    assert!(read > 19, "no OPEN");
    stream.write_all(&bytes(|out| open(HOLD).encode(out))).unwrap();
    while stream.write_all(&bytes(wire::keepalive)).is_ok() {
        thread::sleep(Duration::from_millis(300));
    }
}

/// A driver on this thread's runtime, for a neighbor that listens.
fn driver(listener: &TcpListener) -> (Driver, watch::Receiver<NeighborStatus>) {
    let at = listener.local_addr().unwrap();
    let (ipv6, hold_time, port) = (false, HOLD, at.port());
    let settings = fsm::Settings {
        local_as: LOCAL_AS,
        router_id: [10, 0, 0, 11].into(),
        dial: true,
        listen: false,
        neighbor: Arc::new(Neighbor { ipv6, hold_time, port, ..Neighbor::new(at.ip(), 65_000) }),
        on_drain: OnDrain::default(),
        graceful_restart: None,
        restarted: false,
        forwarding_kept: false,
        seed: 1,
    };
    let (shown, status) = watch::channel(NeighborStatus::default());
    (Driver::new(settings, shown, watch::Sender::default(), || UnixTime(0)), status)
}

#[test]
fn a_speaker_that_is_late_reads_before_it_counts_the_hold_time() {
    in_namespace_async(async || {
        let _row = Row::fault("C2", "the speaker's own thread late, 8 neighbors not silent: the sessions stay");
        let mut sessions = Vec::new();
        for _ in 0..8 {
            let listener = TcpListener::bind(SocketAddr::new(GOOD, 0)).unwrap();
            let (driver, status) = driver(&listener);
            let (orders, received) = mpsc::channel(1);
            let (_, incoming) = mpsc::channel(1);
            let (_, wanted) = watch::channel(Arc::default());
            let (_, configured) = watch::channel(None);
            thread::spawn(move || live(&listener));
            tokio::spawn(driver.run(Inputs { orders: received, wanted, incoming, configured }));
            sessions.push((orders, status));
        }
        for (_, status) in &mut sessions {
            status.wait_for(NeighborStatus::is_established).await.unwrap();
        }
        thread::sleep(LATE);
        // Due timers are handled first.
        tokio::time::sleep(Duration::from_millis(100)).await;
        for (_, status) in &sessions {
            let status = status.borrow();
            assert_eq!((status.sessions, status.is_established(), &status.errors.last), (1, true, &None));
        }
    });
}

/// Every combination of settings for a neighbor at this address.
fn expectations(address: &str, sources: [&str; 2]) -> Vec<Neighbor> {
    let address: IpAddr = address.parse().unwrap();
    let sources = sources.map(|source| Some(source.parse().unwrap())).into_iter().chain([None]);
    let all = sources.flat_map(|source| [(source, 1_790, true), (source, 1_791, true), (source, 1_790, false)]);
    let neighbor = |(source, port, passive)| Neighbor { source, port, passive, ..Neighbor::new(address, 65_000) };
    all.map(neighbor).collect()
}

#[test]
fn every_combination_of_passive_source_port_and_family_starts() {
    in_namespace_async(async || {
        let mut row =
            Row::fault("R4", "every pair of passive, source, port and family starts; sources that are absent too");
        // Of each family one address is this host's, and one is not.
        let first = [
            expectations("127.0.0.2", ["127.0.0.11", "192.0.2.11"]),
            expectations("2001:db8::2", ["::1", "2001:db8::11"]),
        ];
        let second = [
            expectations("127.0.0.3", ["127.0.0.11", "192.0.2.11"]),
            expectations("2001:db8::3", ["::1", "2001:db8::11"]),
        ];
        let mut count = 0_u16;
        for one in first.iter().flatten() {
            for other in second.iter().flatten() {
                // Ports of their own: a process that another test forks may hold the ones before for a moment.
                let at = |neighbor: &Neighbor| Neighbor { port: neighbor.port + 2 * count, ..neighbor.clone() };
                let node = Node::start(vec![at(one), at(other)]);
                node.speaker.stop("next").await;
                count += 1;
            }
        }
        row.says(format!("{count} pairs"));
    });
}

#[test]
fn a_connection_counts_only_where_it_is_expected() {
    in_namespace_async(async || {
        let _row = Row::fault(
            "R4",
            "two passive neighbors on one port, one with a source: each is taken where it is expected",
        );
        let passive = |address, source: Option<[u8; 4]>| {
            let (source, port, passive, ipv6) = (source.map(IpAddr::from), 1_790, true, false);
            Neighbor { source, port, passive, ipv6, ..Neighbor::new(address, 65_000) }
        };
        let node = Node::start(vec![passive(GOOD, Some([127, 0, 0, 11])), passive(BAD, None)]);
        assert_eq!(connect(GOOD, [127, 0, 0, 12], 1_790).await.receive().await, None, "not at its source");
        let mut one = connect(GOOD, [127, 0, 0, 11], 1_790).await;
        one.establish(&open(9)).await;
        let mut other = connect(BAD, [127, 0, 0, 12], 1_790).await;
        other.establish(&open(9)).await;
        node.until("both sessions", |_| node.speaker.handle().neighbors().iter().all(NeighborStatus::is_established))
            .await;
    });
}

#[test]
fn a_neighbor_that_lost_its_session_is_not_refused() {
    in_namespace_async(async || {
        let mut passive = Neighbor::new(GOOD, 65_000);
        (passive.passive, passive.port, passive.ipv6) = (true, 1_790, false);
        let node = Node::start(vec![passive]);
        node.announce([(prefix("203.0.113.10/32"), route(&[]))]);
        let mut silent = connect(GOOD, [127, 0, 0, 11], 1_790).await;
        silent.establish(&open(240)).await;
        node.until("a session", |status| status.announced.len() == 1).await;
        let _row = Row::fault("R5", "a passive neighbor forgot its session and connects: another one at once");
        let mut again = connect(GOOD, [127, 0, 0, 11], 1_790).await;
        again.establish(&open(240)).await;
        let status = node.until("another session", |status| status.sessions == 2 && status.announced.len() == 1).await;
        assert_eq!(status.errors.last.unwrap().text, "the neighbor connected again");
        assert_eq!(silent.last_word().await, None, "the old connection is closed without a NOTIFICATION");
    });
}

#[test]
fn a_notification_outlasts_the_resets_that_follow() {
    in_namespace_async(async || {
        let mut row = Row::fault("C12", "the neighbor says `bad peer AS`, then resets: the last error names both");
        let listener = tokio::net::TcpListener::bind(SocketAddr::new(BAD, 0)).await.unwrap();
        let mut bad = Neighbor::new(BAD, 65_000);
        bad.port = listener.local_addr().unwrap().port();
        let node = Node::start(vec![bad]);
        let mut talk = Talk::accept(&listener).await;
        talk.receive().await;
        talk.say(&bytes(|out| Notification::new(Fault::BAD_PEER_AS).encode(out))).await;
        node.until("its word", |status| status.errors.last.is_some()).await;
        drop(talk);
        let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap();
        accepted.unwrap().0.set_zero_linger().unwrap();
        let status = node.until("the reset", |status| status.errors.later.is_some()).await;
        let [last, later] = [status.errors.last, status.errors.later].map(|failure| failure.unwrap().text);
        assert_eq!(last, "closed by the peer: OPEN message error, bad peer AS (2/2)");
        assert!(!later.contains("bad peer AS"), "{later}");
        row.says(format!("{last}; later: {later}"));
    });
}

#[test]
fn what_ends_the_daemon_ends_the_sessions() {
    in_namespace_async(async || {
        let _row = Row::fault("C2", "the speaker is stopped or dropped: its thread ends every session");
        let listener = tokio::net::TcpListener::bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let here = Neighbor { port: at.port(), ipv6: false, ..Neighbor::new(at.ip(), 65_000) };
        for stopped in [true, false] {
            let node = Node::start(vec![here.clone()]);
            let mut talk = Talk::accept(&listener).await;
            talk.establish(&open(9)).await;
            node.established().await;
            if stopped {
                let (_, last) = tokio::join!(node.speaker.stop("maintenance"), talk.last_word());
                assert_eq!(last, Some(Notification::with_text(Fault::SHUTDOWN, "maintenance")));
            } else {
                drop(node);
                assert_eq!(talk.last_word().await, None);
            }
        }
    });
}
