//! Tests of the store of the services: stored services after changes, edits, crashes and damage.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maglev_model::{AdminState, Backend, Delta, Pool, Weight};

use super::*;
use crate::history::LARGEST;

/// A directory with a services file, and the store of it.
struct Site {
    directory: TempDir,
    store: FileStore,
    notes: Vec<String>,
}

fn author(command: &str) -> Author {
    Author { uid: Some(1_000), pid: Some(7), command: command.to_owned(), why: Some("because".to_owned()) }
}

/// Services with one pool of this many backends, the last of this weight.
fn services(backends: u16, weight: u16) -> Services {
    let name = |text: String| Name::parse(&text).unwrap();
    let mut pool = Pool::new(name("web".into()));
    for n in 1..=backends {
        let [high, low] = n.to_be_bytes();
        let (address, state) = ([10, 0, high, low].into(), AdminState::Active);
        let weight = if n == backends { Weight(weight) } else { Weight::DEFAULT };
        pool.backends
            .insert(name(format!("b{n}")), Backend { name: name(format!("b{n}")), address, weight, state, mtu: None });
    }
    let mut services = Services::default();
    services.pools.insert(pool.name.clone(), pool.into());
    services
}

impl Site {
    fn new() -> Self {
        let directory = TempDir::new();
        let (store, notes) = FileStore::open(&directory.path().join("services.yaml"), &rules()).unwrap();
        assert_eq!(notes, [""; 0]);
        Self { directory, store, notes }
    }

    fn yaml(&self) -> PathBuf {
        self.directory.path().join("services.yaml")
    }

    fn history(&self) -> PathBuf {
        history_path(&self.yaml())
    }

    fn commit(&mut self, next: Services, command: &str) -> Result<u64, String> {
        let delta = Delta::between(self.store.services(), &next);
        self.commit_all(next, vec![(author(command), delta)])
    }

    /// A commit that expects this revision.
    fn commit_to(&mut self, expected: u64, next: Services) -> Result<u64, NotKept> {
        let revisions = vec![(author("a weight"), Delta::between(self.store.services(), &next))];
        self.store.commit(Commit { expected, services: Arc::new(next), revisions, edited: None }, 1_700_000_000_000)
    }

    fn commit_all(&mut self, next: Services, revisions: Vec<(Author, Delta)>) -> Result<u64, String> {
        let commit = Commit { expected: self.store.revision(), services: Arc::new(next), revisions, edited: None };
        self.store.commit(commit, 1_700_000_000_000).map_err(|why| why.to_string())
    }

    /// Weights 1 to `last`, a revision each.
    fn weights(&mut self, last: u16) {
        for weight in 1..=last {
            self.commit(services(3, weight), &format!("weight {weight}")).unwrap();
        }
    }

    /// Another daemon starts.
    fn restart(self) -> Self {
        let Self { directory, store, .. } = self;
        drop(store);
        let (store, notes) = FileStore::open(&directory.path().join("services.yaml"), &rules()).unwrap();
        Self { directory, store, notes }
    }

    fn at(&self, revision: u64) -> Services {
        self.store.reader().services(revision).unwrap()
    }
}

#[test]
fn every_revision_is_read_as_it_was() {
    let _row = Row::store("kept", "every revision is read as it was");
    let mut site = Site::new();
    assert_eq!((site.store.revision(), site.store.reader().revisions().count()), (1, 0));
    site.weights(5);
    let site = site.restart();
    assert_eq!((site.notes.as_slice(), site.store.revision()), (&[] as &[String], 6));
    assert_eq!(site.at(1), Services::default());
    (1..=5_u16).for_each(|weight| assert_eq!(site.at(u64::from(weight) + 1), services(3, weight)));
    let reader = site.store.reader();
    let newest = reader.newest().unwrap();
    assert_eq!(newest.author, author("weight 5"));
    assert_eq!(
        (newest.pools.as_slice(), newest.backends.as_slice()),
        (&["web".to_owned()][..], &["web/b3".to_owned()][..])
    );
    assert_eq!(newest.counts().backends.changed, 1);
    assert_eq!(reader.services(7).unwrap_err(), "unknown revision 7; kept: 1 to 6");
    assert!(fs::read_to_string(site.yaml()).unwrap().starts_with("# revision 6\n"));
}

#[test]
fn a_batch_is_kept_whole_with_a_revision_for_each_change() {
    let _row = Row::store("kept", "a batch has a revision for each change");
    let mut site = Site::new();
    let (one, two) = (services(3, 1), services(3, 2));
    let deltas = [Delta::between(&Services::default(), &one), Delta::between(&one, &two)];
    let batch = deltas.into_iter().zip(["first", "second"]).map(|(delta, command)| (author(command), delta)).collect();
    assert_eq!(site.commit_all(two.clone(), batch), Ok(3));
    let site = site.restart();
    assert_eq!([site.at(2), site.at(3)], [one, two]);
    let commands: Vec<_> = site.store.reader().revisions().map(|found| found.author.command.clone()).collect();
    assert_eq!(commands, ["services.yaml as it was found", "first", "second"]);
}

#[test]
fn the_oldest_revisions_are_dropped_and_a_reader_keeps_what_it_opened() {
    let _row = Row::store("kept", "700 revisions: the oldest are dropped");
    let mut site = Site::new();
    for weight in 1..=400_u16 {
        site.commit(services(2, weight), "weight").unwrap();
        site.store.tidy();
    }
    let before = site.store.reader();
    assert_eq!(before.revisions().next().unwrap().revision, 202, "twice as many were kept, and half dropped at once");
    for weight in 401..=700_u16 {
        site.commit(services(2, weight), "weight").unwrap();
        site.store.tidy();
    }
    assert_eq!(before.services(202).unwrap(), services(2, 201), "it is not in the file any more");
    assert!(site.store.reader().services(202).unwrap_err().starts_with("unknown revision 202; kept: "));
    let site = site.restart();
    assert_eq!((site.notes.len(), site.store.revision()), (0, 701));
    assert!(site.store.reader().revisions().count() >= KEPT);
    assert_eq!(site.at(600), services(2, 599));
    assert!(fs::metadata(site.history()).unwrap().len() < LARGEST);
}

#[test]
fn an_edit_that_was_not_read_is_not_overwritten() {
    let _row = Row::store("edit", "an edit that was not read is not overwritten");
    let mut site = Site::new();
    site.weights(1);
    fs::write(site.yaml(), "pools: []\nvips: [] # edited\n").unwrap();
    let refused = site.commit(services(3, 2), "weight 2").unwrap_err();
    assert!(refused.contains("services.yaml was edited") && refused.contains("maglev reload"), "{refused}");
    assert!(fs::read_to_string(site.yaml()).unwrap().contains("edited"));
    assert_eq!(site.store.reader().newest().unwrap().revision, 2, "and nothing was kept of it");

    site.store.read_again(Stamp::read(&site.yaml()));
    site.commit(services(3, 2), "weight 2").unwrap();
    fs::remove_file(site.yaml()).unwrap();
    assert_eq!(site.commit(services(3, 3), "weight 3"), Ok(4));
}

#[test]
fn an_edit_that_is_taken_over_keeps_its_comments_and_is_a_revision() {
    let _row = Row::store("edit", "an edit is a revision and keeps its comments");
    let mut site = Site::new();
    site.weights(2);
    let text = fs::read_to_string(site.yaml()).unwrap().replace("weight: 2", "weight: 9") + "# by hand\n";
    fs::write(site.yaml(), &text).unwrap();
    let next = services(3, 9);
    let revisions = vec![(author("reload services.yaml"), Delta::between(site.store.services(), &next))];
    let edited = Some(Edited { stamp: Stamp::read(&site.yaml()), text: text.clone() });
    let expected = site.store.revision();
    assert_eq!(site.store.commit(Commit { expected, services: Arc::new(next), revisions, edited }, 1), Ok(4));
    assert_eq!(fs::read_to_string(site.yaml()).unwrap(), text.replace("# revision 3", "# revision 4"));
    let site = site.restart();
    assert_eq!((site.notes.len(), site.at(4)), (0, services(3, 9)));
}

#[test]
fn an_edit_while_no_daemon_ran_is_a_revision_unless_it_removes_most() {
    let _row = Row::store("edit", "an edit while no daemon ran");
    let mut site = Site::new();
    site.weights(2);
    let text = fs::read_to_string(site.yaml()).unwrap().replace("weight: 2", "weight: 9");
    fs::write(site.yaml(), &text).unwrap();
    let site = site.restart();
    assert_eq!((&**site.store.services(), site.store.revision()), (&services(3, 9), 4));
    assert!(
        site.notes[0].ends_with("edited while maglevd was not running: taken over as revision 4"),
        "{:?}",
        site.notes
    );
    assert_eq!(site.store.reader().newest().unwrap().author.uid, None);

    fs::write(site.yaml(), "pools: [{ name: web, backends: [] }]\nvips: []\n").unwrap();
    let mut site = site.restart();
    assert_eq!(**site.store.services(), services(3, 9));
    assert!(
        site.notes[0].ends_with("continuing with revision 4") && site.notes[0].contains("pool web"),
        "{:?}",
        site.notes
    );
    assert!(site.commit(services(3, 8), "weight 8").unwrap_err().contains("maglev reload"));
}

/// Where each frame of a history begins, and where the last ends.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut all = vec!["maglev history 1\n".len()];
    while let Some(length) = bytes[all[all.len() - 1]..].first_chunk::<4>() {
        all.push(all[all.len() - 1] + 12 + u32::from_le_bytes(*length) as usize);
    }
    all
}

#[test]
fn a_change_that_was_saved_is_there_even_if_the_file_was_not_replaced() {
    let _row = Row::store("crash", "between the history and services.yaml");
    let mut site = Site::new();
    site.weights(2);
    let old = fs::read(site.yaml()).unwrap();
    site.weights(3);
    let bytes = fs::read(site.history()).unwrap();
    let frames = frames(&bytes);
    // Cut off: that `services.yaml` was replaced by the last revision.
    fs::write(site.history(), &bytes[..frames[frames.len() - 2]]).unwrap();
    fs::write(site.yaml(), &old).unwrap();
    let site = site.restart();
    assert_eq!((&**site.store.services(), site.store.revision()), (&services(3, 3), 6), "{:?}", site.notes);
    let written = fs::read_to_string(site.yaml()).unwrap();
    assert!(written.starts_with("# revision 6\n") && written.contains("weight: 3"), "{written}");
    fs::remove_file(site.yaml()).unwrap();
    let mut site = site.restart();
    assert!(site.notes[0].ends_with("services.yaml is missing; continuing with revision 6"), "{:?}", site.notes);
    assert_eq!(fs::read_to_string(site.yaml()).unwrap(), written);
    site.commit(services(3, 4), "weight 4").unwrap();

    // Put back, by contrast, by hand.
    fs::write(site.yaml(), &old).unwrap();
    let site = site.restart();
    assert_eq!((&**site.store.services(), site.store.revision()), (&services(3, 2), 8), "{:?}", site.notes);
}

/// Cuts the last frame off a history: that `services.yaml` was replaced.
fn forget_last(history: &Path) {
    let bytes = fs::read(history).unwrap();
    let frames = frames(&bytes);
    fs::write(history, &bytes[..frames[frames.len() - 2]]).unwrap();
}

#[test]
fn daemons_that_are_killed_one_after_the_other_leave_a_change_that_is_no_edit() {
    let _row = Row::store("crash", "after services.yaml was replaced, and the next time before");
    for is_noted in [true, false] {
        let mut site = Site::new();
        site.weights(2);
        let kept = fs::read(site.history()).unwrap();
        // The first one is killed once the file was replaced, before that is noted: the next one notes it, if it can.
        forget_last(&site.history());
        site = site.restart();
        assert_eq!((site.notes.len(), fs::read(site.history()).unwrap() == kept), (0, true));
        let old = fs::read(site.yaml()).unwrap();
        site.commit(services(3, 7), "weight 7").unwrap();
        // The second one is killed before the file is replaced.
        forget_last(&site.history());
        fs::write(site.yaml(), &old).unwrap();
        if !is_noted {
            let bytes = fs::read(site.history()).unwrap();
            let all = frames(&bytes);
            let [noted, next] = [all[all.len() - 3], all[all.len() - 2]];
            fs::write(site.history(), [&bytes[..noted], &bytes[next..]].concat()).unwrap();
        }
        let site = site.restart();
        assert_eq!((&**site.store.services(), site.store.revision()), (&services(3, 7), 4), "{:?}", site.notes);
        let note = "services.yaml was one change behind; continuing with revision 4";
        assert!(site.notes[0].ends_with(note), "{:?}", site.notes);
        assert!(fs::read_to_string(site.yaml()).unwrap().starts_with("# revision 4\n"));
    }
}

#[test]
fn a_change_that_cannot_be_saved_is_not_in_the_history() {
    let _row = Row::store("full", "a change that cannot be saved is not in the history");
    let mut site = Site::new();
    site.weights(2);
    let aside = site.directory.path().join(".services.yaml.new");
    fs::create_dir(&aside).unwrap();
    assert!(site.commit(services(3, 3), "weight 3").unwrap_err().starts_with("cannot write "));
    assert_eq!((site.store.revision(), site.store.reader().newest().unwrap().revision), (3, 3));
    fs::remove_dir(&aside).unwrap();
    assert_eq!(site.commit(services(3, 4), "weight 4"), Ok(4));
    let site = site.restart();
    assert_eq!((site.notes.len(), site.at(4)), (0, services(3, 4)));
}

#[test]
fn a_history_of_another_release_is_left_alone() {
    let _row = Row::store("release", "a history of another release is left alone");
    let mut site = Site::new();
    site.weights(2);
    for foreign in ["maglev history 2\nsomething", ""] {
        if foreign.is_empty() {
            fs::remove_file(site.history()).unwrap();
            fs::create_dir(site.history()).unwrap();
        } else {
            fs::write(site.history(), foreign).unwrap();
        }
        site = site.restart();
        assert_eq!(**site.store.services(), services(3, 2));
        assert!(site.notes[0].starts_with("services cannot be changed: "), "{:?}", site.notes);
        let refused = site.commit(services(3, 3), "weight 3").unwrap_err();
        assert!(refused.contains("services.history"), "{refused}");
        assert!(fs::read_to_string(site.yaml()).unwrap().starts_with("# revision 3\n"), "nothing changed");
    }
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
        _ => bytes.splice(at..at, (0..random.usize(1..64)).map(|_| random.u8(..)).collect::<Vec<_>>()).for_each(drop),
    }
    bytes
}

#[test]
fn damage_never_empties_the_table() {
    let mut row =
        Row::store("damage", "1,000 random damages of services.yaml and services.history: never an empty table");
    let mut site = Site::new();
    site.weights(6);
    let last = services(3, 6);
    let [yaml, history] = [site.yaml(), site.history()].map(|path| fs::read(path).unwrap());
    let (mut counts, mut random) = ([0; 4], fastrand::Rng::with_seed(15));
    for n in 0..1_000 {
        let (of_yaml, of_history) = [(true, false), (false, true), (true, true)][n % 3];
        fs::write(site.yaml(), if of_yaml { damage(&yaml, &mut random) } else { yaml.clone() }).unwrap();
        fs::write(site.history(), if of_history { damage(&history, &mut random) } else { history.clone() }).unwrap();
        let opened = FileStore::open(&site.yaml(), &rules());
        match opened {
            Err(problems) => {
                assert!(of_yaml && of_history, "one good file is enough: {problems}");
                counts[0] += 1;
            }
            Ok((store, notes)) => {
                assert!(store.services().backend_count() > 0, "{notes:?}");
                let kept = store.reader().newest().map(|newest| newest.revision);
                if !of_yaml {
                    assert_eq!(**store.services(), last, "{notes:?}");
                    counts[1] += 1;
                } else if let Some(named) = notes.iter().find(|note| note.contains("continuing with revision")) {
                    assert_eq!(**store.services(), store.reader().services(kept.unwrap()).unwrap(), "{named}");
                    counts[2] += 1;
                } else {
                    // It is still a services file, and its content is reported; or only a comment was damaged.
                    assert!(!notes.is_empty() || **store.services() == last || kept.is_none(), "{notes:?}");
                    counts[3] += 1;
                }
            }
        }
    }
    let [neither, whole, named, read] = counts;
    row.says(format!(
        "{whole} unharmed by the history, {named} at the last good revision, {read} read as edited, {neither} refused"
    ));
}

#[test]
fn a_commit_to_another_revision_than_the_last_is_refused_and_those_that_follow_see_each() {
    let _row = Row::store("conflict", "a commit to another revision than the last is refused");
    let mut site = Site::new();
    let watch = site.store.watch();
    assert_eq!(watch.borrow().revision, 1);
    assert_eq!(site.commit_to(1, services(3, 1)), Ok(2));
    let files = |site: &Site| [fs::read(site.yaml()).unwrap(), fs::read(site.history()).unwrap()];
    let before = files(&site);
    for expected in [0, 1, 3, u64::MAX] {
        assert_eq!(site.commit_to(expected, services(3, 2)), Err(NotKept::Conflict { revision: 2 }));
    }
    let Stored { services: kept, revision, .. } = site.store.load();
    assert_eq!((kept, revision), (Arc::new(services(3, 1)), 2));
    assert_eq!(files(&site), before, "nothing changed");
    assert_eq!(site.commit_to(2, services(3, 2)), Ok(3));
    assert_eq!(watch.borrow().revision, 3);
    assert_eq!(watch.borrow().history.services(3), Ok(services(3, 2)));
    let restarted = site.restart();
    assert_eq!(restarted.store.watch().borrow().revision, 3);
}
