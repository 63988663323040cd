//! The store of the services: `services.yaml`, which people read and edit, and the history beside it. A change is in the history before
//! it is acknowledged, and in `services.yaml` too; which of them is right after a crash, an edit or damage is decided here alone. It
//! must not know its callers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use maglev_config::{PoolTexts, Problem, Problems, bounds, decode_services};
use maglev_model::{Delta, Rules, Services};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::atomic_file::{Kept, replace};
use crate::file::{self, Stamp};
use crate::history::{Author, Damage, History, Reader, Revision, Written};
use crate::service_store::{NotKept, ServiceStore, Stored};

/// The start of the first line of `services.yaml`, before the number.
const REVISION_LINE: &str = "# revision ";

/// The services of a node as they are kept.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    /// The version of `services.yaml` that may be replaced.
    stamp: Option<Stamp>,
    services: Arc<Services>,
    revision: u64,
    /// Or why nothing can be added to it.
    history: Result<History, String>,
    shown: watch::Sender<Stored>,
    /// The texts of the pools in the file.
    texts: PoolTexts,
}

/// The services to store.
#[derive(Debug)]
pub struct Commit {
    /// The revision that it was made of.
    pub expected: u64,
    /// All services.
    pub services: Arc<Services>,
    /// The changes that led there, one after the other, with their authors.
    pub revisions: Vec<(Author, Delta)>,
    /// The edited `services.yaml` that was taken over, if one was.
    pub edited: Option<Edited>,
}

/// A version of `services.yaml` that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// Which it is; `None` if it is gone since.
    pub stamp: Option<Stamp>,
    /// Its text.
    pub text: String,
}

impl Edited {
    /// The revision that its first line names: the one that was kept when the edit began.
    pub fn base(&self) -> Option<u64> {
        revision_of(&self.text)
    }
}

impl FileStore {
    /// Opens the store, and decides which services are in use. Returns notes for the operator, a line each.
    ///
    /// # Errors
    /// All that is wrong with `services.yaml`, if the history does not know better; nothing was changed.
    pub fn open(path: &Path, rules: &Rules) -> Result<(Self, Vec<String>), Problems> {
        let (store, notes) = Self::decided(path, rules)?;
        store.shown.send_replace(store.load());
        Ok((store, notes))
    }

    fn decided(path: &Path, rules: &Rules) -> Result<(Self, Vec<String>), Problems> {
        let text = file::read_if_present(path);
        let stamp = Stamp::read(path);
        let found = match &text {
            Ok(None) => Ok(None),
            Ok(Some(text)) => decode_services(path, text, rules).map(Some),
            Err(problem) => Err(problem.clone().into()),
        };
        let text = text.ok().flatten().unwrap_or_default();
        let mut store = Self {
            path: path.to_owned(),
            stamp,
            services: Arc::default(),
            revision: revision_of(&text).unwrap_or(1),
            history: Ok(History::empty(&history_path(path))),
            shown: watch::Sender::default(),
            texts: PoolTexts::default(),
        };
        let (history, damage) = match History::open(&history_path(path)) {
            Ok(opened) => opened,
            Err(reason) => {
                store.services = Arc::new(found?.unwrap_or_default());
                store.history = Err(reason.clone());
                return Ok((store, vec![format!("services cannot be changed: {reason}")]));
            }
        };
        let mut notes: Vec<_> = damage.iter().map(ToString::to_string).collect();
        if !history.exists() {
            if damage.is_some() && matches!(found, Ok(None)) {
                return Err(Problem::new(path, "there is no such file, and its history is damaged").into());
            }
            store.services = Arc::new(found?.unwrap_or_default());
            return Ok((store, notes));
        }
        let last = history.reader().newest().map_or(1, |newest| newest.revision);
        store.revision = last.max(store.revision);
        let in_sync = history.written() == Some(&Written { revision: last, text: sum(&text) });
        store.history = Ok(history);
        match found {
            Ok(Some(services)) if in_sync => store.services = Arc::new(services),
            found => notes.extend(store.decide((found, &text), damage.is_some(), last, rules)?),
        }
        Ok((store, notes))
    }

    /// The services if `services.yaml` is not as it was written last.
    fn decide(
        &mut self,
        (found, text): (Result<Option<Services>, Problems>, &str),
        damaged: bool,
        last: u64,
        rules: &Rules,
    ) -> Result<Vec<String>, Problems> {
        let file = self.path.display().to_string();
        let kept = self.reader().services(last);
        let kept = match (kept, &found) {
            (Ok(kept), _) => kept,
            // Its own text is all that is left.
            (Err(reason), Ok(Some(services))) => {
                self.services = Arc::new(services.clone());
                return Ok(vec![format!("{file} is used as it is: {reason}")]);
            }
            (Err(reason), _) => return Err(Problem::new(&self.path, reason).into()),
        };
        let read = match found {
            Ok(Some(read)) if read == kept => {
                self.services = Arc::new(kept);
                self.note_written(last, text);
                return Ok(Vec::new());
            }
            Ok(Some(read)) => read,
            Ok(None) => {
                let notes = self.keep(kept, rules, &format!("{file} is missing")).map_err(|()| invalid(&self.path))?;
                return Ok(self.with_rewritten(notes));
            }
            Err(problems) => {
                self.stamp = None;
                if damaged && kept == Services::default() {
                    // Only the beginning of the history is left: the services in use were not empty.
                    return Err(problems);
                }
                let lines: Vec<_> = problems.lines().collect();
                return self.keep(kept, rules, &lines.join("; ")).map_err(|()| problems);
            }
        };
        let written = self.history.as_ref().ok().and_then(History::written).map_or(last, |written| written.revision);
        if written < last && !damaged {
            // The daemon ended between saving a change and replacing the file.
            let base = revision_of(text).filter(|base| (written..last).contains(base)).unwrap_or(written);
            if self.reader().services(base).as_ref() != Ok(&read) {
                self.stamp = None;
                let why = format!("{file} was edited without revisions {} to {last}", written + 1);
                return self.keep(kept, rules, &why).map_err(|()| invalid(&self.path));
            }
            let why = format!("{file} was one change behind");
            let notes = self.keep(kept, rules, &why).map_err(|()| invalid(&self.path))?;
            return Ok(self.with_rewritten(notes));
        }
        if let Err(refusal) = kept.guard(&read) {
            self.stamp = None;
            return self.keep(kept, rules, &format!("{file}: {refusal}")).map_err(|()| invalid(&self.path));
        }
        Ok(self.take_over(&kept, read, damaged))
    }

    /// Notes that the file holds a revision: the last daemon may have ended before it did.
    fn note_written(&mut self, revision: u64, text: &str) {
        if let Ok(history) = &mut self.history {
            history.note_written(Written { revision, text: sum(text) });
        }
    }

    /// Continues with the last revision.
    fn keep(&mut self, kept: Services, rules: &Rules, why: &str) -> Result<Vec<String>, ()> {
        if !kept.validate(rules).is_empty() {
            return Err(());
        }
        self.services = Arc::new(kept);
        let last = self.reader().newest().map_or(self.revision, |newest| newest.revision);
        Ok(vec![format!("{why}; continuing with revision {last}")])
    }

    /// Writes `services.yaml` anew. It is written with the next change if that fails now.
    fn with_rewritten(&mut self, mut notes: Vec<String>) -> Vec<String> {
        let text = with_revision(&self.texts.encode(&self.services), self.revision);
        match (replace(&self.path, text.as_bytes(), Kept::Always), &mut self.history) {
            (Ok(()), Ok(history)) => {
                history.note_written(Written { revision: self.revision, text: sum(&text) });
                self.stamp = Stamp::read(&self.path);
            }
            (Err(error), _) => notes.push(error),
            (Ok(()), Err(_)) => {}
        }
        notes
    }

    /// Takes over the edits that were made while no daemon ran.
    fn take_over(&mut self, before: &Services, read: Services, damaged: bool) -> Vec<String> {
        let how = if damaged { "found beside a damaged history" } else { "edited while maglevd was not running" };
        let author = Author { command: format!("services.yaml was {how}"), ..Author::default() };
        let delta = Delta::between(before, &read);
        self.services = Arc::new(read);
        let saved = match (&mut self.history, std::fs::read_to_string(&self.path)) {
            (Ok(history), Ok(text)) => {
                let revision = self.revision + 1;
                let new = Revision::new(revision, now(), author, &delta);
                history.append(vec![(new, delta)]).map(|()| {
                    self.revision = revision;
                    history.note_written(Written { revision, text: sum(&text) });
                })
            }
            (Err(reason), _) => Err(reason.clone()),
            (_, Err(error)) => Err(error.to_string()),
        };
        let taken = format!("{} was {how}: taken over as revision {}", self.path.display(), self.revision);
        vec![match saved {
            Ok(()) => taken,
            Err(error) => format!("{taken}; it is not in the history: {error}"),
        }]
    }

    /// The services that are kept.
    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// The number of the last revision; 1 before anything was changed.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The history as it is now.
    pub fn reader(&self) -> Reader {
        self.history.as_ref().map(History::reader).unwrap_or_default()
    }

    fn keep_commit(&mut self, commit: Commit, unix_milliseconds: u64) -> Result<u64, String> {
        let Commit { expected: _, services, revisions, edited } = commit;
        let known = edited.as_ref().map_or(self.stamp, |edited| edited.stamp);
        let found = Stamp::read(&self.path);
        if found.is_some() && found != known {
            return Err(format!("{} was edited since it was read: `maglev reload` first", self.path.display()));
        }
        let first = self.revision + 1;
        let last = self.revision + revisions.len() as u64;
        // An edited file with exactly these services keeps its comments. One without a revision is managed elsewhere and is not rewritten.
        let (text, is_written) = match edited {
            Some(Edited { text, .. }) if revisions.len() == 1 => match revision_of(&text) {
                Some(_) => (with_revision(&text, last), false),
                None => (text, true),
            },
            _ => (with_revision(&self.texts.encode(&services), last), false),
        };
        if text.len() as u64 > bounds::LARGEST {
            return Err(bounds::too_large_to_write(&self.path, text.len()));
        }
        let history = self.history.as_mut().map_err(|reason| reason.clone())?;
        if !history.exists() {
            let found = Author { command: "services.yaml as it was found".to_owned(), ..Author::default() };
            let all = Delta::between(&Services::default(), &self.services);
            history.begin(Revision::new(self.revision, unix_milliseconds, found, &all), &self.services)?;
        }
        let number = |(n, (author, delta))| (Revision::new(first + n, unix_milliseconds, author, &delta), delta);
        let mut new: Vec<_> = (0..).zip(revisions).map(number).collect();
        if let Some((newest, _)) = new.last_mut() {
            newest.digest = Some(format!("{:#}", maglev_model::digest::Digest::from_services(&services)));
        }
        history.append(new)?;
        if !is_written && let Err(error) = replace(&self.path, text.as_bytes(), Kept::Always) {
            history.take_back(first).map_err(|also| format!("{error}; {also}"))?;
            return Err(error);
        }
        history.note_written(Written { revision: last, text: sum(&text) });
        (self.stamp, self.services, self.revision) = (Stamp::read(&self.path), services, last);
        Ok(last)
    }
}

impl ServiceStore for FileStore {
    fn load(&self) -> Stored {
        Stored { services: Arc::clone(&self.services), revision: self.revision, history: self.reader() }
    }

    fn commit(&mut self, commit: Commit, unix_milliseconds: u64) -> Result<u64, NotKept> {
        if commit.expected != self.revision {
            return Err(NotKept::Conflict { revision: self.revision });
        }
        let kept = self.keep_commit(commit, unix_milliseconds).map_err(NotKept::Failed);
        self.shown.send_replace(self.load());
        kept
    }

    fn watch(&self) -> watch::Receiver<Stored> {
        self.shown.subscribe()
    }

    fn tidy(&mut self) {
        if let Ok(history) = &mut self.history
            && let Err(error) = history.compact()
        {
            tracing::warn!(error, file = %history.path().display(), "cannot drop old revisions");
        }
        self.shown.send_replace(self.load());
    }

    fn read_again(&mut self, stamp: Option<Stamp>) {
        self.stamp = stamp;
    }
}

/// The history of a services file: `services.history` beside `services.yaml`.
pub fn history_path(services: &Path) -> PathBuf {
    services.with_extension("history")
}

/// The revision that a text says it is based on.
pub fn revision_of(text: &str) -> Option<u64> {
    text.lines().next()?.strip_prefix(REVISION_LINE)?.trim().parse().ok()
}

/// A text with this revision in its first line.
pub fn with_revision(text: &str, revision: u64) -> String {
    let rest = match revision_of(text) {
        Some(_) => text.split_once('\n').map_or("", |(_, rest)| rest),
        None => text,
    };
    format!("{REVISION_LINE}{revision}\n{rest}")
}

fn sum(text: &str) -> String {
    let sum: [u8; 32] = Sha256::digest(text).into();
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn invalid(path: &Path) -> Problems {
    Problem::new(path, "its last revision is more than this node takes (limits and encap in maglev.yaml)").into()
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { after, reason, copy } = self;
        match after {
            Some(revision) => write!(f, "services.history: {reason}: continuing after revision {revision}")?,
            None => write!(f, "services.history: {reason}: no revision is left")?,
        }
        write!(f, "; the damaged file is kept as {}", copy.display())
    }
}
