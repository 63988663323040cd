//! The same messages in another codec: each reads the other's messages as they were meant.

use std::net::IpAddr;

use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::path_attribute::{AsPath, MpReach, MpUnreach, PathAttributeValue};
use netgauze_bgp_pkt::update::BgpUpdateMessage;
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_parse_utils::WritablePdu as _;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput as _;

use super::*;

/// The other codec's reading of one message.
fn read(bytes: &[u8], four_octet_as: bool) -> Result<BgpMessage, String> {
    let mut context = BgpParsingContext::asn2_default();
    context.set_asn4(four_octet_as);
    BgpMessage::parse(&mut SliceReader::new(bytes), &mut context).map_err(|error| format!("{error:?}"))
}

/// Each message of a buffer by itself.
fn each(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let Some(length) = bytes.get(16..18) {
        let (message, rest) = bytes.split_at(usize::from(u16::from_be_bytes([length[0], length[1]])));
        messages.push(message);
        bytes = rest;
    }
    messages
}

/// The attributes and prefixes of an update in our words.
fn ours(update: &BgpUpdateMessage) -> (Attributes, Vec<IpNet>, Vec<IpNet>) {
    let mut attributes = Attributes { as_path: vec![], only_to_customer: None, ..attributes("0.0.0.0") };
    let mut announced: Vec<IpNet> = update.nlri().iter().map(|prefix| IpNet::V4(prefix.network().address())).collect();
    let mut withdrawn: Vec<IpNet> =
        update.withdraw_routes().iter().map(|prefix| IpNet::V4(prefix.network().address())).collect();
    for attribute in update.path_attributes() {
        match attribute.value() {
            PathAttributeValue::Origin(_) => {}
            PathAttributeValue::AsPath(AsPath::As4PathSegments(segments)) => {
                attributes.as_path = segments.iter().flat_map(|segment| segment.as_numbers().to_vec()).collect();
            }
            PathAttributeValue::NextHop(next_hop) => attributes.next_hop = next_hop.next_hop().into(),
            PathAttributeValue::MultiExitDiscriminator(med) => attributes.med = Some(med.metric()),
            PathAttributeValue::LocalPreference(preference) => attributes.local_pref = Some(preference.metric()),
            PathAttributeValue::Communities(communities) => {
                let split = |value: u32| Community::Standard((value >> 16) as u16, value as u16);
                attributes.communities.extend(communities.communities().iter().map(|one| split(one.value())));
            }
            PathAttributeValue::ExtendedCommunities(communities) => {
                attributes.communities.extend(communities.communities().iter().map(|community| {
                    let mut octets = Vec::new();
                    community.write(&mut octets).unwrap();
                    Community::Extended(octets.try_into().unwrap())
                }));
            }
            PathAttributeValue::LargeCommunities(communities) => {
                attributes.communities.extend(
                    communities
                        .communities()
                        .iter()
                        .map(|one| Community::Large(one.global_admin(), one.local_data1(), one.local_data2())),
                );
            }
            PathAttributeValue::OnlyToCustomer(asn) => attributes.only_to_customer = Some(asn.asn()),
            PathAttributeValue::MpReach(MpReach::Ipv4Unicast { next_hop, next_hop_local: _, nlri }) => {
                attributes.next_hop = *next_hop;
                announced.extend(nlri.iter().map(|prefix| IpNet::V4(prefix.network().address())));
            }
            PathAttributeValue::MpReach(MpReach::Ipv6Unicast { next_hop_global, next_hop_local: _, nlri }) => {
                attributes.next_hop = IpAddr::V6(*next_hop_global);
                announced.extend(nlri.iter().map(|prefix| IpNet::V6(prefix.network().address())));
            }
            PathAttributeValue::MpUnreach(MpUnreach::Ipv4Unicast { nlri }) => {
                withdrawn.extend(nlri.iter().map(|prefix| IpNet::V4(prefix.network().address())));
            }
            PathAttributeValue::MpUnreach(MpUnreach::Ipv6Unicast { nlri }) => {
                withdrawn.extend(nlri.iter().map(|prefix| IpNet::V6(prefix.network().address())));
            }
            other => panic!("not ours: {other:?}"),
        }
    }
    (attributes, announced, withdrawn)
}

fn update(bytes: &[u8]) -> BgpUpdateMessage {
    match read(bytes, true).unwrap() {
        BgpMessage::Update(update) => update,
        other => panic!("{other:?} is no update"),
    }
}

/// The other codec takes only prefixes and next hops that can be routed to.
fn plausible(prefix: &IpNet) -> bool {
    !prefix.addr().is_multicast() && !prefix.addr().is_unspecified() && !prefix.addr().is_loopback()
}

#[test]
fn every_other_message_is_the_others_too() {
    assert_eq!(read(&encoded(keepalive), true), Ok(BgpMessage::KeepAlive));
    let refresh = read(&encoded(|out| route_refresh(out, Family::Ipv6, Boundary::Request)), true);
    assert!(matches!(refresh, Ok(BgpMessage::RouteRefresh(_))), "{refresh:?}");
    let notification = encoded(|out| Notification::with_text(Fault::SHUTDOWN, "bye").encode(out));
    assert!(matches!(read(&notification, true), Ok(BgpMessage::Notification(_))));
}

proptest! {
    #[test]
    fn our_updates_say_the_same_to_the_other_codec(
        attributes in any_attributes(),
        mut prefixes in vec(any_prefix().prop_filter("routable", plausible), 1..900),
    ) {
        let mut attributes = attributes;
        attributes.communities.retain(|community| !matches!(community, Community::Extended([1..=u8::MAX, ..] | [0, 9, ..])));
        let family = Family::from_prefix(&prefixes[0]);
        prop_assume!(family == Family::Ipv4 || attributes.next_hop.is_ipv6());
        prop_assume!(!attributes.next_hop.is_multicast() && !attributes.next_hop.is_unspecified());
        prefixes.retain(|prefix| Family::from_prefix(prefix) == family);
        let encoding = if attributes.next_hop.is_ipv6() { OVER_V6 } else { AS4 };

        let bytes = encoded(|out| announce(out, encoding, family, &attributes, &prefixes).unwrap());
        let mut announced = Vec::new();
        for message in each(&bytes) {
            let (found, prefixes, withdrawn) = ours(&update(message));
            prop_assert_eq!(&found, &attributes);
            prop_assert!(withdrawn.is_empty());
            announced.extend(prefixes);
        }
        prop_assert_eq!(&announced, &prefixes);

        let bytes = encoded(|out| withdraw(out, encoding, family, &prefixes));
        let withdrawn: Vec<_> = each(&bytes).into_iter().flat_map(|message| ours(&update(message)).2).collect();
        prop_assert_eq!(withdrawn, prefixes);
    }

    #[test]
    fn our_opens_say_the_same_to_the_other_codec(capabilities in any_capabilities()) {
        let sent = open(capabilities);
        let bytes = encoded(|out| sent.encode(out));
        let BgpMessage::Open(read) = read(&bytes, true).unwrap() else { panic!("no open") };
        prop_assert_eq!(read.my_asn4(), sent.asn);
        prop_assert_eq!(read.hold_time(), sent.hold_time);
        prop_assert_eq!(read.bgp_id(), sent.router_id);
        // And what it writes, we read as what we sent.
        let mut written = Vec::new();
        BgpMessage::Open(read).write(&mut written).unwrap();
        prop_assert_eq!(all(&written), [Message::Open(sent)]);
    }

    /// Where the other codec accepts an OPEN, ours reads the same, or names the error.
    #[test]
    fn a_spoilt_open_means_the_same_to_both(
        capabilities in any_capabilities(),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut bytes = encoded(|out| open(capabilities).encode(out));
        let at = HEADER + at.index(bytes.len() - HEADER);
        bytes[at] = value;
        if let (Ok(Some((Message::Open(ours), _))), Ok(BgpMessage::Open(theirs))) = (decode(&bytes), read(&bytes, true)) {
            prop_assert_eq!((ours.asn, ours.hold_time, ours.router_id), (theirs.my_asn4(), theirs.hold_time(), theirs.bgp_id()));
        }
    }
}
