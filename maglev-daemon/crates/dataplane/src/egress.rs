//! A program at the egress of interfaces: the load balancer's is attached wherever health checks are sent, and never left behind on
//! purpose; a backend's, which lowers the MSS, may outlive its process. It must not know the program's effect on packets.
//!
//! Where the kernel has links for it (tcx, in Linux since 6.6), one holds it and ends with the process, however that ends, unless it
//! is pinned. Elsewhere it is a filter of the interface's clsact qdisc, which outlives a process that is killed: the next one replaces
//! it, by its name. Programs of others stay where they are.

use std::collections::BTreeMap;
use std::mem;
use std::os::fd::AsFd;
use std::sync::Arc;

use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError};
use aya::programs::{SchedClassifier, TcAttachType};
use maglev_common::maps::EGRESS_PROGRAM;
use nix::errno::Errno;

use super::attach::Interface;
use super::bpf::{self, LinkKind};
use super::error::{DataplaneError, chain, os_error};
use super::features;
use super::held::Held;
use super::pins::{PinnedLink, Pins};

/// The kernel object that holds the program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// A link.
    Link,
    /// A filter.
    Filter,
}

impl Means {
    /// The one that ends with the daemon, where the kernel has it.
    pub(super) fn detect() -> Self {
        if features::has_egress_links() { Self::Link } else { Self::Filter }
    }
}

/// The interfaces a program is attached to. Dropping it detaches, unless the program is to outlive this.
#[derive(Debug)]
pub(super) struct Egress {
    program: &'static str,
    means: Means,
    /// Where links are pinned, if the program is to outlive this.
    pins: Option<Arc<Pins>>,
    /// By the interface's index.
    held: BTreeMap<u32, Hold>,
}

impl Default for Egress {
    fn default() -> Self {
        Self::by(Means::detect())
    }
}

impl Egress {
    /// The load balancer's program, attached to nothing yet.
    pub(super) fn by(means: Means) -> Self {
        Self { program: EGRESS_PROGRAM, means, pins: None, held: BTreeMap::new() }
    }

    /// A program that outlives this if its links can be pinned.
    pub(super) fn outliving(program: &'static str, pins: Option<Arc<Pins>>) -> Self {
        Self { program, pins, ..Self::default() }
    }

    /// The same by other means.
    #[cfg(test)]
    pub(super) fn set_means(&mut self, means: Means) {
        self.means = means;
    }

    /// Attaches to these interfaces, where it is not attached yet, and to no others. Returns those where that failed, and
    /// why.
    pub(super) fn follow<'a>(
        &mut self,
        program: &mut SchedClassifier,
        interfaces: impl IntoIterator<Item = &'a Interface>,
    ) -> Vec<(&'a Interface, DataplaneError)> {
        let mut before = mem::take(&mut self.held);
        let mut left = self.left();
        let mut failed = Vec::new();
        for interface in interfaces {
            let found = left.remove(&interface.index);
            let known = match before.remove(&interface.index) {
                Some(hold) => Ok(hold),
                None => self.attach(program, interface, found),
            };
            match known {
                Ok(hold) => drop(self.held.insert(interface.index, hold)),
                Err(error) => failed.push((interface, error)),
            }
        }
        before.into_values().for_each(Hold::end);
        left.into_values().for_each(PinnedLink::end);
        failed
    }

    /// Puts this program in the place of the one that `before` holds, in its links. Where there are none, it is detached, and
    /// attached by the next [`Self::follow`].
    pub(super) fn take_over(&mut self, mut before: Self, program: &SchedClassifier) -> Result<(), DataplaneError> {
        let failed = |error| DataplaneError::program(self.program, &error);
        let (id, fd) = (program.info().map_err(failed)?.id(), program.fd().map_err(failed)?);
        for (index, mut hold) in mem::take(&mut before.held) {
            let Hold::Link(held) = &mut hold else { continue };
            match held.replace(fd.as_fd(), id) {
                Ok(_) => drop(self.held.insert(index, hold)),
                Err(errno) => tracing::warn!(index, %errno, "the egress program cannot be replaced: attaching it anew"),
            }
        }
        Ok(())
    }

    /// Detaches it everywhere, also where another process left it.
    pub(super) fn stop(mut self) {
        mem::take(&mut self.held).into_values().for_each(Hold::end);
        self.left().into_values().for_each(PinnedLink::end);
    }

    /// Detaches the program that another process left on an interface.
    pub(super) fn end_left(self, interface: &str) {
        if self.means == Means::Filter
            && let Err(reason) = remove_filter(interface, self.program)
        {
            tracing::warn!(interface, reason, "a program of another process is at its egress and cannot be detached");
        }
        self.stop();
    }

    /// The pinned links. In some order they are this one's own, or of a process before it.
    fn left(&self) -> BTreeMap<u32, PinnedLink> {
        let Some(pins) = &self.pins else { return BTreeMap::new() };
        pins.links(LinkKind::Egress).unwrap_or_else(|error| {
            tracing::warn!("{error}");
            BTreeMap::new()
        })
    }

    fn attach(
        &self,
        program: &mut SchedClassifier,
        interface: &Interface,
        found: Option<PinnedLink>,
    ) -> Result<Hold, DataplaneError> {
        let refused = |reason| DataplaneError::Egress { interface: interface.name.clone(), reason };
        let by_link = |errno: Errno| refused(errno.desc().to_owned());
        let hold = match self.means {
            Means::Link => {
                let failed = |error| DataplaneError::program(self.program, &error);
                let id = program.info().map_err(failed)?.id();
                let fd = program.fd().map_err(failed)?;
                let mut held = match found {
                    Some(link) => Held::from(link),
                    None => Held::new(bpf::link_egress(fd.as_fd(), interface.index).map_err(by_link)?, id),
                };
                held.replace(fd.as_fd(), id).map_err(by_link)?;
                self.pins.as_ref().map_or(Ok(()), |pins| held.pin_to(pins, LinkKind::Egress, interface.index))?;
                Hold::Link(held)
            }
            Means::Filter => {
                let link = filter(program, &interface.name, self.program).map_err(refused)?;
                Hold::Filter { link: Some(link), outlives: self.pins.is_some() }
            }
        };
        tracing::info!(interface = interface.name, index = interface.index, "egress program attached");
        Ok(hold)
    }
}

/// The program's hold on one interface; it is detached when this is dropped, unless it is to outlive this.
#[derive(Debug)]
enum Hold {
    Link(Held),
    /// Its own drop detaches it.
    Filter {
        link: Option<SchedClassifierLink>,
        outlives: bool,
    },
}

impl Hold {
    /// Detaches the program.
    fn end(mut self) {
        match &mut self {
            Self::Link(held) => held.unpin(),
            Self::Filter { outlives, .. } => *outlives = false,
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Self::Filter { link, outlives: true } = self {
            mem::forget(link.take());
        }
    }
}

/// Adds a filter, after the one of another process was removed.
fn filter(program: &mut SchedClassifier, interface: &str, name: &str) -> Result<SchedClassifierLink, String> {
    match tc::qdisc_add_clsact(interface) {
        Err(error) if errno(&error) != Some(Errno::EEXIST) => return Err(format!("clsact qdisc: {}", chain(&error))),
        _ => {}
    }
    remove_filter(interface, name)?;
    let options = TcAttachOptions::Netlink(NlOptions::default());
    let id = program.attach_with_options(interface, TcAttachType::Egress, options).map_err(|error| chain(&error))?;
    program.take_link(id).map_err(|error| chain(&error))
}

/// Removes the filters that have a name, if there are any.
fn remove_filter(interface: &str, name: &str) -> Result<(), String> {
    match tc::qdisc_detach_program(interface, TcAttachType::Egress, name) {
        Err(error) if errno(&error) != Some(Errno::ENOENT) => Err(chain(&error)),
        _ => Ok(()),
    }
}

fn errno(error: &TcError) -> Option<Errno> {
    match error {
        TcError::NetlinkError(error) => error.raw_os_error().map(Errno::from_raw),
        TcError::IoError(error) if error.kind() == std::io::ErrorKind::NotFound => Some(Errno::ENOENT),
        other => os_error(other),
    }
}
