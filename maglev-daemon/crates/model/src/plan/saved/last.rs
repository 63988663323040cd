//! The state of a pool as it was saved last: as long as it describes the pool, it is saved again without being made. It must not know
//! where it is kept.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use maglev_common::backend::MemberId;
use maglev_common::settings::Tracking;

use super::super::published::{Begun, Member, PublishedPool};
use super::{SavedMember, SavedPool};
use crate::transition::Transition;
use crate::{Name, Weight};

/// A pool as it was saved last.
#[derive(Debug)]
pub(in crate::plan) struct LastSaved {
    /// Held, so that a change of the slots is one of another allocation.
    transition: Arc<Transition>,
    pool: Arc<SavedPool>,
}

impl PublishedPool {
    /// Its state. The one that was saved last, if that is still it: few pools change between two plans.
    pub(super) fn save(&mut self, name: &Name) -> Arc<SavedPool> {
        let last = self.saved.take().filter(|last| Arc::ptr_eq(&last.transition, &self.transition));
        let pool = match last {
            Some(last) if last.pool.describes(self) => last.pool,
            _ => SavedPool::new(name, self).into(),
        };
        self.saved = Some(LastSaved { transition: Arc::clone(&self.transition), pool: Arc::clone(&pool) });
        pool
    }

    pub(super) fn lost_members(&self) -> impl Iterator<Item = (u16, Duration)> {
        self.members.values().filter_map(|member| Some((member.id.get(), member.lost?)))
    }

    pub(super) fn begun_learning(&self) -> Option<(Begun, u64)> {
        let begun = self.begun.filter(|begun| self.transition.learns_until(begun.until));
        begun.map(|begun| (begun, self.published.0))
    }
}

impl SavedPool {
    /// Whether this is the state of a pool whose slots are as they were.
    fn describes(&self, pool: &PublishedPool) -> bool {
        let Self { name: _, index, always, members, lost, owners, transition: _, begun } = self;
        let is_owner =
            |(saved, (_, weight, id)): (&(u16, u16), &(Name, Weight, MemberId))| *saved == (weight.0, id.get());
        *index == pool.index.0
            && *always == (pool.settings.tracking == Tracking::Always)
            && *begun == pool.begun_learning()
            && lost.iter().copied().eq(pool.lost_members())
            && owners.len() == pool.owners.len()
            && owners.iter().zip(&pool.owners).all(is_owner)
            && members.len() == pool.members.len()
            && members.iter().zip(&pool.members).all(|(saved, (backend, member))| saved.describes(backend, member))
    }
}

impl SavedMember {
    fn describes(&self, (backend, at): &(Name, IpAddr), member: &Member) -> bool {
        let Self { name, address, id, next_hop: _, mtu: _, gue: _ } = self;
        *id == member.id.get()
            && *address == *at
            && name == backend.as_str()
            && self.next_hop() == member.next_hop
            && self.encap() == member.encap
    }
}
