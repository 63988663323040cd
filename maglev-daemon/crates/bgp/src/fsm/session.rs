//! The parameters that two speakers negotiate by their OPENs, and the attributes of a prefix in that session.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use maglev_model::Community;
use maglev_model::bgp::{OnDrain, Role};

use super::{Route, Settings};
use crate::wire::{Attributes, Capabilities, Encoding, Family, Fault, GracefulRestart, Notification, Open};

/// The default LOCAL_PREF, which routers assume.
const LOCAL_PREF: u32 = 100;

/// The negotiated parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// `None`: neither side minds silence.
    pub(super) hold_time: Option<Duration>,
    pub(super) pace: Duration,
    pub(super) families: BTreeSet<Family>,
    pub(super) encoding: Encoding,
    /// Answers to a refresh are marked (RFC 7313).
    pub(super) enhanced_refresh: bool,
}

impl Settings {
    /// Our OPEN. `again`: this process had a session before, and went on forwarding when that ended.
    pub(super) fn open(&self, again: bool) -> Open {
        let neighbor = &self.neighbor;
        let families = self.families();
        let graceful_restart = self.graceful_restart.map(|time| GracefulRestart {
            restarting: self.restarted && !again,
            time,
            families: families
                .iter()
                .map(|family| (*family, self.forwarding_kept || again))
                .collect::<BTreeMap<_, _>>(),
        });
        let capabilities = Capabilities {
            extended_next_hop: neighbor.wants_extended_next_hop(),
            families,
            route_refresh: true,
            enhanced_refresh: true,
            four_octet_as: Some(self.local_as),
            graceful_restart,
            role: neighbor.role.filter(|_| !self.is_internal()),
        };
        Open { asn: self.local_as, hold_time: neighbor.hold_time, router_id: self.router_id, capabilities }
    }

    /// Whether both sides are in one AS.
    pub(super) fn is_internal(&self) -> bool {
        self.local_as == self.neighbor.remote_as
    }

    pub(super) fn families(&self) -> BTreeSet<Family> {
        let wanted = |family: &Family| match family {
            Family::Ipv4 => self.neighbor.ipv4,
            Family::Ipv6 => self.neighbor.ipv6,
        };
        Family::ALL.into_iter().filter(wanted).collect()
    }

    /// Negotiates with their OPEN, or returns its error (RFC 4271, section 6.2; RFC 9234, section 4.2).
    pub(super) fn agree(&self, theirs: &Open) -> Result<Session, Notification> {
        let neighbor = &self.neighbor;
        if theirs.asn != neighbor.remote_as {
            return Err(Notification::new(Fault::BAD_PEER_AS));
        }
        if theirs.router_id == self.router_id && self.is_internal() {
            return Err(Notification::with(Fault::BAD_IDENTIFIER, &theirs.router_id.octets()));
        }
        let Capabilities { families, extended_next_hop, four_octet_as, role, enhanced_refresh, .. } =
            &theirs.capabilities;
        let counterpart = neighbor.role.filter(|_| !self.is_internal()).map(Role::counterpart);
        if counterpart.zip(*role).is_some_and(|(expected, found)| expected != found) {
            return Err(Notification::new(Fault::ROLE_MISMATCH));
        }
        // A speaker that names no family speaks IPv4 (RFC 4760, section 8).
        let theirs_families = if families.is_empty() { &BTreeSet::from([Family::Ipv4]) } else { families };
        let common: BTreeSet<Family> = self.families().intersection(theirs_families).copied().collect();
        if common.is_empty() {
            return Err(Notification::new(Fault::UNSUPPORTED_CAPABILITY));
        }
        let hold_time = neighbor.hold_time.min(theirs.hold_time);
        Ok(Session {
            hold_time: Some(Duration::from_secs(hold_time.into())).filter(|time| !time.is_zero()),
            pace: neighbor.pace(hold_time),
            families: common,
            encoding: Encoding {
                four_octet_as: four_octet_as.is_some(),
                extended_next_hop: *extended_next_hop && neighbor.wants_extended_next_hop(),
            },
            enhanced_refresh: *enhanced_refresh,
        })
    }

    /// The attributes of a prefix of a family; `None` if there is no next hop for it.
    pub(super) fn attributes(
        &self,
        session: &Session,
        local: IpAddr,
        family: Family,
        route: &Route,
    ) -> Option<Attributes> {
        let neighbor = &self.neighbor;
        let Route { communities } = route;
        let leaving = communities.contains(&Community::GRACEFUL_SHUTDOWN);
        let internal = self.is_internal();
        let OnDrain { med, prepend } = if leaving { self.on_drain } else { OnDrain::default() };
        let times = 1 + usize::from(neighbor.prepend) + usize::from(prepend);
        // A router that ignores the community honors the lowest preference (RFC 8326, section 4.1).
        let local_pref = if leaving { 0 } else { neighbor.local_pref.unwrap_or(LOCAL_PREF) };
        // A prefix that was sent down, or sideways, must not come up again (RFC 9234, section 5).
        let down = matches!(neighbor.role, Some(Role::Provider | Role::Peer | Role::RouteServer));
        Some(Attributes {
            as_path: if internal { Vec::new() } else { vec![self.local_as; times] },
            next_hop: self.next_hop(session, local, family)?,
            med: med.or(neighbor.med),
            local_pref: internal.then_some(local_pref),
            communities: communities | &neighbor.communities,
            only_to_customer: (down && !internal).then_some(self.local_as),
        })
    }

    /// Where a family's packets are to be sent.
    fn next_hop(&self, session: &Session, local: IpAddr, family: Family) -> Option<IpAddr> {
        let configured = match family {
            Family::Ipv4 => self.neighbor.next_hop,
            Family::Ipv6 => self.neighbor.next_hop6,
        };
        let next_hop = configured.unwrap_or(local);
        let fits = match (family, next_hop) {
            (Family::Ipv4, IpAddr::V4(_)) | (Family::Ipv6, IpAddr::V6(_)) => true,
            (Family::Ipv4, IpAddr::V6(_)) => session.encoding.extended_next_hop,
            (Family::Ipv6, IpAddr::V4(_)) => false,
        };
        fits.then_some(next_hop)
    }

    /// Families that were negotiated and for which there is no next hop.
    pub(super) fn without_next_hop(&self, session: &Session, local: IpAddr) -> Vec<Family> {
        let lacks = |family: &Family| self.next_hop(session, local, *family).is_none();
        session.families.iter().copied().filter(lacks).collect()
    }
}
