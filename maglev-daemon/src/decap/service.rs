//! The service: the one holder of the programs that decapsulate. It carries out changes of interfaces and addresses, and answers
//! requests. It must not know sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use ipnet::IpNet;
use maglev_api::{RELEASE, view};
use maglev_common::counters::DecapCounter;
use maglev_common::maps::MAX_DECAP_VIPS;
use maglev_config::OnStop;
use maglev_dataplane::{DataplaneError, Decap, DecapPlace, Prefixes, Refresh};
use maglev_model::shown_network;
use maglev_net::links::{Link, Watch};
use serde_json::{Map, Value};

use super::api::Request;
use super::progress::{self, Progress};
use super::settings::{Settings, mss_word};
use super::{Inputs, Say};
use crate::runtime::Failure;

/// Where the settings come from.
#[derive(Debug)]
pub(super) enum Origin {
    File(PathBuf),
    Options,
}

impl Origin {
    /// What names VIPs.
    const fn vips(&self) -> &'static str {
        match self {
            Self::File(_) => "`vips` in decap.yaml",
            Self::Options => "--to",
        }
    }
}

/// The service.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) origin: Origin,
    /// As they are in force.
    pub(super) settings: Settings,
    pub(super) program: Decap,
    /// The addresses on the loopback device.
    loopback: BTreeSet<IpNet>,
    /// How many of these are beyond the limit of VIPs.
    beyond: usize,
    last: Refresh,
    /// The interfaces on which an earlier process left decapsulation running.
    abandoned: Vec<String>,
    /// When the program of each interface was attached, in seconds since 1970.
    since: BTreeMap<String, u64>,
    progress: Progress,
    started: Instant,
    pub(super) restart_needed: Vec<String>,
    pub(super) last_reload: Option<view::LastReload>,
}

impl Service {
    /// Starts decapsulation.
    pub(super) async fn start(origin: Origin, settings: Settings, inputs: &Inputs) -> Result<Self, Failure> {
        settings.warn();
        let loopback = inputs.loopback.list().await?;
        let (vips, beyond) = vips(settings.vips.as_deref(), &loopback);
        if settings.vips.is_none() {
            log_vips(&vips, beyond, &origin);
        }
        let program = settings.start(vips, &inputs.watch.list().await?)?;
        let last = Refresh { detached: program.waiting(), ..Refresh::default() };
        for name in &last.detached {
            tracing::warn!(interface = name, "the interface does not exist: waiting for it");
        }
        let abandoned = match &origin {
            Origin::File(_) => program.abandoned(),
            Origin::Options => Vec::new(),
        };
        for interface in &abandoned {
            tracing::warn!(
                interface,
                "an earlier process left decapsulation running here, and decap.yaml does not list the interface: list it, or \
                 remove its folder below dataplane.pin"
            );
        }
        let mut service = Self {
            origin,
            settings,
            program,
            loopback,
            beyond,
            last,
            abandoned,
            since: BTreeMap::new(),
            progress: Progress::default(),
            started: Instant::now(),
            restart_needed: Vec::new(),
            last_reload: None,
        };
        service.note_times();
        Ok(service)
    }

    /// Reports interfaces that are attached and awaited, if that changed.
    pub(super) fn show_progress(&mut self, say: Say) -> Result<(), Failure> {
        let interfaces: Vec<_> = self.settings.interfaces.iter().map(|interface| &*interface.name).collect();
        self.progress.show(&interfaces, &self.last, say)
    }

    /// Follows the interfaces.
    pub(super) fn refresh(&mut self, links: &[Link], watch: &mut Watch) {
        progress::take(self.program.refresh(links), &mut self.last, watch);
        self.note_times();
    }

    fn note_times(&mut self) {
        let now = maglev_api::now().0;
        let places = self.program.places().into_iter().map(|place| place.name);
        let attached: BTreeSet<_> = places.filter(|name| !self.last.detached.contains(name)).collect();
        self.since.retain(|name, _| attached.contains(name));
        for name in attached {
            self.since.entry(name).or_insert(now);
        }
    }

    /// Takes over the addresses on the loopback device.
    pub(super) fn follow_loopback(&mut self, addresses: BTreeSet<IpNet>) {
        self.loopback = addresses;
        if self.settings.vips.is_some() {
            return;
        }
        let (vips, beyond) = vips(None, &self.loopback);
        if vips != self.program.settings().vips || beyond != self.beyond {
            log_vips(&vips, beyond, &self.origin);
        }
        self.beyond = beyond;
        if let Err(error) = self.program.serve(&vips) {
            tracing::error!(%error, "the VIPs on lo changed and cannot all be served");
        }
    }

    /// Serves these VIPs from now on, or those on the loopback device.
    pub(super) fn serve(&mut self, named: Option<Vec<IpNet>>) -> Result<(), DataplaneError> {
        let (vips, beyond) = vips(named.as_deref(), &self.loopback);
        self.program.serve(&vips)?;
        if named.is_none() {
            log_vips(&vips, beyond, &self.origin);
        }
        (self.beyond, self.settings.vips) = (beyond, named);
        Ok(())
    }

    /// Answers a request.
    pub(super) async fn answer(&mut self, request: Request, watch: &mut Watch) {
        // A client that disconnected needs no answer.
        match request {
            Request::Status(reply) => drop(reply.send(self.status())),
            Request::Counters(reply) => drop(reply.send(self.counters())),
            Request::Reload(reply) => drop(reply.send(self.reload(watch).await)),
        }
    }

    fn status(&self) -> view::DecapStatus {
        let in_force = self.program.settings();
        let shown = |networks: &mut dyn Iterator<Item = IpNet>| networks.map(shown_network).collect();
        view::DecapStatus {
            version: RELEASE.to_owned(),
            object: maglev_dataplane::backend_sha256().to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            file: match &self.origin {
                Origin::File(file) => file.display().to_string(),
                Origin::Options => String::new(),
            },
            interfaces: self.program.places().into_iter().map(|place| self.interface(place)).collect(),
            sources: shown(&mut in_force.sources.iter().copied()),
            vips: shown(&mut in_force.vips.accepted()),
            vips_on_loopback: self.settings.vips.is_none(),
            vips_beyond_limit: self.beyond,
            mss: mss_word(in_force.mss),
            pin: in_force.pin.as_ref().map(|folder| folder.display().to_string()),
            kept_on_stop: self.settings.on_stop == OnStop::Keep,
            abandoned: self.abandoned.iter().filter(|name| !self.lists(name)).cloned().collect(),
            restart_needed: self.restart_needed.clone(),
            problems: self.last.problems.clone(),
            last_reload: self.last_reload.clone(),
        }
    }

    fn lists(&self, name: &str) -> bool {
        self.settings.interfaces.iter().any(|interface| interface.name == name)
    }

    fn interface(&self, place: DecapPlace) -> view::DecapInterface {
        let DecapPlace { name, mode, interface, pinned, adopted, replaced } = place;
        view::DecapInterface {
            mode: mode.to_string(),
            attached: !self.last.detached.contains(&name),
            since: self.since.get(&name).copied(),
            index: interface.as_ref().map_or(0, |interface| interface.index),
            mtu: interface.as_ref().map_or(0, |interface| interface.mtu),
            set: pinned.map(|folder| folder.display().to_string()),
            adopted,
            replaced,
            name,
        }
    }

    fn counters(&self) -> view::DecapCounters {
        let snapshot = self.program.snapshot();
        let counter = |counter: &DecapCounter| view::Counter {
            name: counter.name().to_owned(),
            outcome: counter.outcome().as_str().to_owned(),
            packets: snapshot.counter(*counter),
            help: counter.help().to_owned(),
        };
        view::DecapCounters { counters: DecapCounter::ALL.iter().map(counter).collect() }
    }

    /// The counters as one JSON object.
    pub(super) fn counters_as_json(&self) -> String {
        let snapshot = self.program.snapshot();
        let of = |counter: &DecapCounter| (counter.name().to_owned(), Value::from(snapshot.counter(*counter)));
        Value::Object(DecapCounter::ALL.iter().map(of).collect::<Map<_, _>>()).to_string()
    }

    /// Ends, and leaves the programs or detaches them.
    pub(super) fn stop(self) {
        match self.settings.on_stop {
            OnStop::Detach => self.program.stop(),
            OnStop::Keep => {
                tracing::info!("decapsulation goes on without this process");
                drop(self.program);
            }
        }
    }
}

/// The VIPs that are named, or those on the loopback device; and how many of these are beyond the limit.
fn vips(named: Option<&[IpNet]>, loopback: &BTreeSet<IpNet>) -> (Prefixes, usize) {
    match named {
        Some(named) => (Prefixes::new(named.iter().copied()), 0),
        None => maglev_dataplane::within_limit(Prefixes::from_loopback(loopback.iter().copied())),
    }
}

fn log_vips(vips: &Prefixes, beyond: usize, origin: &Origin) {
    if beyond > 0 {
        tracing::error!(
            "lo has {beyond} more addresses than the limit of {MAX_DECAP_VIPS}: packets for these are dropped"
        );
    }
    if vips.is_empty() {
        let option = origin.vips();
        tracing::warn!(
            "no VIP on lo and no {option}: every encapsulated packet is dropped and counted as foreign_destination; \
             `ip address add VIP dev lo`, which is noticed, or name VIPs with {option}"
        );
    } else {
        let vips: Vec<_> = vips.accepted().map(|vip| vip.to_string()).collect();
        tracing::info!(vips = vips.join(" "), "VIPs on lo");
    }
}
