//! The terminal, the clock, and the threads: keys, signals and readings arrive as messages, and each message is followed by a
//! frame. It must not know what a frame shows.
//!
//! ```text
//! terminal ── keys ──────┐
//! signals ── the end ────┼──► the loop: screen, model, frame ──► terminal
//! daemon ── readings ────┘             │
//!    ▲                                 │
//!    └────── needs of the screen ──────┘
//! ```

use std::io;
use std::process::exit;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};

use super::draw::{self, Look};
use super::model::{Model, Now};
use super::reading::{Needs, Reader, Reading};
use super::screen::{Key, Screen};
use crate::{Client, ClientError, Failure};

/// The signals that end the command, and their numbers: its exit code is 128 more.
const SIGNALS: [(SignalKind, i32); 3] =
    [(SignalKind::hangup(), 1), (SignalKind::interrupt(), 2), (SignalKind::terminate(), 15)];
const INTERRUPTED: i32 = 130;

/// How long a paused reader waits for the screen's needs: for ever.
const PAUSED: Duration = Duration::from_secs(24 * 3_600);

/// The interval at which the age of figures is shown while the daemon is silent.
const AGE: Duration = Duration::from_millis(1_500);

enum Message {
    Key(Key),
    /// The terminal has another size.
    Resized,
    Read(Box<Result<Reading, ClientError>>),
    /// The exit code.
    End(i32),
    Failed(io::Error),
}

/// The name of the machine.
pub(super) fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// The columns and lines of the terminal, if standard output is one.
pub(super) fn size() -> Option<(u16, u16)> {
    let terminal = io::IsTerminal::is_terminal(&io::stdout());
    crossterm::terminal::size().ok().filter(|(columns, lines)| terminal && *columns > 0 && *lines > 0)
}

/// Two readings, an interval apart.
pub(super) fn two_readings(screen: &Screen, client: Client, interval: Duration) -> Result<Model, Failure> {
    let (mut model, start) = (Model::default(), Instant::now());
    let mut reader = Reader::new(client, move || start.elapsed());
    for wait in [Duration::ZERO, interval] {
        thread::sleep(wait);
        let reading = reader.read(&screen.needs(&model))?;
        model.read(reading, now(start));
    }
    Ok(model)
}

/// Shows the node until the operator ends it. An error before the first frame is one of the command; later ones are shown.
pub(super) fn run(mut screen: Screen, client: Client, interval: Duration) -> Result<(), Failure> {
    let start = Instant::now();
    let mut reader = Reader::new(client, move || start.elapsed());
    let mut model = Model::default();
    let first = reader.read(&screen.needs(&model))?;
    model.read(first, now(start));

    let (messages, received) = mpsc::channel();
    let (needs, wanted) = mpsc::channel();
    signals(messages.clone())?;
    // From here on a panic restores the terminal too.
    let mut terminal = ratatui::try_init().map_err(|error| {
        // It may have been half done.
        ratatui::restore();
        Failure::Io("use the terminal", error)
    })?;
    show_cursor_on_panic();
    let ended = spawn("keys", messages.clone(), keys)
        .and_then(|()| {
            let first = screen.needs(&model);
            spawn("readings", messages, move |messages| readings(reader, first, interval, &wanted, messages))
        })
        .and_then(|()| show(&mut terminal, &mut screen, &mut model, (start, interval), (&received, &needs)));
    // With it the cursor is shown again.
    drop(terminal);
    ratatui::restore();
    match ended? {
        0 => Ok(()),
        code => exit(code),
    }
}

/// The loop. Returns the exit code.
fn show(
    terminal: &mut ratatui::DefaultTerminal,
    screen: &mut Screen,
    model: &mut Model,
    (start, interval): (Instant, Duration),
    (received, needs): (&Receiver<Message>, &Sender<Needs>),
) -> Result<i32, Failure> {
    let look = Look { host: host(), colors: !no_color(), keys: true };
    let failed = |error| Failure::Io("use the terminal", error);
    let mut sent = screen.needs(model);
    loop {
        terminal.draw(|frame| draw::frame(model, screen, &look, frame.area(), frame.buffer_mut())).map_err(failed)?;
        let page = draw::page(terminal.size().map_err(failed)?.height);
        let message = match received.recv_timeout(interval.max(AGE)) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) if screen.paused => continue,
            Err(RecvTimeoutError::Timeout) => {
                model.pass(now(start), interval);
                continue;
            }
            // The senders live as long as their threads, which end with the process.
            Err(RecvTimeoutError::Disconnected) => return Ok(0),
        };
        match message {
            Message::Key(key) if !screen.press(key, model, page) => return Ok(0),
            Message::Key(_) | Message::Resized => {}
            Message::Read(reading) => match *reading {
                Ok(reading) => model.read(reading, now(start)),
                Err(error) => model.lose(error.to_string(), now(start)),
            },
            Message::End(code) => return Ok(code),
            Message::Failed(error) => return Err(failed(error)),
        }
        let needed = screen.needs(model);
        if needed != sent {
            // It fails only if the reader is gone.
            let _ = needs.send(needed.clone());
            sent = needed;
        }
    }
}

/// A release ends at a panic without dropping the terminal, which would show the cursor.
fn show_cursor_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // Where the terminal is gone, there is no cursor.
        let _ = crossterm::execute!(io::stdout(), crossterm::cursor::Show);
        before(panic);
    }));
}

/// <https://no-color.org>: set and not empty.
fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

fn now(start: Instant) -> Now {
    Now { since_start: start.elapsed(), unix_seconds: maglev_api::now().0 }
}

fn spawn(
    name: &str,
    messages: Sender<Message>,
    work: impl FnOnce(&Sender<Message>) + Send + 'static,
) -> Result<(), Failure> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || work(&messages));
    spawned.map(drop).map_err(|error| Failure::Io("start a thread", error))
}

/// Reads the daemon at intervals, and what the screen needs as soon as it needs it.
fn readings(
    mut reader: Reader<impl Fn() -> Duration>,
    mut needs: Needs,
    interval: Duration,
    wanted: &Receiver<Needs>,
    messages: &Sender<Message>,
) {
    let mut due = Instant::now() + interval;
    loop {
        let left = if needs.paused { PAUSED } else { due.saturating_duration_since(Instant::now()) };
        let reading = match wanted.recv_timeout(left) {
            Ok(wanted) => {
                needs = wanted;
                reader.read_needs(&needs)
            }
            Err(RecvTimeoutError::Timeout) => {
                due = Instant::now() + interval;
                reader.read(&needs)
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if messages.send(Message::Read(Box::new(reading))).is_err() {
            return;
        }
    }
}

/// Reads the terminal.
fn keys(messages: &Sender<Message>) {
    loop {
        let message = match event::read() {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => message(key),
            Ok(Event::Resize(..)) => Some(Message::Resized),
            Ok(_) => None,
            Err(error) => {
                // The other end is gone only if the command ends.
                let _ = messages.send(Message::Failed(error));
                return;
            }
        };
        if message.is_some_and(|message| messages.send(message).is_err()) {
            return;
        }
    }
}

fn message(KeyEvent { code, modifiers, .. }: KeyEvent) -> Option<Message> {
    let control = modifiers.contains(KeyModifiers::CONTROL);
    Some(Message::Key(match code {
        KeyCode::Char('c') if control => return Some(Message::End(INTERRUPTED)),
        KeyCode::Char(_) if control || modifiers.contains(KeyModifiers::ALT) => return None,
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Esc,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Backspace => Key::Backspace,
        _ => return None,
    }))
}

/// From this call on, signals are messages.
fn signals(messages: Sender<Message>) -> Result<(), Failure> {
    let failed = |error| Failure::Io("wait for signals", error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let [mut hangup, mut interrupt, mut terminate] = {
        let _inside = runtime.enter();
        let [hangup, interrupt, terminate] = SIGNALS.map(|(kind, _)| signal(kind).map_err(failed));
        [hangup?, interrupt?, terminate?]
    };
    spawn("signals", messages, move |messages| {
        let [(_, of_hangup), (_, of_interrupt), (_, of_terminate)] = SIGNALS;
        let number = runtime.block_on(async {
            tokio::select! {
                _ = hangup.recv() => of_hangup,
                _ = interrupt.recv() => of_interrupt,
                _ = terminate.recv() => of_terminate,
            }
        });
        // It fails only if the command has ended.
        let _ = messages.send(Message::End(128 + number));
    })
}
