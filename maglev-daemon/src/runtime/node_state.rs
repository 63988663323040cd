//! The node-state file, beside `services.yaml`: an operator's orders for this node, apart from the services. It outlives the daemon
//! and the machine. It must not know how a drain works.

use std::path::{Path, PathBuf};

use maglev_core::node_drain::{Event, Order, Record};
use maglev_model::UnixTime;
use maglev_store::Content;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

const NAME: &str = "node-state.json";

/// The version of the file's form. Version 1 had the same content, without a version and a checksum.
const VERSION: u32 = 2;

/// The file's contents.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeState {
    drain: Drain,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    /// Seconds since 1970.
    since: u64,
    reason: Option<String>,
    last_node: bool,
    withdrawn: bool,
}

/// The path of the file.
pub(super) fn path(services: &Path) -> PathBuf {
    services.with_file_name(NAME)
}

/// Reads the file. A node whose file cannot be read is assumed to be drained, since serving by mistake is worse;
/// `maglev node undrain` corrects that.
pub(super) fn read(path: &Path, now: UnixTime) -> Option<Record> {
    let parsed = Content::find(path).and_then(|found| found.map(|content| parse(path, content)).transpose());
    Some(parsed.transpose()?.map_or_else(
        |reason| {
            tracing::error!("{reason}; assuming that the node is drained; if not: `maglev node undrain`");
            Record { order: Order { since: now, reason: Some(reason), last_node: false }, withdrawn: true }
        },
        |NodeState { drain: Drain { since, reason, last_node, withdrawn } }| Record {
            order: Order { since: UnixTime(since), reason, last_node },
            withdrawn,
        },
    ))
}

fn parse(path: &Path, Content { version, value }: Content) -> Result<NodeState, String> {
    let failed = |reason: String| format!("{} cannot be read: {reason}", path.display());
    if !(1..=VERSION).contains(&version) {
        return Err(failed(format!("it is of version {version}, of another release; this one reads 1 to {VERSION}")));
    }
    serde_json::from_value(value).map_err(|error| failed(error.to_string()))
}

/// Writes each received state in order, in its own task, and reports each write as [`Event::Saved`].
pub(super) async fn write(path: PathBuf, mut records: mpsc::UnboundedReceiver<Option<Record>>, done: Saved) {
    let mut failed = false;
    while let Some(record) = records.recv().await {
        let at = path.clone();
        let written = tokio::task::spawn_blocking(move || replace(&at, record.as_ref())).await;
        let outcome = written.unwrap_or_else(|error| Err(error.to_string()));
        match &outcome {
            Err(error) if !failed => {
                tracing::error!("{error}: the order for the node holds until the next start; saving is retried");
            }
            Ok(()) if failed => tracing::info!(file = %path.display(), "the node-state file is saved again"),
            Err(_) | Ok(()) => {}
        }
        failed = outcome.is_err();
        if done.send(Event::Saved(outcome)).is_err() {
            return;
        }
    }
}

/// The receiver of the reports.
pub(super) type Saved = mpsc::UnboundedSender<Event>;

fn replace(path: &Path, record: Option<&Record>) -> Result<(), String> {
    let Some(Record { order: Order { since: UnixTime(since), reason, last_node }, withdrawn }) = record else {
        return Content::forget(path);
    };
    let (since, last_node, withdrawn) = (*since, *last_node, *withdrawn);
    let state = NodeState { drain: Drain { since, reason: reason.clone(), last_node, withdrawn } };
    let value = serde_json::to_value(&state).map_err(|error| error.to_string())?;
    Content { version: VERSION, value }.keep(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use maglev_testing::TempDir;
    use maglev_testing::matrix::Row;

    const NOW: UnixTime = UnixTime(1_700_000_000);

    #[test]
    fn a_written_order_is_read_until_it_is_removed() {
        let directory = TempDir::new();
        let path = path(&directory.path().join("services.yaml"));
        assert_eq!(read(&path, NOW), None);
        let order = Order { since: UnixTime(1_600_000_000), reason: Some("disk \"sda\"".into()), last_node: true };
        for withdrawn in [false, true] {
            let record = Record { order: order.clone(), withdrawn };
            replace(&path, Some(&record)).unwrap();
            assert_eq!(read(&path, NOW), Some(record));
        }
        for _ in 0..2 {
            replace(&path, None).unwrap();
            assert_eq!(read(&path, NOW), None);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left beside it");
    }

    #[test]
    fn a_file_that_makes_no_sense_keeps_the_node_drained() {
        let directory = TempDir::new();
        let path = path(&directory.path().join("services.yaml"));
        for text in ["", "{", "{}", r#"{"drain":{"since":1}}"#, r#"{"drain":null}"#, "\u{0}\u{0}"] {
            fs::write(&path, text).unwrap();
            let Some(Record { order, withdrawn: true }) = read(&path, NOW) else { panic!("{text:?}") };
            let reason = order.reason.unwrap();
            assert!(order.since == NOW && reason.contains("node-state.json cannot be read: "), "{reason}");
        }
    }

    #[test]
    fn a_file_of_an_earlier_release_is_read_and_one_of_a_later_one_keeps_the_node_drained() {
        let directory = TempDir::new();
        let path = path(&directory.path().join("services.yaml"));
        let old = r#"{"drain": {"since": 5, "reason": "disk", "last_node": true, "withdrawn": false}}"#;
        fs::write(&path, old).unwrap();
        let order = Order { since: UnixTime(5), reason: Some("disk".into()), last_node: true };
        let record = Record { order, withdrawn: false };
        assert_eq!(read(&path, NOW), Some(record.clone()));
        replace(&path, Some(&record)).unwrap();
        assert_eq!(read(&path, NOW), Some(record));
        Content { version: 3, value: serde_json::json!({ "drain": [] }) }.keep(&path).unwrap();
        let reason = read(&path, NOW).unwrap().order.reason.unwrap();
        assert!(reason.ends_with("it is of version 3, of another release; this one reads 1 to 2"), "{reason}");
    }

    /// Damages a file in one of the ways in which disks and people do.
    fn damage(bytes: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let at = random.usize(..bytes.len());
        match random.u8(..5) {
            0 => bytes[at] ^= 1 << random.u8(..8),
            1 => bytes.truncate(at),
            2 => bytes[at..].fill(0),
            3 => drop(bytes.drain(at..(at + random.usize(1..64)).min(bytes.len()))),
            _ => {
                let more: Vec<u8> = (0..random.usize(1..64)).map(|_| random.u8(..)).collect();
                bytes.splice(at..at, more).for_each(drop);
            }
        }
        bytes
    }

    #[test]
    fn damage_never_puts_a_drained_node_into_service() {
        let mut row =
            Row::store("damage", "400 random damages of node-state.json: the order holds, or the node stays drained");
        let directory = TempDir::new();
        let path = path(&directory.path().join("services.yaml"));
        let order = Order { since: UnixTime(1_600_000_000), reason: Some("disk".into()), last_node: true };
        let record = Record { order, withdrawn: false };
        replace(&path, Some(&record)).unwrap();
        let (good, mut random) = (fs::read(&path).unwrap(), fastrand::Rng::with_seed(18));
        let copy = directory.path().join("node-state.json.copy");
        let (mut whole, mut assumed) = (0, 0);
        for n in 0..400 {
            fs::write(&path, damage(&good, &mut random)).unwrap();
            fs::write(&copy, if n % 2 == 0 { good.clone() } else { damage(&good, &mut random) }).unwrap();
            let found = read(&path, NOW).expect("an order");
            if found == record {
                whole += 1;
            } else {
                assert!(n % 2 == 1 && found.withdrawn, "one good file is enough: {found:?}");
                assert!(found.order.reason.unwrap().contains("node-state.json cannot be read: "));
                assumed += 1;
            }
        }
        row.says(format!("{whole} read, {assumed} assumed to be drained"));
    }

    #[test]
    fn a_failed_write_names_its_path() {
        let directory = TempDir::new();
        let path = directory.path().join("gone/node-state.json");
        let order = Order { since: NOW, reason: None, last_node: false };
        let error = replace(&path, Some(&Record { order, withdrawn: false })).unwrap_err();
        assert!(error.starts_with("cannot write ") && error.contains("/gone/"), "{error}");
    }
}

#[cfg(test)]
mod faults {
    use std::fs;

    use super::*;
    use maglev_model::parse_reason;
    use maglev_testing::TempDir;
    use maglev_testing::matrix::Row;

    #[test]
    fn every_reason_and_time_is_read_again() {
        let _row = Row::fault("C1", "the node's drain with the longest reason, of any characters, and the last time");
        let directory = TempDir::new();
        let path = path(&directory.path().join("services.yaml"));
        let reasons = [
            "\\\"".repeat(80),
            format!("x{}", "\u{2028}x".repeat(39)),
            "\u{10ffff}".repeat(40),
            "\u{feff}z".to_owned(),
        ];
        for reason in reasons {
            let order = Order { since: UnixTime::MAX, reason: Some(parse_reason(&reason).unwrap()), last_node: true };
            let record = Record { order, withdrawn: true };
            replace(&path, Some(&record)).unwrap();
            assert_eq!(read(&path, UnixTime(1)), Some(record));
        }
        // The order assumed for an unreadable file is written and read like any other.
        fs::write(&path, vec![b'{'; 1 << 20]).unwrap();
        let record = read(&path, UnixTime(1)).unwrap();
        replace(&path, Some(&record)).unwrap();
        assert_eq!(read(&path, UnixTime(2)), Some(record));
    }
}
