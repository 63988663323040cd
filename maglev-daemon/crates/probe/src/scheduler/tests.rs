//! Tests of when targets are checked.

use super::*;
use maglev_core::health::CheckPath;
use maglev_model::{Check, Hysteresis, Name, Probe, Via};
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::TcpListener;

pub(super) const INTERVAL: Duration = Duration::from_millis(100);

pub(super) fn order(jitter: Duration) -> Order {
    let hysteresis = Hysteresis::default();
    let (probe, port, via) = (Probe::Tcp, None, Via::Direct);
    let check = Check { probe, interval: INTERVAL, timeout: INTERVAL / 2, jitter, hysteresis, port, via };
    Order { check: Arc::new(check), path: Ok(CheckPath::default()) }
}

pub(super) fn target(backend: &str, destination: SocketAddr) -> Arc<Target> {
    let name = |name| Name::parse(name).unwrap();
    let (pool, backend, address) = (name("web"), name(backend), destination.ip());
    Arc::new(Target { pool, backend, address, vip: None, destination })
}

pub(super) fn scheduler() -> (Scheduler, mpsc::Receiver<Checked>) {
    let (results, told) = mpsc::channel(16);
    (
        Scheduler::with_rng(
            results,
            Trust::from_authorities(Vec::new()),
            Arc::new(|| Duration::from_secs(7)),
            Rng::with_seed(1),
        ),
        told,
    )
}

pub(super) async fn next(told: &mut mpsc::Receiver<Checked>) -> (Arc<Target>, Last) {
    let Checked { target, last } = told.recv().await.unwrap();
    (target, last)
}

#[tokio::test]
async fn each_target_is_checked_again_and_again_until_it_is_followed_no_more() {
    let open = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let (good, bad) = (target("good", open.local_addr().unwrap()), target("bad", closed));
    let (mut scheduler, mut told) = scheduler();
    scheduler.follow([&good, &bad].map(|target| (Arc::clone(target), order(INTERVAL / 2))).into());
    let mut seen = BTreeMap::<Arc<Target>, u32>::new();
    while seen.len() < 2 || seen.values().any(|count| *count < 3) {
        let (target, last) = next(&mut told).await;
        let expected = if target == good { Ok(()) } else { Err(Failure::Dead("connect: refused".into())) };
        assert_eq!((last.outcome, last.at), (expected, Duration::from_secs(7)));
        *seen.entry(target).or_default() += 1;
    }
    scheduler.follow([(Arc::clone(&bad), order(Duration::ZERO))].into());
    // Earlier results may still be queued.
    while next(&mut told).await.0 != bad {}
    for _ in 0..3 {
        assert_eq!(next(&mut told).await.0, bad);
    }
    drop(scheduler);
    while told.recv().await.is_some() {}
}

#[tokio::test]
async fn nothing_is_checked_more_often_than_its_interval_says() {
    let open = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (mut scheduler, mut told) = scheduler();
    scheduler.follow([(target("a", open.local_addr().unwrap()), order(Duration::ZERO))].into());
    next(&mut told).await;
    let began = Instant::now();
    for _ in 0..5 {
        next(&mut told).await;
    }
    assert!(began.elapsed() >= INTERVAL * 4, "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_result_of_a_single_check_goes_to_its_caller_alone() {
    let open = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let (good, bad) = (target("good", open.local_addr().unwrap()), target("bad", closed));
    let (mut scheduler, mut told) = scheduler();
    let asked = scheduler.once([&good, &bad].map(|target| (Arc::clone(target), order(Duration::ZERO))).into()).await;
    let outcomes: Vec<_> = asked.into_iter().map(|(target, _, ended)| (target, ended.outcome)).collect();
    assert_eq!(outcomes, [(bad, Err(Fault::Dead("connect: refused".to_owned()))), (good, Ok(()))]);
    assert!(told.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_single_check_does_not_wait_for_ever_for_a_socket() {
    let (mut scheduler, _told) = scheduler();
    let mut all = Vec::new();
    for n in 0..SOCKETS {
        let pool = Name::parse(&format!("other{}", n / 2)).unwrap();
        all.extend(scheduler.tools.sockets.take(&pool).await);
    }
    let one = target("a", SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1));
    let asked = scheduler.once([(one, order(Duration::ZERO))].into()).await;
    assert_eq!(asked[0].2.outcome, Err(Fault::Shortage("all sockets for checks are in use".to_owned())));
    drop(all);
}

#[tokio::test]
async fn without_a_path_a_check_fails_with_the_reason_unless_one_is_found_in_time() {
    let open = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let to = target("a", open.local_addr().unwrap());
    let (mut scheduler, mut told) = scheduler();
    let lost = Order { path: Err("no route to 10.0.1.11".into()), ..order(Duration::ZERO) };
    scheduler.follow([(Arc::clone(&to), lost.clone())].into());
    scheduler.follow([(Arc::clone(&to), order(Duration::ZERO))].into());
    assert_eq!(next(&mut told).await.1.outcome, Ok(()));
    scheduler.follow([(Arc::clone(&to), lost)].into());
    let failed =
        async { while next(&mut told).await.1.outcome != Err(Failure::Dead("no route to 10.0.1.11".into())) {} };
    tokio::time::timeout(Duration::from_secs(30), failed).await.unwrap();
}

#[tokio::test]
async fn a_reason_without_end_is_cut_where_it_is_kept() {
    let to = target("a", SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1));
    let [fits, long] = [200, 201].map(|length| "é".repeat(length));
    for (reason, kept) in [(fits.clone(), fits), (long, format!("{}…", "é".repeat(199)))] {
        let (mut scheduler, mut told) = scheduler();
        let lost = Order { path: Err(reason.as_str().into()), ..order(Duration::ZERO) };
        let asked = scheduler.once([(Arc::clone(&to), lost.clone())].into()).await;
        assert_eq!(asked[0].2.outcome, Err(Fault::Dead(reason)), "each waiting request receives the whole reason");
        scheduler.follow([(Arc::clone(&to), lost)].into());
        assert_eq!(next(&mut told).await.1.outcome, Err(Failure::Dead(kept.as_str().into())));
    }
}

#[test]
fn checks_due_at_nearly_the_same_time_are_due_together() {
    let (began, second) = (Instant::now(), Duration::from_secs(1));
    let at = |milliseconds| began + Duration::from_millis(milliseconds);
    for (due, expected) in [(0, 0), (19, 0), (20, 20), (39, 20), (1_030, 1_020), (1_040, 1_040)] {
        assert_eq!(together(began, at(due), second), at(expected), "{due}");
        assert_eq!(together(began, at(expected) + second, second), at(expected) + second, "the interval is kept");
    }
}

#[test]
fn parts_are_spread_over_the_whole() {
    let mut rng = Rng::with_seed(1);
    let parts: Vec<_> = (0..200).map(|_| part_of(&mut rng, Duration::from_secs(1))).collect();
    assert!(parts.iter().all(|part| *part <= Duration::from_secs(1)));
    for quarter in 0..4 {
        let range = Duration::from_millis(250 * quarter)..Duration::from_millis(250 * (quarter + 1));
        assert!(parts.iter().any(|part| range.contains(part)), "none in {range:?}");
    }
}
