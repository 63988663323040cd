//! What the kernel counts of packets that are lost at an interface. It must not know what a program counts.

use std::collections::BTreeMap;

use netlink_packet_route::link::{LinkAttribute, Stats64};

use super::connection::{self, Requests};
use super::error::NetError;

/// Packets that were lost at an interface since it exists, by `struct rtnl_link_stats64`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostPackets {
    /// Received, and dropped by the driver or the kernel. Some drivers count what their XDP program drops here too.
    pub receive_dropped: u64,
    /// Dropped by the card, which had no buffer for them.
    pub receive_missed: u64,
    /// Received with an error.
    pub receive_errors: u64,
    /// Dropped before they were sent.
    pub transmit_dropped: u64,
    /// Not sent because of an error.
    pub transmit_errors: u64,
}

impl LostPackets {
    /// Each of them with its name.
    pub fn named(self) -> [(&'static str, u64); 5] {
        let Self { receive_dropped, receive_missed, receive_errors, transmit_dropped, transmit_errors } = self;
        [
            ("receive_dropped", receive_dropped),
            ("receive_missed", receive_missed),
            ("receive_errors", receive_errors),
            ("transmit_dropped", transmit_dropped),
            ("transmit_errors", transmit_errors),
        ]
    }

    const fn from_stats(stats: &Stats64) -> Self {
        Self {
            receive_dropped: stats.rx_dropped,
            receive_missed: stats.rx_missed_errors,
            receive_errors: stats.rx_errors,
            transmit_dropped: stats.tx_dropped,
            transmit_errors: stats.tx_errors,
        }
    }
}

/// The packets lost at each interface of the calling thread's network namespace, by its index.
///
/// # Errors
/// Netlink cannot be asked.
pub async fn lost_packets() -> Result<BTreeMap<u32, LostPackets>, NetError> {
    let requests = Requests::open()?;
    let messages = connection::all("read the statistics of interfaces", requests.handle.link().get().execute()).await?;
    let lost = messages.iter().filter_map(|message| {
        let stats = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(stats) => Some(LostPackets::from_stats(stats)),
            _ => None,
        });
        Some((message.header.index, stats?))
    });
    Ok(lost.collect())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use maglev_testing::network::{Peer, in_namespace_async, ip};

    use super::*;

    #[test]
    fn a_packet_that_is_too_long_for_the_other_end_is_counted() {
        in_namespace_async(|| async {
            let peer = Peer::new();
            peer.connect("eth1", "eth1");
            ip("link set eth1 mtu 3000");
            ip("address add 10.9.0.1/24 dev eth1");
            ip("neighbour replace 10.9.0.2 lladdr 02:00:00:00:00:02 nud permanent dev eth1");
            let index = crate::links::list().await.unwrap().into_iter().find(|link| link.name == "eth1").unwrap().index;
            let before = lost_packets().await.unwrap()[&index];
            let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
            // A veth loses them without an error for the sender.
            for _ in 0..3 {
                assert_eq!(socket.send_to(&[0; 2_000], "10.9.0.2:9").unwrap(), 2_000);
            }
            let lost = lost_packets().await.unwrap()[&index];
            assert_eq!(lost, LostPackets { transmit_dropped: before.transmit_dropped + 3, ..before });
            assert_eq!(lost.named()[3], ("transmit_dropped", lost.transmit_dropped));
        });
    }
}
