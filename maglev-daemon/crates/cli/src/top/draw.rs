//! A frame: the content of the screen in the columns and lines of a terminal of any size. It must not know the terminal and the
//! daemon.

use maglev_api::view::Node;
use maglev_model::ShownDuration;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::content::{self, Body, Content, Kind, Listing, Tone};
use super::model::Model;
use super::screen::{Screen, View};
use super::shown::{fit, pad, rate, trend, wrap};

/// What a frame shows beside the model and the screen's state.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// The name of the machine.
    pub(super) host: String,
    /// Whether colors are used; the background is the terminal's.
    pub(super) colors: bool,
    /// Whether keys work: the last line shows them.
    pub(super) keys: bool,
}

/// The keys, in the order of their use.
const KEYS: &str = "q quit  Tab view  Enter open  Esc back  s sort  r reverse  / filter  p pause  ? help";

const HELP: [&str; 14] = [
    "Tab, 1 to 5   the next view, or that of this number",
    "arrows, j, k  select a row, or scroll; PgUp, PgDn, Home and End too",
    "Enter         open the row: a VIP's or pool's backends, a backend, a counter's remedy",
    "Esc           remove the filter, or go back",
    "s             sort by the next column, r in the other direction",
    "/             show only rows that contain a text; Enter keeps it, Esc removes it",
    "p             stop reading, and go on; the first rate afterwards is that of the whole pause",
    "q, Ctrl-C     quit",
    "",
    "Rates are per second since the reading before; k, M and G are thousands, millions and billions. A trend ends with the \
     present rate and is as high as the largest rate in it.",
    "A rate of `-` is not known yet: two readings of one daemon make it.",
    "Packets and bytes of a VIP are those received from clients, of a backend those sent to it, without the outer header.",
    "",
    "Any key closes this page.",
];

/// The lines that are left for rows, in a terminal of so many lines.
pub(super) fn page(lines: u16) -> usize {
    usize::from(lines).saturating_sub(6).max(1)
}

/// Draws a frame.
pub(super) fn frame(model: &Model, screen: &Screen, look: &Look, area: Rect, buffer: &mut Buffer) {
    let mut canvas = Canvas { area, buffer, colors: look.colors, next: 0, end: area.height };
    if look.keys {
        canvas.last_line(&footer(screen));
    }
    canvas.line(&head(model, look, canvas.columns()), Style::new().add_modifier(Modifier::BOLD));
    if area.height >= 8 {
        let state = state(model);
        canvas.toned(&state.0, state.1);
    }
    canvas.tabs(screen.view);
    if let Some((message, tone)) = message(model, screen) {
        canvas.toned(&message, tone);
    }
    if screen.help {
        return canvas.paragraphs(&HELP.map(str::to_owned), 14, 0);
    }
    let Content { title, body } = content::of(model, screen);
    // Rows are what the screen is for: a title takes at most half of what is left.
    let most = canvas.left() / 2;
    title.iter().take(most).for_each(|line| canvas.line(line, Style::new()));
    match body {
        Body::Rows(listing) => canvas.listing(&listing),
        Body::Text(paragraphs) => canvas.paragraphs(&paragraphs, 12, screen.level().scroll),
    }
}

/// The text of a frame, without blanks at the ends of lines.
pub(super) fn text(buffer: &Buffer) -> String {
    let Rect { width, height, .. } = buffer.area;
    let mut text = String::new();
    for y in 0..height {
        let (mut line, mut x) = (String::new(), 0);
        while x < width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            // The cell behind a wide character is covered by it.
            x += u16::try_from(Span::raw(symbol).width()).unwrap_or(1).max(1);
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// The first line: the node and its daemon.
fn head(model: &Model, look: &Look, columns: usize) -> String {
    let mut head = format!("maglev top  {}", look.host);
    if let Some(facts) = model.facts() {
        head += &format!("  maglevd {}", facts.version);
    }
    if let Some(uptime) = model.uptime() {
        head += &format!("  up {}", ShownDuration(uptime));
    }
    let node = model.node.as_ref().map(Node::state).unwrap_or_default();
    // The node's state stands on the right, as long as there is room.
    let room = columns.saturating_sub(node.len() + 2);
    if columns >= 40 { format!("{}  {node}", pad(&head, room, false)) } else { head }
}

/// The second line: the traffic of the node, and what is not as it should be.
fn state(model: &Model) -> (String, Tone) {
    let ((forwarded, trend_of_forwarded), (dropped, _)) = (model.forwarded(), model.dropped());
    let bars = trend(&trend_of_forwarded.values(), 16);
    let mut line =
        format!("forwarded {} packets/s {}  dropped {}/s", rate(*forwarded), bars.trim_start(), rate(*dropped));
    let learning: u32 = model.pools.iter().flatten().map(|pool| pool.in_transition.learning_slots).sum();
    if learning > 0 {
        line += &format!("  {learning} slots learning");
    }
    let node = model.node.as_ref();
    let unable = node.and_then(|node| node.unable.as_ref()).map(|why| format!("  NOT FORWARDING: {why}"));
    let sync = model.facts().and_then(|facts| facts.out_of_sync.as_ref());
    let sync = sync.map(|out| format!("  OUT OF SYNC: {}", out.reason));
    let common =
        model.facts().filter(|facts| facts.common_failure).map(|_| "  ALL CHECKS FAIL: local fault?".to_owned());
    let wrong: String = [unable, sync, common].into_iter().flatten().collect();
    let tone = if wrong.is_empty() { Tone::Plain } else { Tone::Bad };
    (line + &wrong, tone)
}

/// The line about what is unusual on the screen.
fn message(model: &Model, screen: &Screen) -> Option<(String, Tone)> {
    if let Some(away) = model.away() {
        let silent = ShownDuration::from_secs(away.silent.as_secs());
        return Some((format!("OLD: no answer for {silent}, retrying: {}", away.reason), Tone::Bad));
    }
    let filter = &screen.level().filter;
    match (screen.typing, screen.paused) {
        (true, _) => Some((format!("filter: {filter}_"), Tone::Warning)),
        (false, true) => Some(("PAUSED: nothing is read; p goes on".to_owned(), Tone::Warning)),
        (false, false) if !filter.is_empty() => Some((format!("filter: {filter} (Esc removes it)"), Tone::Warning)),
        (false, false) => None,
    }
}

fn footer(screen: &Screen) -> String {
    match (screen.help, screen.typing) {
        (true, _) => "any key closes the help".to_owned(),
        (false, true) => "Enter keep  Esc remove".to_owned(),
        (false, false) => KEYS.to_owned(),
    }
}

/// The lines of a frame, from the first on.
struct Canvas<'a> {
    area: Rect,
    buffer: &'a mut Buffer,
    colors: bool,
    /// The next line, and that behind the last one.
    next: u16,
    end: u16,
}

impl Canvas<'_> {
    fn columns(&self) -> usize {
        usize::from(self.area.width)
    }

    fn left(&self) -> usize {
        usize::from(self.end.saturating_sub(self.next))
    }

    fn put(&mut self, y: u16, line: &Line<'_>) {
        self.buffer.set_line(self.area.x, self.area.y + y, line, self.area.width);
    }

    fn line(&mut self, text: &str, style: Style) {
        if self.next < self.end {
            let line = Line::styled(fit(text, self.columns()), style);
            self.put(self.next, &line);
            self.next += 1;
        }
    }

    fn toned(&mut self, text: &str, tone: Tone) {
        self.line(text, self.style(tone));
    }

    fn last_line(&mut self, text: &str) {
        if self.end > 1 {
            self.end -= 1;
            let line = Line::styled(fit(text, self.columns()), Style::new().add_modifier(Modifier::DIM));
            self.put(self.end, &line);
        }
    }

    /// The names of the views; numbers alone where there is no room.
    fn tabs(&mut self, view: View) {
        if self.next >= self.end {
            return;
        }
        let names = View::ALL.map(|one| format!("{} {}", one as usize + 1, one.as_str()));
        let wide = names.iter().map(|name| name.len() + 3).sum::<usize>() <= self.columns();
        let mut spans = Vec::new();
        for (one, name) in View::ALL.into_iter().zip(&names) {
            let style = if one == view { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
            let shown = if wide || one == view { format!(" {name} ") } else { format!(" {} ", one as usize + 1) };
            spans.push(Span::styled(shown, style));
        }
        self.put(self.next, &Line::from(spans));
        self.next += 1;
    }

    /// Paragraphs from one of them on; those of a key and a value are indented.
    fn paragraphs(&mut self, paragraphs: &[String], indent: usize, scroll: usize) {
        for paragraph in paragraphs.iter().skip(scroll) {
            for line in wrap(paragraph, self.columns().max(2), indent) {
                self.line(&line, Style::new());
            }
        }
    }

    fn listing(&mut self, listing: &Listing) {
        let widths = widths(listing, self.columns());
        let names: Vec<String> = listing.columns.iter().enumerate().map(|(at, _)| heading(listing, at)).collect();
        let names = listing.columns.iter().zip(&widths).zip(&names).map(|((column, width), name)| {
            Span::raw(width.map(|width| pad(name, width, column.kind == Kind::Number) + " ").unwrap_or_default())
        });
        let names = Line::from(names.collect::<Vec<_>>()).style(Style::new().add_modifier(Modifier::BOLD));
        if self.left() == 0 {
            return;
        }
        self.put(self.next, &names);
        self.next += 1;
        if listing.rows.is_empty() {
            return self.line(&listing.empty, Style::new());
        }
        // The selected row is in the middle, except near the ends.
        let (left, all) = (self.left(), listing.rows.len());
        let first = listing.selected.saturating_sub(left / 2).min(all.saturating_sub(left));
        for (at, row) in listing.rows.iter().enumerate().skip(first).take(left) {
            let cells = listing.columns.iter().zip(&widths).zip(&row.cells).filter_map(|((column, width), cell)| {
                let width = (*width)?;
                let text = match column.kind {
                    Kind::Trend => trend(&row.trend, width),
                    kind => pad(&cell.text, width, kind == Kind::Number),
                };
                Some(Span::styled(text + " ", self.style(cell.tone)))
            });
            let mut line = Line::from(cells.collect::<Vec<_>>());
            if at == listing.selected {
                line = line.style(Style::new().add_modifier(Modifier::REVERSED));
            }
            self.put(self.next, &line);
            self.next += 1;
        }
    }

    fn style(&self, tone: Tone) -> Style {
        let (color, modifier) = match tone {
            Tone::Plain => return Style::new(),
            Tone::Good => (Color::Green, Modifier::empty()),
            Tone::Warning => (Color::Magenta, Modifier::empty()),
            Tone::Bad => (Color::Red, Modifier::BOLD),
        };
        let style = Style::new().add_modifier(modifier);
        if self.colors { style.fg(color) } else { style }
    }
}

/// A column's name, with the direction if rows are sorted by it.
fn heading(listing: &Listing, at: usize) -> String {
    let name = listing.columns[at].name.to_uppercase();
    match (listing.sort.column == at, listing.sort.reversed) {
        (false, _) => name,
        (true, false) => format!("{name}▾"),
        (true, true) => format!("{name}▴"),
    }
}

/// The width of each column; `None` if it is left out for lack of room. Each is followed by a blank.
fn widths(listing: &Listing, columns: usize) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..listing.columns.len()).collect();
    order.sort_by_key(|at| listing.columns[*at].rank);
    let (mut widths, mut room) = (vec![None; listing.columns.len()], columns + 1);
    for at in &order {
        let least = listing.columns[*at].least;
        // The first one stands whatever there is.
        let least = if widths.iter().all(Option::is_none) { least.min(columns) } else { least };
        if least < room {
            widths[*at] = Some(least);
            room -= least + 1;
        }
    }
    for at in order {
        let Some(width) = &mut widths[at] else { continue };
        let column = &listing.columns[at];
        let cells = listing.rows.iter().filter_map(|row| row.cells.get(at));
        let longest = cells.map(|cell| Span::raw(cell.text.as_str()).width()).max().unwrap_or(0);
        let wanted = if column.is_trend() { column.most } else { longest.max(heading(listing, at).chars().count()) };
        let more = wanted.min(column.most).saturating_sub(*width).min(room);
        (*width, room) = (*width + more, room - more);
    }
    widths
}
