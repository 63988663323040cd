//! The history: every revision of the services, its author and its changes, in one file that only grows until old revisions are
//! dropped. It must not know `services.yaml`.
//!
//! The first record holds all services; each that follows, the changes. A reader holds the file open and knows where each record
//! lies: later saves and drops of revisions do not affect it.

pub(crate) mod frame;
mod record;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maglev_model::{Delta, Services};

use crate::atomic_file::{Kept, replace};
use frame::Bad;
use record::Line;
pub use record::{Author, MOST_BACKENDS, Revision};

/// The revisions that are kept at least, if they fit.
pub const KEPT: usize = 200;

/// The most bytes that the file has; beyond, old revisions are dropped even if fewer than [`KEPT`] are left.
pub(crate) const LARGEST: u64 = 64 << 20;

/// Where a revision lies.
#[derive(Clone, Debug)]
struct Entry {
    revision: Revision,
    whole: bool,
    offset: u64,
    /// Bytes of its frame.
    length: usize,
}

/// The last known state of `services.yaml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) revision: u64,
    /// The SHA-256 of its text.
    pub(crate) text: String,
}

/// The file, open for new revisions.
#[derive(Debug)]
pub(crate) struct History {
    path: PathBuf,
    file: Option<Arc<File>>,
    /// Bytes that are good.
    length: u64,
    entries: Arc<Vec<Entry>>,
    written: Option<Written>,
}

/// Revisions, and where to read them.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    file: Option<Arc<File>>,
    entries: Arc<Vec<Entry>>,
}

/// The damage of a history that is still in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The last revision before it, if there is one.
    pub(crate) after: Option<u64>,
    pub(crate) reason: &'static str,
    /// Where the damaged file was copied to.
    pub(crate) copy: PathBuf,
}

impl History {
    /// A history that has no file yet.
    pub(crate) fn empty(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, length: 0, entries: Arc::default(), written: None }
    }

    /// Opens a file; records after damage are cut off, after the whole was copied aside.
    ///
    /// # Errors
    /// It cannot be read, or is of another release.
    pub(crate) fn open(path: &Path) -> Result<(Self, Option<Damage>), String> {
        let failed = |error: io::Error| format!("cannot read {}: {error}", path.display());
        let mut file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Self::empty(path), None)),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let known = bytes.get(..frame::MAGIC.len()) == Some(frame::MAGIC);
        if !known && bytes.starts_with(frame::FAMILY) {
            return Err(format!(
                "{} is of another release, and this one cannot add to it; run that release, or move the file away",
                path.display()
            ));
        }
        let mut history = Self { file: Some(Arc::new(file)), ..Self::empty(path) };
        let end = if known { history.scan(&bytes) } else { Bad::Corrupt };
        if end == Bad::End {
            return Ok((history, None));
        }
        let damage = history.cut(&bytes, end)?;
        Ok((history, Some(damage)))
    }

    /// Reads where each record lies, up to the first that is damaged.
    fn scan(&mut self, bytes: &[u8]) -> Bad {
        let (mut at, mut entries) = (frame::MAGIC.len(), Vec::new());
        let end = loop {
            let payload = match frame::first(&bytes[at..]) {
                Ok(payload) => payload,
                Err(bad) => break bad,
            };
            let length = frame::length(payload);
            let text = frame::inflate(payload);
            let Ok((line, _)) = text.as_deref().map_err(String::clone).and_then(Line::read) else { break Bad::Corrupt };
            match line {
                Line::Written { revision, text } => self.written = Some(Written { revision, text }),
                // Changes to unknown services cannot be applied.
                Line::Revision { whole: false, .. } if entries.is_empty() => break Bad::Corrupt,
                Line::Revision { revision, whole, .. } => {
                    entries.push(Entry { revision: *revision, whole, offset: at as u64, length });
                }
            }
            at += length;
        };
        self.length = at as u64;
        self.entries = Arc::new(entries);
        end
    }

    /// Continues with the good part of a damaged file.
    fn cut(&mut self, bytes: &[u8], end: Bad) -> Result<Damage, String> {
        let copy = self.path.with_extension("history.damaged");
        // A full disk must not keep the node from starting: the rest cannot be read anyway.
        if let Err(error) = replace(&copy, bytes, Kept::Always) {
            tracing::warn!(error, "cannot keep a copy of the damaged history");
        }
        let after = self.entries.last().map(|entry| entry.revision.revision);
        if after.is_none() {
            (self.file, self.length) = (None, 0);
        } else if let Some(file) = &self.file {
            let failed = |error: io::Error| format!("cannot write {}: {error}", self.path.display());
            file.set_len(self.length).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        let reason = if end == Bad::Torn { "the file ends within a record" } else { "a record is damaged" };
        Ok(Damage { after, reason, copy })
    }

    /// The revisions, to be listed and read.
    pub(crate) fn reader(&self) -> Reader {
        Reader { file: self.file.clone(), entries: Arc::clone(&self.entries) }
    }

    pub(crate) const fn written(&self) -> Option<&Written> {
        self.written.as_ref()
    }

    /// Begins the file with all services as one revision.
    ///
    /// # Errors
    /// One line; there is no file then.
    pub(crate) fn begin(&mut self, revision: Revision, services: &Services) -> Result<(), String> {
        let frame = frame::encode(&Line::whole(&revision).payload(Some(services))?)?;
        let entry = Entry { revision, whole: true, offset: frame::MAGIC.len() as u64, length: frame.len() };
        self.replace(&[frame::MAGIC, &frame].concat(), vec![entry])
    }

    /// Adds revisions. Once this returns, they survive a power cut.
    ///
    /// # Errors
    /// One line; none of them is kept.
    pub(crate) fn append(&mut self, revisions: Vec<(Revision, Delta)>) -> Result<(), String> {
        let mut bytes = Vec::new();
        let mut entries = Vec::with_capacity(revisions.len());
        for (revision, delta) in revisions {
            let frame = frame::encode(&Line::delta(&revision, &delta.removed).payload(Some(&delta.set))?)?;
            let offset = self.length + bytes.len() as u64;
            entries.push(Entry { revision, whole: false, offset, length: frame.len() });
            bytes.extend(frame);
        }
        self.write(&bytes, true)?;
        Arc::make_mut(&mut self.entries).extend(entries);
        Ok(())
    }

    /// Records that `services.yaml` holds a revision. It need not survive a power cut: it is only lost together with
    /// changes that can be distinguished without it.
    pub(crate) fn note_written(&mut self, written: Written) {
        let Written { revision, text } = written.clone();
        let line = Line::Written { revision, text }.payload(None);
        match line.and_then(|payload| frame::encode(&payload)).and_then(|frame| self.write(&frame, false)) {
            Ok(()) => self.written = Some(written),
            Err(error) => tracing::warn!(error, "cannot note in the history that services.yaml was written"),
        }
    }

    /// Takes back the revisions from one on: they were not acknowledged.
    ///
    /// # Errors
    /// One line; they are kept.
    pub(crate) fn take_back(&mut self, from: u64) -> Result<(), String> {
        let entries = Arc::make_mut(&mut self.entries);
        let Some(first) = entries.iter().position(|entry| entry.revision.revision >= from) else { return Ok(()) };
        let (Some(file), offset) = (&self.file, entries[first].offset) else { return Ok(()) };
        let failed = |error: io::Error| format!("cannot write {}: {error}", self.path.display());
        file.set_len(offset).and_then(|()| file.sync_data()).map_err(failed)?;
        entries.truncate(first);
        self.length = offset;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], sync: bool) -> Result<(), String> {
        let Some(file) = &self.file else { return Err(format!("{} does not exist", self.path.display())) };
        let written = file.write_all_at(bytes, self.length).and_then(|()| if sync { file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            // Bytes beyond are not read as long as the next record overwrites them, and are cut off at the next start if none does.
            let _ = file.set_len(self.length);
            return Err(format!("cannot write {}: {error}", self.path.display()));
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Drops old revisions once there are twice as many as are kept, or too many bytes.
    ///
    /// # Errors
    /// One line; the file is as it was.
    pub(crate) fn compact(&mut self) -> Result<(), String> {
        if self.entries.len() <= 2 * KEPT && self.length <= LARGEST {
            return Ok(());
        }
        let (Some(file), Some(first)) = (self.file.clone(), self.first_kept()) else { return Ok(()) };
        let Some(oldest) = self.entries.get(first).map(|entry| entry.revision.clone()) else { return Ok(()) };
        let base = self.reader().services(oldest.revision)?;
        let frame = frame::encode(&Line::whole(&oldest).payload(Some(&base))?)?;
        let mut bytes = [frame::MAGIC, &frame].concat();
        let offset = frame::MAGIC.len() as u64;
        let mut entries = vec![Entry { revision: oldest, whole: true, offset, length: frame.len() }];
        for entry in &self.entries[first + 1..] {
            let offset = bytes.len();
            bytes.resize(offset + entry.length, 0);
            let failed = |error: io::Error| format!("cannot read {}: {error}", self.path.display());
            file.read_exact_at(&mut bytes[offset..], entry.offset).map_err(failed)?;
            entries.push(Entry { offset: offset as u64, ..entry.clone() });
        }
        self.replace(&bytes, entries)?;
        self.written.clone().into_iter().for_each(|written| self.note_written(written));
        Ok(())
    }

    /// The oldest revision that is kept: the one after whose changes half of the room is left.
    fn first_kept(&self) -> Option<usize> {
        let newest = self.entries.len().checked_sub(1)?;
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.length as u64;
            bytes <= LARGEST / 2
        };
        let kept = self.entries.iter().rev().take(KEPT - 1).take_while(fits).count();
        Some(newest.saturating_sub(kept))
    }

    fn replace(&mut self, bytes: &[u8], entries: Vec<Entry>) -> Result<(), String> {
        replace(&self.path, bytes, Kept::Always)?;
        let open = OpenOptions::new().read(true).write(true).open(&self.path);
        let file = open.map_err(|error| format!("cannot open {}: {error}", self.path.display()))?;
        (self.file, self.length) = (Some(Arc::new(file)), bytes.len() as u64);
        self.entries = Arc::new(entries);
        Ok(())
    }

    /// The file, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a file.
    pub(crate) const fn exists(&self) -> bool {
        self.file.is_some()
    }
}

impl Reader {
    /// The revisions, the oldest first.
    pub fn revisions(&self) -> impl DoubleEndedIterator<Item = &Revision> {
        self.entries.iter().map(|entry| &entry.revision)
    }

    /// The newest revision.
    pub fn newest(&self) -> Option<&Revision> {
        self.entries.last().map(|entry| &entry.revision)
    }

    /// The services as a revision had them.
    ///
    /// # Errors
    /// It is not kept, or cannot be read.
    pub fn services(&self, revision: u64) -> Result<Services, String> {
        let (Some(file), Some(at)) =
            (&self.file, self.entries.iter().position(|entry| entry.revision.revision == revision))
        else {
            return Err(self.unknown(revision));
        };
        let first = self.entries[..=at].iter().rposition(|entry| entry.whole).unwrap_or(0);
        let mut services = Services::default();
        for entry in &self.entries[first..=at] {
            let mut bytes = vec![0; entry.length];
            let failed = |error: io::Error| format!("cannot read revision {}: {error}", entry.revision.revision);
            file.read_exact_at(&mut bytes, entry.offset).map_err(failed)?;
            let payload = frame::first(&bytes);
            let text = frame::inflate(
                payload.map_err(|_| format!("revision {} is damaged on the disk", entry.revision.revision))?,
            )?;
            let (line, rest) = Line::read(&text)?;
            let (set, removed) = (record::services(rest)?, record::removed(&line)?);
            if entry.whole {
                services = set;
            } else {
                services.patch(Delta { set, removed, counts: entry.revision.counts() });
            }
        }
        Ok(services)
    }

    fn unknown(&self, revision: u64) -> String {
        match (self.entries.first(), self.entries.last()) {
            (Some(first), Some(last)) => {
                format!("unknown revision {revision}; kept: {} to {}", first.revision.revision, last.revision.revision)
            }
            _ => format!("unknown revision {revision}; none is kept"),
        }
    }
}
