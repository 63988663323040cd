//! The daemon's view of its state: plain owned data, names beside ids. It must not know how it is rendered.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use maglev_common::backend::{MemberId, PathMtu};
use maglev_common::table::{PoolIndex, SLOTS};
use maglev_common::vip::VipId;
use maglev_model::digest::Digest;
use maglev_model::plan::PublishedPool;
use maglev_model::transition::{Pinned, Progress};
use maglev_model::{
    AdminState, Affinity, Backend, Community, Health, Leftover, Mtu, Name, Pool, PoolHealth, PoolSettings, Service,
    Unserved, Vip, Weight,
};

use crate::health::MemberHealth;
use ipnet::IpNet;

use maglev_model::Resolution;

use super::serving::{BackendUse, PoolUse};
use super::{Interfaces, Phase, Reconciler};

/// The state at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// The digest of the services that are or are being published.
    pub services: Digest,
    /// The VIPs, in the order of their names.
    pub vips: Vec<VipView>,
    /// The pools, in the order of their names.
    pub pools: Vec<PoolView>,
    /// Changes or next hops are being saved or published.
    pub busy: bool,
    /// Everything that is checked fails at once.
    pub common_failure: bool,
    /// Why the last plan was not carried out, until one is: the packet path then still serves the earlier state, wholly
    /// or in part.
    pub not_published: Option<OutOfSync>,
    /// Why removed members are not cleared yet, if that failed.
    pub not_cleared: Option<String>,
}

/// The packet path is out of sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfSync {
    /// Why the last attempt failed.
    pub reason: String,
    /// When the next one is due; `None` while it is under way.
    pub next: Option<Duration>,
}

/// A VIP.
#[derive(Clone, Debug)]
pub struct VipView {
    /// Its name.
    pub name: Name,
    /// The packets it takes.
    pub service: Service,
    /// The pool that serves it.
    pub pool: Name,
    /// The handling of its packets while the pool has no backend.
    pub when_empty: Unserved,
    /// By what its flows find their slots.
    pub affinity: Affinity,
    /// Its number: the index of its counters. `None` before it is planned.
    pub id: Option<VipId>,
    /// Why it cannot be served, if so: its address is needed by the node or its backends.
    pub conflict: Option<String>,
    /// The prefix by which it is announced, if it is.
    pub prefix: Option<IpNet>,
    /// Communities of the prefix.
    pub communities: BTreeSet<Community>,
}

/// A pool.
#[derive(Clone, Debug)]
pub struct PoolView {
    /// Its name.
    pub name: Name,
    /// How it keeps connections while its backends change.
    pub settings: PoolSettings,
    /// Its number. `None` before it is planned.
    pub index: Option<PoolIndex>,
    /// The digest of its table. `None` before it is planned.
    pub digest: Option<Digest>,
    /// The VIPs it serves.
    pub vips: Vec<Name>,
    /// Its slots in transition, with times of the reconciler's clock.
    pub progress: Progress,
    /// Flows pinned to another backend than their slot's owner, over all CPUs, as of the last survey. `None`
    /// before the first one, and while there is nothing to survey.
    pub pinned: Option<u32>,
    /// Whether it uses all its backends, since too few are healthy.
    pub panic: bool,
    /// Whether no backend answers now, and for long enough to count.
    pub dead: bool,
    /// That it has lasted for 60 s.
    pub long_dead: bool,
    /// How many of its backends have not been checked yet since the start.
    pub awaited: usize,
    /// How its backends are checked.
    pub health: PoolHealth,
    /// Its backends, in the order of their names.
    pub backends: Vec<BackendView>,
}

/// A backend.
#[derive(Clone, Debug)]
pub struct BackendView {
    /// Its name.
    pub name: Name,
    /// Its address.
    pub address: IpAddr,
    /// Its weight.
    pub weight: Weight,
    /// Its administrative state.
    pub state: AdminState,
    /// Its member id: the index of its counters. `None` before it is planned, and while it is disabled.
    pub id: Option<MemberId>,
    /// The slots that are learning for it, their previous owner.
    pub learning: u32,
    /// Flows pinned to it, as of the last survey; `None` as for the pool.
    pub pinned: Option<u32>,
    /// The slots it owns.
    pub slots: u32,
    /// These slots as a part of all, 0 to 1.
    pub share: f64,
    /// Its health by checks; `None` if it is not checked.
    pub health: Option<Box<MemberHealth>>,
    /// Whether its health lets it own slots.
    pub serves: bool,
    /// Its next hop.
    pub next_hop: NextHopView,
    /// Whether packets are sent to it, or were a moment ago. After an adoption they are before its next hop is known.
    pub is_reached: bool,
}

/// The next hop of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHopView {
    /// Packets can be sent.
    Resolved {
        /// The outgoing interface's index.
        interface: u32,
        /// The interface's name, if it is known.
        name: Option<String>,
        /// If it is a VLAN device, the VLAN and the name of the interface that carries its frames.
        vlan: Option<(u16, String)>,
        /// The neighbor's MAC address.
        mac: [u8; 6],
        /// The gateway, if the backend is not on-link.
        gateway: Option<IpAddr>,
        /// The path's MTU in bytes: of interface or route, whichever is less. `None` if the interface's is not known.
        mtu: Option<u32>,
    },
    /// Packets are dropped; the text is the reason.
    Unresolved(String),
}

impl View {
    /// The VIP with this number.
    pub fn vip(&self, id: VipId) -> Option<&VipView> {
        self.vips.iter().find(|vip| vip.id == Some(id))
    }

    /// The pool with this number.
    pub fn pool(&self, index: PoolIndex) -> Option<&PoolView> {
        self.pools.iter().find(|pool| pool.index == Some(index))
    }

    /// The backend with this member id, and its pool.
    pub fn member(&self, id: MemberId) -> Option<(&PoolView, &BackendView)> {
        self.pools.iter().find_map(|pool| {
            let backend = pool.backends.iter().find(|backend| backend.id == Some(id))?;
            Some((pool, backend))
        })
    }
}

impl PoolView {
    /// How many of its backends can be sent new connections: the number in `serving`, announcements and metrics.
    pub fn usable(&self) -> usize {
        self.usage().usable
    }

    /// Its state for its VIPs.
    pub fn usage(&self) -> PoolUse {
        let Self { settings, awaited, dead, long_dead, health, .. } = self;
        let known = PoolUse {
            min_healthy: settings.min_healthy,
            awaited: *awaited,
            dead: *dead,
            long_dead: *long_dead,
            on_all_dead: health.on_all_dead,
            ..PoolUse::default()
        };
        PoolUse::count(known, self.backends.iter().map(BackendView::usage))
    }
}

impl BackendView {
    /// The conditions for new connections to it.
    pub fn usage(&self) -> BackendUse {
        BackendUse {
            active: self.state.takes_new_flows(self.weight),
            serves: self.serves,
            reached: self.is_reached,
            unhealthy: self.health.as_ref().is_some_and(|known| known.health == Health::Unhealthy),
        }
    }
}

impl Reconciler {
    /// The state as it is now.
    pub fn view(&self) -> View {
        let vip = |vip @ Vip { name, service, pool, announce, when_empty, affinity }: &Vip| VipView {
            name: name.clone(),
            service: *service,
            pool: pool.clone(),
            when_empty: *when_empty,
            affinity: *affinity,
            id: self.planner.vip(name),
            conflict: self.conflicts.get(name).cloned(),
            prefix: vip.prefix(),
            communities: announce.communities.clone(),
        };
        View {
            services: self.target_digest,
            vips: self.target.vips.values().map(vip).collect(),
            pools: self.target.pools.values().map(|pool| self.pool_view(pool)).collect(),
            busy: !matches!(self.phase, Phase::Idle) || !self.collected.is_empty() || !self.departing.is_empty(),
            common_failure: self.fleet.is_common_failure(),
            not_published: self.not_published(),
            not_cleared: self.unclosed.clone(),
        }
    }

    fn pool_view(&self, pool: &Pool) -> PoolView {
        let published = self.planner.pool(&pool.name);
        let (dead, long_dead) = self.fleet.is_all_dead(&pool.name);
        PoolView {
            name: pool.name.clone(),
            settings: pool.settings,
            index: published.map(PublishedPool::index),
            digest: published.map(PublishedPool::digest),
            vips: self.target.vips_of(&pool.name).map(|vip| vip.name.clone()).collect(),
            progress: published.map(|pool| pool.progress().clone()).unwrap_or_default(),
            pinned: published.and_then(PublishedPool::pinned).map(Pinned::total),
            panic: self.fleet.is_in_panic(&pool.name),
            dead,
            long_dead,
            awaited: self.fleet.awaited(&pool.name),
            health: pool.health.clone(),
            backends: pool.backends.values().map(|backend| self.backend_view(pool, published, backend)).collect(),
        }
    }

    fn backend_view(&self, of: &Pool, pool: Option<&PublishedPool>, backend: &Backend) -> BackendView {
        let Backend { name, address, weight, state, mtu } = backend;
        let slots = pool.map_or(0, |pool| pool.slots_of(name));
        let id = pool.and_then(|pool| pool.member(name, *address));
        let Leftover { learning_slots: learning, pinned_flows: pinned } = self.leftover(&of.name, backend);
        let usage = self.backend_use(of, pool, backend);
        BackendView {
            name: name.clone(),
            address: *address,
            weight: *weight,
            state: *state,
            id,
            learning,
            pinned,
            slots,
            share: f64::from(slots) / SLOTS as f64,
            health: self.fleet.health(&of.name, name, *address).map(Box::new),
            serves: usage.serves,
            next_hop: next_hop_view(self.resolutions.get(address), &self.settings.interfaces).within(*mtu),
            is_reached: usage.reached,
        }
    }
}

impl NextHopView {
    /// The same by a path whose MTU is this or less.
    fn within(self, named: Option<Mtu>) -> Self {
        match (self, named) {
            (Self::Resolved { interface, name, vlan, mac, gateway, mtu: Some(mtu) }, Some(named)) => {
                let mtu = Some(mtu.min(named.bytes().into()));
                Self::Resolved { interface, name, vlan, mac, gateway, mtu }
            }
            (view, _) => view,
        }
    }
}

pub(super) fn next_hop_view(resolution: Option<&Resolution>, interfaces: &Interfaces) -> NextHopView {
    match resolution {
        None => NextHopView::Unresolved("its route is being looked up".to_owned()),
        Some(Resolution::Unresolved(reason)) => NextHopView::Unresolved(reason.clone()),
        Some(Resolution::Resolved { interface, mac, gateway, mtu }) => {
            let name = interfaces.names.get(interface).cloned();
            if interfaces.slots.contains_key(interface) {
                let vlan = interfaces.vlans.get(interface).cloned();
                let path = mtu.map_or(PathMtu::NONE, PathMtu::new);
                let mtu = interfaces.mtus.get(interface).map(|&interface| path.within(interface));
                return NextHopView::Resolved { interface: *interface, name, vlan, mac: *mac, gateway: *gateway, mtu };
            }
            let name = name.unwrap_or_else(|| format!("interface {interface}"));
            NextHopView::Unresolved(format!("routed via {name}, {}", interfaces.reason(*interface)))
        }
    }
}

/// For tests of views that are hard to bring about.
#[cfg(test)]
impl View {
    /// The inputs of announcements, as this view shows them.
    pub(crate) fn serving(&self) -> super::Serving {
        let vip = |vip: &VipView| {
            Some(super::ServedVip {
                name: vip.name.clone(),
                prefix: vip.prefix?,
                pool: vip.pool.clone(),
                communities: vip.communities.clone(),
                conflict: vip.conflict.clone(),
                pending: false,
            })
        };
        super::Serving {
            vips: self.vips.iter().filter_map(vip).collect(),
            pools: self.pools.iter().map(|pool| (pool.name.clone(), pool.usage())).collect(),
            pending: self.busy || self.not_published.is_some(),
            checked: self.pools.iter().all(|pool| pool.awaited == 0),
            resolved: true,
        }
    }
}
