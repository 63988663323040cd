//! Converts the state of reconciler and data plane, by number, into views, by name. It must not know the clients.

use std::path::{Path, PathBuf};
use std::time::Duration;

use maglev_api::{RELEASE, view};
use maglev_common::backend::InterfaceSlot;
use maglev_common::maps::MAX_INTERFACES;
use maglev_config::NodeConfig;
use maglev_core::reconcile::{Interfaces, OutOfSync, View};
use maglev_dataplane::{Dataplane, Interface};
use maglev_model::digest::Digest;
use maglev_net::links::Link;

use super::clock::Clock;
use super::refreshed::Refreshed;

mod answers;
mod node;
mod services;

pub(super) use answers::{checked, counters, explanation, plan};
pub(super) use node::node;
use services::{backend, pool, serving, vip};

/// The constant parts of the status.
#[derive(Debug)]
pub(super) struct Facts {
    services_file: String,
    hash_key_digest: String,
    memory: view::Memory,
    forwarding: view::Forwarding,
    /// The start of the daemon, by the reconciler's clock.
    started: Duration,
    /// The begin of forwarding, by that clock.
    since: Duration,
}

impl Facts {
    pub(super) fn new(
        node: &NodeConfig,
        dataplane: &Dataplane,
        clock: &Clock,
        (since, continued, rolled_back): (Duration, Vec<String>, Option<String>),
    ) -> Self {
        Self {
            services_file: absolute(&node.services).display().to_string(),
            hash_key_digest: Digest::from_key(node.hash_key).to_string(),
            memory: memory(dataplane),
            forwarding: view::Forwarding {
                pin: dataplane.set().map(|(folder, _)| folder.display().to_string()),
                adopted: dataplane.is_adopted(),
                continued,
                rolled_back,
                since: 0,
            },
            started: clock.started().1,
            since,
        }
    }

    /// The same of another data plane, which continues the one of these facts for these differences.
    pub(super) fn succeed(&self, dataplane: &Dataplane, differences: &[&str]) -> Self {
        let continued = differences.iter().map(ToString::to_string).collect();
        let forwarding = view::Forwarding { adopted: false, continued, ..self.forwarding.clone() };
        let (services_file, hash_key_digest) = (self.services_file.clone(), self.hash_key_digest.clone());
        Self { services_file, hash_key_digest, memory: memory(dataplane), forwarding, ..*self }
    }

    /// The node's status, without the uptime and the flow tables.
    pub(super) fn status(
        &self,
        view: &View,
        interfaces: &Refreshed,
        last_reload: Option<&view::LastReload>,
        node: view::Node,
        now: Duration,
    ) -> view::Status {
        let Self { services_file, hash_key_digest, memory, forwarding, started, since } = self;
        // The wall clock may have stepped since the last time.
        let since = maglev_api::now().0.saturating_sub(now.saturating_sub(*since).as_secs());
        let serving = view.pools.iter().map(|pool| (&pool.name, serving(pool))).collect();
        let View { services, vips, pools, busy, common_failure, not_published, not_cleared } = view;
        view::Status {
            version: RELEASE.to_owned(),
            object: maglev_dataplane::sha256().to_owned(),
            uptime_seconds: 0,
            services_file: services_file.clone(),
            services_digest: services.to_string(),
            // Filled in when it is read, like BGP.
            revision: None,
            hash_key_digest: hash_key_digest.clone(),
            publishing: *busy,
            out_of_sync: out_of_sync(not_published.as_ref(), not_cleared.as_deref(), *started),
            state_not_saved: None,
            last_reload: last_reload.cloned(),
            memory: memory.clone(),
            common_failure: *common_failure,
            check_shortage: None,
            node,
            forwarding: view::Forwarding { since, ..forwarding.clone() },
            flow_table: view::FlowTable::default(),
            bgp: None,
            interfaces: interfaces.interfaces.iter().map(|found| interface(found, interfaces)).collect(),
            vips: vips.iter().map(|found| vip(found, &serving)).collect(),
            pools: pools.iter().map(|found| pool(found, *started)).collect(),
            backends: pools
                .iter()
                .flat_map(|pool| pool.backends.iter().map(|found| backend(pool, found, *started)))
                .collect(),
        }
    }
}

fn memory(dataplane: &Dataplane) -> view::Memory {
    let map = |(name, bytes): (&str, u64)| view::MapMemory { name: name.to_owned(), bytes };
    let maps: Vec<_> = dataplane.memory().into_iter().map(map).collect();
    view::Memory { total_bytes: maps.iter().map(|map| map.bytes).sum(), maps }
}

/// `started` is the start of the daemon.
fn out_of_sync(failed: Option<&OutOfSync>, not_cleared: Option<&str>, started: Duration) -> Option<view::OutOfSync> {
    let out_of_sync = |reason, next: Option<Duration>| view::OutOfSync {
        reason,
        next_try_milliseconds: None,
        next: next.map(|next| next.saturating_sub(started)),
    };
    let failed = failed.map(|OutOfSync { reason, next }| out_of_sync(reason.clone(), *next));
    let not_cleared = not_cleared.map(|why| out_of_sync(format!("cannot finish removing members: {why}"), None));
    failed.or(not_cleared)
}

/// An absolute path: clients have another working directory than the daemon.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The reconciler's view of the node's interfaces.
pub(super) fn known_interfaces(refreshed: &Refreshed) -> Interfaces {
    let Refreshed { interfaces, vlans, refresh, links, plane: _ } = refreshed;
    let is_unguarded = |name: &String| refresh.unguarded.contains(name);
    let open = interfaces.iter().filter(|interface| is_unguarded(&interface.name)).map(|interface| interface.index);
    let open_vlans = vlans.iter().filter(|vlan| is_unguarded(&vlan.on)).map(|vlan| vlan.index);
    let is_present = |name: &String| !refresh.detached.contains(name);
    let present = interfaces.iter().filter(|interface| is_present(&interface.name));
    let present = present.map(|interface| (interface.index, InterfaceSlot(interface.slot)));
    let present_vlans = vlans.iter().filter(|vlan| is_present(&vlan.on));
    let present_vlans = present_vlans.map(|vlan| (vlan.index, InterfaceSlot(vlan.slot)));
    Interfaces {
        unguarded: open.chain(open_vlans).collect(),
        slots: present.chain(present_vlans).collect(),
        vlans: vlans.iter().map(|device| (device.index, (device.vlan(), device.on.clone()))).collect(),
        reasons: links.values().filter_map(|link| Some((link.index, not_an_exit(link, refreshed)?))).collect(),
        names: links.iter().map(|(index, link)| (*index, link.name.clone())).collect(),
        mtus: links.iter().map(|(index, link)| (*index, link.mtu)).collect(),
    }
}

/// Why packets cannot leave through a VLAN device, if it does not have a slot.
fn not_an_exit(link: &Link, refreshed: &Refreshed) -> Option<String> {
    let below = link.vlan?.on;
    let name = refreshed.links.get(&below).map_or_else(|| format!("interface {below}"), |link| link.name.clone());
    let has_vlan = refreshed.links.get(&below).is_some_and(|below| below.vlan.is_some());
    Some(if has_vlan {
        format!("a VLAN device on the VLAN device {name}: packets to backends have one tag at most")
    } else if refreshed.interfaces.iter().all(|interface| interface.index != below) {
        format!("a VLAN device on {name}, which is not listed in `interfaces`")
    } else if refreshed.vlans.iter().any(|device| device.index == link.index) {
        format!("a VLAN device on {name}, to which the XDP program is not attached")
    } else {
        let most = MAX_INTERFACES;
        format!("a VLAN device on {name} for which there is no room: {most} interfaces and VLAN devices are the most")
    })
}

fn interface(interface: &Interface, refreshed: &Refreshed) -> view::Interface {
    let Interface { name, index, slot: _, mode, mac: _, also: _, mtu } = interface;
    let link = refreshed.links.get(index);
    view::Interface {
        name: name.clone(),
        renamed_to: link.filter(|link| link.name != *name).map(|link| link.name.clone()),
        mode: mode.to_string(),
        attached: !refreshed.refresh.detached.contains(name),
        link: link.map_or("absent", |link| link.state.as_str()).to_owned(),
        index: *index,
        mtu: *mtu,
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
impl Facts {
    /// The facts of a daemon that started with its clock, without a data plane.
    pub(super) fn testing(clock: &Clock) -> Self {
        Self {
            services_file: String::new(),
            hash_key_digest: String::new(),
            memory: view::Memory::default(),
            forwarding: view::Forwarding::default(),
            started: clock.started().1,
            since: Duration::ZERO,
        }
    }
}
