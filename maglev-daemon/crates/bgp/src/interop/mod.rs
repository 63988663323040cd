//! The speaker against other implementations, each in its own network namespace: BIRD, FRR and GoBGP from the
//! distribution's packages, and one that breaks every rule.

mod bird;
mod faults;
mod frr;
mod gobgp;
mod live;
mod rogue;
mod router;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use maglev_model::UnixTime;
use maglev_model::bgp::{Bgp, Neighbor, NeighborStatus, OnDrain, OnStop, Password, Route};
use maglev_testing::network;
use tokio::sync::watch;

use super::speaker::{Before, Speaker, Wanted};
use router::{Kind, Router, Session};

/// Our AS number has more than 16 bits.
const LOCAL_AS: u32 = 4_200_000_010;

/// How long anything may take that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A speaker, and the set that it follows.
struct Node {
    wanted: watch::Sender<Arc<Wanted>>,
    speaker: Speaker,
    /// The configuration that applies.
    bgp: Bgp,
}

impl Node {
    fn start(neighbors: Vec<Neighbor>) -> Self {
        Self::start_with(|bgp| bgp.neighbors = neighbors)
    }

    fn start_with(change: impl FnOnce(&mut Bgp)) -> Self {
        let mut bgp = Bgp {
            local_as: LOCAL_AS,
            router_id: [10, 0, 0, 11].into(),
            communities: ["65010:1".parse().unwrap()].into(),
            on_stop: OnStop::Withdraw,
            on_drain: OnDrain::default(),
            graceful_restart: None,
            neighbors: Vec::new(),
        };
        change(&mut bgp);
        let (wanted, follow) = watch::channel(Arc::new(Wanted::default()));
        let speaker =
            Speaker::start(&bgp, Before::default(), &follow, &watch::Sender::default(), || UnixTime(0)).unwrap();
        Self { wanted, speaker, bgp }
    }

    /// Announces these and withdraws all others.
    fn announce(&self, routes: impl IntoIterator<Item = (IpNet, Route)>) {
        let routes = routes.into_iter().map(|(prefix, route)| (prefix, Arc::new(route))).collect();
        self.wanted.send_replace(Arc::new(Wanted { routes, complete: true, ..Wanted::default() }));
    }

    fn status(&self) -> NeighborStatus {
        self.speaker.handle().neighbors()[0].clone()
    }

    /// Waits for a state of the first neighbor's session.
    async fn until(&self, what: &str, is: impl Fn(&NeighborStatus) -> bool) -> NeighborStatus {
        eventually(what, async || Some(self.status()).filter(&is).ok_or_else(|| format!("{:?}", self.status()))).await
    }

    async fn established(&self) {
        self.until("a session", |status| status.state == "established").await;
    }
}

/// Asks until the answer is there: another program's state can only be asked for.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(last) => assert!(Instant::now() < deadline, "no {what} within {PATIENCE:?}: {last}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn prefix(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn route(communities: &[&str]) -> Route {
    Route { communities: communities.iter().map(|text| text.parse().unwrap()).collect() }
}

fn many(count: u32) -> BTreeMap<IpNet, Route> {
    let host = |n: u32| IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from(0x6440_0000 + n)));
    (0..count).map(|n| (host(n), Route::default())).collect()
}

/// The router as a neighbor, over IPv4 or IPv6.
fn neighbor(session: &Session) -> Neighbor {
    let address = if session.v6 { "2001:db8::1" } else { "10.0.0.1" };
    let mut neighbor = Neighbor::new(address.parse().unwrap(), 65_000);
    neighbor.password = session.password.and_then(Password::new);
    neighbor.gtsm = session.gtsm;
    neighbor.ipv6 = session.v6;
    neighbor
}

/// Runs a test in a namespace with a link to a router of this kind.
fn with_router<F: Future<Output = ()>>(kind: Kind, session: Session, test: impl FnOnce(Router) -> F + Send + 'static) {
    network::in_namespace_async(move || {
        let router = Router::start(kind, session);
        test(router)
    });
}

/// Signed, with TTL security where the router has it: each attribute arrives as it was meant, in the router's own words;
/// and a withdrawal.
fn over_ipv4(kind: Kind) {
    let session = Session { password: Some("s3cret"), gtsm: true, ..Session::default() };
    with_router(kind, session, async move |router| {
        let row = kind.row("v4 session established, MD5 and GTSM");
        let node = Node::start(vec![Neighbor { med: Some(50), ..neighbor(&session) }]);
        node.announce([(prefix("203.0.113.10/32"), route(&["65010:100", "4200000010:7:8", "rt:65010:9"]))]);
        node.established().await;
        drop(row);

        let mut row = kind.row("/32: next hop, 4-byte AS, MED, communities");
        let Some(route) = router.until_received("203.0.113.10/32").await else { panic!("no route") };
        row.says(format!(
            "next hop {}, path {}, {}",
            route.next_hop,
            route.as_path,
            route.communities.join(" ").trim()
        ));
        assert_eq!(route.next_hop, "10.0.0.11");
        assert_eq!(route.as_path, "4200000010");
        assert_eq!(route.med, Some(50));
        for community in ["65010:1", "65010:100", "4200000010:7:8", "65010:9"] {
            assert!(route.communities.iter().any(|found| found == community), "{community} of {route:?}");
        }
        assert_eq!(node.status().announced.len(), 1);
        drop(row);

        let row = kind.row("withdrawn prefix forgotten");
        node.announce([]);
        router.until_gone("203.0.113.10/32").await;
        drop(row);
        let _row = kind.row("session ended with a reason");
        node.speaker.stop("maintenance").await;
        router.until_down().await;
    });
}

/// IPv6 prefixes, and IPv4 ones with an IPv6 next hop.
fn over_ipv6(kind: Kind) {
    let session = Session { v6: true, password: Some("s3cret"), gtsm: true };
    with_router(kind, session, async move |router| {
        let row = kind.row("v6 session established, MD5 and GTSM");
        let node = Node::start(vec![neighbor(&session)]);
        let prefixes = ["2001:db8:1::10/128", "2001:db8:2::/48", "203.0.113.10/32"];
        node.announce(prefixes.map(|text| (prefix(text), route(&["65010:100"]))));
        node.established().await;
        drop(row);

        let cases = ["/128: next hop, 4-byte AS, communities", "/48: the same", "v4 /32 with a v6 next hop: the same"];
        for (text, case) in prefixes.into_iter().zip(cases) {
            let mut row = kind.row(case);
            let Some(route) = router.until_received(text).await else { panic!("no route") };
            row.says(format!("{text} via {}, path {}", route.next_hop, route.as_path));
            assert_eq!(route.next_hop, "2001:db8::11", "{text}");
            assert_eq!(route.as_path, "4200000010");
            assert!(route.communities.iter().any(|found| found == "65010:100"), "{route:?}");
        }
        let _row = kind.row("two prefixes withdrawn, one kept");
        node.announce([(prefix(prefixes[0]), Route::default())]);
        router.until_gone(prefixes[2]).await;
        router.until_gone(prefixes[1]).await;
    });
}

/// The router has another password: neither side accepts a segment of the other.
fn wrong_password(kind: Kind) {
    let session = Session { password: Some("theirs"), ..Session::default() };
    with_router(kind, session, async move |router| {
        let _row = kind.row("wrong password: not a segment is taken");
        let node = Node::start(vec![Neighbor { password: Password::new("ours"), ..neighbor(&session) }]);
        router.until_counted("TCPMD5Failure").await;
        // A router whose SYN-ACK has a larger TTL than its segments gets as far as TCP.
        let state = node.status().state;
        assert!(["connect", "open-sent"].contains(&state.as_str()), "{state}");
        router.assert_alive();
    });
}

/// The router expects another AS: both ends say so.
fn wrong_as(kind: Kind) {
    let session = Session::default();
    with_router(kind, session, async move |router| {
        let mut row = kind.row("wrong AS: refused");
        let node = Node::start_with(|bgp| (bgp.local_as, bgp.neighbors) = (65_011, vec![neighbor(&session)]));
        let status =
            node.until("a refusal", |status| status.errors.last.as_ref().is_some_and(|e| e.text.contains("AS"))).await;
        let error = status.errors.last.unwrap().text;
        row.says(&error);
        assert_eq!(error, "closed by the peer: OPEN message error, bad peer AS (2/2)");
        router.assert_alive();
    });
}

/// We require the TTL of a neighbor on the link; a router without that setting sends the 1 of ordinary eBGP. Packets that its
/// kernel sends before the router has the connection may have another: then the connection exists, and nothing follows.
fn ttl_1(kind: Kind) {
    with_router(kind, Session::default(), async move |router| {
        let _row = kind.row("TTL 1: nothing that the router sends is taken");
        let mut strict = neighbor(&Session::default());
        strict.gtsm = true;
        let node = Node::start(vec![strict]);
        router::until_counted_here("TCPMinTTLDrop").await;
        let status = node.status();
        assert!(status.sessions == 0 && ["connect", "open-sent"].contains(&status.state.as_str()), "{status:?}");
        router.assert_alive();
    });
}

/// 10,000 prefixes at once.
fn ten_thousand(kind: Kind) {
    with_router(kind, Session::default(), async move |router| {
        let node = Node::start(vec![neighbor(&Session::default())]);
        node.announce([(prefix("203.0.113.10/32"), Route::default())]);
        node.established().await;
        router.until_received("203.0.113.10/32").await;
        let mut row = kind.row("10,000 prefixes");
        let begin = Instant::now();
        node.announce(many(10_000));
        node.until("all announced", |status| status.announced.len() == 10_000).await;
        let said = begin.elapsed();
        router.until_count(10_000).await;
        let known = begin.elapsed();
        row.says(format!("said in {} ms, known to it after {} ms", said.as_millis(), known.as_millis()));
        assert!(said < Duration::from_secs(1) && known < Duration::from_secs(5), "{said:?}, {known:?}");
        router.until_gone("203.0.113.10/32").await;
    });
}

/// From the order to withdraw to the kernel's route being gone, five times; the longest is shown.
fn leaves_the_kernel(kind: Kind, within: Duration) {
    with_router(kind, Session::default(), async move |router| {
        let node = Node::start(vec![neighbor(&Session::default())]);
        node.established().await;
        let mut row = kind.row("withdrawn: the kernel's route is gone");
        let mut worst = Duration::ZERO;
        for _ in 0..5 {
            node.announce([(prefix("203.0.113.10/32"), route(&["graceful-shutdown"]))]);
            router.until_kernel("203.0.113.10", true).await;
            let begin = Instant::now();
            node.announce(std::iter::empty::<(IpNet, Route)>());
            router.until_kernel("203.0.113.10", false).await;
            worst = worst.max(begin.elapsed());
        }
        row.says(format!("within {} ms of the order", worst.as_millis()));
        assert!(worst < within, "{worst:?}");
    });
}

/// The router's operator ends the session: the reason is shown; a reset by ours brings up another.
fn reasons(kind: Kind) {
    with_router(kind, Session::default(), async move |router| {
        let node = Node::start(vec![neighbor(&Session::default())]);
        node.established().await;
        let row = kind.row("reset by us: another session");
        assert!(node.speaker.handle().reset("10.0.0.1", "by hand").await);
        assert!(!node.speaker.handle().reset("10.0.0.2", "by hand").await);
        node.until("another session", |status| status.sessions == 2 && status.state == "established").await;
        drop(row);
        let mut row = kind.row("shut down by its operator: the reason is reported");
        router.shut_down();
        let status = node.until("an end", |status| status.state != "established").await;
        let error = status.errors.last.unwrap().text;
        row.says(&error);
        assert!(error.starts_with("closed by the peer: cease"), "{error}");
    });
}
