//! The line that a waiting command prints when it is interrupted: it names the operation that continues and its reversal. It must
//! not know the operation.

use std::io::{self, IsTerminal as _};
use std::process::exit;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;

/// Exit codes of a command ended by a signal are 128 and the signal's number.
const INTERRUPTED: i32 = 130;
const TERMINATED: i32 = 143;

/// The line of a command that waits; it may change while it does.
#[derive(Clone, Debug)]
pub(super) struct Interrupt(Arc<Mutex<String>>);

impl Interrupt {
    /// From this call on, Ctrl-C and SIGTERM print the line and end the command.
    pub(super) fn says(line: impl Into<String>) -> Result<Self, Failure> {
        let failed = |error| Failure::Io("wait for signals", error);
        let shown = Self(Arc::new(Mutex::new(line.into())));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            let listen = |kind| signal(kind).map_err(failed);
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?)
        };
        let line = shown.clone();
        let wait = move || {
            let code = runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => INTERRUPTED,
                    _ = terminate.recv() => TERMINATED,
                }
            });
            // Erases a line of progress.
            let fresh = if io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
            eprintln!("{fresh}{}", self::line(&line.line()));
            exit(code)
        };
        thread::Builder::new().name("interrupt".into()).spawn(wait).map_err(failed)?;
        Ok(shown)
    }

    /// Replaces the line.
    pub(super) fn now_says(&self, line: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = line.into();
    }

    fn line(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What is printed.
pub(super) fn line(says: &str) -> String {
    format!("maglev: interrupted: {says}")
}
