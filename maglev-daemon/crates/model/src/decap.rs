//! Decapsulation on a backend: the addresses that can be VIPs there. It must not know how packets are unwrapped.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Whether a prefix has addresses that `decap` unwraps packets for. Multicast, broadcast, loopback and link-local ones are
/// not.
pub fn can_be_vips(prefix: IpNet) -> bool {
    const NEVER4: [(Ipv4Addr, u8); 4] = [
        (Ipv4Addr::new(0, 0, 0, 0), 8),
        (Ipv4Addr::new(127, 0, 0, 0), 8),
        (Ipv4Addr::new(169, 254, 0, 0), 16),
        (Ipv4Addr::new(224, 0, 0, 0), 3),
    ];
    const NEVER6: [(Ipv6Addr, u8); 4] = [
        (Ipv6Addr::UNSPECIFIED, 96),
        (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
        (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
        (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
    ];
    match prefix {
        IpNet::V4(prefix) => {
            let mut never = NEVER4.iter().filter_map(|&(address, length)| Ipv4Net::new(address, length).ok());
            !never.any(|never| never.contains(&prefix))
        }
        IpNet::V6(prefix) => {
            let mut never = NEVER6.iter().filter_map(|&(address, length)| Ipv6Net::new(address, length).ok());
            !never.any(|never| never.contains(&prefix))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn prefixes_that_never_hold_vips_are_known() {
        for never in nets(&[
            "224.0.0.0/8",
            "255.255.255.255/32",
            "127.0.0.1/32",
            "0.0.0.0/8",
            "ff02::/16",
            "::1/128",
            "fe80::/64",
        ]) {
            assert!(!can_be_vips(never), "{never}");
        }
        for may in nets(&["0.0.0.0/0", "::/0", "10.0.0.0/8", "fd00::/8", "203.0.113.10/32", "192.0.0.0/2"]) {
            assert!(can_be_vips(may), "{may}");
        }
    }
}
