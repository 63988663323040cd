//! What stands in front of the inner packet is replaced, whatever its length.

use std::vec::Vec;

use maglev_common::hash::{Tuple4, Tuple6};
use maglev_common::template::Template;

use super::encapsulate;
use crate::env::Outer;
use crate::fixtures::{VecPacket, tcp4, tcp6};
use crate::packet::Ip;
use crate::packet::eth;
use crate::testing::{backend4, backend6, tables};

/// A frame with as many tags, encapsulated with an outer header of either family.
fn encapsulated<F: Ip>(frame: &[u8], tags: usize) -> [Vec<u8>; 2] {
    let mut tagged = frame.to_vec();
    tagged.splice(12..12, [0x81, 0, 0, 5].repeat(tags));
    let l3 = eth::HEADER + tags * eth::TAG;
    let outer =
        Outer { protocol: F::IN_IP, l3, length: (frame.len() - eth::HEADER) as u32, hash: 0x0123_4567_89ab_cdef };
    [backend4(), backend6()].map(|record| {
        let interface = tables(record.clone()).forwarding.interfaces[0].clone();
        let template = Template::new(&record, &interface);
        let mut packet = VecPacket::new(&tagged);
        let encap = template.exit().encap();
        let sent = encapsulate::<F>(&mut packet, encap, true, outer, &template, &record);
        assert_eq!(packet.bytes.len(), frame.len() + encap.overhead());
        assert!(sent);
        packet.bytes
    })
}

#[test]
fn tags_are_replaced_with_the_ethernet_header() {
    for tags in 1..=2 {
        assert_eq!(encapsulated::<Tuple4>(&tcp4(b"hello"), tags), encapsulated::<Tuple4>(&tcp4(b"hello"), 0));
        assert_eq!(encapsulated::<Tuple6>(&tcp6(b"hello"), tags), encapsulated::<Tuple6>(&tcp6(b"hello"), 0));
    }
}
