//! Captures of packets: from names to numbers, as long as they mean the same, and from packets to messages. It must not know
//! programs, nor the reader.
//!
//! ```text
//!  owner ──▶ Captures::follow ──▶ orders: aim, before each plan
//!               ▲
//!  run ─────────┴───▶ orders: begin, totals, end
//!
//!  data plane's thread "capture" ──▶ sink ──▶ messages (bounded) ──▶ reader
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use maglev_api::{Answer, view};
use maglev_common::counters::{Counter, Outcome};
use maglev_core::reconcile::View;
use maglev_dataplane::{CaptureFilter, CaptureId, CaptureTarget, CaptureTotals, Captured, Sink};
use maglev_model::capture::TcpFlags;
use maglev_model::{Name, Refusal, shown};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::dataplane::Orders;
use crate::http::{CaptureMessage, CaptureMessages};

/// Messages that wait for a reader; packets beyond it are lost, and counted.
const WAITING: usize = 1_024;

/// How often the reader receives the counts.
const COUNTS: Duration = Duration::from_secs(1);

/// How long after its end a capture's last packets are awaited.
const LAST: Duration = Duration::from_millis(300);

type Views = watch::Receiver<Option<Arc<View>>>;

/// The captures that run.
#[derive(Debug, Default)]
pub(super) struct Captures {
    /// The services that packets belong to.
    views: watch::Sender<Option<Arc<View>>>,
    running: Mutex<Vec<Running>>,
}

#[derive(Debug)]
struct Running {
    id: CaptureId,
    wanted: Wanted,
    target: Option<CaptureTarget>,
}

impl Captures {
    /// Whether there are any, or one is about to begin.
    pub(super) fn are_running(&self) -> bool {
        self.views.receiver_count() > 0
    }

    /// Gives captures the numbers of their names in these services.
    pub(super) fn follow(&self, view: View, orders: &Orders) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        self.views.send_replace(Some(Arc::new(view)));
        running.iter_mut().for_each(|running| running.aim(&self.views, orders));
    }

    /// A capture of these names began, with these numbers.
    fn add(&self, mut began: Running, orders: &Orders) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        began.aim(&self.views, orders);
        running.push(began);
    }

    fn remove(&self, id: CaptureId) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).retain(|running| running.id != id);
    }
}

impl Running {
    fn aim(&mut self, views: &watch::Sender<Option<Arc<View>>>, orders: &Orders) {
        let target = self.wanted.resolved(views.borrow().as_deref());
        if target != self.target {
            self.target = target;
            orders.aim_capture(self.id, target);
        }
    }
}

/// A capture by names.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    vip: Option<Name>,
    pool: Option<Name>,
    backend: Option<Name>,
    /// Its target is that of the services at the time.
    filter: CaptureFilter,
}

/// Counters of outgoing packets, which are not captured.
const OUTGOING: [Counter; 3] = [Counter::CheckSent, Counter::CheckUnsent, Counter::Stray];

fn capturable() -> impl Iterator<Item = Counter> {
    let all = Counter::ALL.iter().copied();
    all.filter(|counter| counter.outcome() != Outcome::Noted && !OUTGOING.contains(counter))
}

impl Wanted {
    /// The conditions of a request.
    pub(super) fn parse(wanted: &view::NewCapture) -> Answer<Self> {
        let view::NewCapture {
            vip,
            pool,
            backend,
            client,
            port,
            tcp_flags,
            outcomes,
            reasons,
            one_in,
            bytes,
            rate,
            seconds,
        } = wanted;
        let name = |field: &str, name: &Option<String>| -> Answer<Option<Name>> {
            let parse = |name: &String| Name::parse(name).map_err(|bad| invalid(format!("{field}: {bad}")));
            name.as_ref().map(parse).transpose()
        };
        let (vip, pool, backend) = (name("vip", vip)?, name("pool", pool)?, name("backend", backend)?);
        if backend.is_some() && pool.is_none() {
            return Err(invalid("backend: the name of its pool is missing; give `pool` too"));
        }
        if *port == Some(0) {
            return Err(invalid("port: 0 is not within 1…65535"));
        }
        let flags = tcp_flags.as_deref().map(str::parse::<TcpFlags>).transpose();
        let flags = flags.map_err(|bad| invalid(format!("tcp_flags: {bad}")))?.unwrap_or_default();
        let filter = CaptureFilter {
            target: None,
            counters: parse_counters(outcomes, reasons)?,
            client: client.map(|client| client.trunc()),
            port: *port,
            tcp_flags: (flags.mask, flags.set),
            one_in: within("one_in", *one_in, 1, u32::MAX)?,
            kept: within("bytes", *bytes, view::NewCapture::LEAST_BYTES, view::NewCapture::MOST_BYTES)?,
            rate: within("rate", *rate, 1, view::NewCapture::MOST_RATE)?,
            lasts: Duration::from_secs(within("seconds", *seconds, 1, view::NewCapture::MOST_SECONDS)?),
        };
        Ok(Self { vip, pool, backend, filter })
    }

    /// The numbers of its names; `None` for one that has none now, such as a disabled backend.
    ///
    /// # Errors
    /// A name that does not exist.
    pub(super) fn target(&self, view: &View) -> Result<Option<CaptureTarget>, Refusal> {
        let mut target = CaptureTarget::default();
        if let Some(name) = &self.vip {
            let known = || view.vips.iter().map(|vip| vip.name.as_str());
            let vip = view.vips.iter().find(|vip| vip.name == *name);
            let vip = vip.ok_or_else(|| Refusal::unknown("VIP", name, known()))?;
            let Some(id) = vip.id else { return Ok(None) };
            target.vip = Some((id, vip.service.network));
        }
        if let Some(name) = &self.pool {
            let known = || view.pools.iter().map(|pool| pool.name.as_str());
            let pool = view.pools.iter().find(|pool| pool.name == *name);
            let pool = pool.ok_or_else(|| Refusal::unknown("pool", name, known()))?;
            let Some(index) = pool.index else { return Ok(None) };
            target.pool = Some(index);
            if let Some(name) = &self.backend {
                let known = || pool.backends.iter().map(|backend| backend.name.as_str());
                let backend = pool.backends.iter().find(|backend| backend.name == *name);
                let backend = backend.ok_or_else(|| Refusal::unknown_backend(&pool.name, name, known()))?;
                let Some(id) = backend.id else { return Ok(None) };
                target.member = Some(id);
            }
        }
        Ok(Some(target))
    }

    /// The same; none if one of them does not exist any more.
    fn resolved(&self, view: Option<&View>) -> Option<CaptureTarget> {
        view.and_then(|view| self.target(view).ok().flatten())
    }
}

fn invalid(line: impl Into<String>) -> view::Error {
    view::Error::invalid(line.into())
}

fn within<N: Copy + PartialOrd + std::fmt::Display>(field: &str, value: N, least: N, most: N) -> Answer<N> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(invalid(format!("{field}: {value} is not within {least}…{most}")))
}

/// A bit for each counter that has one of these outcomes and is one of these reasons; no outcomes or reasons: any.
fn parse_counters(outcomes: &[String], reasons: &[String]) -> Answer<u64> {
    const OUTCOMES: [Outcome; 4] = [Outcome::Forwarded, Outcome::Passed, Outcome::Answered, Outcome::Dropped];
    let bit = |counter: Counter| 1_u64 << counter as u32;
    let mut by_outcome = if outcomes.is_empty() { u64::MAX } else { 0 };
    for name in outcomes {
        let Some(outcome) = OUTCOMES.into_iter().find(|outcome| outcome.as_str() == name) else {
            let allowed = OUTCOMES.map(Outcome::as_str).join(", ");
            return Err(invalid(format!("outcome: unknown outcome {}; allowed: {allowed}", shown(name))));
        };
        by_outcome |=
            capturable().filter(|counter| counter.outcome() == outcome).map(bit).fold(0, |all, bit| all | bit);
    }
    let mut by_reason = if reasons.is_empty() { u64::MAX } else { 0 };
    for name in reasons {
        let Some(counter) = capturable().find(|counter| counter.name() == name) else {
            let allowed = capturable().map(Counter::name).collect::<Vec<_>>().join(", ");
            return Err(invalid(format!("reason: unknown reason {}; allowed: {allowed}", shown(name))));
        };
        if by_outcome & bit(counter) == 0 {
            let outcome = counter.outcome().as_str();
            return Err(invalid(format!("reason: {name} has the outcome {outcome}, which is not asked for")));
        }
        by_reason |= bit(counter);
    }
    Ok(by_outcome & by_reason)
}

/// Runs a capture until its reader is gone or its time is over.
pub(super) async fn run(
    captures: Arc<Captures>,
    orders: Orders,
    wanted: Wanted,
    interfaces: BTreeMap<u32, String>,
    reply: oneshot::Sender<Answer<CaptureMessages>>,
) {
    let (sender, messages) = mpsc::channel(WAITING);
    let views = captures.views.subscribe();
    let target = wanted.resolved(views.borrow().as_deref());
    let filter = CaptureFilter { target, ..wanted.filter.clone() };
    let (ends, sink) = (Instant::now() + filter.lasts, sink(sender.clone(), interfaces, views));
    let id = match begin(&orders, filter, sink).await {
        Ok(id) => id,
        Err(reason) => return drop(reply.send(Err(view::Error::failed(reason)))),
    };
    captures.add(Running { id, wanted, target }, &orders);
    let reason = match reply.send(Ok(messages)) {
        Ok(()) => until_its_end(&orders, id, &sender, ends).await,
        Err(_) => None,
    };
    captures.remove(id);
    orders.end_capture(id);
    if let Some(reason) = reason {
        let _ = sender.send(message(Some("ended"), &view::CaptureEnded { reason: reason.to_owned() })).await;
    }
}

/// Sends the counts of a capture until it ends; returns the reason, unless its reader is gone.
async fn until_its_end(
    orders: &Orders,
    id: CaptureId,
    sender: &mpsc::Sender<CaptureMessage>,
    ends: Instant,
) -> Option<&'static str> {
    let mut ticks = tokio::time::interval(COUNTS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let over = tokio::time::sleep_until(ends + LAST);
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = sender.closed() => return None,
            () = &mut over => {
                send_counts(orders, id, sender).await;
                return Some("its time is over");
            }
            _ = ticks.tick() => {
                if !send_counts(orders, id, sender).await {
                    return Some("the data plane was replaced");
                }
            }
        }
    }
}

/// Sends the counts, unless the reader is slow; returns whether the capture still runs.
async fn send_counts(orders: &Orders, id: CaptureId, sender: &mpsc::Sender<CaptureMessage>) -> bool {
    let Ok(Some(CaptureTotals { matched, limited, lost })) = orders.capture_totals(id).await else { return false };
    let counts = view::CaptureCounts { matched, limited, lost };
    let _ = sender.try_send(message(Some("counts"), &counts));
    true
}

async fn begin(orders: &Orders, filter: CaptureFilter, sink: Sink) -> Result<CaptureId, String> {
    let stopping = |_| "maglevd is stopping".to_owned();
    let program = match orders.capture_source().await.map_err(stopping)?? {
        Some(source) => {
            let loaded = tokio::task::spawn_blocking(move || source.load()).await;
            Some(loaded.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?)
        }
        None => None,
    };
    orders.capture(program, filter, sink).await.map_err(stopping)?
}

/// Turns packets into messages for a reader.
fn sink(sender: mpsc::Sender<CaptureMessage>, interfaces: BTreeMap<u32, String>, views: Views) -> Sink {
    Box::new(move |captured| {
        let Ok(place) = sender.try_reserve() else { return false };
        let view = views.borrow().clone();
        place.send(message(None, &packet(&captured, &interfaces, view.as_deref())));
        true
    })
}

fn message(name: Option<&'static str>, view: &impl Serialize) -> CaptureMessage {
    // Serializing cannot fail: all keys are text.
    CaptureMessage { name, data: serde_json::to_string(view).unwrap_or_default() }
}

/// A captured packet, with names in the place of numbers.
fn packet(captured: &Captured, interfaces: &BTreeMap<u32, String>, view: Option<&View>) -> view::CapturedPacket {
    let Captured { time, ingress, counter, decision, length, bytes, left } = captured;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let interface = interfaces.get(ingress).cloned().unwrap_or_else(|| format!("interface {ingress}"));
    let word = decision.map(|decision| decision.word);
    let vip = word.zip(view).and_then(|(word, view)| view.vip(word.vip()));
    let pool = word.zip(view).and_then(|(word, view)| view.pool(word.pool()));
    let backend = word.zip(view).and_then(|(word, view)| view.member(word.member()));
    let goes = decision.filter(|decision| !decision.word.member().is_nobody());
    view::CapturedPacket {
        unix_nanoseconds: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
        interface,
        outcome: counter.outcome().as_str().to_owned(),
        reason: counter.name().to_owned(),
        vip: vip.map(|vip| vip.name.to_string()),
        pool: pool.map(|pool| pool.name.to_string()),
        slot: decision.and_then(|decision| u32::try_from(decision.hash.slot().index()).ok()),
        backend: backend.map(|(_, backend)| backend.name.to_string()),
        choice: goes.map(|decision| decision.choice().name().to_owned()),
        length: *length,
        frame: view::to_hex(bytes),
        sent_length: left.as_ref().map(|(length, _)| *length),
        sent: left.as_ref().map(|(_, bytes)| view::to_hex(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(change: impl FnOnce(&mut view::NewCapture)) -> Answer<Wanted> {
        let mut wanted = view::NewCapture::default();
        change(&mut wanted);
        Wanted::parse(&wanted)
    }

    #[test]
    fn conditions_out_of_range_are_named() {
        type Row = (fn(&mut view::NewCapture), &'static str);
        let rows: [Row; 11] = [
            (|wanted| wanted.vip = Some("a b".into()), "vip: "),
            (
                |wanted| wanted.backend = Some("web1".into()),
                "backend: the name of its pool is missing; give `pool` too",
            ),
            (|wanted| wanted.port = Some(0), "port: 0 is not within 1…65535"),
            (|wanted| wanted.tcp_flags = Some("syn,rat".into()), "tcp_flags: unknown TCP flag rat; allowed: fin, syn"),
            (|wanted| wanted.one_in = 0, "one_in: 0 is not within 1…4294967295"),
            (|wanted| wanted.bytes = 63, "bytes: 63 is not within 64…16383"),
            (|wanted| wanted.rate = 1_000_001, "rate: 1000001 is not within 1…1000000"),
            (|wanted| wanted.seconds = 86_401, "seconds: 86401 is not within 1…86400"),
            (
                |wanted| wanted.outcomes = vec!["lost".into()],
                "outcome: unknown outcome lost; allowed: forwarded, passed",
            ),
            (
                |wanted| wanted.reasons = vec!["flow_hit".into()],
                "reason: unknown reason flow_hit; allowed: transmitted",
            ),
            (
                |wanted| (wanted.outcomes, wanted.reasons) = (vec!["passed".into()], vec!["too_big".into()]),
                "reason: too_big has the outcome dropped, which is not asked for",
            ),
        ];
        for (change, expected) in rows {
            let error = parse(change).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn outcomes_and_reasons_are_bits() {
        let counters = |outcomes: &[&str], reasons: &[&str]| {
            let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            parse(|wanted| (wanted.outcomes, wanted.reasons) = (names(outcomes), names(reasons)))
                .unwrap()
                .filter
                .counters
        };
        assert_eq!(counters(&[], &[]), u64::MAX);
        assert_eq!(counters(&["forwarded"], &[]), 0b11);
        assert_eq!(counters(&["dropped", "passed"], &["too_big"]), 1 << Counter::TooBig as u32);
        assert_eq!(counters(&[], &["transmitted", "redirected"]), 0b11);
    }
}
