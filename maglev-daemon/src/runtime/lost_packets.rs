//! Packets that are lost at interfaces, as the kernel and the drivers count them. It must not know what programs count.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use maglev_api::view::InterfaceCounter;
use maglev_net::statistics;
use tokio::sync::oneshot;

use super::refreshed::Refreshed;

/// How old counters may be: to read them, drivers may have to ask their cards.
const AGE: Duration = Duration::from_secs(1);
/// How long a reader waits for new ones before it is given the last ones.
const PATIENCE: Duration = Duration::from_secs(1);

/// The counters. They are read on a thread of their own, one reading at a time: neither a reader nor the end of the daemon waits for a
/// driver that hangs.
#[derive(Clone, Debug, Default)]
pub(super) struct LostPackets(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    counters: Vec<InterfaceCounter>,
    read_at: Option<Instant>,
    /// Whether they are being read.
    reading: bool,
}

impl LostPackets {
    /// The counters of these interfaces; the last ones if new ones take too long.
    pub(super) async fn read(&self, interfaces: Interfaces) -> Vec<InterfaceCounter> {
        if let Some(finished) = self.begin(|| interfaces.read()) {
            // Without an answer, the last ones remain.
            let _ = tokio::time::timeout(PATIENCE, finished).await;
        }
        self.known().counters.clone()
    }

    /// Begins to read, unless that is under way, or was just done.
    fn begin(&self, read: impl FnOnce() -> Vec<InterfaceCounter> + Send + 'static) -> Option<oneshot::Receiver<()>> {
        let mut known = self.known();
        if known.reading || known.read_at.is_some_and(|at| at.elapsed() < AGE) {
            return None;
        }
        let (done, finished) = oneshot::channel();
        let to = self.clone();
        let work = move || {
            let counters = read();
            *to.known() = Known { counters, read_at: Some(Instant::now()), reading: false };
            // The reader may have given up.
            let _ = done.send(());
        };
        let begun = thread::Builder::new().name("interfaces".into()).spawn(work);
        known.reading = begun.is_ok();
        begun.is_ok().then_some(finished)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The interfaces of the data plane, and the members of those that are bonds, by their indices.
#[derive(Debug)]
pub(super) struct Interfaces(BTreeMap<u32, Names>);

/// The names of an interface.
#[derive(Debug)]
struct Names {
    /// In `maglev.yaml`, if it is there.
    shown: String,
    /// Now.
    present: String,
}

impl Interfaces {
    /// Those that exist.
    pub(super) fn from_refreshed(refreshed: &Refreshed) -> Self {
        let Refreshed { interfaces, links, .. } = refreshed;
        let is_ours = |index: u32| interfaces.iter().any(|interface| interface.index == index);
        let members = links.values().filter(|link| link.master.is_some_and(is_ours));
        let members = members.map(|link| (link.index, Names { shown: link.name.clone(), present: link.name.clone() }));
        let names = interfaces.iter().filter_map(|interface| {
            let present = links.get(&interface.index)?.name.clone();
            Some((interface.index, Names { shown: interface.name.clone(), present }))
        });
        Self(members.chain(names).collect())
    }

    /// Reads the counters. One that cannot be read is missing.
    fn read(self) -> Vec<InterfaceCounter> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let by_kernel = runtime
            .map_err(|error| error.to_string())
            .and_then(|runtime| runtime.block_on(statistics::lost_packets()).map_err(|error| error.to_string()));
        let by_kernel = by_kernel.unwrap_or_else(|error| {
            tracing::debug!(error, "no statistics of interfaces");
            BTreeMap::new()
        });
        self.counters(&by_kernel, maglev_dataplane::statistics::lost_packets)
    }

    fn counters(
        self,
        by_kernel: &BTreeMap<u32, statistics::LostPackets>,
        by_driver: impl Fn(&str) -> BTreeMap<String, u64>,
    ) -> Vec<InterfaceCounter> {
        let mut counters = Vec::new();
        for (index, Names { shown, present }) in self.0 {
            let counter = |source: &str, name: String, packets| InterfaceCounter {
                interface: shown.clone(),
                source: source.to_owned(),
                name,
                packets,
            };
            let of_kernel = by_kernel.get(&index).into_iter().flat_map(|lost| lost.named());
            counters.extend(of_kernel.map(|(name, packets)| counter("kernel", name.to_owned(), packets)));
            counters.extend(by_driver(&present).into_iter().map(|(name, packets)| counter("driver", name, packets)));
        }
        counters
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use maglev_dataplane::{Interface, Mode};
    use maglev_net::links::{Link, LinkState};

    use super::*;

    fn counter(packets: u64) -> InterfaceCounter {
        InterfaceCounter { interface: "eth0".into(), source: "driver".into(), name: "tx_full".into(), packets }
    }

    #[tokio::test]
    async fn one_reading_is_under_way_at_a_time_and_readers_have_the_last_counters_meanwhile() {
        let lost = LostPackets::default();
        lost.begin(|| vec![counter(1)]).unwrap().await.unwrap();
        assert_eq!(lost.known().counters, [counter(1)]);
        assert!(lost.begin(|| vec![counter(2)]).is_none(), "they were just read");

        lost.known().read_at = None;
        let (answer, driver) = mpsc::channel();
        let hanging = lost.begin(move || driver.recv().unwrap()).unwrap();
        assert!(lost.begin(|| vec![counter(3)]).is_none(), "a driver hangs");
        assert_eq!(lost.read(Interfaces(BTreeMap::new())).await, [counter(1)]);
        answer.send(vec![counter(4)]).unwrap();
        hanging.await.unwrap();
        assert_eq!(lost.known().counters, [counter(4)]);
    }

    #[test]
    fn an_interface_is_read_by_its_present_name_and_a_bond_with_its_members() {
        let link = |index, name: &str, master| Link {
            index,
            name: name.to_owned(),
            mac: None,
            mtu: 1_500,
            state: LinkState::Up,
            xdp: None,
            vlan: None,
            master,
        };
        let links = [link(7, "wan", None), link(8, "eth8", Some(7)), link(9, "other", None)];
        let (name, also) = ("bond0".to_owned(), Vec::new());
        let configured = Interface { name, index: 7, slot: 0, mode: Mode::Native, mac: [2; 6], also, mtu: 1_500 };
        let refreshed = Refreshed {
            interfaces: vec![configured],
            links: links.into_iter().map(|link| (link.index, link)).collect(),
            ..Refreshed::default()
        };
        let lost = statistics::LostPackets { receive_missed: 3, ..statistics::LostPackets::default() };
        let counters = Interfaces::from_refreshed(&refreshed)
            .counters(&[(7, lost), (9, lost)].into(), |name| [(format!("of_{name}"), 5)].into());
        let shown: Vec<_> = counters
            .iter()
            .filter(|counter| counter.packets > 0)
            .map(|counter| (&*counter.interface, &*counter.source, &*counter.name, counter.packets))
            .collect();
        let expected = [
            ("bond0", "kernel", "receive_missed", 3),
            ("bond0", "driver", "of_wan", 5),
            ("eth8", "driver", "of_eth8", 5),
        ];
        assert_eq!(shown, expected);
    }
}
