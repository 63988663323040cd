//! A router in a namespace of its own, of any kind: how it is started, asked and ended.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::{fs, thread};

use maglev_testing::TempDir;
use maglev_testing::matrix::Row;
use maglev_testing::network::{Peer, ip};

use super::{bird, eventually, frr, gobgp};

/// The implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bird,
    Frr,
    GoBgp,
}

impl Kind {
    /// Begins a row of the matrix.
    pub(super) fn row(self, case: &'static str) -> Row {
        let daemon = match self {
            Self::Bird => "BIRD",
            Self::Frr => "FRR",
            Self::GoBgp => "GoBGP",
        };
        Row::bgp(daemon, case)
    }
}

/// The settings of its session with us.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Session {
    pub(super) v6: bool,
    pub(super) password: Option<&'static str>,
    pub(super) gtsm: bool,
}

impl Session {
    /// The router's address, and ours.
    pub(super) const fn ends(&self) -> (&'static str, &'static str) {
        if self.v6 { ("2001:db8::1", "2001:db8::11") } else { ("10.0.0.1", "10.0.0.11") }
    }
}

/// A prefix as a router received it.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) next_hop: String,
    pub(super) as_path: String,
    pub(super) med: Option<u32>,
    pub(super) communities: Vec<String>,
}

/// A process of a router; it ends with the value.
pub(super) struct Process(Child);

impl Process {
    pub(super) fn start(peer: &Peer, directory: &TempDir, program: &'static str, arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        let log =
            fs::File::create(directory.path().join(Path::new(program).with_extension("log").file_name().unwrap()));
        let log = log.unwrap();
        let child = peer.run(move || {
            let output = log.try_clone().unwrap();
            Command::new(program).args(arguments).stdin(Stdio::null()).stdout(output).stderr(log).spawn()
        });
        Self(child.unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask setup` installs it")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A router.
pub(super) struct Router {
    kind: Kind,
    session: Session,
    // Processes go before the namespace and the directory they use.
    processes: Vec<Process>,
    peer: Arc<Peer>,
    directory: Arc<TempDir>,
}

impl Router {
    /// Starts one at the other end of a link.
    pub(super) fn start(kind: Kind, session: Session) -> Self {
        let peer = Peer::new();
        peer.connect("lb0", "router0");
        for (address, of) in [("10.0.0.11/24", "lb0"), ("2001:db8::11/64", "lb0")] {
            ip(&format!("address add {address} dev {of}{}", if address.contains(':') { " nodad" } else { "" }));
        }
        peer.ip("address add 10.0.0.1/24 dev router0");
        peer.ip("address add 2001:db8::1/64 dev router0 nodad");
        let directory = TempDir::new();
        let processes = match kind {
            Kind::Bird => bird::start(&peer, &directory, &session),
            Kind::Frr => frr::start(&peer, &directory, &session),
            Kind::GoBgp => gobgp::start(&peer, &directory, &session),
        };
        Self { kind, session, processes, peer: Arc::new(peer), directory: Arc::new(directory) }
    }

    /// Asks something of the router on another thread: the speaker must go on meanwhile.
    async fn ask<T: Send + 'static>(&self, ask: impl FnOnce(Kind, &Peer, &TempDir) -> T + Send + 'static) -> T {
        let (kind, peer, directory) = (self.kind, Arc::clone(&self.peer), Arc::clone(&self.directory));
        tokio::task::spawn_blocking(move || ask(kind, &peer, &directory)).await.unwrap()
    }

    async fn received(&self, prefix: &str) -> Option<Received> {
        let prefix = prefix.to_owned();
        self.ask(move |kind, peer, directory| match kind {
            Kind::Bird => bird::received(directory, &prefix),
            Kind::Frr => frr::received(directory, &prefix),
            Kind::GoBgp => gobgp::received(peer, &prefix),
        })
        .await
    }

    /// The router's route to a prefix, as soon as it has one.
    pub(super) async fn until_received(&self, prefix: &str) -> Option<Received> {
        Some(eventually(prefix, async || self.received(prefix).await.ok_or_else(|| self.log())).await)
    }

    pub(super) async fn until_gone(&self, prefix: &str) {
        eventually("end of a prefix", async || {
            self.received(prefix).await.map_or(Ok(()), |received| Err(format!("{received:?}")))
        })
        .await;
    }

    pub(super) async fn until_count(&self, count: usize) {
        eventually("all prefixes", async || {
            let found = self.ask(|kind, peer, directory| match kind {
                Kind::Bird => bird::count(directory),
                Kind::Frr => frr::count(directory),
                Kind::GoBgp => gobgp::count(peer),
            });
            let found = found.await;
            if found == count { Ok(()) } else { Err(format!("{found} of {count}")) }
        })
        .await;
    }

    /// Waits until the router has no session with us.
    pub(super) async fn until_down(&self) {
        let v6 = self.session.v6;
        eventually("end of the session", async || {
            let state = self.ask(move |kind, peer, directory| match kind {
                Kind::Bird => bird::ask(directory, "show protocols lb"),
                Kind::Frr => frr::ask(directory, if v6 { "show bgp ipv6 summary" } else { "show bgp ipv4 summary" }),
                Kind::GoBgp => gobgp::ask(peer, "neighbor"),
            });
            let state = state.await;
            let up = state.contains("Established") || state.contains("Establ") && self.kind == Kind::GoBgp;
            let up = up
                || self.kind == Kind::Frr
                    && state.lines().any(|line| {
                        line.contains("4200000010")
                            && !line.contains("Active")
                            && !line.contains("Idle")
                            && !line.contains("Connect")
                    });
            if up { Err(state) } else { Ok(()) }
        })
        .await;
    }

    /// Waits for the kernel's route in the router's namespace, or for its end.
    pub(super) async fn until_kernel(&self, address: &str, there: bool) {
        let address = address.to_owned();
        eventually("the kernel's route", async || {
            let address = address.clone();
            let found = self.ask(move |_, peer, _| {
                let output = peer.run(move || Command::new("ip").args(["route", "show", &address]).output().unwrap());
                String::from_utf8(output.stdout).unwrap()
            });
            let found = found.await;
            if found.is_empty() == there { Err(found) } else { Ok(()) }
        })
        .await;
    }

    /// Records the changes of the kernel's routes in the router's namespace from now on.
    pub(super) async fn kernel_routes(&self) -> Routes {
        let process = Process::start(&self.peer, &self.directory, "ip", &["-4", "monitor", "route"]);
        let routes = Routes { _process: process, directory: Arc::clone(&self.directory) };
        eventually("a record of routes", async || {
            self.peer.ip("route replace 198.51.100.1/32 dev router0");
            self.peer.ip("route delete 198.51.100.1/32 dev router0");
            if routes.seen().contains("198.51.100.1") { Ok(()) } else { Err(String::new()) }
        })
        .await;
        routes
    }

    /// Waits until a counter of TCP in the router's namespace has counted.
    pub(super) async fn until_counted(&self, name: &'static str) {
        eventually(name, async || {
            let count = self.ask(move |_, peer, _| peer.run(move || counter(name))).await;
            if count > 0 { Ok(()) } else { Err("0".into()) }
        })
        .await;
    }

    /// Has the router end its session.
    pub(super) fn shut_down(&self) {
        match self.kind {
            Kind::Bird => drop(run(
                "birdc",
                &["-s", &self.directory.path().join("bird.ctl").display().to_string(), "disable", "lb"],
            )),
            Kind::Frr => frr::shut_down(&self.directory),
            Kind::GoBgp => drop(gobgp::ask(&self.peer, "neighbor 10.0.0.11 disable")),
        }
    }

    pub(super) fn assert_alive(mut self) {
        for process in &mut self.processes {
            assert_eq!(process.0.try_wait().unwrap(), None, "{}", self.directory.path().display());
        }
    }

    /// The output of its processes.
    fn log(&self) -> String {
        let files = fs::read_dir(self.directory.path()).unwrap().flatten();
        let logs = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "log"));
        logs.map(|file| fs::read_to_string(file.path()).unwrap_or_default()).collect()
    }
}

/// A record of changes of routes.
pub(super) struct Routes {
    _process: Process,
    directory: Arc<TempDir>,
}

impl Routes {
    /// The changes so far, a line for each.
    pub(super) fn seen(&self) -> String {
        fs::read_to_string(self.directory.path().join("ip.log")).unwrap()
    }
}

/// Runs a program to its end and returns its output.
pub(super) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until a counter of TCP in this namespace has counted.
pub(super) async fn until_counted_here(name: &str) {
    eventually(name, async || if counter(name) > 0 { Ok(()) } else { Err("0".into()) }).await;
}

/// A counter of TCP in the calling thread's namespace.
fn counter(name: &str) -> u64 {
    let text =
        fs::read_to_string(format!("/proc/{}/task/{}/net/netstat", std::process::id(), nix::unistd::gettid())).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks(2) {
        let [names, values] = pair else { continue };
        let found = names.split(' ').zip(values.split(' ')).find(|(found, _)| *found == name);
        if let Some((_, value)) = found {
            return value.parse().unwrap();
        }
    }
    panic!("the kernel counts no {name} (thread {:?})", thread::current().name());
}
