//! The codec for fuzzers of other crates: messages to begin with, and what holds for any bytes. It must not know sessions.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use maglev_model::bgp::Role;

use crate::wire::{
    Attributes, Boundary, Capabilities, Encoding, Family, Fault, GracefulRestart, Message, NoRoom, Notification, Open,
    announce, decode, end_of_rib, keepalive, route_refresh, withdraw,
};

const ENCODING: Encoding = Encoding { four_octet_as: true, extended_next_hop: true };

/// Messages of every kind, as this speaker and others write them.
pub fn messages() -> Vec<Vec<u8>> {
    let capabilities = Capabilities {
        families: Family::ALL.into(),
        route_refresh: true,
        enhanced_refresh: true,
        extended_next_hop: true,
        four_octet_as: Some(4_200_000_000),
        graceful_restart: Some(GracefulRestart {
            restarting: true,
            time: 120,
            families: BTreeMap::from([(Family::Ipv4, true), (Family::Ipv6, false)]),
        }),
        role: Some(Role::Customer),
    };
    let open = |capabilities| Open { asn: 65_010, hold_time: 9, router_id: [10, 0, 0, 11].into(), capabilities };
    let attributes = Attributes {
        as_path: vec![65_010, 4_200_000_000],
        next_hop: [10, 0, 0, 11].into(),
        med: Some(5),
        local_pref: Some(200),
        communities: ["65010:100", "65010:1:2", "rt:65010:7"].iter().filter_map(|text| text.parse().ok()).collect(),
        only_to_customer: Some(65_010),
    };
    let prefixes: Vec<IpNet> = ["203.0.113.10/32", "10.0.0.0/9"].iter().filter_map(|text| text.parse().ok()).collect();
    let as2 = Encoding { four_octet_as: false, extended_next_hop: false };
    let mut all = Vec::new();
    let mut add = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        write(&mut bytes);
        all.push(bytes);
    };
    add(&|out| open(capabilities.clone()).encode(out));
    add(&|out| open(Capabilities::default()).encode(out));
    add(&|out| announce(out, as2, Family::Ipv4, &attributes, &prefixes).unwrap_or(()));
    add(&|out| {
        let attributes = Attributes { next_hop: [0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), ..attributes.clone() };
        announce(out, ENCODING, Family::Ipv4, &attributes, &prefixes).unwrap_or(());
    });
    add(&|out| withdraw(out, as2, Family::Ipv4, &prefixes));
    add(&|out| withdraw(out, ENCODING, Family::Ipv4, &prefixes));
    Family::ALL.iter().for_each(|family| add(&|out| end_of_rib(out, *family)));
    add(&keepalive);
    add(&|out| route_refresh(out, Family::Ipv6, Boundary::Begin));
    add(&|out| Notification::with_text(Fault::SHUTDOWN, "maintenance").encode(out));
    all
}

/// Decodes all messages of a buffer, as they come from a router.
///
/// # Errors
/// A message is not understood again from its encoding, a message is longer than the bytes, or the NOTIFICATION about a fault is
/// none.
pub fn check(mut bytes: &[u8]) -> Result<(), String> {
    loop {
        match decode(bytes) {
            Ok(None) => return Ok(()),
            Ok(Some((message, length))) => {
                let rest = bytes.get(length..).filter(|_| length > 0);
                bytes = rest.ok_or_else(|| format!("{length} of {} bytes were taken", bytes.len()))?;
                check_message(&message)?;
            }
            Err(notification) => {
                return again(&Message::Notification(cut(notification)), |out, message| {
                    if let Message::Notification(notification) = message {
                        notification.encode(out);
                    }
                });
            }
        }
    }
}

/// As much of the data as a message takes.
fn cut(mut notification: Notification) -> Notification {
    notification.data.truncate(crate::wire::MAX_MESSAGE - 21);
    notification
}

fn check_message(message: &Message) -> Result<(), String> {
    match message {
        Message::Keepalive => again(message, |out, _| keepalive(out)),
        Message::Open(open) => again(message, |out, _| open.encode(out)),
        Message::Notification(notification) => {
            drop(notification.to_string());
            again(message, |out, _| notification.encode(out))
        }
        Message::RouteRefresh(refresh) => match (refresh.family, refresh.boundary) {
            (Some(family), Some(boundary)) => again(message, |out, _| route_refresh(out, family, boundary)),
            _ => Ok(()),
        },
        Message::Update(update) => {
            let attributes = Attributes {
                as_path: vec![1],
                next_hop: [0xfd00, 0, 0, 0, 0, 0, 0, 1].into(),
                med: None,
                local_pref: None,
                communities: BTreeSet::new(),
                only_to_customer: None,
            };
            for family in Family::ALL {
                let of = |prefixes: &[IpNet]| -> Vec<IpNet> {
                    prefixes
                        .iter()
                        .copied()
                        .filter(|prefix| prefix.addr().is_ipv4() == (family == Family::Ipv4))
                        .collect()
                };
                let (announced, withdrawn) = (of(&update.announced), of(&update.withdrawn));
                let mut out = Vec::new();
                announce(&mut out, ENCODING, family, &attributes, &announced)
                    .map_err(|NoRoom| "one AS leaves no room for prefixes".to_owned())?;
                withdraw(&mut out, ENCODING, family, &withdrawn);
                if understood(&out)? != (announced, withdrawn) {
                    return Err(format!("{update:?} is another one once it is encoded"));
                }
            }
            Ok(())
        }
    }
}

/// Whether a message is the same once it is encoded and decoded.
fn again(message: &Message, encode: impl FnOnce(&mut Vec<u8>, &Message)) -> Result<(), String> {
    let mut out = Vec::new();
    encode(&mut out, message);
    match decode(&out) {
        Ok(Some((again, length))) if again == *message && length == out.len() => Ok(()),
        other => Err(format!("{message:?} is encoded as {out:?}, which is {other:?}")),
    }
}

/// The prefixes that UPDATEs announce and withdraw.
fn understood(mut bytes: &[u8]) -> Result<(Vec<IpNet>, Vec<IpNet>), String> {
    let (mut announced, mut withdrawn) = (Vec::new(), Vec::new());
    while let Some((message, length)) = decode(bytes).map_err(|fault| format!("an UPDATE of ours: {fault}"))? {
        let Message::Update(update) = message else { return Err(format!("{message:?} is no UPDATE")) };
        announced.extend(update.announced);
        withdrawn.extend(update.withdrawn);
        bytes = &bytes[length..];
    }
    Ok((announced, withdrawn))
}
