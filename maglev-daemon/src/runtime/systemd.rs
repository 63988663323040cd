//! Notifies the service manager of the daemon's state: the needed part of `sd_notify(3)`. It must not know what the state means.

use std::env;
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// The status is sent at most this often: each reader of it needs a moment.
const PACE: Duration = Duration::from_secs(1);

/// Sends a state such as `READY=1`. Without a service manager, or if it does not listen, nothing happens.
pub fn notify(state: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return };
    let sent = address(&path).and_then(|address| send(&address, state));
    if let Err(error) = sent {
        tracing::warn!(%error, state, "cannot notify the service manager");
    }
}

/// A phase of the start or the stop begins, and may take this long: the service manager waits meanwhile.
pub fn phase(status: &str, at_most: Duration) {
    notify(&format!("EXTEND_TIMEOUT_USEC={}\nSTATUS={status}", at_most.as_micros()));
}

fn address(path: &OsStr) -> std::io::Result<SocketAddr> {
    match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(path),
    }
}

fn send(address: &SocketAddr, state: &str) -> std::io::Result<()> {
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), address).map(drop)
}

/// The service manager while the daemon runs. Signs of life are sent by the task that holds this value, whenever it ends a turn: if
/// it is blocked, none is sent.
#[derive(Debug)]
pub(super) struct Manager {
    socket: Option<SocketAddr>,
    /// Between two signs of life: half of the time that the service manager allows.
    alive_every: Option<Duration>,
    alive_at: Instant,
    /// The status as it was sent last, and the mark of the state that it shows.
    status: String,
    shown: Option<u64>,
    shown_at: Instant,
    /// The state may have changed since.
    stirred: bool,
}

impl Manager {
    /// The service manager that started this process, if one did.
    pub(super) fn from_env() -> Self {
        let allowed = env::var("WATCHDOG_USEC").ok();
        let of = env::var("WATCHDOG_PID").ok();
        let allowed = watchdog(allowed.as_deref(), of.as_deref(), std::process::id());
        Self::new(env::var_os("NOTIFY_SOCKET").as_deref(), allowed)
    }

    /// One with this socket, which allows so much time between two signs of life.
    pub(super) fn new(socket: Option<&OsStr>, allowed: Option<Duration>) -> Self {
        let now = Instant::now();
        let socket = socket.and_then(|path| address(path).ok());
        Self {
            alive_every: allowed.filter(|_| socket.is_some()).map(|allowed| allowed / 2),
            socket,
            alive_at: now,
            status: String::new(),
            shown: None,
            shown_at: now,
            stirred: false,
        }
    }

    /// The next turn must come by then: for a sign of life, or to show what changed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let alive = self.alive_every.map(|every| self.alive_at + every);
        let show = self.stirred.then(|| self.shown_at + PACE);
        alive.into_iter().chain(show).min()
    }

    /// A turn ends. Returns whether the status is due: it is shown if the state has another mark than [`Self::is_shown`] knows.
    pub(super) fn turned(&mut self, now: Instant) -> bool {
        if self.alive_every.is_some_and(|every| now >= self.alive_at + every) {
            self.alive_at = now;
            self.send("WATCHDOG=1");
        }
        let due = now >= self.shown_at + PACE;
        self.shown_at = if due { now } else { self.shown_at };
        self.stirred = self.socket.is_some() && !due;
        self.socket.is_some() && due
    }

    /// Whether the state with this mark was shown.
    pub(super) fn is_shown(&self, mark: u64) -> bool {
        self.shown == Some(mark)
    }

    /// Shows the status of the state with this mark, if it is another one.
    pub(super) fn show(&mut self, status: String, mark: u64) {
        self.shown = Some(mark);
        if self.status != status {
            self.send(&format!("STATUS={status}"));
            self.status = status;
        }
    }

    /// The daemon is ready, at first or after a reload.
    pub(super) fn ready(&mut self, status: String) {
        self.send(&format!("READY=1\nSTATUS={status}"));
        self.status = status;
    }

    /// A reload begins; [`Self::ready`] ends it.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reloading the configuration", now.as_micros()));
    }

    fn send(&self, state: &str) {
        let Some(address) = &self.socket else { return };
        if let Err(error) = send(address, state) {
            tracing::warn!(%error, state, "cannot notify the service manager");
        }
    }
}

/// The time that the service manager allows between two signs of life of the process with this id, by its environment.
fn watchdog(microseconds: Option<&str>, of: Option<&str>, process: u32) -> Option<Duration> {
    let is_ours = of.is_none_or(|of| of.parse() == Ok(process));
    let allowed = microseconds?.parse().ok().filter(|allowed| *allowed > 0).map(Duration::from_micros);
    allowed.filter(|_| is_ours)
}

#[cfg(test)]
mod tests {
    use maglev_testing::TempDir;

    use super::*;

    const ALLOWED: Duration = Duration::from_secs(4);

    /// A service manager, and the daemon's side of it.
    struct Site {
        socket: UnixDatagram,
        manager: Manager,
        begun: Instant,
        _directory: TempDir,
    }

    impl Site {
        fn new() -> Self {
            let directory = TempDir::new();
            let path = directory.path().join("notify");
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            let manager = Manager::new(Some(path.as_os_str()), Some(ALLOWED));
            let begun = manager.alive_at;
            Self { socket, manager, begun, _directory: directory }
        }

        fn received(&self) -> Vec<String> {
            let mut bytes = [0; 1_024];
            let mut all = Vec::new();
            while let Ok(count) = self.socket.recv(&mut bytes) {
                all.push(String::from_utf8(bytes[..count].to_vec()).unwrap());
            }
            all
        }
    }

    #[test]
    fn turns_are_signs_of_life_at_half_the_time() {
        let mut site = Site::new();
        let begun = site.begun;
        let at = |milliseconds| begun + Duration::from_millis(milliseconds);
        assert_eq!(site.manager.deadline(), Some(at(2_000)));
        for turn in [100, 500, 1_999] {
            site.manager.turned(at(turn));
        }
        assert_eq!(site.received(), [""; 0], "not before half of the time");
        site.manager.turned(at(2_000));
        site.manager.turned(at(2_001));
        assert_eq!(site.received(), ["WATCHDOG=1"]);
        // No turn, no sign: the value sends nothing by itself.
        assert!(site.manager.deadline().unwrap() < at(4_000));
        site.manager.turned(at(60_000));
        assert_eq!(site.received(), ["WATCHDOG=1"]);
    }

    #[test]
    fn the_status_is_sent_when_it_changes_and_once_a_second_at_most() {
        let mut site = Site::new();
        let begun = site.begun;
        let at = |milliseconds| begun + Duration::from_millis(milliseconds);
        site.manager.ready("forwarding".into());
        assert_eq!(site.received(), ["READY=1\nSTATUS=forwarding"]);
        assert!(!site.manager.turned(at(10)));
        assert_eq!(site.manager.deadline(), Some(at(1_000)), "a turn is due to show what changed");
        assert!(site.manager.turned(at(1_000)) && !site.manager.is_shown(1));
        site.manager.show("forwarding".into(), 1);
        assert!(site.manager.is_shown(1));
        assert_eq!(site.received(), [""; 0], "it is the same");
        assert!(!site.manager.turned(at(1_500)));
        assert!(site.manager.turned(at(2_000)));
        site.manager.show("drained".into(), 2);
        assert_eq!(site.received(), ["WATCHDOG=1", "STATUS=drained"]);
        site.manager.reloading();
        let [reloading] = &site.received()[..] else { panic!() };
        let lines: Vec<&str> = reloading.lines().collect();
        let time: u64 = lines[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!(lines[0] == "RELOADING=1" && time > 0, "{reloading}");
    }

    #[test]
    fn the_watchdog_is_that_of_this_process() {
        for (microseconds, of, expected) in [
            (None, None, None),
            (Some("30000000"), None, Some(30_000)),
            (Some("30000000"), Some("7"), Some(30_000)),
            (Some("30000000"), Some("8"), None),
            (Some("30000000"), Some("x"), None),
            (Some("0"), None, None),
            (Some("-1"), None, None),
        ] {
            assert_eq!(watchdog(microseconds, of, 7), expected.map(Duration::from_millis), "{microseconds:?} {of:?}");
        }
        let mut none = Manager::new(None, Some(ALLOWED));
        assert!(none.deadline().is_none() && !none.turned(Instant::now() + ALLOWED));
    }
}
