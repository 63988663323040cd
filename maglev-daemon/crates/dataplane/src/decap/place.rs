//! The program of one interface, attached to it or waiting for it, and its settings. It must not know other interfaces.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::slice;
use std::sync::Arc;

use aya::maps::{ArrayOfMaps, MapError};
use ipnet::IpNet;
use maglev_common::maps as names;
use maglev_common::pod::Word;
use maglev_common::settings::Mss;
use maglev_net::links::Link;

use super::left::{Left, SET};
use super::prefixes::Prefixes;
use super::{DecapSettings, SynMap};
use crate::attach::{self, Attached, Interface, InterfaceSettings, Refresh};
use crate::bpf::LinkKind;
use crate::counters::DecapSnapshot;
use crate::driver_report::Surroundings;
use crate::egress::Egress;
use crate::error::DataplaneError;
use crate::maps;
use crate::mode::Mode;
use crate::object::{Loaded, possible_cpus};
use crate::pins::PinnedLink;
use crate::shared::Mapped;

const SOURCES: [&str; 2] = [names::DECAP_SOURCES4, names::DECAP_SOURCES6];
const VIPS: [&str; 2] = [names::DECAP_VIPS4, names::DECAP_VIPS6];

/// An interface and its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecapPlace {
    /// The interface's name.
    pub name: String,
    /// In which mode the program is attached, or will be.
    pub mode: Mode,
    /// The interface as it was when the program was attached last; `None` if it never existed.
    pub interface: Option<Interface>,
    /// The folder with the pinned maps; `None` if nothing is pinned.
    pub pinned: Option<PathBuf>,
    /// Whether the maps were another process's before.
    pub adopted: bool,
    /// The reason why the maps of another process were replaced, if they were: counters began anew.
    pub replaced: Option<String>,
}

/// The program of one interface.
#[derive(Debug)]
pub(super) struct Place {
    settings: InterfaceSettings,
    /// Declared first of those below, so that it is dropped first: nothing is unmapped under a program that still runs.
    attached: Attached,
    /// The program that lowers the MSS, if that is asked for.
    egress: Option<Egress>,
    counters: Mapped<Word>,
    /// Holds the programs and the tries.
    ebpf: Loaded,
    left: Option<Left>,
}

impl Place {
    pub(super) fn load(
        object: &[u8],
        wanted: &InterfaceSettings,
        settings: &DecapSettings,
        syns: Option<&SynMap>,
    ) -> Result<Self, DataplaneError> {
        let left = settings.pin.as_ref().map(|folder| Left::claim(folder, &wanted.name)).transpose()?;
        match Self::with(object, wanted, left.as_ref(), settings, syns) {
            Ok((ebpf, counters)) => {
                let egress = syns.map(|_| egress(left.as_ref()));
                Ok(Self { settings: wanted.clone(), attached: Attached::default(), egress, counters, ebpf, left })
            }
            Err(error) => {
                left.iter().filter(|left| !left.adopted).for_each(|left| left.pins.remove_set(SET));
                Err(error)
            }
        }
    }

    fn with(
        object: &[u8],
        wanted: &InterfaceSettings,
        left: Option<&Left>,
        settings: &DecapSettings,
        syns: Option<&SynMap>,
    ) -> Result<(Loaded, Mapped<Word>), DataplaneError> {
        let DecapSettings { interfaces: _, sources, vips, mss, pin: _ } = settings;
        let cpus = possible_cpus()?;
        let mut ebpf = loaded(object, *mss, cpus, left, syns)?;
        Prefixes::new(sources.iter().copied()).write(&mut ebpf, SOURCES)?;
        vips.write(&mut ebpf, VIPS)?;
        let counters = maps::open(&ebpf, names::DECAP_COUNTERS, cpus * names::COUNTER_REGION)?;
        if let Some(left) = left.filter(|left| left.adopted) {
            tracing::info!(interface = wanted.name, folder = %left.pins.folder().display(), "decapsulation adopted");
        }
        Ok((ebpf, counters))
    }

    pub(super) fn name(&self) -> &str {
        &self.settings.name
    }

    /// Whether the program was never attached yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.attached.interfaces().is_empty()
    }

    pub(super) fn interfaces(&self) -> &[Interface] {
        self.attached.interfaces()
    }

    pub(super) fn view(&self) -> DecapPlace {
        let Self { settings: InterfaceSettings { name, mode, also: _ }, attached, left, .. } = self;
        DecapPlace {
            name: name.clone(),
            mode: *mode,
            interface: attached.interfaces().first().cloned(),
            pinned: left.as_ref().map(Left::set),
            adopted: left.as_ref().is_some_and(|left| left.adopted),
            replaced: left.as_ref().and_then(|left| left.misfit.clone()),
        }
    }

    pub(super) fn snapshot(&self) -> DecapSnapshot {
        DecapSnapshot::read(&self.counters)
    }

    pub(super) fn accept(&mut self, sources: &[IpNet]) -> Result<(), DataplaneError> {
        Prefixes::new(sources.iter().copied()).write(&mut self.ebpf, SOURCES)
    }

    pub(super) fn serve(&mut self, vips: &Prefixes) -> Result<(), DataplaneError> {
        vips.write(&mut self.ebpf, VIPS)
    }

    /// The programs with another MSS, on the same maps.
    pub(super) fn load_with(&self, object: &[u8], mss: Mss, syns: Option<&SynMap>) -> Result<Loaded, DataplaneError> {
        if self.left.is_none() {
            return Err(DataplaneError::Setting("mss: nothing is pinned: a restart is needed".to_owned()));
        }
        loaded(object, mss, possible_cpus()?, self.left.as_ref(), syns)
    }

    /// Puts other programs on the same maps in the place of those that run.
    pub(super) fn replace(&mut self, ebpf: Loaded, mss: Mss) -> Result<(), DataplaneError> {
        // Links hold the old programs.
        self.ebpf = ebpf;
        self.attached.replace(self.ebpf.program(names::DECAP_PROGRAM)?)?;
        match mss {
            Mss::Off => self.egress.take().into_iter().for_each(Egress::stop),
            Mss::Auto | Mss::Limit(_) if self.egress.is_none() => self.egress = Some(egress(self.left.as_ref())),
            // The one that is attached does not depend on the limit, and shares the map of SYNs: it stays.
            Mss::Auto | Mss::Limit(_) => {}
        }
        if self.is_waiting() { Ok(()) } else { self.guard() }
    }

    /// Attaches the program to the interface, or puts it in the place of the one that a pinned link holds there.
    pub(super) fn attach(&mut self, links: &[Link]) -> Result<(), DataplaneError> {
        let Self { settings, attached, ebpf, left, .. } = self;
        let mut held = left.as_ref().map_or_else(|| Ok(BTreeMap::new()), |left| left.pins.links(LinkKind::Xdp))?;
        for interface in attach::choose(slice::from_ref(settings), links, &held)? {
            let at = links.iter().find(|link| link.index == interface.index).and_then(|link| link.xdp);
            match held.remove(&interface.index) {
                Some(link) if at.is_some_and(|at| interface.mode.is(at.at)) => attached.take_over(interface, link),
                other => {
                    // A link cannot change its mode.
                    other.into_iter().for_each(PinnedLink::end);
                    attached.attach(ebpf, names::DECAP_PROGRAM, interface, Surroundings { links, alone: true })?;
                }
            }
        }
        if let Some(left) = left {
            if let Err(error) = attached.outlive(&left.pins, ebpf.program(names::DECAP_PROGRAM)?) {
                *attached = Attached::default();
                return Err(error);
            }
            // Of an interface that had this name.
            held.into_values().for_each(PinnedLink::end);
            left.pins.remove_sets_but(&[SET]);
        }
        self.guard()
    }

    /// Attaches the program that lowers the MSS where the other one is, or removes the one that a process before this left.
    fn guard(&mut self) -> Result<(), DataplaneError> {
        let Self { settings, attached, egress: guard, ebpf, left, .. } = self;
        let Some(guard) = guard else {
            egress(left.as_ref()).end_left(&settings.name);
            return Ok(());
        };
        let program = ebpf.classifier(names::DECAP_EGRESS_PROGRAM)?;
        guard.follow(program, attached.interfaces()).pop().map_or(Ok(()), |(_, error)| Err(error))
    }

    pub(super) fn refresh(&mut self, links: &[Link]) -> Refresh {
        let name = self.settings.name.clone();
        if self.is_waiting() {
            let problems = match self.attach(links) {
                Ok(()) => return Refresh::default(),
                Err(DataplaneError::InterfaceAbsent { .. }) => Vec::new(),
                Err(problem) => vec![problem.to_string()],
            };
            return Refresh { detached: vec![name], problems, ..Refresh::default() };
        }
        let mut refresh = self.attached.refresh(&mut self.ebpf, names::DECAP_PROGRAM, None, links);
        if self.egress.is_some()
            && refresh.detached.is_empty()
            && let Err(problem) = self.guard()
        {
            refresh.unguarded.push(name);
            refresh.problems.push(problem.to_string());
        }
        refresh
    }

    /// Ends it after a failed start: what another process left goes on.
    pub(super) fn withdraw(self) {
        match &self.left {
            Some(left) if left.adopted => {}
            Some(left) if left.misfit.is_some() => left.pins.remove_set(SET),
            _ => self.stop(),
        }
    }

    pub(super) fn stop(self) {
        let Self { settings, mut attached, egress, counters, ebpf, left } = self;
        attached.unpin();
        drop(attached);
        egress.into_iter().for_each(Egress::stop);
        if let Some(left) = &left {
            // Of an interface that is not there now, too.
            left.pins.links(LinkKind::Xdp).into_iter().flat_map(BTreeMap::into_values).for_each(PinnedLink::end);
            left.pins.remove_set(SET);
        }
        drop((counters, ebpf));
        tracing::info!(interface = settings.name, "decapsulation detached");
    }

    #[cfg(test)]
    pub(super) fn ebpf(&mut self) -> &mut Loaded {
        &mut self.ebpf
    }
}

/// The programs, on the maps that are left to them; the one that lowers the MSS only with the map of SYNs.
fn loaded(
    object: &[u8],
    mss: Mss,
    cpus: u32,
    left: Option<&Left>,
    syns: Option<&SynMap>,
) -> Result<Loaded, DataplaneError> {
    let pinned = left.map(|left| (&*left.pins, SET));
    let mut ebpf = Loaded::backend_of(object, names::DECAP_PROGRAM, cpus, mss, pinned)?;
    if let Some(SynMap(syns)) = syns {
        let failed = |error: &MapError| DataplaneError::map(names::DECAP_SYNS, "update", error);
        let outer = ArrayOfMaps::try_from(ebpf.map_mut(names::DECAP_SYNS)?);
        outer.and_then(|mut outer| outer.set(0, syns, 0)).map_err(|error| failed(&error))?;
        ebpf.load_classifier(names::DECAP_EGRESS_PROGRAM)?;
    }
    Ok(ebpf)
}

fn egress(left: Option<&Left>) -> Egress {
    Egress::outliving(names::DECAP_EGRESS_PROGRAM, left.map(|left| Arc::clone(&left.pins)))
}
