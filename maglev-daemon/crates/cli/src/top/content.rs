//! The content of the screen as rows and texts, from what was read: filtered, sorted, not yet cut to a width. It must not know
//! columns of a terminal and colors.

use super::model::Model;
use super::screen::{Level, Place, Screen, Sort, View};
use super::{backends, details, listings};

/// What is shown between the first and the last lines.
pub(super) struct Content {
    /// Lines above the body.
    pub(super) title: Vec<String>,
    pub(super) body: Body,
}

pub(super) enum Body {
    Rows(Listing),
    /// Paragraphs.
    Text(Vec<String>),
}

/// A table.
pub(super) struct Listing {
    pub(super) columns: &'static [Column],
    pub(super) rows: Vec<Row>,
    pub(super) sort: Sort,
    /// The position of the selected row.
    pub(super) selected: usize,
    /// The sentence in the place of rows.
    pub(super) empty: String,
}

/// A column of a table.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// The columns of a terminal that it takes at least and at most.
    pub(super) least: usize,
    pub(super) most: usize,
    /// Those with a higher one are left out first where there is no room.
    pub(super) rank: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Trend,
}

impl Column {
    pub(super) const fn text(name: &'static str, least: usize, most: usize, rank: u8) -> Self {
        Self { name, kind: Kind::Text, least, most, rank }
    }

    pub(super) const fn number(name: &'static str, least: usize, rank: u8) -> Self {
        Self { name, kind: Kind::Number, least, most: 20, rank }
    }

    pub(super) const fn trend(rank: u8) -> Self {
        Self { name: "trend", kind: Kind::Trend, least: 8, most: 40, rank }
    }

    pub(super) fn is_trend(&self) -> bool {
        self.kind == Kind::Trend
    }
}

/// A row of a table.
pub(super) struct Row {
    /// Names it as long as it exists.
    pub(super) key: String,
    /// One for each column.
    pub(super) cells: Vec<Cell>,
    pub(super) trend: Vec<f32>,
    /// What it opens.
    pub(super) opens: Place,
}

#[derive(Default)]
pub(super) struct Cell {
    pub(super) text: String,
    /// Rows are sorted by it, the largest first; by the text if there is none.
    order: Option<f64>,
    pub(super) tone: Tone,
}

/// The weight of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    Warning,
    Bad,
}

impl Cell {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    pub(super) fn number(text: impl Into<String>, order: f64) -> Self {
        Self { text: text.into(), order: Some(order), tone: Tone::Plain }
    }

    /// An unknown rate is the smallest.
    pub(super) fn rate(rate: Option<f64>) -> Self {
        Self::number(super::shown::rate(rate), rate.unwrap_or(-1.0))
    }

    pub(super) fn toned(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

/// What the screen shows of a model.
pub(super) fn of(model: &Model, screen: &Screen) -> Content {
    let level = screen.level();
    match &level.place {
        Place::Whole => {
            let listing = match screen.view {
                View::Vips => listings::vips(model),
                View::Pools => listings::pools(model),
                View::Drops => listings::drops(model),
                View::Sessions => listings::sessions(model),
                View::Events => listings::events(model),
            };
            Content { title: Vec::new(), body: Body::Rows(listing.shown(level)) }
        }
        Place::Vip(name) => {
            let Some(vip) = model.vips.iter().flatten().find(|vip| vip.name == *name) else {
                return gone(format!("unknown VIP {name}: it was removed"));
            };
            Content { title: details::vip(model, vip), body: backends::body(model, &vip.pool, level) }
        }
        Place::Pool(name) => Content { title: details::pool(model, name), body: backends::body(model, name, level) },
        Place::Backend { pool, name } => Content::text(details::backend(model, pool, name)),
        Place::Counter(name) => Content::text(details::counter(model, name)),
        Place::Neighbor(name) => Content::text(details::neighbor(model, name)),
        Place::Event(sequence) => Content::text(details::event(model, *sequence)),
    }
}

fn gone(sentence: String) -> Content {
    Content::text(vec![sentence])
}

impl Content {
    fn text(paragraphs: Vec<String>) -> Self {
        Self { title: Vec::new(), body: Body::Text(paragraphs) }
    }
}

impl Listing {
    /// All rows, sorted by this column.
    pub(super) fn new(columns: &'static [Column], by: usize, rows: Option<Vec<Row>>, empty: &str) -> Self {
        let empty = if rows.is_some() { empty } else { "reading …" }.to_owned();
        let sort = Sort { column: by, reversed: false };
        Self { columns, rows: rows.unwrap_or_default(), sort, selected: 0, empty }
    }

    /// With the level's filter, order and selection.
    pub(super) fn shown(mut self, level: &Level) -> Self {
        let wanted = level.filter.to_lowercase();
        if !wanted.is_empty() {
            let holds = |cell: &Cell| cell.text.to_lowercase().contains(&wanted);
            let before = self.rows.len();
            self.rows.retain(|row| row.cells.iter().any(holds));
            if before > 0 {
                self.empty = format!("none of {before} rows contains `{}`", level.filter);
            }
        }
        self.sort = level.sort.filter(|sort| sort.column < self.columns.len()).unwrap_or(self.sort);
        let Sort { column, reversed } = self.sort;
        self.rows.sort_by(|a, b| {
            let (one, other) = (&a.cells[column], &b.cells[column]);
            let order = match (one.order, other.order) {
                (Some(one), Some(other)) => other.total_cmp(&one),
                _ => one.text.cmp(&other.text),
            };
            if reversed { order.reverse() } else { order }
        });
        let selected = level.selected.as_ref().and_then(|key| self.rows.iter().position(|row| row.key == *key));
        self.selected = selected.unwrap_or(0);
        self
    }
}
