//! When what is checked: a task for each thing that is, bounded sockets for all together. It must not know what follows
//! from what comes of it.
//!
//! ```text
//!  follow ──▶ Scheduler ──┬─▶ a task per target: pause, (wait for a free socket), probe ──┬─▶ Event::Checked
//!                         └─▶ …                                                           ┘
//! ```

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::fsm::{Last, Order, Orders, Target};
use super::probe::{Ended, Trust, probe};
use crate::model::Check;
use crate::reconcile::Event;

/// Checks under way at once, each with one socket: fewer than the files that a process may usually open.
const SOCKETS: usize = 512;

/// The first checks are spread over no more than this: the start waits for them.
const FIRST: Duration = Duration::from_millis(200);

/// How long a check that an operator asks for waits for a socket.
const SOCKET: Duration = Duration::from_secs(5);

/// How much is kept of why a check failed, in characters: TLS names every name of a certificate that holds another.
const LONGEST_REASON: usize = 200;

/// What was asked, how, and what came of it.
pub type Asked = (Arc<Target>, Arc<Check>, Ended);

/// The time that results are told in.
pub type Now = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The checks, while it lives.
pub struct Scheduler {
    tools: Tools,
    running: BTreeMap<Arc<Target>, Running>,
}

/// What each task has.
#[derive(Clone)]
struct Tools {
    /// What times are counted from.
    began: Instant,
    sockets: Arc<Semaphore>,
    trust: Trust,
    now: Now,
    results: mpsc::Sender<Event>,
}

/// A task, which ends with this.
#[derive(Debug)]
struct Running {
    order: Order,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scheduler {
    /// Nothing is checked yet. What comes of checks is told to `results`, as [`Event::Checked`], by the time that `now` tells.
    pub fn new(results: mpsc::Sender<Event>, trust: Trust, now: Now) -> Self {
        let sockets = Arc::new(Semaphore::new(SOCKETS));
        Self { tools: Tools { began: Instant::now(), sockets, trust, now, results }, running: BTreeMap::new() }
    }

    /// Checks exactly these from now on. What is checked the same way as before goes on.
    pub fn follow(&mut self, orders: Orders) {
        self.running.retain(|target, running| orders.get(target) == Some(&running.order));
        for (target, order) in orders {
            let (tools, to) = (self.tools.clone(), Arc::clone(&target));
            self.running.entry(target).or_insert_with(|| {
                let task = tokio::spawn(again_and_again(tools, to, order.clone()));
                Running { order, task }
            });
        }
    }

    /// Checks these once and now, beside what goes on: nothing of it counts. Ends with it if it is dropped.
    pub fn once(&self, orders: Orders) -> impl Future<Output = Vec<Asked>> + Send + use<> {
        let tools = self.tools.clone();
        async move {
            let mut asked: JoinSet<Asked> = JoinSet::new();
            for (target, order) in orders {
                let tools = tools.clone();
                asked.spawn(async move {
                    let ended = tools.ask_soon(&target, &order).await;
                    (target, order.check, ended)
                });
            }
            let mut all = asked.join_all().await;
            all.sort_by(|(one, ..), (other, ..)| one.cmp(other));
            all
        }
    }
}

impl Tools {
    /// Asks once, with one of the sockets; `None`: there are no sockets any more. Where there is no way, nothing is asked.
    async fn ask(&self, target: &Target, Order { check, way }: &Order) -> Option<Ended> {
        match way {
            Ok(way) => {
                let _socket = self.sockets.acquire().await.ok()?;
                Some(probe(target.destination, way, check, &self.trust).await)
            }
            Err(why) => Some(Ended { outcome: Err(why.to_string()), latency: Duration::ZERO }),
        }
    }

    /// The same, and does not wait long for a socket.
    async fn ask_soon(&self, target: &Target, order: &Order) -> Ended {
        let time = order.check.timeout + SOCKET;
        let ended = tokio::time::timeout(time, self.ask(target, order)).await.ok().flatten();
        let none = || Ended { outcome: Err("all sockets for checks are in use".to_owned()), latency: time };
        ended.unwrap_or_else(none)
    }
}

async fn again_and_again(tools: Tools, target: Arc<Target>, order: Order) {
    let check = &order.check;
    let mut due = Instant::now() + part_of(FIRST.min(check.interval));
    // The first are nearly at once, the others spread over the whole interval.
    let mut pause = part_of(check.interval);
    loop {
        sleep_until(due).await;
        if order.way.is_err() {
            // That is a failure only once there was none for as long as a check may take: routes and neighbours need a moment
            // to be found.
            tokio::time::sleep(check.timeout).await;
        }
        let Some(ended) = tools.ask(&target, &order).await else { return };
        let last = Last { at: (tools.now)(), latency: ended.latency, outcome: ended.outcome.map_err(short) };
        if tools.results.send(Event::Checked { target: Arc::clone(&target), last }).await.is_err() {
            return;
        }
        // From when it was due: what comes late does not come later each time; but nothing is made up for.
        due = together(tools.began, due + pause, check.interval).max(Instant::now());
        pause = check.interval - part_of(check.jitter);
    }
}

/// A reason that fits where it is kept and shown for every backend; whoever checks once reads all of it.
fn short(reason: String) -> Arc<str> {
    match reason.char_indices().nth(LONGEST_REASON) {
        None => reason.into(),
        Some(_) => {
            let end = reason.char_indices().nth(LONGEST_REASON - 1).map_or(0, |(end, _)| end);
            format!("{}…", &reason[..end]).into()
        }
    }
}

/// When something is due that would be at this time: a little earlier, with all that is due within a fiftieth of the interval.
/// To be woken for each check alone costs more than the checks do.
fn together(began: Instant, due: Instant, interval: Duration) -> Instant {
    let (since, grid) = ((due - began).as_nanos(), (interval / 50).as_nanos().max(1));
    due - Duration::from_nanos(u64::try_from(since % grid).unwrap_or(0))
}

/// Any part of a time.
fn part_of(time: Duration) -> Duration {
    // A hasher of its own keys each time: as good as any die.
    let die = RandomState::new().build_hasher().finish() as u32;
    time.mul_f64(f64::from(die) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::fsm::Way;
    use crate::model::{Check, Hysteresis, Name, Probe, Via};
    use std::net::{Ipv4Addr, SocketAddr};
    use tokio::net::TcpListener;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn order(jitter: Duration) -> Order {
        let hysteresis = Hysteresis::default();
        let (probe, port, via) = (Probe::Tcp, None, Via::Direct);
        let check = Check { probe, interval: INTERVAL, timeout: INTERVAL / 2, jitter, hysteresis, port, via };
        Order { check: Arc::new(check), way: Ok(Way::default()) }
    }

    fn target(backend: &str, destination: SocketAddr) -> Arc<Target> {
        let name = |name| Name::parse(name).unwrap();
        let (pool, backend, address) = (name("web"), name(backend), destination.ip());
        Arc::new(Target { pool, backend, address, vip: None, destination })
    }

    fn scheduler() -> (Scheduler, mpsc::Receiver<Event>) {
        let (results, told) = mpsc::channel(16);
        (Scheduler::new(results, Trust::of(Vec::new()), Arc::new(|| Duration::from_secs(7))), told)
    }

    async fn next(told: &mut mpsc::Receiver<Event>) -> (Arc<Target>, Last) {
        match told.recv().await.unwrap() {
            Event::Checked { target, last } => (target, last),
            other => panic!("{other:?}"),
        }
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
            let expected = if target == good { Ok(()) } else { Err("connect: refused".into()) };
            assert_eq!((last.outcome, last.at), (expected, Duration::from_secs(7)));
            *seen.entry(target).or_default() += 1;
        }
        scheduler.follow([(Arc::clone(&bad), order(Duration::ZERO))].into());
        // What was told before may still be under way.
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
    async fn what_is_asked_once_is_told_to_who_asks_and_to_nobody_else() {
        let open = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
        let (good, bad) = (target("good", open.local_addr().unwrap()), target("bad", closed));
        let (scheduler, mut told) = scheduler();
        let asked =
            scheduler.once([&good, &bad].map(|target| (Arc::clone(target), order(Duration::ZERO))).into()).await;
        let outcomes: Vec<_> = asked.into_iter().map(|(target, _, ended)| (target, ended.outcome)).collect();
        assert_eq!(outcomes, [(bad, Err("connect: refused".to_owned())), (good, Ok(()))]);
        assert!(told.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_once_does_not_wait_for_ever_for_a_socket() {
        let (scheduler, _told) = scheduler();
        let _all = scheduler.tools.sockets.acquire_many(SOCKETS as u32).await.unwrap();
        let one = target("a", SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1));
        let asked = scheduler.once([(one, order(Duration::ZERO))].into()).await;
        assert_eq!(asked[0].2.outcome, Err("all sockets for checks are in use".to_owned()));
    }

    #[tokio::test]
    async fn without_a_way_a_check_fails_by_the_reason_unless_one_is_found_in_time() {
        let open = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let to = target("a", open.local_addr().unwrap());
        let (mut scheduler, mut told) = scheduler();
        let lost = Order { way: Err("no route to 10.0.1.11".into()), ..order(Duration::ZERO) };
        scheduler.follow([(Arc::clone(&to), lost.clone())].into());
        scheduler.follow([(Arc::clone(&to), order(Duration::ZERO))].into());
        assert_eq!(next(&mut told).await.1.outcome, Ok(()));
        scheduler.follow([(Arc::clone(&to), lost)].into());
        let failed = async { while next(&mut told).await.1.outcome != Err("no route to 10.0.1.11".into()) {} };
        tokio::time::timeout(Duration::from_secs(30), failed).await.unwrap();
    }

    #[tokio::test]
    async fn a_reason_without_end_is_cut_where_it_is_kept() {
        let to = target("a", SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1));
        let [fits, long] = [200, 201].map(|length| "é".repeat(length));
        for (reason, kept) in [(fits.clone(), fits), (long, format!("{}…", "é".repeat(199)))] {
            let (mut scheduler, mut told) = scheduler();
            let lost = Order { way: Err(reason.as_str().into()), ..order(Duration::ZERO) };
            let asked = scheduler.once([(Arc::clone(&to), lost.clone())].into()).await;
            assert_eq!(asked[0].2.outcome, Err(reason), "whoever asks reads all");
            scheduler.follow([(Arc::clone(&to), lost)].into());
            assert_eq!(next(&mut told).await.1.outcome, Err(kept.as_str().into()));
        }
    }

    #[test]
    fn what_is_due_at_nearly_the_same_time_is_due_together() {
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let at = |milliseconds| began + Duration::from_millis(milliseconds);
        for (due, expected) in [(0, 0), (19, 0), (20, 20), (39, 20), (1_030, 1_020), (1_040, 1_040)] {
            assert_eq!(together(began, at(due), second), at(expected), "{due}");
            assert_eq!(together(began, at(expected) + second, second), at(expected) + second, "the interval is kept");
        }
    }

    #[test]
    fn parts_are_spread_over_the_whole() {
        let parts: Vec<_> = (0..200).map(|_| part_of(Duration::from_secs(1))).collect();
        assert!(parts.iter().all(|part| *part <= Duration::from_secs(1)));
        for quarter in 0..4 {
            let range = Duration::from_millis(250 * quarter)..Duration::from_millis(250 * (quarter + 1));
            assert!(parts.iter().any(|part| range.contains(part)), "none in {range:?}");
        }
    }
}
