//! Another data plane of this process, with settings that a reload brings: loaded beside the running one, which forwards until the
//! plan of everything is carried out in the other. It must not know the files, nor how a plan is made.
//!
//! ```text
//!  reload ─▶ prepare (a blocking thread) ─▶ services replaced ─▶ plan of everything ─▶ links updated, the running one dropped
//!               │ refused: nothing changed                          │ fails: retried like any plan; the running one forwards
//! ```

use maglev_core::reconcile::Members;
use maglev_dataplane::{Dataplane, DataplaneError, Fingerprint, Interface, Settings, Slots};
use maglev_model::plan::Step;
use maglev_net::links::Link;

use super::adoption::{Keeper, Lineage};
use super::refreshed::Refreshed;

/// A loaded data plane. If it is dropped, the running one stays as it is.
#[derive(Debug)]
pub(super) struct Successor {
    pub(super) dataplane: Box<Dataplane>,
    pub(super) maps: Fingerprint,
    /// The interfaces, with their slots in it.
    pub(super) interfaces: Refreshed,
}

impl Successor {
    /// Loads a data plane with these settings beside the running one, which has these interfaces.
    ///
    /// # Errors
    /// As for [`Dataplane::prepare`]. The running one stays as it is.
    pub(super) fn load(
        settings: &Settings,
        existing: Vec<Link>,
        Lineage { pins, set, maps }: &Lineage,
        known: &[Interface],
    ) -> Result<Self, DataplaneError> {
        let dataplane = Box::new(Dataplane::prepare(settings, &existing, pins, (set, maps), known)?);
        let interfaces = Refreshed::new(&dataplane, dataplane.begun(), existing);
        Ok(Self { dataplane, maps: Fingerprint::from_settings(settings)?, interfaces })
    }
}

/// A successor on the data plane's thread, until it takes over.
#[derive(Debug)]
pub(super) struct Next {
    dataplane: Box<Dataplane>,
    /// The members that it begins with, until they are written.
    members: Option<Members>,
    keeper: Keeper,
    /// Its number.
    plane: u64,
}

impl Next {
    pub(super) fn new(successor: Successor, members: Members, before: &Keeper) -> Option<Self> {
        let Successor { dataplane, maps, interfaces } = successor;
        let keeper = before.succeed(dataplane.set()?.1, maps, dataplane.slots());
        Some(Self { dataplane, members: Some(members), keeper, plane: interfaces.plane })
    }

    /// The interfaces of its slots.
    pub(super) fn slots(&self) -> Slots {
        self.dataplane.slots()
    }

    /// Writes its state, before its plan is carried out.
    pub(super) const fn keeper(&mut self) -> &mut Keeper {
        &mut self.keeper
    }

    /// Carries out the plan of everything, and lets the successor take over. A failed call can be repeated.
    pub(super) fn carry_out(&mut self, steps: &[Step], running: &mut Dataplane) -> Result<(), String> {
        let failed = |error: DataplaneError| error.to_string();
        if let Some(members) = &self.members {
            self.dataplane.continue_members(members).map_err(failed)?;
            self.members = None;
        }
        self.dataplane.publish(steps).map_err(failed)?;
        self.dataplane.take_over(running).map_err(failed)
    }

    /// Ends the one that ran until now, once the plan is carried out, and takes its place. Returns its number.
    pub(super) fn take_place(self, running: &mut Dataplane, keeper: &mut Option<Keeper>) -> u64 {
        let Self { dataplane, members: _, keeper: next, plane } = self;
        drop(std::mem::replace(running, *dataplane));
        *keeper = Some(next);
        running.release();
        plane
    }
}
