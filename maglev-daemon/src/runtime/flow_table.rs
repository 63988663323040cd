//! Whether the flow tables have room: their counters are read periodically, so that tables that are too small are reported. It must
//! not know flows.

use std::time::Duration;

use maglev_api::view::FlowTable;
use maglev_common::counters::Counter;
use maglev_dataplane::Snapshot;
use maglev_model::UnixTime;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::dataplane::Orders;

/// The interval between two reads of the counters.
const LOOK: Duration = Duration::from_secs(10);

/// The interval between two log lines about their growth.
const LOG: Duration = Duration::from_secs(60);

/// Reads the counters in its own task, which ends with the data plane.
pub(super) fn watch(dataplane: Orders, entries: u64) -> watch::Receiver<FlowTable> {
    let (sender, receiver) = watch::channel(FlowTable { entries, room: entries, ..FlowTable::default() });
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let started = ticks.tick().await;
        let mut news = News::default();
        loop {
            let Ok(snapshot) = dataplane.snapshot().await else { return };
            let found = Found::from_snapshot(&snapshot);
            sender.send_modify(|shown| {
                found.show(shown, maglev_api::now());
                // A reload may change it.
                shown.entries = snapshot.flow_entries();
                shown.room = room(shown.entries, snapshot.sent_by_cpu());
            });
            if let Some(Found { full, evicted }) = news.grown(found, started.elapsed()) {
                tracing::warn!(
                    flow_table_full = full,
                    flow_evicted = evicted,
                    "the flow tables have no room for all flows: connections may be dropped when backends change; raise \
                     flow_table.flows in maglev.yaml"
                );
            }
            ticks.tick().await;
        }
    });
    receiver
}

/// Flows and packets without room, since the counters began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    full: u64,
    evicted: u64,
}

/// The number of flows that fit with the spread of packets over CPUs: until the table of the busiest CPU is full.
fn room(entries: u64, sent_by_cpu: &[u64]) -> u64 {
    let (all, busiest) = (sent_by_cpu.iter().sum::<u64>(), sent_by_cpu.iter().max().copied().unwrap_or(0));
    let each = entries / sent_by_cpu.len().max(1) as u64;
    let room = u128::from(each) * u128::from(all) / u128::from(busiest.max(1));
    if busiest == 0 { entries } else { room as u64 }
}

/// The growth that is not logged yet.
#[derive(Debug, Default)]
struct News {
    logged: Found,
    at: Option<Duration>,
}

impl Found {
    fn from_snapshot(snapshot: &Snapshot) -> Self {
        let [full, evicted] = [Counter::FlowTableFull, Counter::FlowEvicted].map(|counter| snapshot.counter(counter));
        Self { full, evicted }
    }

    fn show(self, shown: &mut FlowTable, UnixTime(now): UnixTime) {
        let Self { full, evicted } = self;
        shown.flow_table_full = full;
        shown.flow_evicted = evicted;
        if self != Self::default() {
            shown.since.get_or_insert(now);
        }
    }
}

impl News {
    /// The growth of the counters since the last log line, if the next one is due.
    fn grown(&mut self, found: Found, now: Duration) -> Option<Found> {
        if found == self.logged || self.at.is_some_and(|at| now.saturating_sub(at) < LOG) {
            return None;
        }
        let logged = std::mem::replace(self, Self { logged: found, at: Some(now) }).logged;
        Some(Found { full: found.full.wrapping_sub(logged.full), evicted: found.evicted.wrapping_sub(logged.evicted) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn found(full: u64, evicted: u64) -> Found {
        Found { full, evicted }
    }

    #[test]
    fn growth_is_logged_at_once_and_then_once_a_minute() {
        let mut news = News::default();
        let rows = [
            (0, found(0, 0), None),
            (10, found(3, 0), Some(found(3, 0))),
            (20, found(5, 1), None),
            (60, found(9, 1), None),
            (70, found(9, 2), Some(found(6, 2))),
            (80, found(9, 2), None),
            (600, found(9, 2), None),
            (610, found(10, 2), Some(found(1, 0))),
        ];
        for (second, now, expected) in rows {
            assert_eq!(news.grown(now, Duration::from_secs(second)), expected, "at second {second}");
        }
    }

    #[test]
    fn there_is_as_much_room_as_the_busiest_cpu_leaves() {
        assert_eq!(room(1_000, &[]), 1_000);
        assert_eq!(room(1_000, &[0, 0]), 1_000, "no packet was sent yet");
        assert_eq!(room(1_000, &[7, 7]), 1_000);
        assert_eq!(room(1_000, &[9, 0]), 500, "one CPU meets all packets");
        assert_eq!(room(1_000, &[30, 10]), 666);
        assert_eq!(room(u64::MAX, &[u64::MAX / 4; 4]), u64::MAX / 4 * 4);
    }

    #[test]
    fn the_status_shows_the_first_time() {
        let mut shown = FlowTable { entries: 14, ..FlowTable::default() };
        found(0, 0).show(&mut shown, UnixTime(100));
        assert_eq!(shown, FlowTable { entries: 14, ..FlowTable::default() });
        found(0, 2).show(&mut shown, UnixTime(110));
        found(7, 3).show(&mut shown, UnixTime(120));
        assert_eq!(shown, FlowTable { entries: 14, room: 0, flow_table_full: 7, flow_evicted: 3, since: Some(110) });
    }
}
