//! The worlds in which packets are handled: addresses, services and settings that the oracle and the programs' maps are both given.

use ipnet::IpNet;
use maglev_common::settings::Mss;

/// A backend's decapsulation.
#[derive(Clone, Debug)]
pub struct DecapWorld {
    /// The prefixes of `--from`: outer sources that are accepted.
    pub sources: Vec<IpNet>,
    /// The prefixes of `--to`: inner destinations that packets are unwrapped for.
    pub vips: Vec<IpNet>,
    /// `--mss`.
    pub mss: Mss,
    /// The MTU in bytes of the interface that packets come in by.
    pub mtu: u32,
}
