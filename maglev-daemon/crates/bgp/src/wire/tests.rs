//! The codec against bytes written out by hand, against itself, against another codec, and against noise.

mod other;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use maglev_model::Community;
use maglev_model::bgp::Role;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;

const AS4: Encoding = Encoding { four_octet_as: true, extended_next_hop: false };
const AS2: Encoding = Encoding { four_octet_as: false, extended_next_hop: false };
const OVER_V6: Encoding = Encoding { four_octet_as: true, extended_next_hop: true };

fn prefix(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn attributes(next_hop: &str) -> Attributes {
    Attributes {
        as_path: vec![65_010],
        next_hop: next_hop.parse().unwrap(),
        med: None,
        local_pref: None,
        communities: BTreeSet::new(),
        only_to_customer: None,
    }
}

fn family_of(attributes: &Attributes) -> Family {
    if attributes.next_hop.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
}

fn capabilities() -> Capabilities {
    Capabilities {
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
    }
}

fn open(capabilities: Capabilities) -> Open {
    let asn = capabilities.four_octet_as.unwrap_or(65_010);
    Open { asn, hold_time: 9, router_id: [10, 0, 0, 11].into(), capabilities }
}

fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER + body.len()).unwrap();
    [&MARKER[..], &length.to_be_bytes(), &[kind], body].concat()
}

/// All messages of a buffer.
fn all(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some((message, length)) = decode(bytes).unwrap() {
        messages.push(message);
        bytes = &bytes[length..];
    }
    assert!(bytes.is_empty());
    messages
}

/// All prefixes that some updates announce, and all that they withdraw.
fn prefixes_in(bytes: &[u8]) -> (Vec<IpNet>, Vec<IpNet>) {
    let (mut announced, mut withdrawn) = (Vec::new(), Vec::new());
    for message in all(bytes) {
        let Message::Update(update) = message else { panic!("{message:?} is no update") };
        announced.extend(update.announced);
        withdrawn.extend(update.withdrawn);
    }
    (announced, withdrawn)
}

#[test]
fn an_open_is_written_octet_by_octet() {
    let bytes = encoded(|out| open(capabilities()).encode(out));
    let parameters = [
        [1, 4, 0, 1, 0, 1].as_slice(),
        &[1, 4, 0, 2, 0, 1],
        &[2, 0],
        &[5, 6, 0, 1, 0, 1, 0, 2],
        &[9, 1, 3],
        &[64, 10, 0x80, 120, 0, 1, 1, 0x80, 0, 2, 1, 0],
        &[65, 4, 0xfa, 0x56, 0xea, 0x00],
        &[70, 0],
    ]
    .concat();
    let length = u8::try_from(parameters.len()).unwrap();
    let head = [4, 0x5b, 0xa0, 0, 9, 10, 0, 0, 11, length + 2, 2, length];
    assert_eq!(bytes, message(1, &[&head[..], &parameters].concat()));
    assert_eq!(all(&bytes), [Message::Open(open(capabilities()))]);
}

#[test]
fn an_update_is_written_octet_by_octet() {
    let communities = ["65010:100", "65010:1:2", "rt:65010:7"].map(|text| text.parse::<Community>().unwrap());
    let attributes =
        Attributes { med: Some(5), local_pref: Some(200), communities: communities.into(), ..attributes("10.0.0.11") };
    let bytes = encoded(|out| announce(out, AS4, Family::Ipv4, &attributes, &[prefix("203.0.113.10/32")]).unwrap());
    let written = [
        [0x40, 1, 1, 0].as_slice(),
        &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xf2],
        &[0x40, 3, 4, 10, 0, 0, 11],
        &[0x80, 4, 4, 0, 0, 0, 5],
        &[0x40, 5, 4, 0, 0, 0, 200],
        &[0xc0, 8, 4, 0xfd, 0xf2, 0, 100],
        &[0xc0, 16, 8, 0, 2, 0xfd, 0xf2, 0, 0, 0, 7],
        &[0xc0, 32, 12, 0, 0, 0xfd, 0xf2, 0, 0, 0, 1, 0, 0, 0, 2],
    ]
    .concat();
    let length = u8::try_from(written.len()).unwrap();
    assert_eq!(bytes, message(2, &[&[0, 0, 0, length], &written[..], &[32, 203, 0, 113, 10]].concat()));
}

#[test]
fn ipv4_goes_over_ipv6() {
    let next_hop = attributes("2001:db8::11");
    let bytes = encoded(|out| announce(out, OVER_V6, Family::Ipv4, &next_hop, &[prefix("203.0.113.0/24")]).unwrap());
    let reach = [&[0x90, 14, 0, 25, 0, 1, 1, 16], &"2001:db8::11".parse::<std::net::Ipv6Addr>().unwrap().octets()[..]];
    let reach = [&reach.concat()[..], &[0, 24, 203, 0, 113]].concat();
    assert_eq!(bytes[HEADER + 4..][..reach.len()], reach);
    assert!(!bytes.windows(2).any(|pair| pair == [0x40, 3]), "NEXT_HOP has no place in it");
    let bytes = encoded(|out| withdraw(out, OVER_V6, Family::Ipv4, &[prefix("203.0.113.0/24")]));
    assert_eq!(bytes, message(2, &[0, 0, 0, 11, 0x90, 15, 0, 7, 0, 1, 1, 24, 203, 0, 113]));
}

#[test]
fn the_end_of_a_rib_is_an_empty_update() {
    let ends = Family::ALL.map(|family| encoded(|out| end_of_rib(out, family)));
    assert_eq!(ends[0], message(2, &[0, 0, 0, 0]));
    assert_eq!(ends[1], message(2, &[0, 0, 0, 7, 0x90, 15, 0, 3, 0, 2, 1]));
    for (bytes, family) in ends.iter().zip(Family::ALL) {
        assert_eq!(all(bytes), [Message::Update(Update { end_of_rib: Some(family), ..Update::default() })]);
    }
}

#[test]
fn a_neighbor_with_16_bits_gets_the_long_path_beside() {
    let attributes = Attributes { as_path: vec![4_200_000_000, 65_010], ..attributes("10.0.0.11") };
    let bytes = encoded(|out| announce(out, AS2, Family::Ipv4, &attributes, &[prefix("10.0.0.0/8")]).unwrap());
    let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    assert!(has(&[0x40, 2, 6, 2, 2, 0x5b, 0xa0, 0xfd, 0xf2]));
    assert!(has(&[0xc0, 17, 10, 2, 2, 0xfa, 0x56, 0xea, 0, 0, 0, 0xfd, 0xf2]));
}

#[test]
fn attributes_that_fill_a_message_leave_no_room() {
    let communities = (0..1_100).map(|n| Community::Standard(1, n)).collect();
    let full = Attributes { communities, ..attributes("10.0.0.11") };
    let mut out = Vec::new();
    assert_eq!(announce(&mut out, AS4, Family::Ipv4, &full, &[prefix("10.0.0.0/8")]), Err(NoRoom));
    assert_eq!(out, [0; 0]);
}

/// An error in a message, and the NOTIFICATION for the other side.
#[test]
fn faults_are_reported_as_the_rfcs_require() {
    let keepalive = encoded(keepalive);
    let mut marker = keepalive.clone();
    marker[3] = 0;
    let open = |body: &[u8]| message(1, &[&[4, 0xfd, 0xe8, 0, 9, 10, 0, 0, 1], body].concat());
    let update = |attributes: &[u8], prefixes: &[u8]| {
        let length = u16::try_from(attributes.len()).unwrap().to_be_bytes();
        message(2, &[&[0, 0], &length, attributes, prefixes].concat())
    };
    let rows: [(&str, Vec<u8>, Fault, &[u8]); 24] = [
        ("a marker with a hole", marker, Fault::NOT_SYNCHRONIZED, &[]),
        ("another protocol", b"GET / HTTP/1.1\r\n".to_vec(), Fault::NOT_SYNCHRONIZED, &[]),
        ("too short", [&MARKER[..], &[0, 18, 4]].concat(), Fault::BAD_LENGTH, &[0, 18]),
        ("too long", [&MARKER[..], &[0x10, 1, 2]].concat(), Fault::BAD_LENGTH, &[0x10, 1]),
        ("a keepalive with a body", message(4, &[0]), Fault::BAD_LENGTH, &[0, 20]),
        ("an update without lengths", message(2, &[0, 0, 0]), Fault::BAD_LENGTH, &[0, 22]),
        ("an open cut short", message(1, &[4, 0, 1]), Fault::BAD_LENGTH, &[0, 22]),
        ("an unknown type", message(9, &[]), Fault::BAD_TYPE, &[9]),
        ("version 3", message(1, &[3, 0, 1, 0, 9, 1, 1, 1, 1, 0]), Fault::UNSUPPORTED_VERSION, &[0, 4]),
        ("AS 0", message(1, &[4, 0, 0, 0, 9, 1, 1, 1, 1, 0]), Fault::BAD_PEER_AS, &[0, 0]),
        ("AS 0 in 32 bits", open(&[8, 2, 6, 65, 4, 0, 0, 0, 0]), Fault::BAD_PEER_AS, &[0, 0]),
        ("hold 1", message(1, &[4, 0, 1, 0, 1, 1, 1, 1, 1, 0]), Fault::UNACCEPTABLE_HOLD_TIME, &[0, 1]),
        ("identifier 0", message(1, &[4, 0, 1, 0, 9, 0, 0, 0, 0, 0]), Fault::BAD_IDENTIFIER, &[0; 4]),
        ("parameters beyond the end", open(&[9, 2, 0]), Fault::MALFORMED_OPEN, &[]),
        ("octets after the parameters", open(&[0, 0]), Fault::MALFORMED_OPEN, &[]),
        ("authentication", open(&[3, 1, 1, 0]), Fault::UNSUPPORTED_PARAMETER, &[]),
        ("a short capability", open(&[6, 2, 4, 65, 2, 0, 1]), Fault::UNSUPPORTED_CAPABILITY, &[65, 2, 0, 1]),
        ("an unknown role", open(&[5, 2, 3, 9, 1, 7]), Fault::ROLE_MISMATCH, &[]),
        ("two roles", open(&[8, 2, 6, 9, 1, 3, 9, 1, 4]), Fault::ROLE_MISMATCH, &[]),
        ("attributes beyond the end", message(2, &[0, 0, 0, 9]), Fault::MALFORMED_ATTRIBUTES, &[]),
        ("an unknown well-known", update(&[0x40, 99, 1, 7], &[]), Fault::UNRECOGNIZED_WELL_KNOWN, &[0x40, 99, 1, 7]),
        ("a /33", update(&[0x40, 1, 1, 0], &[33, 1, 2, 3, 4, 5]), Fault::INVALID_NETWORK, &[]),
        ("a prefix cut short", update(&[0x40, 1, 1, 0], &[24, 1, 2]), Fault::INVALID_NETWORK, &[]),
        ("a refresh of 3", message(5, &[0, 1, 0]), Fault::BAD_REFRESH_LENGTH, &message(5, &[0, 1, 0])),
    ];
    for (what, bytes, fault, data) in rows {
        assert_eq!(decode(&bytes), Err(Notification::with(fault, data)), "{what}");
    }
}

#[test]
fn errors_that_only_affect_an_import_are_ignored() {
    // Wrong flags of ORIGIN, an attribute that overruns, an unknown optional one, a family that is not ours.
    for attributes in [
        &[0xc0, 1, 1, 0][..],
        &[0x40, 1, 9, 0],
        &[0x80, 99, 1, 7],
        // Communities, flagged as well-known.
        &[0x40, 8, 4, 0, 1, 0, 2],
        &[0x80, 15, 3, 0, 25, 70],
        &[0x80, 14, 5, 0, 1, 2, 0, 0],
    ] {
        let length = u8::try_from(attributes.len()).unwrap();
        let bytes = message(2, &[&[0, 0, 0, length], attributes].concat());
        assert!(matches!(all(&bytes)[..], [Message::Update(_)]), "{attributes:?}");
    }
}

#[test]
fn a_message_is_awaited_to_its_end() {
    let bytes = encoded(|out| open(capabilities()).encode(out));
    for length in 0..bytes.len() {
        assert_eq!(decode(&bytes[..length]), Ok(None), "{length} octets");
    }
}

#[test]
fn capabilities_beyond_255_octets_are_read() {
    let unknown = [&[200, 250][..], &[0; 250]].concat();
    let value = [&unknown[..], &[65, 4, 0, 1, 0, 0]].concat();
    let parameter = [&[2][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), &value].concat();
    let extended = [&[255, 255][..], &u16::try_from(parameter.len()).unwrap().to_be_bytes(), &parameter].concat();
    let bytes = message(1, &[&[4, 0x5b, 0xa0, 0, 9, 10, 0, 0, 1], &extended[..]].concat());
    let [Message::Open(open)] = &all(&bytes)[..] else { panic!("no open") };
    assert_eq!(open.asn, 65_536);
}

prop_compose! {
    fn any_prefix()(v6 in any::<bool>(), bits in any::<u128>(), length in 0_u8..=128) -> IpNet {
        let net = if v6 {
            IpNet::new(std::net::Ipv6Addr::from(bits).into(), length)
        } else {
            IpNet::new(std::net::Ipv4Addr::from(bits as u32).into(), length % 33)
        };
        net.unwrap().trunc()
    }
}

fn any_community() -> impl Strategy<Value = Community> {
    prop_oneof![
        any::<(u16, u16)>().prop_map(|(a, b)| Community::Standard(a, b)),
        any::<[u8; 8]>().prop_map(Community::Extended),
        any::<(u32, u32, u32)>().prop_map(|(a, b, c)| Community::Large(a, b, c)),
    ]
}

prop_compose! {
    fn any_attributes()(
        as_path in vec(1_u32.., 0..12),
        next_hop in any::<std::net::Ipv6Addr>(),
        next_hop4 in any::<std::net::Ipv4Addr>(),
        v6 in any::<bool>(),
        med in any::<Option<u32>>(),
        local_pref in any::<Option<u32>>(),
        communities in btree_set(any_community(), 0..80),
        only_to_customer in proptest::option::of(1_u32..),
    ) -> Attributes {
        let next_hop = if v6 { next_hop.into() } else { next_hop4.into() };
        Attributes { as_path, next_hop, med, local_pref, communities, only_to_customer }
    }
}

prop_compose! {
    fn any_capabilities()(
        families in btree_set(prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)], 0..3),
        [route_refresh, enhanced_refresh, extended_next_hop] in any::<[bool; 3]>(),
        four_octet_as in proptest::option::of(1_u32..),
        restart in proptest::option::of((any::<bool>(), 0_u16..4_096, any::<[Option<bool>; 2]>())),
        role in proptest::option::of((0_u8..5).prop_map(|number| Role::from_number(number).unwrap())),
    ) -> Capabilities {
        let graceful_restart = restart.map(|(restarting, time, families)| {
            let families = Family::ALL.into_iter().zip(families).filter_map(|(family, kept)| Some((family, kept?)));
            GracefulRestart { restarting, time, families: families.collect() }
        });
        Capabilities {
            families, route_refresh, enhanced_refresh, extended_next_hop, four_octet_as, graceful_restart, role,
        }
    }
}

proptest! {
    #[test]
    fn an_open_is_read_back(capabilities in any_capabilities()) {
        let sent = open(capabilities);
        prop_assert_eq!(all(&encoded(|out| sent.encode(out))), [Message::Open(sent)]);
    }

    #[test]
    fn prefixes_are_read_back(attributes in any_attributes(), mut prefixes in vec(any_prefix(), 0..1_500)) {
        let family = family_of(&attributes);
        let encoding = Encoding { four_octet_as: true, extended_next_hop: false };
        prefixes.retain(|prefix| Family::from_prefix(prefix) == family);
        let bytes = encoded(|out| announce(out, encoding, family, &attributes, &prefixes).unwrap());
        prop_assert_eq!(prefixes_in(&bytes), (prefixes.clone(), vec![]));
        let bytes = encoded(|out| withdraw(out, encoding, family, &prefixes));
        prop_assert_eq!(prefixes_in(&bytes), (vec![], prefixes));
    }

    #[test]
    fn noise_causes_no_panic(bytes in vec(any::<u8>(), 0..200), kind in 0_u8..7) {
        let _ = decode(&bytes);
        let _ = decode(&message(kind, &bytes));
    }

    #[test]
    fn a_flipped_octet_causes_no_panic(
        attributes in any_attributes(),
        capabilities in any_capabilities(),
        prefixes in vec(any_prefix(), 1..20),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        notification in vec(any::<u8>(), 2..80),
    ) {
        let family = family_of(&attributes);
        let mut bytes = encoded(|out| open(capabilities).encode(out));
        announce(&mut bytes, AS4, family, &attributes, &prefixes.iter().copied().filter(|p| Family::from_prefix(p) == family).collect::<Vec<_>>()).unwrap();
        bytes.extend(message(3, &notification));
        let mut rest = bytes.as_mut_slice();
        while !rest.is_empty() {
            let length = usize::from(u16::from_be_bytes([rest[16], rest[17]]));
            let (message, others) = rest.split_at_mut(length);
            for (at, value) in &flips {
                // Past the length: what follows must stay a message of its own.
                let at = 18 + at.index(length - 18);
                message[at] = *value;
            }
            match decode(message) {
                Ok(Some((message, _))) => drop(format!("{message:?}")),
                Ok(None) => {}
                Err(notification) => drop(notification.to_string()),
            }
            rest = others;
        }
    }
}
