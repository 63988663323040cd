//! Other settings while a session with another implementation runs.

use std::fs;
use std::net::IpAddr;

use maglev_model::bgp::{Bgp, Neighbor, Password};
use maglev_testing::matrix::Row;

use super::router::{Kind, Router, Session};
use super::{Node, eventually, neighbor, prefix, route, with_router};

/// A neighbor at an address that no machine has.
fn absent() -> Neighbor {
    Neighbor::new([10, 0, 0, 99].into(), 65_099)
}

/// The established connection to the router: both ends, and the number of its socket.
fn connection() -> String {
    let of_thread = format!("/proc/{}/task/{}/net/tcp", std::process::id(), nix::unistd::gettid());
    let text = fs::read_to_string(of_thread).unwrap();
    let is_session = |fields: &Vec<&str>| fields[2] == "0100000A:00B3" && fields[3] == "01";
    let fields = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut found = fields.filter(is_session).map(|fields| format!("{} {} {}", fields[1], fields[2], fields[9]));
    let one = found.next().expect("no connection to the router");
    assert_eq!(found.next(), None);
    one
}

impl Node {
    fn apply(&mut self, change: impl FnOnce(&mut Bgp)) {
        let mut bgp = self.bgp.clone();
        change(&mut bgp);
        self.speaker.apply(self.speaker.prepare(&bgp).unwrap());
        self.bgp = bgp;
    }

    fn names(&self) -> Vec<String> {
        self.speaker.handle().neighbors().into_iter().map(|status| status.name).collect()
    }
}

async fn until_med(router: &Router, med: u32) {
    eventually("another MED", async || {
        let received = router.until_received("203.0.113.10/32").await;
        if received.as_ref().is_some_and(|route| route.med == Some(med)) {
            Ok(())
        } else {
            Err(format!("{received:?}"))
        }
    })
    .await;
}

/// Neighbors come and go beside a session, and its attributes change, in one and the same connection.
fn sessions_stay(kind: Kind) {
    with_router(kind, Session::default(), async move |router| {
        let mut node = Node::start(vec![neighbor(&Session::default())]);
        node.announce([(prefix("203.0.113.10/32"), route(&[]))]);
        node.established().await;
        router.until_received("203.0.113.10/32").await;
        let before = connection();

        let row = kind.row("a neighbor added and removed: the session stays");
        node.apply(|bgp| bgp.neighbors.insert(0, absent()));
        assert_eq!(node.names(), ["10.0.0.99", "10.0.0.1"]);
        eventually("an attempt", async || {
            let state = node.status().state;
            if state == "connect" { Ok(()) } else { Err(state) }
        })
        .await;
        node.apply(|bgp| drop(bgp.neighbors.remove(0)));
        assert_eq!(node.names(), ["10.0.0.1"]);
        drop(row);

        let row = kind.row("MED, communities, keepalive, name changed: the session stays");
        node.apply(|bgp| {
            let router = &mut bgp.neighbors[0];
            (router.med, router.keepalive, router.name) = (Some(77), Some(1), "tor1".into());
            bgp.communities.insert("65010:77".parse().unwrap());
        });
        until_med(&router, 77).await;
        let route = router.until_received("203.0.113.10/32").await.unwrap();
        assert!(route.communities.iter().any(|found| found == "65010:77"), "{route:?}");
        let status = node.until("the name", |status| status.name == "tor1").await;
        assert_eq!((status.state.as_str(), status.sessions), ("established", 1));
        assert_eq!(connection(), before, "the same connection all the time");
        drop(row);

        let mut row = kind.row("another hold time: another session");
        node.apply(|bgp| bgp.neighbors[0].hold_time = 30);
        let status = node.until("another session", |status| status.sessions == 2 && status.is_established()).await;
        row.says(status.errors.last.unwrap().text);
        assert_ne!(connection(), before);
        until_med(&router, 77).await;
        drop(row);

        let _row = kind.row("a neighbor removed: its prefixes are forgotten");
        node.apply(|bgp| bgp.neighbors = vec![absent()]);
        router.until_gone("203.0.113.10/32").await;
        assert_eq!(node.names(), ["10.0.0.99"]);
    });
}

#[test]
fn sessions_with_bird_stay() {
    sessions_stay(Kind::Bird);
}

#[test]
fn sessions_with_frr_stay() {
    sessions_stay(Kind::Frr);
}

#[test]
fn sessions_with_gobgp_stay() {
    sessions_stay(Kind::GoBgp);
}

/// Both ends offer graceful restart: the router keeps the prefix while the session begins anew.
#[test]
fn bird_keeps_prefixes_over_a_change_that_needs_another_session() {
    with_router(Kind::Bird, Session::default(), async move |router| {
        let mut node = Node::start_with(|bgp| {
            (bgp.graceful_restart, bgp.neighbors) = (Some(120), vec![neighbor(&Session::default())]);
        });
        node.announce([(prefix("203.0.113.10/32"), route(&[]))]);
        node.established().await;
        router.until_kernel("203.0.113.10", true).await;
        let routes = router.kernel_routes().await;
        let mut row = Kind::Bird.row("another hold time with graceful restart: the kernel's route stays");
        node.apply(|bgp| bgp.neighbors[0].hold_time = 30);
        let status = node.until("another session", |status| status.sessions == 2 && status.announced.len() == 1).await;
        assert_eq!(status.errors.last.unwrap().text, "closed by us: other settings");
        node.announce([(prefix("203.0.113.10/32"), route(&[])), (prefix("203.0.113.11/32"), route(&[]))]);
        router.until_kernel("203.0.113.11", true).await;
        let seen = eventually("the other route", async || {
            let seen = routes.seen();
            if seen.contains("203.0.113.11") { Ok(seen) } else { Err(seen) }
        })
        .await;
        row.says(format!("{} changes of routes", seen.lines().count()));
        assert!(!seen.contains("Deleted 203.0.113.10"), "{seen}");
    });
}

/// The neighbor dials: it is listened for from the moment of the change, with its key, and no longer after it.
#[test]
fn passive_neighbors_come_and_go() {
    const THEIRS: u32 = 65_020;
    maglev_testing::network::in_namespace_async(async || {
        let _row = Row::bgp("itself", "a passive neighbor added with a password, and removed");
        let [here, there] = [3, 2].map(|last| IpAddr::from([127, 0, 0, last]));
        let between = |address, source, remote_as, password| {
            let (source, password) = (Some(source), Password::new(password));
            Neighbor { source, password, ..Neighbor::new(address, remote_as) }
        };
        let passive = |password| Neighbor { passive: true, ..between(there, here, THEIRS, password) };
        let mut node = Node::start(vec![absent()]);
        let dialing = Node::start_with(|bgp| {
            (bgp.local_as, bgp.router_id) = (THEIRS, [10, 0, 0, 12].into());
            bgp.neighbors = vec![between(here, there, super::LOCAL_AS, "s3cret")];
        });
        node.apply(|bgp| bgp.neighbors = vec![passive("wrong")]);
        super::router::until_counted_here("TCPMD5Failure").await;
        node.apply(|bgp| bgp.neighbors = vec![absent(), passive("s3cret")]);
        dialing.established().await;
        // It is listened for everywhere while another one of that port has no source, and the session stays.
        let anywhere = Neighbor { passive: true, ..Neighbor::new([127, 0, 0, 9].into(), 65_009) };
        node.apply(|bgp| bgp.neighbors = vec![anywhere, passive("s3cret")]);
        dialing.speaker.handle().reset("127.0.0.3", "by hand").await;
        dialing.until("another session", |status| status.sessions == 2 && status.is_established()).await;
        node.apply(|bgp| bgp.neighbors = vec![absent()]);
        let status = dialing.until("the end", |status| !status.is_established()).await;
        assert_eq!(status.errors.last.unwrap().text, "closed by the peer: cease, peer de-configured (6/3)");
        eventually("the port free", async || {
            std::net::TcpListener::bind(("0.0.0.0", 179)).map(drop).map_err(|error| error.to_string())
        })
        .await;
    });
}

/// A port that another process has is refused before anything changes.
#[test]
fn a_port_in_use_is_refused() {
    maglev_testing::network::in_namespace_async(async || {
        let node = Node::start(vec![absent()]);
        let other = std::net::TcpListener::bind(("0.0.0.0", 179)).unwrap();
        let mut bgp = node.bgp.clone();
        bgp.neighbors[0].passive = true;
        let error = format!("{:#}", node.speaker.prepare(&bgp).unwrap_err());
        assert!(error.starts_with("cannot listen for BGP neighbors at 0.0.0.0:179: "), "{error}");
        drop(other);
        node.speaker.prepare(&bgp).unwrap();
    });
}
