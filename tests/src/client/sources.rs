//! Where the client's flows start: addresses and ports in turn, each used again as late as possible.
//!
//! The kernel's own choice comes back to a port within seconds at a few thousand connections a second. A load balancer
//! rightly keeps a flow that was active a moment ago where it is, whatever its weights say now; a client that counts
//! shares must therefore not start a new flow under an old flow's name.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::addresses::Pair;

/// The ports, apart from the privileged ones and a few hundred at the top.
const FIRST_PORT: u16 = 1_024;
const PORTS: u64 = 64_000;

/// The addresses, and how many flows have been started.
#[derive(Debug, Default)]
pub(super) struct Sources {
    addresses: Vec<Pair>,
    started: AtomicU64,
}

impl Sources {
    /// From these addresses; from none, the kernel chooses.
    pub(super) fn new(addresses: Vec<Pair>) -> Self {
        Self { addresses, started: AtomicU64::new(0) }
    }

    /// Where the next flow to `target` starts.
    pub(super) fn next(&self, target: SocketAddr) -> SocketAddr {
        if self.addresses.is_empty() {
            let any = if target.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
            return SocketAddr::new(any, 0);
        }
        let n = self.started.fetch_add(1, Ordering::Relaxed);
        let address = self.addresses[(n / PORTS) as usize % self.addresses.len()];
        SocketAddr::new(address.like(target.ip()), FIRST_PORT + (n % PORTS) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::client;

    #[test]
    fn all_ports_of_all_addresses_pass_before_one_comes_back() {
        let sources = Sources::new(vec![client(2), client(3)]);
        let target = SocketAddr::from(([203, 0, 113, 10], 80));
        let all: Vec<SocketAddr> = (0..2 * PORTS).map(|_| sources.next(target)).collect();
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert_eq!(sources.next(target), all[0]);
        assert!(all.iter().all(|source| source.port() >= FIRST_PORT && source.is_ipv4()));
    }
}
