//! The services of many VIPs, to compare one more with them by look-ups. It must not know pools or requests.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Name, Ports, Protocol, Refusal, Service, Vip, shown_network};

/// VIPs of one address or prefix, with those of the prefixes around it, that have no key of their own ([`Vip::has_key`]): the packet
/// path compares a packet with each.
pub const MAX_RULES: usize = 32;

/// Lengths of prefixes that the VIPs of one family have: the packet path looks a packet up by each.
pub const MAX_LENGTHS: usize = 8;

/// The services of VIPs.
#[derive(Clone, Debug, Default)]
pub struct Places {
    services: HashSet<Service>,
    networks: HashSet<IpNet>,
    /// Those of VIPs without a key of their own, by their network.
    rules: HashMap<IpNet, Vec<Service>>,
    /// The lengths of all prefixes that are not one address, of each family.
    lengths: [BTreeSet<u8>; 2],
}

/// Why a service cannot be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clash {
    /// It is there already.
    Taken,
    /// With the other one, it has packets of which neither is the more specific.
    Ambiguous(Service),
    /// Too many VIPs are compared with a packet to this network.
    Rules(IpNet, usize),
    /// The lengths of prefixes that the VIPs of its family have.
    Lengths(Vec<u8>),
}

impl Places {
    /// Whether a VIP has this address, alone or within its prefix.
    pub fn hold(&self, address: IpAddr) -> bool {
        let full = IpNet::from(address);
        let [v4, v6] = &self.lengths;
        let lengths = if address.is_ipv4() { v4 } else { v6 };
        let around = lengths.iter().filter_map(|length| IpNet::new(address, *length).ok());
        self.networks.contains(&full) || around.into_iter().any(|net| self.networks.contains(&net.trunc()))
    }

    /// Why this VIP's service cannot be added, if so.
    pub fn clash(&self, vip: &Vip) -> Option<Clash> {
        let service = vip.service;
        if self.services.contains(&service) {
            return Some(Clash::Taken);
        }
        if vip.has_key() {
            return None;
        }
        let same = self.rules.get(&service.network).into_iter().flatten();
        if let Some(other) = same.copied().find(|other| service.is_ambiguous(other)) {
            return Some(Clash::Ambiguous(other));
        }
        let lengths = self.lengths_of(service.network);
        if !service.has_one_address()
            && lengths.len() >= MAX_LENGTHS
            && !lengths.contains(&service.network.prefix_len())
        {
            return Some(Clash::Lengths(lengths.iter().copied().collect()));
        }
        let within = self.rules.keys().filter(|other| !service.has_one_address() && service.network.contains(*other));
        let mut counts = within.chain([&service.network]).map(|network| (network, 1 + self.rules_around(*network)));
        let (network, count) = counts.find(|(_, count)| *count > MAX_RULES)?;
        Some(Clash::Rules(*network, count))
    }

    /// Adds a VIP's service.
    pub fn insert(&mut self, vip: &Vip) {
        let service = vip.service;
        let network = service.network;
        self.services.insert(service);
        self.networks.insert(network);
        if !service.has_one_address() {
            let [v4, v6] = &mut self.lengths;
            let lengths = if network.addr().is_ipv4() { v4 } else { v6 };
            lengths.insert(network.prefix_len());
        }
        if !vip.has_key() {
            self.rules.entry(network).or_default().push(service);
        }
    }

    /// Adds a VIP's service if it can be.
    pub fn try_insert(&mut self, vip: &Vip) -> bool {
        let fits = self.clash(vip).is_none();
        if fits {
            self.insert(vip);
        }
        fits
    }

    const fn lengths_of(&self, network: IpNet) -> &BTreeSet<u8> {
        let [v4, v6] = &self.lengths;
        match network {
            IpNet::V4(_) => v4,
            IpNet::V6(_) => v6,
        }
    }

    /// The rules that a packet to this network is compared with: its own, and those of the prefixes around it.
    fn rules_around(&self, network: IpNet) -> usize {
        let shorter = self.lengths_of(network).iter().filter(|length| **length < network.prefix_len());
        let around = shorter.filter_map(|length| IpNet::new(network.addr(), *length).ok());
        let all = around.map(|net| net.trunc()).chain([network]);
        all.filter_map(|net| self.rules.get(&net)).map(Vec::len).sum()
    }
}

impl<'a> FromIterator<&'a Vip> for Places {
    fn from_iter<T: IntoIterator<Item = &'a Vip>>(vips: T) -> Self {
        let mut places = Self::default();
        vips.into_iter().for_each(|vip| places.insert(vip));
        places
    }
}

impl Service {
    /// Whether some packets are for both, and neither service is the more specific: both have the same addresses and protocol,
    /// and their ports overlap without one range within the other.
    pub fn is_ambiguous(&self, other: &Self) -> bool {
        let Self { network, ports, protocol } = *self;
        let is_nested = ports.contains(other.ports) || other.ports.contains(ports);
        (network, protocol) == (other.network, other.protocol) && ports.overlaps(other.ports) && !is_nested
    }

    /// Whether a VIP can have this service.
    ///
    /// # Errors
    /// Addresses that are not single hosts', a prefix that is too wide, or ports of a protocol without.
    pub(super) fn check(&self, vip: &Name) -> Result<(), Refusal> {
        let Self { network, ports, protocol } = *self;
        let least = match network {
            IpNet::V4(_) => 8,
            IpNet::V6(_) => 16,
        };
        if network.prefix_len() < least {
            return Err(Refusal::Invalid(format!(
                "VIP {vip}: {network} is too wide; allowed: IPv4 prefixes from /8 to /32, IPv6 prefixes from /16 to /128"
            )));
        }
        if let Some((address, kind)) = not_hosts(network) {
            let contains = if self.has_one_address() { String::new() } else { format!("{network} contains ") };
            let is = if self.has_one_address() { " is" } else { "," };
            return Err(Refusal::Invalid(format!("VIP {vip}: {contains}{address}{is} {kind}")));
        }
        if ports != Ports::Any && !protocol.has_ports() {
            let what = if protocol == Protocol::Any { "any protocol".to_owned() } else { protocol.to_string() };
            return Err(Refusal::Invalid(format!(
                "VIP {vip}: {what} has no port {ports}; allowed: port any, or protocol tcp, udp, sctp or udplite"
            )));
        }
        Ok(())
    }
}

/// An address of the network that is not a single host's, and its kind.
fn not_hosts(network: IpNet) -> Option<(IpAddr, &'static str)> {
    /// Within prefixes that are otherwise hosts' addresses. The other kinds fill every prefix that begins or ends in them.
    const INNER: [(&str, &str); 2] =
        [("169.254.0.0/16", "a link-local address"), ("::ffff:0:0/96", "an IPv4-mapped address; write it as IPv4")];
    let ends = [network.network(), network.broadcast()];
    let found = ends.into_iter().find_map(|end| Some((end, super::not_unicast(end)?)));
    // One link-local address has always been allowed: a cloud's own services have such.
    let is_prefix = network.prefix_len() < network.max_prefix_len();
    let mut inner = INNER.iter().filter_map(|(net, kind)| Some((net.parse::<IpNet>().ok()?, *kind)));
    found.or_else(|| {
        let (net, kind) = inner.find(|(net, _)| is_prefix && (net.contains(&network) || network.contains(net)))?;
        let inside = if net.contains(&network) { network } else { net };
        Some((inside.network(), kind))
    })
}

/// The refusal of a VIP whose service cannot be added to those of others.
pub(super) fn refusal<'a>(vip: &Vip, clash: &Clash, mut others: impl Iterator<Item = &'a Vip>) -> Refusal {
    let Vip { name, service, .. } = vip;
    let mut named =
        |place: Service| others.find(|other| other.service == place).map_or("", |other| other.name.as_str());
    Refusal::Conflict(match clash {
        Clash::Taken => format!(
            "{service} is already VIP {}; remove it first, or choose another address, port or protocol",
            named(*service)
        ),
        Clash::Ambiguous(other) => format!(
            "VIP {name}: {service} shares ports with VIP {} ({other}), and neither range is within the other; choose ports \
             within {}, around them, or apart from them",
            named(*other),
            other.ports
        ),
        Clash::Rules(network, count) => format!(
            "VIP {name}: {} would have {count} VIPs of a prefix, of several ports, of any protocol, or with affinity by source, \
             with those of the prefixes around it; allowed: at most {MAX_RULES}",
            shown_network(*network)
        ),
        Clash::Lengths(lengths) => format!(
            "VIP {name}: /{} would be another length of prefix; allowed: at most {MAX_LENGTHS} over all VIPs of a family, \
             which have {}",
            service.network.prefix_len(),
            lengths.iter().map(|length| format!("/{length}")).collect::<Vec<_>>().join(", ")
        ),
    })
}

#[cfg(test)]
#[path = "places_tests.rs"]
mod tests;
