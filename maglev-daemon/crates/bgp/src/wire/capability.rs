//! Capabilities (RFC 5492): the abilities of either side of a session. Unknown ones are skipped.

use std::collections::{BTreeMap, BTreeSet};

use maglev_model::bgp::Role;

use super::prefix::{Family, UNICAST};
use super::reader::Reader;
use super::{Fault, Notification};

const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const EXTENDED_NEXT_HOP: u8 = 5;
const ROLE: u8 = 9;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_AS: u8 = 65;
const ENHANCED_REFRESH: u8 = 70;

/// The restart flag, before the twelve bits of the restart time; the forwarding flag of a family (RFC 4724, section 3).
const RESTARTING: u16 = 0x8000;
const TIME: u16 = 0x0fff;
const FORWARDING: u8 = 0x80;

/// The abilities of one side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// The families it speaks (RFC 4760). None at all means IPv4.
    pub(crate) families: BTreeSet<Family>,
    /// RFC 2918.
    pub(crate) route_refresh: bool,
    /// RFC 7313.
    pub(crate) enhanced_refresh: bool,
    /// IPv4 prefixes with an IPv6 next hop (RFC 8950).
    pub(crate) extended_next_hop: bool,
    /// Its AS number in 32 bits (RFC 6793).
    pub(crate) four_octet_as: Option<u32>,
    /// RFC 4724.
    pub(crate) graceful_restart: Option<GracefulRestart>,
    /// RFC 9234.
    pub(crate) role: Option<Role>,
}

/// A side's restart capability.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GracefulRestart {
    /// It has just restarted.
    pub(crate) restarting: bool,
    /// Seconds within which it is back, at most 4095.
    pub(crate) time: u16,
    /// For which families, and whether it went on forwarding.
    pub(crate) families: BTreeMap<Family, bool>,
}

impl Capabilities {
    /// Reads the capabilities of one parameter.
    pub(super) fn decode(&mut self, mut field: Reader<'_>) -> Result<(), Notification> {
        while !field.is_empty() {
            let (code, value) = entry(&mut field).ok_or(Notification::new(Fault::MALFORMED_OPEN))?;
            let one = |rest: &[u8]| Notification::with(Fault::UNSUPPORTED_CAPABILITY, &[&[code], rest].concat());
            self.take(code, Reader::new(value)).map_err(|fault| match fault {
                Some(fault) => Notification::new(fault),
                None => one(&[&[value.len() as u8], value].concat()),
            })?;
        }
        Ok(())
    }

    /// Processes one capability; an error without a fault is a value of the wrong length.
    fn take(&mut self, code: u8, mut value: Reader<'_>) -> Result<(), Option<Fault>> {
        match code {
            MULTIPROTOCOL => {
                let (afi, _, safi) = (value.u16().ok_or(None)?, value.u8().ok_or(None)?, value.u8().ok_or(None)?);
                self.families.extend(Family::from_numbers(afi, safi));
            }
            ROUTE_REFRESH => self.route_refresh = true,
            ENHANCED_REFRESH => self.enhanced_refresh = true,
            EXTENDED_NEXT_HOP => {
                while !value.is_empty() {
                    let mut number = || value.u16().ok_or(None);
                    self.extended_next_hop |= (number()?, number()?, number()?) == (1, UNICAST.into(), 2);
                }
            }
            FOUR_OCTET_AS => self.four_octet_as = Some(value.u32().ok_or(None)?),
            GRACEFUL_RESTART => self.graceful_restart = Some(GracefulRestart::decode(value).ok_or(None)?),
            ROLE => {
                let role = Role::from_number(value.u8().ok_or(None)?).ok_or(Some(Fault::ROLE_MISMATCH))?;
                // Several roles that differ are a mismatch (RFC 9234, section 4.2).
                if self.role.replace(role).is_some_and(|other| other != role) {
                    return Err(Some(Fault::ROLE_MISMATCH));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Appends each capability: code, length, value.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let Self {
            families,
            route_refresh,
            enhanced_refresh,
            extended_next_hop,
            four_octet_as,
            graceful_restart,
            role,
        } = self;
        for family in families {
            let [high, low] = family.afi().to_be_bytes();
            put(out, MULTIPROTOCOL, &[high, low, 0, UNICAST]);
        }
        if *route_refresh {
            put(out, ROUTE_REFRESH, &[]);
        }
        if *extended_next_hop {
            put(out, EXTENDED_NEXT_HOP, &[0, 1, 0, UNICAST, 0, 2]);
        }
        if let Some(role) = role {
            put(out, ROLE, &[role.number()]);
        }
        if let Some(restart) = graceful_restart {
            put(out, GRACEFUL_RESTART, &restart.encode());
        }
        if let Some(asn) = four_octet_as {
            put(out, FOUR_OCTET_AS, &asn.to_be_bytes());
        }
        if *enhanced_refresh {
            put(out, ENHANCED_REFRESH, &[]);
        }
    }
}

impl GracefulRestart {
    fn decode(mut value: Reader<'_>) -> Option<Self> {
        let word = value.u16()?;
        let mut families = BTreeMap::new();
        while !value.is_empty() {
            let (afi, safi, flags) = (value.u16()?, value.u8()?, value.u8()?);
            families.extend(Family::from_numbers(afi, safi).map(|family| (family, flags & FORWARDING != 0)));
        }
        Some(Self { restarting: word & RESTARTING != 0, time: word & TIME, families })
    }

    fn encode(&self) -> Vec<u8> {
        let Self { restarting, time, families } = self;
        let word = time.min(&TIME) | if *restarting { RESTARTING } else { 0 };
        let mut value = word.to_be_bytes().to_vec();
        for (family, forwarding) in families {
            value.extend(family.afi().to_be_bytes());
            value.extend([UNICAST, if *forwarding { FORWARDING } else { 0 }]);
        }
        value
    }
}

/// One capability: its code and its value.
fn entry<'a>(field: &mut Reader<'a>) -> Option<(u8, &'a [u8])> {
    let (code, length) = (field.u8()?, field.u8()?);
    Some((code, field.take(length.into())?))
}

fn put(out: &mut Vec<u8>, code: u8, value: &[u8]) {
    // Ours are a few octets long.
    out.extend([code, value.len() as u8]);
    out.extend(value);
}
