//! A neighbor that breaks every rule, beside one that keeps them all: the first is sent the error, the other is not
//! affected.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use maglev_model::bgp::Neighbor;
use maglev_testing::matrix::Row;
use maglev_testing::network::in_namespace_async;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{LOCAL_AS, Node, prefix, route};
use crate::wire::{self, Capabilities, Family, Fault, Message, Notification, Open};

pub(super) const GOOD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
pub(super) const BAD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// The rogue's name in the matrix.
const ROGUE: &str = "rogue";

/// The neighbor's end of a connection.
pub(super) struct Talk {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Talk {
    pub(super) async fn accept(listener: &TcpListener) -> Self {
        Self { stream: listener.accept().await.unwrap().0, received: Vec::new() }
    }

    pub(super) async fn say(&mut self, bytes: &[u8]) {
        // A closed connection is noticed when it is read.
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next message, or `None` at the end.
    pub(super) async fn receive(&mut self) -> Option<Message> {
        loop {
            if let Some((message, length)) = wire::decode(&self.received).unwrap() {
                self.received.drain(..length);
                return Some(message);
            }
            let read = tokio::time::timeout(super::PATIENCE, self.stream.read_buf(&mut self.received)).await;
            if read.expect("the speaker says nothing").ok()? == 0 {
                return None;
            }
        }
    }

    /// The NOTIFICATION with which the connection ends.
    pub(super) async fn last_word(&mut self) -> Option<Notification> {
        let mut last = None;
        while let Some(message) = self.receive().await {
            if let Message::Notification(notification) = message {
                last = Some(notification);
            }
        }
        last
    }

    /// Comes to a session.
    pub(super) async fn establish(&mut self, open: &Open) {
        assert!(matches!(self.receive().await, Some(Message::Open(_))));
        self.say(&bytes(|out| open.encode(out))).await;
        assert_eq!(self.receive().await, Some(Message::Keepalive));
        self.say(&bytes(wire::keepalive)).await;
    }
}

pub(super) fn bytes(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn message(length: u16, kind: u8, body: &[u8]) -> Vec<u8> {
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

pub(super) fn open(hold_time: u16) -> Open {
    let capabilities =
        Capabilities { families: [Family::Ipv4].into(), four_octet_as: Some(65_000), ..Capabilities::default() };
    Open { asn: 65_000, hold_time, router_id: [10, 0, 0, 1].into(), capabilities }
}

/// A neighbor at an address, and where it listens.
async fn neighbor(address: IpAddr) -> (Neighbor, TcpListener) {
    let listener = TcpListener::bind(SocketAddr::new(address, 0)).await.unwrap();
    let mut neighbor = Neighbor::new(address, 65_000);
    (neighbor.port, neighbor.ipv6) = (listener.local_addr().unwrap().port(), false);
    (neighbor, listener)
}

/// Keeps to the rules for as long as it is asked to.
async fn behave(listener: TcpListener) {
    let mut talk = Talk::accept(&listener).await;
    talk.establish(&open(0)).await;
    while talk.receive().await.is_some() {}
}

/// Runs a bad neighbor beside a good one, whose session must last.
async fn beside<F: Future<Output = ()>>(bad: impl FnOnce(TcpListener) -> F) -> Node {
    let (good, listener) = neighbor(GOOD).await;
    tokio::spawn(behave(listener));
    let (rogue, listener) = neighbor(BAD).await;
    let node = Node::start(vec![good, rogue]);
    node.announce([(prefix("203.0.113.10/32"), route(&[]))]);
    node.established().await;
    bad(listener).await;
    let status = node.status();
    assert_eq!((status.state.as_str(), status.sessions, status.announced.len()), ("established", 1, 1));
    node
}

/// The messages sent instead of an OPEN, and the answers.
#[test]
fn a_wrong_greeting_is_rejected_with_its_error() {
    in_namespace_async(async || {
        let wrong_as = Open { asn: 65_001, capabilities: Capabilities::default(), ..open(9) };
        let rows: [(&str, Vec<u8>, Fault); 8] = [
            ("wrong AS", bytes(|out| wrong_as.encode(out)), Fault::BAD_PEER_AS),
            ("hold 1", bytes(|out| open(1).encode(out)), Fault::UNACCEPTABLE_HOLD_TIME),
            ("bad marker", [0; 19].to_vec(), Fault::NOT_SYNCHRONIZED),
            ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec(), Fault::NOT_SYNCHRONIZED),
            ("oversize", message(4_097, 1, &[0; 4_078]), Fault::BAD_LENGTH),
            ("unknown type", message(19, 77, &[]), Fault::BAD_TYPE),
            ("no OPEN at first", bytes(wire::keepalive), Fault::UNEXPECTED_IN_OPEN_SENT),
            ("version 3", message(29, 1, &[3, 0, 1, 0, 9, 1, 1, 1, 1, 0]), Fault::UNSUPPORTED_VERSION),
        ];
        for (what, said, fault) in rows {
            let mut row = Row::bgp(ROGUE, what);
            let node = beside(async |listener| {
                let mut talk = Talk::accept(&listener).await;
                talk.say(&said).await;
                assert_eq!(talk.last_word().await.map(|last| last.fault), Some(fault), "{what}");
            });
            let error = node.await.speaker.handle().neighbors()[1].errors.last.clone().unwrap().text;
            assert!(error.starts_with("closed by us: ") && error.contains(&fault.to_string()), "{what}: {error}");
            row.says(error);
        }
    });
}

#[test]
fn a_session_ends_at_an_unknown_attribute_that_claims_to_be_well_known() {
    in_namespace_async(async || {
        let _row = Row::bgp(ROGUE, "unknown attribute, flagged well-known");
        beside(async |listener| {
            let mut talk = Talk::accept(&listener).await;
            talk.establish(&open(9)).await;
            talk.say(&message(27, 2, &[0, 0, 0, 4, 0x40, 99, 1, 7])).await;
            let last = talk.last_word().await.unwrap();
            assert_eq!(last, Notification::with(Fault::UNRECOGNIZED_WELL_KNOWN, &[0x40, 99, 1, 7]));
        })
        .await;
    });
}

#[test]
fn a_neighbor_that_stalls_in_a_message_is_given_up() {
    in_namespace_async(async || {
        let _row = Row::bgp(ROGUE, "stalls in mid-message");
        beside(async |listener| {
            let mut talk = Talk::accept(&listener).await;
            talk.establish(&open(3)).await;
            talk.say(&bytes(wire::keepalive)[..18]).await;
            assert_eq!(talk.last_word().await.map(|last| last.fault), Some(Fault::HOLD_TIMER_EXPIRED));
        })
        .await;
    });
}

#[test]
fn a_neighbor_that_hangs_up_is_dialled_again_and_again_but_ever_later() {
    in_namespace_async(async || {
        let _row = Row::bgp(ROGUE, "hangs up at once, three times");
        beside(async |listener| {
            let mut times = Vec::new();
            for _ in 0..3 {
                drop(Talk::accept(&listener).await);
                times.push(tokio::time::Instant::now());
            }
            let (first, second) = (times[1] - times[0], times[2] - times[1]);
            assert!(
                first > Duration::from_millis(700) && second > Duration::from_millis(1_400),
                "{first:?}, {second:?}"
            );
        })
        .await;
    });
}

#[test]
fn a_flood_of_prefixes_is_read_and_forgotten() {
    in_namespace_async(async || {
        let _row = Row::bgp(ROGUE, "floods 64 MB of prefixes");
        beside(async |listener| {
            let mut talk = Talk::accept(&listener).await;
            talk.establish(&open(9)).await;
            let prefixes: Vec<_> = super::many(900).into_keys().collect();
            let attributes = wire::Attributes {
                as_path: vec![65_000],
                next_hop: BAD,
                med: None,
                local_pref: None,
                communities: [].into(),
                only_to_customer: None,
            };
            let encoding = wire::Encoding { four_octet_as: true, extended_next_hop: false };
            let mut flood = Vec::new();
            for _ in 0..16 {
                wire::announce(&mut flood, encoding, Family::Ipv4, &attributes, &prefixes).unwrap();
            }
            // 64 MB, and a question at every turn.
            for _ in 0..900 {
                talk.say(&flood).await;
                talk.say(&bytes(|out| wire::route_refresh(out, Family::Ipv4, wire::Boundary::Request))).await;
            }
            // It is still read: its last message is received.
            talk.say(&bytes(|out| Notification::new(Fault::SHUTDOWN).encode(out))).await;
            while talk.receive().await.is_some() {}
        })
        .await;
    });
}

/// Connects to a speaker that waits for it, from the neighbor's address.
pub(super) async fn connect(from: IpAddr, to: [u8; 4], port: u16) -> Talk {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    let stream = socket.connect(SocketAddr::new(to.into(), port)).await.unwrap();
    Talk { stream, received: Vec::new() }
}

#[test]
fn a_passive_speaker_is_connected_to_by_neighbors_alone() {
    in_namespace_async(async || {
        let _row = Row::bgp(ROGUE, "connects twice; an unknown address connects");
        let mut passive = Neighbor::new(GOOD, 65_000);
        (passive.passive, passive.port, passive.ipv6) = (true, 1_790, false);
        passive.source = Some([127, 0, 0, 11].into());
        let node = Node::start(vec![passive]);
        node.announce([(prefix("203.0.113.10/32"), route(&[]))]);

        assert_eq!(
            connect(BAD, [127, 0, 0, 11], 1_790).await.receive().await,
            None,
            "an unknown address is disconnected"
        );
        let mut first = connect(GOOD, [127, 0, 0, 11], 1_790).await;
        let mut second = connect(GOOD, [127, 0, 0, 11], 1_790).await;
        second.establish(&open(9)).await;
        let last = first.last_word().await.map(|last| last.fault);
        assert_eq!(last, Some(Fault::COLLISION), "the newer one takes its place");
        node.until("a session", |status| status.announced.len() == 1).await;
        drop(second);
        node.until("its end", |status| status.state == "active").await;
        connect(GOOD, [127, 0, 0, 11], 1_790).await.establish(&open(9)).await;
        node.until("another session", |status| status.sessions == 2).await;
    });
}

/// Our OPEN holds our AS and hold time.
#[test]
fn our_open_carries_the_long_as() {
    in_namespace_async(async || {
        let _row = Row::bgp(ROGUE, "our OPEN: 4-byte AS, hold time 9 s");
        beside(async |listener| {
            let mut talk = Talk::accept(&listener).await;
            let Some(Message::Open(open)) = talk.receive().await else { panic!("no OPEN") };
            assert_eq!((open.asn, open.hold_time), (LOCAL_AS, 9));
        })
        .await;
    });
}
