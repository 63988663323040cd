//! One check: asks one backend once, and tells what came of it. Bounded in time and memory whatever the other side does. It
//! must not know what follows, nor when it is asked again.

mod datagram;
mod dns;
mod http;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod way;
mod words;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use crate::health::fsm::Way;
use crate::model::{Check, Probe};
pub use tls::Trust;

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// That it succeeded, or in words why not.
    pub outcome: Result<(), String>,
    /// How long it took.
    pub latency: Duration,
}

/// What a check is doing: it is named if time runs out.
#[derive(Debug)]
struct Doing(std::sync::Mutex<&'static str>);

impl Doing {
    fn now(&self, what: &'static str) {
        if let Ok(mut doing) = self.0.lock() {
            *doing = what;
        }
    }
}

/// Asks once, by packets that leave this way.
pub async fn probe(destination: SocketAddr, way: &Way, check: &Check, trust: &Trust) -> Ended {
    if let Probe::Https(_, server) = &check.probe {
        // What this takes is not the other side's fault.
        trust.prepare(server);
    }
    let doing = Doing(std::sync::Mutex::new("connect"));
    let began = Instant::now();
    let asked = tokio::time::timeout(check.timeout, ask(destination, way, &check.probe, trust, &doing)).await;
    let outcome = asked.unwrap_or_else(|_| {
        let what = doing.0.lock().map_or("check", |doing| *doing);
        Err(format!("{what}: timed out after {}", words::seconds(check.timeout)))
    });
    Ended { outcome, latency: began.elapsed() }
}

async fn ask(destination: SocketAddr, way: &Way, probe: &Probe, trust: &Trust, doing: &Doing) -> Result<(), String> {
    match probe {
        Probe::Tcp => stream::connect(destination, way).await.map(drop),
        Probe::Http(request) => {
            let stream = stream::connect(destination, way).await?;
            http::ask(stream, &destination.to_string(), request, doing).await
        }
        Probe::Https(request, server) => {
            let stream = stream::connect(destination, way).await?;
            doing.now("TLS handshake");
            let stream = trust.shake_hands(stream, server).await?;
            http::ask(stream, &tls::authority(server, destination.port()), request, doing).await
        }
        Probe::Udp { payload, expect } => {
            doing.now("answer");
            let answer = datagram::ask(destination, way, payload, |_| true).await?;
            if answer.starts_with(expect) { Ok(()) } else { Err(words::unexpected(expect, &answer)) }
        }
        Probe::Dns { query, rcode } => {
            doing.now("answer");
            dns::ask(destination, way, query, *rcode).await
        }
    }
}
