//! Decapsulation on a backend until a signal ends it: as a service with a file, or as options say. It must not know how a program is
//! loaded.
//!
//! ```text
//!  maglev decap ─▶ API connections ─┐ Request
//!  scraper ──────▶ /metrics ────────┤
//!  SIGHUP, SIGTERM ─────────────────┼─▶ service: the one holder of the programs
//!  interface watch (netlink) ───────┤
//!  loopback watch (netlink) ────────┘
//! ```
//!
//! All of it runs on one thread: each answer takes microseconds, and a reload with another MSS some milliseconds.

mod api;
mod counters_file;
mod progress;
mod reload;
mod service;
mod settings;

use std::path::Path;
use std::time::Duration;

use maglev_net::links::Watch;
use maglev_net::loopback::Loopback;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::runtime::signals::{self, Stop};
use crate::runtime::{Failure, systemd};
use api::{Request, Sockets};
use counters_file::CountersFile;
use service::{Origin, Service};

pub use progress::take;
pub use settings::{Pin, Settings};

/// Prints a line on standard output for the parent process.
pub type Say = fn(&str) -> Result<(), Failure>;

/// How often the counters' file is replaced.
const COUNTERS_EVERY: Duration = Duration::from_millis(100);

/// Decapsulates with the settings of a file, which a reload reads again, and serves its API. Says `ready` once attached to every
/// interface.
///
/// # Errors
/// The reason why it did not start: nothing changed that was attached before.
pub async fn serve(file: &Path, say: Say) -> Result<(), Failure> {
    let settings = Settings::from(maglev_store::load_decap(file)?);
    let inputs = Inputs { hangup: Some(signals::reload()?), ..Inputs::start()? };
    // Opened before a program is attached, so that a second service changes nothing.
    let sockets = settings.api.as_ref().map(Sockets::open).transpose()?;
    let (requests, received) = api::requests();
    let mut service = Service::start(Origin::File(file.to_owned()), settings, &inputs).await?;
    let servers = sockets.map(|sockets| sockets.serve(requests));
    run(&mut service, Inputs { requests: received, ..inputs }, CountersFile::new(None), say).await?;
    systemd::notify("STOPPING=1");
    drop(servers);
    service.stop();
    Ok(())
}

/// Decapsulates with these settings, and keeps the counters in a file. Says `ready` once attached to every interface, and the counters
/// as JSON at the end.
///
/// # Errors
/// The reason why it did not start: nothing changed that was attached before.
pub async fn decapsulate(settings: Settings, counters: Option<&Path>, say: Say) -> Result<(), Failure> {
    let inputs = Inputs::start()?;
    let mut service = Service::start(Origin::Options, settings, &inputs).await?;
    let mut file = CountersFile::new(counters);
    file.replace(&service.counters_as_json());
    run(&mut service, inputs, file, say).await?;
    let counted = service.counters_as_json();
    service.stop();
    CountersFile::new(counters).replace(&counted);
    say(&counted)
}

/// The sources of events.
struct Inputs {
    stop: Stop,
    /// `None`: SIGHUP has its usual effect.
    hangup: Option<Signal>,
    watch: Watch,
    loopback: Loopback,
    requests: mpsc::Receiver<Request>,
}

impl Inputs {
    /// Subscribes before anything is read, so that no change is missed.
    fn start() -> Result<Self, Failure> {
        let (_, requests) = api::requests();
        Ok(Self { stop: Stop::listen()?, hangup: None, watch: Watch::start()?, loopback: Loopback::start()?, requests })
    }
}

async fn run(service: &mut Service, inputs: Inputs, mut file: CountersFile<'_>, say: Say) -> Result<(), Failure> {
    let Inputs { mut stop, mut hangup, mut watch, mut loopback, mut requests } = inputs;
    let mut tick = interval(COUNTERS_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        service.show_progress(say)?;
        tokio::select! {
            () = stop.wait() => return Ok(()),
            () = hung_up(hangup.as_mut()) => drop(service.reload(&mut watch).await),
            Some(request) = requests.recv() => service.answer(request, &mut watch).await,
            links = watch.changed() => service.refresh(&links, &mut watch),
            addresses = loopback.changed() => service.follow_loopback(addresses),
            _ = tick.tick(), if file.is_wanted() => file.replace(&service.counters_as_json()),
        }
    }
}

async fn hung_up(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Checks a file, and returns it in words.
///
/// # Errors
/// All its mistakes.
pub fn check(file: &Path) -> Result<String, Failure> {
    let config = maglev_store::load_decap(file)?;
    let vips = config.vips.as_ref().map_or("VIPs on lo".to_owned(), |vips| format!("{} VIPs", vips.len()));
    let (interfaces, sources) = (config.interfaces.len(), config.sources.len());
    Ok(format!("ok: {}: {interfaces} interfaces, {sources} sources, {vips}", file.display()))
}
