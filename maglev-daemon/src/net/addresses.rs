//! The addresses of this node. It must not know why one matters.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

/// Every address of every interface in this namespace, and the interface's name. Nothing if the kernel does not tell.
pub fn local() -> BTreeMap<IpAddr, String> {
    let Ok(interfaces) = getifaddrs() else { return BTreeMap::new() };
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let storage = interface.address?;
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        let v6 = || storage.as_sockaddr_in6().map(|address| IpAddr::from(address.ip()));
        Some((v4.or_else(v6)?, interface.interface_name))
    };
    interfaces.filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{in_namespace, ip};

    #[test]
    fn addresses_of_both_families_are_found_by_interface() {
        in_namespace(|| {
            let added = ["203.0.113.10", "2001:db8::10"].map(|address| address.parse::<IpAddr>().unwrap());
            assert!(added.iter().all(|address| !local().contains_key(address)));
            for address in added {
                ip(&format!("address add {address} dev lo"));
                assert_eq!(local().get(&address), Some(&"lo".to_owned()), "{address}");
            }
        });
    }
}
