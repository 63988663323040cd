//! `maglev top` in a pseudo-terminal, on a node with traffic.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::SocketAddr,
    num::NonZero,
    os::fd::{AsFd as _, OwnedFd},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use maglev_e2e::lab::{Answer, Backend, Balancer, Lab, Pool, Services, Settings, Site, Topology, Vip, addresses::WWW4};
use maglev_e2e::lab::{binary, skip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

/// How long a screen may take to show something.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_backend_is_reached_by_keys_and_the_terminal_is_restored() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(1)?;
    let traffic = site.lab.client().start(&[SocketAddr::new(WWW4, Backend::PORT)], u64::MAX, 2);
    let balancer = &site.balancers[0];
    let mut top = Terminal::start(balancer, &["top", "--interval", "200ms"])?;
    top.await_screen("a VIP with traffic", |screen| rate(screen, "www-tcp").is_some_and(|rate| rate > 0.0))?;
    top.await_screen("the node's traffic", |screen| screen.contains("forwarded") && screen.contains("serving"))?;

    top.press("\r")?;
    top.await_screen("the pool of the VIP", |screen| screen.contains("Backends of pool four"))?;
    top.await_screen("a backend with traffic", |screen| rate(screen, "web1").is_some_and(|rate| rate > 0.0))?;
    top.press("/web1\r\r")?;
    top.await_screen("the backend", |screen| {
        screen.contains("backend web1 of pool four") && screen.contains("next hop")
    })?;
    for (keys, text) in [
        ("\x1b[D2", "POOL"),
        ("3", "no_such_vip"),
        ("4", "no neighbor: BGP is off"),
        ("5", "maglevd 0.1.0 started"),
        ("\t", "backend web1 of pool four"),
        ("?", "any key closes the help"),
        ("x", "backend web1 of pool four"),
    ] {
        top.press(keys)?;
        top.await_screen(text, |screen| screen.contains(text))?;
    }
    top.press("2")?;
    top.resize(20, 24)?;
    top.await_screen("20 columns", |screen| {
        screen.contains("POOL")
            && screen.lines().all(|line| line.chars().count() <= 20)
            && rate(screen, "four").is_some()
    })?;
    ensure!(top.is_alternate(), "the alternate screen is not used");
    top.press("q")?;
    ensure!(top.end()?.code() == Some(0), "q is no success");
    traffic.stop()?.all_answered()
}

#[test]
fn a_signal_restores_the_terminal() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(1)?;
    for (end, code) in [(None, 130), (Some(Signal::SIGTERM), 143), (Some(Signal::SIGHUP), 129)] {
        let mut top = Terminal::start(&site.balancers[0], &["top"])?;
        top.await_screen("a VIP", |screen| screen.contains("www-tcp"))?;
        match end {
            // Ctrl-C.
            None => top.press("\x03")?,
            Some(signal) => kill(Pid::from_raw(top.child.id().try_into()?), signal)?,
        }
        let status = top.end().with_context(|| format!("{end:?}"))?;
        ensure!(status.code() == Some(code), "{end:?}: {status}");
    }
    Ok(())
}

#[test]
fn a_lost_daemon_is_reported_and_found_again() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    let mut top = Terminal::start(&site.balancers[0], &["top", "--interval", "200ms"])?;
    top.await_screen("a rate", |screen| rate(screen, "www-tcp").is_some())?;
    site.balancers[0].kill()?;
    top.await_screen("a lost daemon", |screen| screen.contains("OLD: no answer for") && screen.contains("www-tcp"))?;
    site.balancers[0].restart()?;
    top.await_screen("the daemon again", |screen| !screen.contains("OLD") && rate(screen, "www-tcp").is_some())?;
    top.press("q")?;
    ensure!(top.end()?.success());
    Ok(())
}

#[test]
fn one_frame_is_text_and_needs_no_terminal() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(1)?;
    let balancer = &site.balancers[0];
    let frame = balancer.maglev_ok(&["top", "--once", "--interval", "200ms"])?;
    ensure!(rate(&frame, "www-tcp") == Some(0.0) && !frame.contains('\x1b'), "{frame}");
    ensure!(frame.lines().all(|line| line.chars().count() <= 80), "{frame}");
    let narrow = balancer.maglev_ok(&["top", "--once", "--interval", "200ms", "--width", "20", "--view", "pools"])?;
    ensure!(narrow.contains("four") && narrow.lines().all(|line| line.chars().count() <= 20), "{narrow}");
    let Answer { code, stdout, stderr } = balancer.maglev(&["top"])?;
    ensure!((code, stdout.as_str()) == (2, "") && stderr.contains("maglev top --once"), "{code}: {stderr}");
    let Answer { code, stderr, .. } = balancer.maglev(&["top", "--once", "--output", "json"])?;
    ensure!(code == 2 && stderr.contains("maglev counters --output json"), "{code}: {stderr}");
    Ok(())
}

#[test]
fn a_full_node_costs_a_part_of_one_core() -> Result<()> {
    /// The share of a core, in per cent: 2 of a release. The debug build and a busy machine take several times that.
    const MOST: f64 = 20.0;
    const LASTS: Duration = Duration::from_secs(10);
    if skip() {
        return Ok(());
    }
    let lab = Lab::new(Topology::standard(1))?;
    let balancer = Balancer::start(&lab, 1, &Settings::new(1), &full_node())?;
    let mut top = Terminal::start(&balancer, &["top"])?;
    top.await_screen("a rate", |screen| rate(screen, "vip0").is_some())?;
    let (before, began) = (top.cpu_time()?, Instant::now());
    top.await_time(began + LASTS)?;
    let share = (top.cpu_time()? - before).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    println!("maglev top with 512 VIPs and 6,400 backends: {share:.2} % of one core");
    ensure!(share < MOST, "{share:.1} % of one core; at most {MOST} % are allowed");
    top.press("q")?;
    ensure!(top.end()?.success());
    Ok(())
}

/// 512 VIPs on 64 pools of 100 backends, none of which exists.
fn full_node() -> Services {
    let pool = |pool: u8| Pool {
        name: format!("p{pool}"),
        affinity: None,
        backends: (1..=100).map(|n| (format!("b{n:03}"), [10, 9, pool, n].into(), 100)).collect(),
    };
    let vip = |n: u16| {
        let address = [203, 0, 113, 20 + (n % 128) as u8];
        Vip::new(&format!("vip{n}"), (address.into(), 8_000 + n / 128), "tcp", &format!("p{}", n % 64))
    };
    Services { pools: (0..64).map(pool).collect(), vips: (0..512).map(vip).collect() }
}

/// The rate in the row of this name, if it is known.
fn rate(screen: &str, name: &str) -> Option<f64> {
    let mut words = screen.lines().find(|line| line.split(' ').next() == Some(name))?.split_whitespace().skip(1);
    let shown = words.next()?;
    let number = shown.trim_end_matches(['k', 'M']).parse::<f64>().ok()?;
    Some(number * if shown.ends_with('k') { 1e3 } else { 1.0 })
}

/// `maglev` in a pseudo-terminal of 80 columns and 24 lines.
struct Terminal {
    child: Child,
    master: OwnedFd,
    /// Kept open, so that the terminal outlives the command.
    slave: File,
    output: Receiver<Vec<u8>>,
    screen: vt100::Parser,
    before: Termios,
}

impl Terminal {
    fn start(balancer: &Balancer, arguments: &[&str]) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = ptsname(&master, Vec::new())?;
        let slave = fs::OpenOptions::new().read(true).write(true).open(path.to_str()?)?;
        tcsetwinsize(&master, size(80, 24))?;
        let before = tcgetattr(&slave)?;
        // A session of its own, whose terminal this is: it gets the signals of the terminal.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(binary("maglev")?).arg("--socket").arg(balancer.socket()).args(arguments);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(Stdio::from(slave.try_clone()?));
        let child = command.spawn().context("cannot start setsid")?;
        let (sender, output) = channel();
        let mut from = File::from(master.try_clone()?);
        // It ends with the terminal.
        thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(length @ 1..) = from.read(&mut bytes) {
                if sender.send(bytes[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let screen = vt100::Parser::new(nonzero(24)?, nonzero(80)?, 0);
        Ok(Self { child, master, slave, output, screen, before })
    }

    fn press(&mut self, keys: &str) -> Result<()> {
        File::from(self.master.try_clone()?).write_all(keys.as_bytes()).context("cannot press keys")
    }

    fn resize(&mut self, columns: u16, lines: u16) -> Result<()> {
        self.screen.screen_mut().set_size(nonzero(lines)?, nonzero(columns)?);
        tcsetwinsize(self.master.as_fd(), size(columns, lines)).context("cannot resize")
    }

    /// Waits until the screen shows something.
    fn await_screen(&mut self, what: &str, shows: impl Fn(&str) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !shows(&self.screen.screen().contents()) {
            let open = self.take_output(deadline)?;
            ensure!(open, "the screen does not show {what}:\n{}", self.screen.screen().contents());
        }
        Ok(())
    }

    /// Takes all output until this time.
    fn await_time(&mut self, deadline: Instant) -> Result<()> {
        while self.take_output(deadline)? {}
        Ok(())
    }

    /// Takes the next output; `false`: there is none until the deadline.
    fn take_output(&mut self, deadline: Instant) -> Result<bool> {
        match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(bytes) => {
                self.screen.process(&bytes);
                Ok(true)
            }
            Err(RecvTimeoutError::Timeout) => Ok(false),
            Err(RecvTimeoutError::Disconnected) => bail!("the terminal was closed"),
        }
    }

    fn is_alternate(&self) -> bool {
        self.screen.screen().alternate_screen()
    }

    fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // Behind the program's name, which may hold spaces (proc_pid_stat(5), utime and stime).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Waits for the end of the command, after which the terminal is as it was.
    fn end(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        while self.is_alternate() || self.screen.screen().hide_cursor() {
            ensure!(self.take_output(deadline)?, "the alternate screen is not left");
        }
        let status = self.child.wait()?;
        let after = tcgetattr(&self.slave)?;
        let modes = |terminal: &Termios| (terminal.local_modes, terminal.input_modes, terminal.output_modes);
        ensure!(
            modes(&after) == modes(&self.before),
            "the terminal's modes differ: {after:?}, before {:?}",
            self.before
        );
        Ok(status)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(columns: u16, lines: u16) -> Winsize {
    Winsize { ws_col: columns, ws_row: lines, ws_xpixel: 0, ws_ypixel: 0 }
}

fn nonzero(number: u16) -> Result<NonZero<u16>> {
    NonZero::new(number).context("a terminal has columns and lines")
}
