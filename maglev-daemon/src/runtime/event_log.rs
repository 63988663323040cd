//! Events for operators: in the journal, and with the same sentences in the log. It must not know the readers, nor the causes
//! of events.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use maglev_api::view::{Fields, HealthState, Level, What};
use maglev_core::node::News;
use maglev_core::{announced, health, node_drain};
use maglev_model::node_drain::Stage;
use maglev_model::{Health, Refusal, Resolution};
use tracing::field::display;

use super::flood::{Flood, Kind};
use super::refreshed::Refreshed;
use crate::http::{Caller, Journal};

/// Up to so many prefixes at once have one log line each; the lines of more are at level debug.
const FEW_PREFIXES: usize = 16;

/// An event in the log, with its fields. A macro, since the level of a line is fixed when it is compiled.
macro_rules! log_line {
    ($level:ident, $what:expr) => {{
        let Fields { pool, backend, address, vip, prefix, uid, pid } = $what.fields();
        let (address, prefix) = (address.map(display), prefix.map(display));
        tracing::$level!(pool, backend, address, vip, prefix, uid, pid, "{}", $what);
    }};
}

/// The journal and the log.
#[derive(Debug)]
pub(super) struct EventLog {
    journal: Journal,
    flood: Flood,
}

impl EventLog {
    pub(super) const fn new(journal: Journal) -> Self {
        Self { journal, flood: Flood::starting() }
    }

    /// Records an event in the journal and in the log.
    pub(super) fn record(&self, what: What) {
        match what.level() {
            Level::Info => log_line!(info, what),
            Level::Warning => log_line!(warn, what),
            Level::Error => log_line!(error, what),
        }
        self.journal.record(what);
    }

    /// Records an event of a kind that may come by thousands: the log has only the first ones.
    fn record_many(&mut self, kind: Kind, what: What, now: Duration) {
        if self.flood.admits(kind, now) {
            return self.record(what);
        }
        log_line!(debug, what);
        self.journal.record(what);
    }

    /// When [`Self::pass`] has lines to write.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.flood.deadline()
    }

    /// Writes how many lines were held back, once no more come.
    pub(super) fn pass(&mut self, now: Duration) {
        self.flood.pass(now).into_iter().for_each(held);
    }

    /// Ends the rule of the start, by which all lines of a kind are one.
    pub(super) fn started(&mut self, now: Duration) {
        self.flood.started(now).into_iter().for_each(held);
    }

    /// Records the node's news.
    pub(super) fn news(&mut self, news: News, now: Duration) {
        match news {
            News::Health(news) => self.health(&news, now),
            News::Reach { pool, backend, address, lost } => self.journal.record(What::BackendReach {
                pool: pool.to_string(),
                backend: backend.to_string(),
                address,
                reachable: lost.is_none(),
                reason: lost,
            }),
            News::Vip { vip, conflict } => self.record(What::VipError { vip: vip.to_string(), reason: conflict }),
            News::Prefixes(news) => self.prefixes(news),
            News::Stage { stage, order, forwarded } => self.stage(stage, &order, forwarded),
            News::Serving => self.record(What::Node { stage: "serving".to_owned(), reason: None }),
            News::OutOfSync(Some(reason)) => {
                tracing::error!("out of sync: {reason}; retrying, at most every 30 s");
            }
            News::OutOfSync(None) => tracing::info!("in sync again"),
            News::TablesFollow(took) => {
                tracing::info!(microseconds = took.as_micros(), "tables updated after changes of health");
            }
        }
    }

    fn health(&mut self, news: &health::News, now: Duration) {
        match news {
            health::News::Health { pool, backend, health, reason } => {
                let kind = if *health == Health::Unhealthy { Kind::Unhealthy } else { Kind::Healthy };
                let what = What::BackendHealth {
                    pool: pool.to_string(),
                    backend: backend.to_string(),
                    health: HealthState::from(*health),
                    reason: reason.as_deref().map(str::to_owned),
                };
                self.record_many(kind, what, now);
            }
            health::News::Panic { pool, on, healthy, of } => {
                self.record(What::PoolPanic { pool: pool.to_string(), on: *on, healthy: *healthy, of: *of });
            }
            health::News::CommonFailure { on, healthy } => {
                self.record(What::CommonFailure { on: *on, healthy: *healthy });
            }
        }
    }

    /// Records announced and withdrawn prefixes. Many at once, as when a session ends, are one line of the log.
    fn prefixes(&self, news: Vec<announced::News>) {
        let gone = news.iter().filter(|news| news.withdrawn.is_some()).count();
        let counts = [("withdrawn", gone), ("announced", news.len() - gone)];
        let many = counts.map(|(_, count)| count > FEW_PREFIXES);
        for ((what, count), many) in counts.into_iter().zip(many) {
            if many {
                tracing::info!("{count} prefixes {what}");
            }
        }
        for announced::News { prefix, vips, withdrawn } in news {
            let is_many = many[usize::from(withdrawn.is_none())];
            let what = What::Prefix { prefix, announced: withdrawn.is_none(), vips, reason: withdrawn };
            if is_many {
                log_line!(debug, what);
                self.journal.record(what);
            } else {
                self.record(what);
            }
        }
    }

    fn stage(&self, stage: Stage, order: &node_drain::Order, forwarded: u64) {
        let node_drain::Order { since: _, reason, last_node } = order;
        self.record(What::Node { stage: stage.as_str().to_owned(), reason: reason.clone() });
        match stage {
            Stage::Marked if *last_node => {
                tracing::warn!(
                    "no other node announces this node's VIPs: they are without service while it is drained"
                );
            }
            Stage::Waiting | Stage::Drained => tracing::info!(forwarded, "packets forwarded since the drain began"),
            Stage::Marked | Stage::Leaving | Stage::Withdrawing => {}
        }
    }

    /// Logs the next hop of an address of backends or VIPs. The journal has an event for each backend instead.
    pub(super) fn next_hop(&mut self, address: IpAddr, resolution: &Resolution, now: Duration) {
        match resolution {
            Resolution::Resolved { .. } if self.flood.admits(Kind::Resolved, now) => {
                tracing::info!(%address, "next hop resolved");
            }
            Resolution::Resolved { .. } => tracing::debug!(%address, "next hop resolved"),
            Resolution::Unresolved(reason) if self.flood.admits(Kind::Unresolved, now) => {
                tracing::warn!(%address, "next hop unresolved: {reason}");
            }
            Resolution::Unresolved(reason) => {
                tracing::debug!(%address, "next hop unresolved: {reason}");
            }
        }
    }

    /// Records an operator's order: a success is an event with its author, a failure is logged as an error, and a refusal at level
    /// debug.
    pub(super) fn ordered(&self, order: &str, caller: Caller, outcome: &Result<(), Refusal>) {
        let Caller { uid, pid } = caller;
        match outcome {
            Ok(()) => {
                tracing::info!(uid, pid, "changed: {order}");
                self.journal.record(What::Changed { change: order.to_owned(), uid, pid });
            }
            Err(Refusal::Failed(reason)) => tracing::error!(uid, pid, "cannot {order}: {reason}"),
            Err(refusal) => tracing::debug!(uid, pid, "refused to {order}: {refusal}"),
        }
    }

    /// Records changes of interfaces: detached, attached again, or renamed.
    pub(super) fn interfaces(&self, before: &Refreshed, now: &Refreshed) {
        let owned = |(name, now): (&str, &str)| (name.to_owned(), now.to_owned());
        let names = |all: &Refreshed| all.renamed().map(owned).collect::<BTreeMap<_, _>>();
        let (names_before, names_now) = (names(before), names(now));
        for (interface, name) in names_now.iter().filter(|(name, now)| names_before.get(*name) != Some(*now)) {
            self.record(What::InterfaceName { interface: interface.clone(), renamed_to: Some(name.clone()) });
        }
        for interface in names_before.into_keys().filter(|name| !names_now.contains_key(name)) {
            self.record(What::InterfaceName { interface, renamed_to: None });
        }
        self.attached(&before.refresh.detached, &now.refresh.detached);
    }

    /// Records them in the journal alone: the data plane logs them, with the reason.
    fn attached(&self, before: &[String], now: &[String]) {
        let changed = |one: &[String], other: &[String], attached| -> Vec<What> {
            let gone = one.iter().filter(|name| !other.contains(name));
            gone.map(|name| What::Interface { interface: name.clone(), attached }).collect()
        };
        let all = changed(now, before, false).into_iter().chain(changed(before, now, true));
        all.for_each(|what| self.journal.record(what));
    }
}

/// Logs the number of lines that were not written.
fn held((kind, count): (Kind, u32)) {
    match kind {
        Kind::Resolved => tracing::info!(count, "next hops resolved; each at level debug"),
        Kind::Unresolved => {
            tracing::warn!(count, "next hops unresolved; each at level debug");
        }
        Kind::Healthy => tracing::info!(count, "more backends are healthy; each at level debug"),
        Kind::Unhealthy => tracing::warn!(count, "more backends are unhealthy; each at level debug"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use maglev_model::Name;
    use tracing::level_filters::LevelFilter;

    use super::*;

    /// Collects the written log lines.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that this writes to the log, without the time.
    fn lines(events: impl Fn()) -> Vec<String> {
        // A line that another test writes first, on a thread without this subscriber, could stay disabled.
        events();
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt().with_max_level(LevelFilter::DEBUG).with_ansi(false).without_time();
        let subscriber = subscriber.with_target(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, events);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| line.trim_start().to_owned()).collect()
    }

    #[test]
    fn a_line_has_the_sentence_and_the_fields_of_its_event() {
        let name = |text| Name::parse(text).unwrap();
        let unhealthy = |backend| health::News::Health {
            pool: name("web"),
            backend: name(backend),
            health: Health::Unhealthy,
            reason: Some("HTTP 503".into()),
        };
        let found = lines(|| {
            EventLog::new(Journal::start()).health(&unhealthy("held"), Duration::ZERO);
            let mut log = EventLog::new(Journal::start());
            log.started(Duration::ZERO);
            log.health(&unhealthy("web1"), Duration::ZERO);
            log.record(What::Prefix {
                prefix: "203.0.113.10/32".parse().unwrap(),
                announced: true,
                vips: vec!["www".to_owned()],
                reason: None,
            });
            log.record(What::BackendReach {
                pool: "web".to_owned(),
                backend: "web1".to_owned(),
                address: [10, 0, 1, 11].into(),
                reachable: true,
                reason: None,
            });
            log.record(What::Changed { change: "drain the node".to_owned(), uid: Some(7), pid: Some(4_711) });
            log.record(What::Stopping);
        });
        let expected = [
            r#"DEBUG backend held of pool web is unhealthy: HTTP 503 pool="web" backend="held""#,
            r#"WARN backend web1 of pool web is unhealthy: HTTP 503 pool="web" backend="web1""#,
            r#"INFO 203.0.113.10/32 is announced, for VIP www vip="www" prefix=203.0.113.10/32"#,
            r#"INFO backend web1 of pool web is reachable again pool="web" backend="web1" address=10.0.1.11"#,
            "INFO drain the node (by user 7) uid=7 pid=4711",
            "INFO maglevd is stopping",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_interface_that_loses_the_program_or_has_it_again_is_an_event() {
        let journal = Journal::start();
        let log = EventLog::new(journal.clone());
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(ToString::to_string).collect() };
        log.attached(&[], &names(&["eth0", "eth1"]));
        log.attached(&names(&["eth0", "eth1"]), &names(&["eth1"]));
        let texts: Vec<String> = journal.recent(None).events.into_iter().map(|event| event.text).collect();
        let [lost, other, back] = &texts[..] else { panic!("{texts:?}") };
        assert_eq!([lost, other], ["the XDP program is detached from eth0", "the XDP program is detached from eth1"]);
        assert_eq!(back, "the XDP program is attached to eth0 again");
    }

    #[test]
    fn many_prefixes_at_once_are_all_in_the_journal() {
        let journal = Journal::start();
        let prefix = |n: u8, withdrawn: Option<&str>| announced::News {
            prefix: format!("203.0.113.{n}/32").parse().unwrap(),
            vips: vec!["www".to_owned()],
            withdrawn: withdrawn.map(str::to_owned),
        };
        let news = (0..20).map(|n| prefix(n, (n > 0).then_some("no BGP session is established"))).collect();
        EventLog::new(journal.clone()).prefixes(news);
        let events = journal.recent(None).events;
        assert_eq!(events.len(), 20);
        assert_eq!(events[0].text, "203.0.113.0/32 is announced, for VIP www");
        assert_eq!(events[1].text, "203.0.113.1/32 is withdrawn, for VIP www: no BGP session is established");
    }
}
