//! The program at the egress of interfaces: attached wherever health checks are sent, and never left behind on purpose. It
//! must not know its effect on packets.
//!
//! Where the kernel has links for it (tcx, in Linux since 6.6), one holds it and ends with the daemon, however that ends.
//! Elsewhere it is a filter of the interface's clsact qdisc, which outlives a daemon that is killed: the next one replaces it,
//! by its name. Programs of others stay where they are.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError};
use aya::programs::{SchedClassifier, TcAttachType};
use maglev_common::maps::EGRESS_PROGRAM;
use nix::errno::Errno;

use super::attach::Interface;
use super::bpf;
use super::error::{DataplaneError, chain, os_error};
use super::features;

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
    fn detect() -> Self {
        if features::has_egress_links() { Self::Link } else { Self::Filter }
    }
}

/// The interfaces the program is attached to. Dropping it detaches.
#[derive(Debug)]
pub(super) struct Egress {
    means: Means,
    /// By the interface's index.
    held: BTreeMap<u32, Hold>,
}

impl Default for Egress {
    fn default() -> Self {
        Self::by(Means::detect())
    }
}

impl Egress {
    /// Attached to nothing yet.
    pub(super) fn by(means: Means) -> Self {
        Self { means, held: BTreeMap::new() }
    }

    /// Attaches to these interfaces, where it is not attached yet, and to no others. Returns those where that failed, and
    /// why.
    pub(super) fn follow<'a>(
        &mut self,
        program: &mut SchedClassifier,
        interfaces: impl IntoIterator<Item = &'a Interface>,
    ) -> Vec<(&'a Interface, DataplaneError)> {
        let mut before = std::mem::take(&mut self.held);
        let mut failed = Vec::new();
        for interface in interfaces {
            let known = before.remove(&interface.index).map_or_else(|| attach(self.means, program, interface), Ok);
            match known {
                Ok(hold) => drop(self.held.insert(interface.index, hold)),
                Err(error) => failed.push((interface, error)),
            }
        }
        failed
    }
}

/// The program's hold on one interface; it is detached when this is dropped.
#[derive(Debug)]
enum Hold {
    Link(OwnedFd),
    /// Its own drop detaches it.
    Filter(#[expect(dead_code, reason = "held for its drop")] SchedClassifierLink),
}

impl Drop for Hold {
    /// Closing is not enough: another process may hold the descriptor. An interface that was removed took its hold along, which is
    /// not an error.
    fn drop(&mut self) {
        if let Self::Link(link) = self
            && let Err(errno) = bpf::detach(link.as_fd())
            && errno != Errno::ENOLINK
        {
            tracing::warn!(%errno, "the program at an interface's egress could not be detached");
        }
    }
}

fn attach(means: Means, program: &mut SchedClassifier, interface: &Interface) -> Result<Hold, DataplaneError> {
    let refused = |reason| DataplaneError::Egress { interface: interface.name.clone(), reason };
    let hold = match means {
        Means::Link => {
            let fd = program.fd().map_err(|error| DataplaneError::program(EGRESS_PROGRAM, &error))?;
            let link = bpf::link_egress(fd.as_fd(), interface.index);
            Hold::Link(link.map_err(|errno| refused(errno.desc().to_owned()))?)
        }
        Means::Filter => Hold::Filter(filter(program, &interface.name).map_err(refused)?),
    };
    tracing::info!(interface = interface.name, index = interface.index, "egress program attached");
    Ok(hold)
}

/// Adds a filter, after the one of another daemon was removed.
fn filter(program: &mut SchedClassifier, interface: &str) -> Result<SchedClassifierLink, String> {
    match tc::qdisc_add_clsact(interface) {
        Err(error) if errno(&error) != Some(Errno::EEXIST) => return Err(format!("clsact qdisc: {}", chain(&error))),
        _ => {}
    }
    match tc::qdisc_detach_program(interface, TcAttachType::Egress, EGRESS_PROGRAM) {
        Err(error) if errno(&error) != Some(Errno::ENOENT) => return Err(chain(&error)),
        _ => {}
    }
    let options = TcAttachOptions::Netlink(NlOptions::default());
    let id = program.attach_with_options(interface, TcAttachType::Egress, options).map_err(|error| chain(&error))?;
    program.take_link(id).map_err(|error| chain(&error))
}

fn errno(error: &TcError) -> Option<Errno> {
    match error {
        TcError::NetlinkError(error) => error.raw_os_error().map(Errno::from_raw),
        TcError::IoError(error) if error.kind() == std::io::ErrorKind::NotFound => Some(Errno::ENOENT),
        other => os_error(other),
    }
}
