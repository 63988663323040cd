//! Frames by hand, and their outcomes.

use ipnet::IpNet;
use maglev_common::settings::Mss;

use super::*;

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn world() -> DecapWorld {
    DecapWorld {
        sources: nets(&["10.64.0.0/16", "fd64::/32"]),
        vips: nets(&["203.0.113.10/32", "2001:db8:113::/64"]),
        mss: Mss::Off,
        mtu: 1_500,
    }
}

/// A frame of hexadecimal digits.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

const MACS: &str = "020000000001 020000000005";
/// A UDP datagram of four bytes from 198.51.100.7 to 203.0.113.10, ECT(0); its header's checksum is right.
const INNER4: &str = "45020020 00004000 40111fa8 c6336407 cb00710a 9c400035000c0000 01020304";
/// The same with CE.
const INNER4_CE: &str = "45030020 00004000 40111fa7 c6336407 cb00710a 9c400035000c0000 01020304";
/// A UDP datagram of four bytes from 2001:db8:51::7 to 2001:db8:113::10, not ECN-capable.
const INNER6: &str = "60000000 000c1140 20010db8005100000000000000000007 20010db8011300000000000000000010
    9c400035000c0000 01020304";

fn unwrapped(frame: &str) -> String {
    let predicted = decap(&world(), &hex(frame));
    match (predicted.verdict, predicted.bytes) {
        (Verdict::Pass, Some(bytes)) if predicted.counted == ["decapsulated"] => {
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        }
        _ => predicted.counted.concat(),
    }
}

fn plain(text: &str) -> String {
    text.chars().filter(char::is_ascii_hexdigit).collect()
}

#[test]
fn outer_headers_go_and_congestion_stays() {
    // IPv4 in IPv4, the outer header CE.
    let ce = format!("{MACS} 0800 45030034 00004000 40040000 0a400b5f 0a00010b {INNER4}");
    assert_eq!(unwrapped(&ce), plain(&format!("{MACS} 0800 {INNER4_CE}")));
    // IPv6 in IPv4: the type follows the inner packet, and padding stays behind.
    let padded = format!("{MACS} 0800 45000048 00004000 40290000 0a400b5f 0a00010b {INNER6} 0000");
    assert_eq!(unwrapped(&padded), plain(&format!("{MACS} 86dd {INNER6} 0000")));
    assert_eq!(unwrapped(&padded.replace(" 0800 ", " 81000064 0800 ")), "not_encapsulated");
    // IPv4 in GUE with a word of private data, in IPv6.
    let gue = format!(
        "{MACS} 86dd 60000000 00301140 fd640000000000000000000000000001 fd00000100000000000000000000000b
        c00017c0 00300000 01040000 deadbeef {INNER4}"
    );
    assert_eq!(unwrapped(&gue), plain(&format!("{MACS} 0800 {INNER4}")));
    // The same of version 1.
    let gue1 = format!(
        "{MACS} 86dd 60000000 00281140 fd640000000000000000000000000001 fd00000100000000000000000000000b
        c00017c0 00281234 {INNER4}"
    );
    assert_eq!(unwrapped(&gue1), plain(&format!("{MACS} 0800 {INNER4}")));
}

#[test]
fn each_reason_has_its_packet() {
    let wrapped = |header: &str, inner: &str| format!("{MACS} 0800 {header} {inner}");
    let ipip = "45000034 00004000 40040000 0a400b5f 0a00010b";
    let udp = |gue: &str| format!("45000040 00004000 40110000 0a400b5f 0a00010b c00017c0 002c0000 {gue}");
    let rows = [
        ("not_encapsulated", format!("{MACS} 0806 0001")),
        ("not_encapsulated", wrapped("45000034 00004000 402f0000 0a400b5f 0a00010b", INNER4)),
        ("foreign_source", wrapped(&ipip.replace("0a400b5f", "0a410b5f"), INNER4)),
        ("fragment", wrapped(&ipip.replace("00004000", "00002000"), INNER4)),
        ("malformed", wrapped(&ipip.replace("45000034", "45000035"), INNER4)),
        ("malformed", wrapped(ipip, &INNER4.replace("45020020", "45020021"))),
        ("malformed", wrapped(ipip, INNER6)),
        ("foreign_destination", wrapped(ipip, &INNER4.replace("cb00710a", "cb00710b"))),
        ("impossible_source", wrapped(ipip, &INNER4.replace("c6336407", "cb00710a"))),
        ("impossible_source", wrapped(ipip, &INNER4.replace("c6336407", "7f000001"))),
        ("congestion", wrapped(&ipip.replace("45000034", "45030034"), &INNER4.replace("4502", "4500"))),
        ("unsupported_gue", wrapped(&udp("20040000"), INNER4)),
        ("unsupported_gue", wrapped(&udp("00040001"), INNER4)),
        ("unsupported_gue", wrapped(&udp("003b0000"), INNER4)),
        ("unsupported_gue", wrapped(&udp("80040000"), INNER4)),
        ("malformed", wrapped(&udp("1f040000"), INNER4)),
    ];
    for (reason, frame) in rows {
        assert_eq!(unwrapped(&frame), reason, "{frame}");
    }
}

#[test]
fn all_of_rfc_6040s_figure_4() {
    let rows = [
        [Some(0), Some(0), Some(0), None],
        [Some(2), Some(2), Some(1), Some(3)],
        [Some(1), Some(1), Some(1), Some(3)],
        [Some(3), Some(3), Some(3), Some(3)],
    ];
    for (inner, row) in [0b00, 0b10, 0b01, 0b11].into_iter().zip(rows) {
        assert_eq!([0b00, 0b10, 0b01, 0b11].map(|outer| combined(outer, inner)), row, "{inner:02b}");
    }
}
