//! One check: asks one backend once, and returns the result. Bounded in time and memory whatever the other side does. It
//! must not know the consequences, nor when it is asked again.

mod authorities;
mod datagram;
mod dns;
mod fault;
#[cfg(test)]
mod faults;
mod http;
mod path;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod words;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use maglev_model::{Check, Probe, ShownDuration};

pub use fault::Fault;
pub use maglev_core::health::CheckPath;
pub use tls::Trust;

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// That it passed, or why not.
    pub outcome: Result<(), Fault>,
    /// How long it took.
    pub latency: Duration,
}

/// The current step of a check, and whether the backend has answered anything: both matter if time runs out.
#[derive(Debug)]
struct Doing(std::sync::Mutex<(&'static str, bool)>);

impl Doing {
    fn new(what: &'static str) -> Self {
        Self(std::sync::Mutex::new((what, false)))
    }

    /// Nothing has been answered until now.
    fn now(&self, what: &'static str) {
        self.set(what, false);
    }

    /// The transport works: the backend is there.
    fn answered(&self, what: &'static str) {
        self.set(what, true);
    }

    fn set(&self, what: &'static str, answered: bool) {
        if let Ok(mut doing) = self.0.lock() {
            *doing = (what, answered);
        }
    }

    /// Why a check failed that took too long.
    fn timed_out(&self, timeout: Duration) -> Fault {
        let (what, answered) = self.0.lock().map_or(("check", false), |doing| *doing);
        let kind = if answered { Fault::Unready } else { Fault::Dead };
        kind(format!("{what}: timed out after {}", ShownDuration(timeout)))
    }
}

/// Asks once, with packets on this path.
pub async fn probe(
    destination: SocketAddr,
    path: &CheckPath,
    check: &Check,
    trust: &Trust,
    rng: &mut fastrand::Rng,
) -> Ended {
    if let Probe::Https(_, server) = &check.probe {
        // The time of this is not the other side's fault.
        if let Err(fault) = trust.prepare(server).await {
            return Ended { outcome: Err(fault), latency: Duration::ZERO };
        }
    }
    let doing = Doing::new("connect");
    let began = Instant::now();
    let asked =
        tokio::time::timeout(check.timeout, ask(destination, path, &check.probe, trust, rng.u16(..), &doing)).await;
    let outcome = asked.unwrap_or_else(|_| Err(doing.timed_out(check.timeout)));
    Ended { outcome, latency: began.elapsed() }
}

/// `id` is that of a query, where one has it.
async fn ask(
    destination: SocketAddr,
    path: &CheckPath,
    probe: &Probe,
    trust: &Trust,
    id: u16,
    doing: &Doing,
) -> Result<(), Fault> {
    match probe {
        Probe::Tcp => stream::connect(destination, path).await.map(drop),
        Probe::Http(request) => {
            let stream = stream::connect(destination, path).await?;
            http::ask(stream, &destination.to_string(), request, doing).await
        }
        Probe::Https(request, server) => {
            let stream = stream::connect(destination, path).await?;
            doing.answered("TLS handshake");
            let stream = trust.shake_hands(stream, server).await?;
            http::ask(stream, &tls::authority(server, destination.port()), request, doing).await
        }
        Probe::Udp { payload, expect } => {
            doing.now("answer");
            let answer = datagram::ask(destination, path, payload, |_| true).await?;
            let expected = answer.starts_with(expect);
            if expected { Ok(()) } else { Err(Fault::Unready(words::unexpected(expect, &answer))) }
        }
        Probe::Dns { query, rcode } => {
            doing.now("answer");
            dns::ask(destination, path, id, query, *rcode).await
        }
    }
}
