//! What is pinned cannot be written, or is damaged: both are reported, and nothing else is treated as a state.

use std::sync::atomic::{AtomicU32, Ordering};

use maglev_testing::TempDir;
use maglev_testing::matrix::{Row, is_full};
use serde_json::json;

use super::*;

/// A pin folder of one test's own, with one set in it.
struct Folder(PathBuf);

const SET: &str = "v4-000000000000-1";

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(PathBuf::from(format!("/sys/fs/bpf/maglev-adoption-{}-{number}", std::process::id())))
    }

    fn hold(&self) -> Arc<Pins> {
        Arc::new(Pins::hold(&self.0).expect("tests of pins need root: run them as root"))
    }

    fn make_set(&self) {
        fs::create_dir(self.0.join(SET)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn left() -> Left<()> {
    let maps = json!({
        "layouts": {}, "object": "", "program": "", "hash_key": "", "flow_sets": 1, "cpus": 1,
        "limits": [1, 1, 1], "rates": [1, 1], "interfaces": ["eth0"]
    });
    let maps = serde_json::from_value(maps).unwrap();
    Left { release: "1.0.0".into(), since: Duration::ZERO, maps, slots: Slots::default(), planner: () }
}

fn keeper(pins: &Arc<Pins>, path: PathBuf) -> Keeper {
    Keeper {
        pins: Arc::clone(pins),
        set: SET.to_owned(),
        path,
        left: left(),
        written: None,
        unsaved: watch::Sender::default(),
        pending: None,
        last: None,
        parts: Parts::new(),
    }
}

fn saved(last_id: u16) -> Box<Saved> {
    serde_json::from_value(json!({ "outer": [null, null], "last_id": last_id, "vips": {}, "pools": [] })).unwrap()
}

#[test]
fn a_state_that_cannot_be_written_is_said_and_written_later() {
    let _row = Row::fault("C15", "a state that cannot be pinned: said until it is written again");
    let (directory, folder) = (TempDir::new(), Folder::new());
    let pins = folder.hold();
    let mut keeper = keeper(&pins, directory.path().join("maglev.state"));
    let unsaved = keeper.unsaved();
    keeper.keep(saved(1));
    let reason = unsaved.borrow().clone().unwrap();
    assert!(reason.starts_with("cannot pin to ") && reason.contains("No such file"), "{reason}");
    assert!(keeper.pause().is_some_and(|pause| pause <= AGAIN));
    keeper.retry();
    assert!(unsaved.borrow().is_some(), "it is not due yet");

    folder.make_set();
    keeper.pending.as_mut().unwrap().1 = Instant::now();
    keeper.retry();
    assert_eq!((unsaved.borrow().clone(), keeper.pause()), (None, None));
    assert!(read(&pins, SET).is_ok());

    // An outdated one is removed.
    fs::create_dir(folder.0.join(SET).join("STATE-new")).unwrap();
    keeper.keep(saved(2));
    assert!(unsaved.borrow().is_some());
    assert_eq!(read(&pins, SET).unwrap_err(), "its daemon saved no state");
}

#[test]
fn what_was_in_use_is_left_in_a_file_when_everything_is_detached() {
    let (directory, folder) = (TempDir::new(), Folder::new());
    let path = directory.path().join("maglev.state");
    assert_eq!(in_use(&path), InUse::new(), "there is none");
    folder.make_set_with(|pins| {
        let mut keeper = keeper(pins, path.clone());
        keeper.leave_file();
        assert!(!path.exists(), "nothing was saved yet");
        keeper.keep(Box::new(
            serde_json::from_value(json!({
                "outer": [null, null], "last_id": 1, "vips": {},
                "pools": [{
                    "name": "web", "index": 0, "always": false, "owners": [[100, 1]],
                    "members": [{ "name": "a", "address": "10.0.1.11", "id": 1, "next_hop": 7 }]
                }]
            }))
            .unwrap(),
        ));
        keeper.leave_file();
    });
    let known = in_use(&path);
    assert_eq!(known.values().map(std::collections::BTreeSet::len).sum::<usize>(), 1, "{known:?}");
    fs::write(&path, "not sealed").unwrap();
    assert_eq!(in_use(&path), InUse::new(), "what is damaged is as good as none");
}

impl Folder {
    fn make_set_with(&self, with: impl FnOnce(&Arc<Pins>)) {
        let pins = self.hold();
        self.make_set();
        with(&pins);
    }
}

#[test]
fn a_damaged_state_is_named_and_never_taken_for_one() {
    let rounds = if is_full() { 2_000 } else { 200 };
    let mut row = Row::fault("C15", &format!("{rounds} random corruptions of the pinned state"));
    let folder = Folder::new();
    folder.make_set_with(|pins| {
        keeper(pins, PathBuf::new()).keep(saved(77));
        let good = pins.state(SET).unwrap().unwrap();
        assert_eq!(read(pins, SET).unwrap().release, "1.0.0");
        let mut random = fastrand::Rng::with_seed(18);
        let mut reasons = std::collections::BTreeSet::new();
        for round in 0..rounds {
            let mut bad = good.clone();
            match random.u8(0..4) {
                0 => bad.truncate(random.usize(1..bad.len())),
                1 => bad.extend((0..random.usize(1..9)).map(|_| random.u8(..))),
                2 => bad = (0..random.usize(1..300)).map(|_| random.u8(..)).collect(),
                _ => {
                    let at = random.usize(..bad.len());
                    bad[at] ^= random.u8(1..);
                }
            }
            pins.save_state(SET, &bad).unwrap();
            match read(pins, SET) {
                Err(reason) => {
                    assert!(reason.starts_with("its daemon's state cannot be used: "), "{reason}");
                    reasons.insert(reason);
                }
                // Bytes behind the frame, or another number in the first line, change nothing.
                Ok(left) => assert_eq!((left.release.as_str(), left.planner == *saved(77)), ("1.0.0", true), "{round}"),
            }
        }
        assert!(reasons.len() >= 4, "{reasons:?}");
        row.says(format!("{} different reasons", reasons.len()));
    });
}
