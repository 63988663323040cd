//! `maglev top`: a live view of the node in a terminal, or one frame of it as text. Readings become rates (`reading`, `meter`,
//! `model`), keys a state of the screen (`screen`), both together rows and texts (`content`, `listings`, `backends`, `details`),
//! and these a frame (`draw`). The terminal, the clock and the threads are in `live`.

mod backends;
mod content;
mod details;
mod draw;
#[cfg(test)]
mod fixtures;
mod listings;
mod live;
mod meter;
mod model;
mod reading;
mod screen;
mod shown;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use maglev_model::{BadValue, parse_duration};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use self::draw::Look;
use self::model::Model;
use self::screen::{Screen, View};
use super::output::{Format, Printer, print};
use super::{Client, Failure};

/// The columns and lines of a frame without a terminal.
const SIZE: (u16, u16) = (80, 24);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The time between two readings: 200ms to 1m
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
    /// The view at first
    #[arg(long, value_enum, default_value_t = View::Vips)]
    view: View,
    /// Print one frame after two readings, as text; no terminal is needed
    #[arg(long)]
    once: bool,
    /// The columns of that frame. Default: those of the terminal, or 80
    #[arg(long, requires = "once", value_name = "COLUMNS", value_parser = clap::value_parser!(u16).range(20..=500))]
    width: Option<u16>,
    /// The lines of that frame. Default: those of the terminal, or 24
    #[arg(long, requires = "once", value_name = "LINES", value_parser = clap::value_parser!(u16).range(8..=10_000))]
    height: Option<u16>,
}

fn parse_interval(text: &str) -> Result<Duration, BadValue> {
    let allowed = Duration::from_millis(200)..=Duration::from_secs(60);
    let interval = parse_duration(text).filter(|interval| allowed.contains(interval));
    interval.ok_or_else(|| BadValue("allowed: a duration from 200ms to 1m".into()))
}

pub(super) fn run(args: &Args, client: Client, printer: &Printer) -> Result<(), Failure> {
    if printer.format() == Format::Json {
        let remedy = "top has no JSON: use `maglev counters --output json` and `maglev status --output json`";
        return Err(Failure::Usage(remedy.to_owned()));
    }
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if !args.once && !terminal {
        let remedy = "top needs a terminal as input and output: use `maglev top --once` for one frame as text";
        return Err(Failure::Usage(remedy.to_owned()));
    }
    let screen = Screen::new(args.view);
    if !args.once {
        return live::run(screen, client, args.interval);
    }
    let model = live::two_readings(&screen, client, args.interval)?;
    let (columns, lines) = live::size().unwrap_or(SIZE);
    let (columns, lines) = (args.width.unwrap_or(columns), args.height.unwrap_or(lines));
    print(&once(&model, &screen, &live::host(), columns, lines))
}

/// One frame as text, without the last blank lines.
fn once(model: &Model, screen: &Screen, host: &str, columns: u16, lines: u16) -> String {
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, lines));
    let look = Look { host: host.to_owned(), colors: false, keys: false };
    draw::frame(model, screen, &look, buffer.area, &mut buffer);
    format!("{}\n", draw::text(&buffer).trim_end())
}

/// The frame of the manual.
#[cfg(test)]
pub(super) fn sample() -> String {
    once(&fixtures::node(), &Screen::new(View::Vips), "lb1", SIZE.0, SIZE.1)
}
