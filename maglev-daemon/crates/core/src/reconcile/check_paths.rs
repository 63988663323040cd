//! The path of each check: through the encapsulation to the member that its backend is, by the interface that the
//! VIP is routed by; or directly. It must not know how a check is made.
//!
//! A check that goes through the encapsulation is ordered once packets can meet its member's record, never before: from then on
//! the number means the same to the packet path as here.

use std::collections::BTreeSet;
use std::net::IpAddr;

use maglev_common::mark::Mark;
use maglev_model::Name;

use crate::health::{CheckPath, NoPath, Order, Orders, Target};

use maglev_model::Resolution;

use super::view::{NextHopView, next_hop_view};

use super::{Effect, Interfaces, Phase, Reconciler};

impl Reconciler {
    /// Orders the checks, if they changed. While a plan is being carried out, new targets
    /// wait for it.
    pub(super) fn check(&mut self) -> Option<Effect> {
        let targets = self.fleet.targets().into_iter();
        let orders: Orders = targets
            .filter_map(|(target, check)| {
                let path = self.path(&target)?;
                Some((target, Order { check, path }))
            })
            .collect();
        if orders == self.checked {
            return None;
        }
        self.checked.clone_from(&orders);
        Some(Effect::Check(orders))
    }

    /// The addresses of VIPs whose routes checks follow.
    pub(super) fn asked(&self) -> BTreeSet<IpAddr> {
        let targets = self.fleet.targets();
        targets.keys().filter(|target| target.vip.is_some()).map(|target| target.destination.ip()).collect()
    }

    /// The path of a check, or why there is none; `None` as long as something is not known, or not published.
    pub(super) fn path(&self, target: &Target) -> Option<Result<CheckPath, NoPath>> {
        let Some(vip) = &target.vip else { return Some(Ok(CheckPath::default())) };
        if self.unfinished.is_some() || !matches!(self.phase, Phase::Idle) {
            // Until a plan is carried out, only the earlier published state is certain.
            return self.checked.get(target).map(|order| order.path.clone());
        }
        let member = self.planner.pool(&target.pool)?.member(&target.backend, target.address)?;
        let interfaces = &self.settings.interfaces;
        if !self.adopted.contains_key(&target.address) {
            let resolution = self.resolutions.get(&target.address)?;
            if let NextHopView::Unresolved(reason) = next_hop_view(Some(resolution), interfaces) {
                return Some(Err(NoPath { reason: reason.into(), pending: resolution.is_waiting() }));
            }
        }
        let leaves =
            leaves_by(vip, target.destination.ip(), self.resolutions.get(&target.destination.ip())?, interfaces);
        Some(leaves.map(|interface| CheckPath { mark: Some(Mark::from_member(member).0), interface: Some(interface) }))
    }
}

/// The interface that packets to a VIP are sent on: one where they are encapsulated.
fn leaves_by(vip: &Name, address: IpAddr, resolution: &Resolution, interfaces: &Interfaces) -> Result<u32, NoPath> {
    let index = match resolution {
        Resolution::Resolved { interface, .. } => *interface,
        Resolution::Unresolved(reason) => {
            return Err(NoPath { reason: format!("VIP {vip}: {reason}").into(), pending: resolution.is_waiting() });
        }
    };
    let name = interfaces.names.get(&index).map_or_else(|| format!("interface {index}"), Clone::clone);
    if !interfaces.slots.contains_key(&index) {
        return Err(format!("VIP {address} is routed via {name}, {}", interfaces.reason(index)).into());
    }
    if interfaces.unguarded.contains(&index) {
        return Err(format!("checks via {name} are not encapsulated: see the daemon's log").into());
    }
    Ok(index)
}
