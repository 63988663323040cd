//! What driver and kernel say of one interface, and of the kernel itself, for a reader that attaches nothing. It must not know what
//! follows.

use maglev_net::links::Link;
use maglev_net::xdp::{self, XdpFeatures};

use super::driver_report::{DriverReport, Surroundings};
use super::{features, offloads};

/// The facts about an interface; `None` where driver or kernel do not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examined {
    /// The driver's name.
    pub driver: Option<String>,
    /// The place of its card, such as `0000:00:03.0`; a virtual interface has none.
    pub bus: Option<String>,
    /// The queues that receive.
    pub queues: Option<u32>,
    /// How many of them there can be.
    pub most_queues: Option<u32>,
    /// Whether the card merges packets (LRO).
    pub lro: Option<bool>,
    /// Whether the network stack merges packets (GRO).
    pub gro: Option<bool>,
    /// Whether the card strips VLAN tags.
    pub strips_tags: Option<bool>,
    /// Whether the driver runs programs itself.
    pub native: Option<bool>,
    /// The limits for which its driver refuses programs.
    pub refusals: Vec<String>,
    /// Disadvantages that a setting would remove.
    pub advice: Vec<String>,
}

/// Examines an interface; `alone` if every packet is sent on the interface that received it. Asks the driver, which may take a moment.
pub fn examine(link: &Link, links: &[Link], alone: bool) -> Examined {
    let Link { name, index, mtu, .. } = link;
    let channels = offloads::channels(name);
    let [refusals, advice] = DriverReport::read(name, *index, *mtu, Surroundings { links, alone }).advice();
    Examined {
        driver: offloads::driver(name),
        bus: offloads::bus(name),
        queues: channels.map(|channels| channels.rx + channels.combined),
        most_queues: channels.map(|channels| channels.max_combined.max(channels.rx)),
        lro: offloads::merges(name),
        gro: offloads::merges_in_stack(name),
        strips_tags: offloads::strips_tags(name),
        native: xdp::features(*index).map(|features| features.has(XdpFeatures::BASIC)),
        refusals,
        advice,
    }
}

/// The first feature that the programs need and the running kernel is certain not to have.
pub fn missing_feature() -> Option<String> {
    features::missing()
}

#[cfg(test)]
mod tests {
    use maglev_testing::network::{Peer, in_namespace_async};

    use super::*;

    #[test]
    fn a_veth_is_virtual_and_within_its_limits() {
        in_namespace_async(|| async {
            let peer = Peer::new();
            peer.connect("eth1", "eth1");
            let links = maglev_net::links::list().await.unwrap();
            let link = links.iter().find(|link| link.name == "eth1").unwrap();
            let found = examine(link, &links, true);
            assert_eq!((found.driver.as_deref(), found.bus), (Some("veth"), None));
            assert!(found.queues >= Some(1) && found.refusals.is_empty(), "{:?}", found.refusals);
            assert_eq!(found.lro, Some(false));
        });
    }
}
