//! What the operator sees: the view, its order and filter, the selected row, and what was opened. A pure function of keys. It must
//! not know the terminal and how a view is drawn.

use super::content::{self, Body, Listing};
use super::model::Model;
use super::reading::Needs;

/// The longest filter.
const FILTER: usize = 63;

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Esc,
    Tab,
    BackTab,
    Backspace,
}

/// A view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum View {
    /// VIPs with their traffic
    Vips,
    /// Pools with the traffic of their backends
    Pools,
    /// Packets lost, by reason
    Drops,
    /// BGP sessions
    Sessions,
    /// Recent events
    Events,
}

impl View {
    pub(super) const ALL: [Self; 5] = [Self::Vips, Self::Pools, Self::Drops, Self::Sessions, Self::Events];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Vips => "VIPs",
            Self::Pools => "Pools",
            Self::Drops => "Drops",
            Self::Sessions => "Sessions",
            Self::Events => "Events",
        }
    }
}

/// What is shown in a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// All of it.
    Whole,
    /// A VIP, with the backends of its pool.
    Vip(String),
    /// A pool, with its backends.
    Pool(String),
    /// A backend.
    Backend { pool: String, name: String },
    /// A counter's meaning and remedy.
    Counter(String),
    /// A BGP neighbor.
    Neighbor(String),
    /// An event.
    Event(u64),
}

/// The order of rows: by one column, in its usual direction or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sort {
    pub(super) column: usize,
    pub(super) reversed: bool,
}

/// A place, and how it is shown.
#[derive(Clone, Debug)]
pub(super) struct Level {
    pub(super) place: Place,
    /// The key of the selected row; the first one if there is no such row.
    pub(super) selected: Option<String>,
    pub(super) filter: String,
    /// `None`: the usual one of the listing.
    pub(super) sort: Option<Sort>,
    /// The first line of a text that is shown.
    pub(super) scroll: usize,
}

impl Level {
    const fn new(place: Place) -> Self {
        Self { place, selected: None, filter: String::new(), sort: None, scroll: 0 }
    }
}

/// The state of the screen.
#[derive(Clone, Debug)]
pub(super) struct Screen {
    pub(super) view: View,
    /// What was opened in each view, the whole first: never empty.
    levels: [Vec<Level>; 5],
    /// Whether keys are part of the filter.
    pub(super) typing: bool,
    pub(super) help: bool,
    pub(super) paused: bool,
}

impl Screen {
    pub(super) fn new(view: View) -> Self {
        let levels = View::ALL.map(|_| vec![Level::new(Place::Whole)]);
        Self { view, levels, typing: false, help: false, paused: false }
    }

    /// What is shown.
    pub(super) fn level(&self) -> &Level {
        let levels = &self.levels[self.view as usize];
        &levels[levels.len() - 1]
    }

    /// What is to be read for it.
    pub(super) fn needs(&self, model: &Model) -> Needs {
        let vip_pool = |name: &str| {
            let vip = model.vips.as_ref()?.iter().find(|vip| vip.name == name)?;
            Some(vip.pool.clone())
        };
        let pool = match &self.level().place {
            Place::Vip(name) => vip_pool(name),
            Place::Pool(pool) | Place::Backend { pool, .. } => Some(pool.clone()),
            Place::Whole | Place::Counter(_) | Place::Neighbor(_) | Place::Event(_) => None,
        };
        let (vips, neighbors) = (self.view == View::Vips, self.view == View::Sessions);
        Needs { vips, neighbors, pool, paused: self.paused }
    }

    /// Takes a key; a page has so many rows. Whether to go on: `false` is the end.
    pub(super) fn press(&mut self, key: Key, model: &Model, page: usize) -> bool {
        if self.help {
            self.help = false;
            return key != Key::Char('q');
        }
        if self.typing {
            self.type_filter(key);
            return true;
        }
        match key {
            Key::Char('q') => return false,
            Key::Char('?') => self.help = true,
            Key::Char('p') => self.paused = !self.paused,
            Key::Char('/') => self.typing = true,
            Key::Char('s') => self.sort(model, |sort, columns| Sort { column: (sort.column + 1) % columns, ..sort }),
            Key::Char('r') => self.sort(model, |sort, _| Sort { reversed: !sort.reversed, ..sort }),
            Key::Char(digit @ '1'..='5') => self.view = View::ALL[digit as usize - '1' as usize],
            Key::Tab => self.view = View::ALL[(self.view as usize + 1) % View::ALL.len()],
            Key::BackTab => self.view = View::ALL[(self.view as usize + View::ALL.len() - 1) % View::ALL.len()],
            Key::Enter => self.open(model),
            Key::Esc | Key::Backspace => self.close(),
            Key::Up | Key::Char('k') => self.step(model, |at| at.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.step(model, |at| at + 1),
            Key::PageUp => self.step(model, |at| at.saturating_sub(page)),
            Key::PageDown => self.step(model, |at| at.saturating_add(page)),
            Key::Home => self.step(model, |_| 0),
            Key::End => self.step(model, |_| usize::MAX),
            Key::Char(_) => {}
        }
        true
    }

    fn level_mut(&mut self) -> &mut Level {
        let levels = &mut self.levels[self.view as usize];
        let last = levels.len() - 1;
        &mut levels[last]
    }

    fn type_filter(&mut self, key: Key) {
        let filter = &mut self.level_mut().filter;
        match key {
            Key::Char(c) if filter.chars().count() < FILTER => filter.push(c),
            Key::Backspace => drop(filter.pop()),
            Key::Esc => {
                filter.clear();
                self.typing = false;
            }
            Key::Enter => self.typing = false,
            _ => {}
        }
    }

    fn listing(&self, model: &Model) -> Option<Listing> {
        match content::of(model, self).body {
            Body::Rows(listing) => Some(listing),
            Body::Text(_) => None,
        }
    }

    fn sort(&mut self, model: &Model, change: impl Fn(Sort, usize) -> Sort) {
        let Some(listing) = self.listing(model) else { return };
        let changed = change(listing.sort, listing.columns.len());
        // A trend is no order: the next column is one.
        let changed = if listing.columns[changed.column].is_trend() {
            Sort { column: (changed.column + 1) % listing.columns.len(), ..changed }
        } else {
            changed
        };
        self.level_mut().sort = Some(changed);
    }

    fn open(&mut self, model: &Model) {
        let Some(listing) = self.listing(model) else { return };
        let Some(row) = listing.rows.get(listing.selected) else { return };
        let (key, opens) = (row.key.clone(), row.opens.clone());
        self.level_mut().selected = Some(key);
        self.levels[self.view as usize].push(Level::new(opens));
    }

    /// Removes the filter, or goes back where there is none.
    fn close(&mut self) {
        if !self.level().filter.is_empty() {
            self.level_mut().filter.clear();
            return;
        }
        let levels = &mut self.levels[self.view as usize];
        if levels.len() > 1 {
            levels.pop();
        }
    }

    fn step(&mut self, model: &Model, to: impl Fn(usize) -> usize) {
        match content::of(model, self).body {
            Body::Rows(listing) => {
                let at = to(listing.selected).min(listing.rows.len().saturating_sub(1));
                self.level_mut().selected = listing.rows.get(at).map(|row| row.key.clone());
            }
            Body::Text(paragraphs) => {
                let at = to(self.level().scroll).min(paragraphs.len().saturating_sub(1));
                self.level_mut().scroll = at;
            }
        }
    }
}
