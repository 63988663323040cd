//! Faults found by running the product: checks that delay others, and first checks without a next hop.

use std::net::{Ipv4Addr, SocketAddr};

use maglev_core::health::{CheckPath, NoPath};
use maglev_model::{Name, Probe};
use maglev_testing::matrix::Row;
use tokio::net::{TcpListener, UdpSocket};

use super::tests::{INTERVAL, next, order, scheduler, target};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Checks each second that take half of it if nothing answers.
fn each_second(probe: Probe) -> Order {
    let usual = order(Duration::ZERO);
    let check = Check { probe, interval: SECOND, timeout: SECOND / 2, ..(*usual.check).clone() };
    Order { check: Arc::new(check), ..usual }
}

/// A target of this pool, the `n`th backend.
fn target_in_pool(pool: &str, n: usize, destination: SocketAddr) -> Arc<Target> {
    let (pool, backend) = (Name::parse(pool).unwrap(), Name::parse(&format!("b{n}")).unwrap());
    Arc::new(Target { pool, backend, ..(*target("a", destination)).clone() })
}

/// The time between the checks of 20 backends that end at once, at most, while these checks of other pools go on for 20 s.
async fn longest_pause(others: Orders) -> Duration {
    // Nothing is sent for it, so that it takes no time: the virtual time does not wait for the network.
    let at_once = || each_second(Probe::Dns { query: "example..org".to_owned(), rcode: 0 });
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
    let mut orders = others;
    orders.extend((0..20).map(|n| (target_in_pool("good", n, at), at_once())));
    let (mut scheduler, mut told) = scheduler();
    scheduler.follow(orders);
    let good = Name::parse("good").unwrap();
    let (began, mut seen, mut longest) = (Instant::now(), BTreeMap::<Arc<Target>, Instant>::new(), Duration::ZERO);
    while began.elapsed() < SECOND * 20 {
        let (target, _) = next(&mut told).await;
        if target.pool == good {
            let before = seen.insert(target, Instant::now()).unwrap_or(began);
            longest = longest.max(before.elapsed());
        }
    }
    assert_eq!(seen.len(), 20);
    longest
}

// The time is virtual: it passes only while nothing else can be done.
#[tokio::test(start_paused = true)]
async fn checks_that_hang_do_not_delay_those_of_other_pools() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = silent.local_addr().unwrap();
    let hanging = || each_second(Probe::Udp { payload: b"ping".to_vec(), expect: b"pong".to_vec() });
    let one = (0..2_000).map(|n| (target_in_pool("hung", n, at), hanging())).collect();
    let several = (0..2_000).map(|n| (target_in_pool(&format!("hung{}", n % 5), n, at), hanging())).collect();
    for (case, others) in
        [("one pool of 2,000 backends that hang", one), ("five pools of 400 backends that hang", several)]
    {
        let mut row = Row::fault("R10", case);
        let longest = longest_pause(others).await;
        assert!(longest <= SECOND * 6 / 5, "{longest:?}");
        row.says(format!("checks of another pool, each second: {} ms apart at most", longest.as_millis()));
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_check_waits_for_its_next_hop_and_not_for_ever() {
    let open = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let to = target("a", open.local_addr().unwrap());
    let no_way = |pending| Order {
        path: Err(NoPath { reason: "waiting for neighbor 10.0.1.11 on eth0".into(), pending }),
        ..order(Duration::ZERO)
    };
    let row = Row::fault("R10", "the first check waits while its next hop is resolved");
    let (mut scheduler, mut told) = scheduler();
    scheduler.follow([(Arc::clone(&to), no_way(true))].into());
    tokio::time::sleep(NEXT_HOP - INTERVAL).await;
    assert!(told.try_recv().is_err(), "no result, and no failure");
    scheduler.follow([(Arc::clone(&to), Order { path: Ok(CheckPath::default()), ..order(Duration::ZERO) })].into());
    assert_eq!(next(&mut told).await.1.outcome, Ok(()));
    drop(row);
    let mut row = Row::fault("R10", "a next hop that is never resolved is a failure in the end");
    let began = Instant::now();
    scheduler.follow([(to, no_way(true))].into());
    while next(&mut told).await.1.outcome.is_ok() {}
    assert!(began.elapsed() >= NEXT_HOP && began.elapsed() < NEXT_HOP * 2);
    row.says("after 5 s");
}
