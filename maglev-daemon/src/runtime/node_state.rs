//! The node-state file, beside `services.yaml`: an operator's orders for this node, apart from the services. It outlives the daemon
//! and the machine. It must not know how a drain works.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use maglev_core::node_drain::{Event, Order, Record};
use maglev_model::UnixTime;
use maglev_store::Kept;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

const NAME: &str = "node-state.json";

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
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        text => text.map_err(|error| error.to_string()),
    };
    let parsed = text.and_then(|text| serde_json::from_slice::<NodeState>(&text).map_err(|error| error.to_string()));
    Some(parsed.map_or_else(
        |error| {
            let reason = format!("{} cannot be read: {error}", path.display());
            tracing::error!("{reason}; assuming that the node is drained; if not: `maglev node undrain`");
            Record { order: Order { since: now, reason: Some(reason), last_node: false }, withdrawn: true }
        },
        |NodeState { drain: Drain { since, reason, last_node, withdrawn } }| Record {
            order: Order { since: UnixTime(since), reason, last_node },
            withdrawn,
        },
    ))
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
        return maglev_store::remove(path);
    };
    let (since, last_node, withdrawn) = (*since, *last_node, *withdrawn);
    let state = NodeState { drain: Drain { since, reason: reason.clone(), last_node, withdrawn } };
    let text = serde_json::to_string_pretty(&state).map_err(|error| error.to_string())?;
    maglev_store::replace(path, format!("{text}\n").as_bytes(), Kept::Always)
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_testing::TempDir;

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
