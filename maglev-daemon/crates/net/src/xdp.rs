//! What the kernel reports of an interface's native XDP: the generic netlink family `netdev`, in Linux since 6.3. It must not know
//! drivers, nor what follows from their features.

use std::os::fd::AsRawFd as _;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recvfrom, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use rtnetlink::packet_core::{NLM_F_REQUEST, NLMSG_ERROR, NlasIterator};

/// The features of native XDP that a driver has in its present state (`enum netdev_xdp_act`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures(u64);

impl XdpFeatures {
    /// `NETDEV_XDP_ACT_BASIC`: the driver runs programs, which may send a packet back.
    pub const BASIC: Self = Self(1);
    /// `NETDEV_XDP_ACT_REDIRECT`: programs may send a packet by another interface.
    pub const REDIRECT: Self = Self(1 << 1);
    /// `NETDEV_XDP_ACT_NDO_XMIT`: the driver sends packets of other interfaces. Many report it only while a program is attached.
    pub const XMIT: Self = Self(1 << 2);
    /// `NETDEV_XDP_ACT_RX_SG`: programs receive packets in several buffers.
    pub const FRAGS: Self = Self(1 << 5);
    /// `NETDEV_XDP_ACT_NDO_XMIT_SG`: the driver sends packets of other interfaces in several buffers.
    pub const XMIT_FRAGS: Self = Self(1 << 6);
    /// A driver without native XDP.
    pub const NONE: Self = Self(0);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it has all of these.
    pub const fn has(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }
}

/// `GENL_ID_CTRL`: the family that names the others.
const CONTROL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

/// The lengths of `struct nlmsghdr` and of both headers, to which `struct genlmsghdr` belongs.
const HEADER: usize = 16;
const HEADERS: usize = HEADER + 4;

/// The features of an interface of the calling thread's network namespace; `None` if the kernel does not say. Blocks as long as the
/// kernel takes to answer, at most a second.
pub fn features(interface: u32) -> Option<XdpFeatures> {
    let family = ask(CONTROL, CTRL_CMD_GETFAMILY, (CTRL_ATTR_FAMILY_NAME, b"netdev\0"), CTRL_ATTR_FAMILY_ID)?;
    let family = u16::from_ne_bytes(family.try_into().ok()?);
    let index = (NETDEV_A_DEV_IFINDEX, &interface.to_ne_bytes()[..]);
    let features = ask(family, NETDEV_CMD_DEV_GET, index, NETDEV_A_DEV_XDP_FEATURES)?;
    Some(XdpFeatures(u64::from_ne_bytes(features.try_into().ok()?)))
}

/// Sends a command with one attribute, and returns one attribute of the answer.
fn ask(family: u16, command: u8, attribute: (u16, &[u8]), wanted: u16) -> Option<Vec<u8>> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkGeneric).ok()?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(1)).ok()?;
    let (fd, kernel) = (socket.as_raw_fd(), NetlinkAddr::new(0, 0));
    sendto(fd, &request(family, command, attribute), &kernel, MsgFlags::empty()).ok()?;
    let mut answer = vec![0; 8_192];
    let (length, from) = recvfrom::<NetlinkAddr>(fd, &mut answer).ok()?;
    if from?.pid() != 0 {
        return None;
    }
    answer.truncate(length);
    attribute_of(&answer, wanted)
}

/// `struct nlmsghdr`, `struct genlmsghdr`, and an attribute.
fn request(family: u16, command: u8, (kind, value): (u16, &[u8])) -> Vec<u8> {
    let length = 4 + value.len();
    let mut message = Vec::with_capacity(HEADERS + length.next_multiple_of(4));
    message.extend(((HEADERS + length.next_multiple_of(4)) as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // The sequence number and the sender's port, which the kernel knows.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend((length as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
    message
}

/// An attribute of an answer that is no error.
fn attribute_of(answer: &[u8], wanted: u16) -> Option<Vec<u8>> {
    let length = u32::from_ne_bytes(answer.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind == NLMSG_ERROR {
        return None;
    }
    let attributes = NlasIterator::new(answer.get(HEADERS..length)?);
    attributes.map_while(Result::ok).find(|attribute| attribute.kind() == wanted).map(|found| found.value().to_vec())
}

#[cfg(test)]
mod tests {
    use maglev_testing::network::{Peer, in_namespace};

    use super::*;

    fn index(name: &str) -> u32 {
        nix::net::if_::if_nametoindex(name).unwrap()
    }

    #[test]
    fn a_veth_has_native_xdp_and_loopback_has_none() {
        in_namespace(|| {
            let peer = Peer::new();
            peer.connect("eth1", "eth1");
            let Some(found) = features(index("eth1")) else {
                println!("skipped: Linux before 6.3 reports no features");
                return;
            };
            assert!(found.has(XdpFeatures::BASIC.and(XdpFeatures::REDIRECT).and(XdpFeatures::FRAGS)), "{found:?}");
            assert!(!found.has(XdpFeatures::XMIT), "only while its peer runs a program");
            assert_eq!(features(index("lo")), Some(XdpFeatures::NONE));
            assert_eq!(features(9_999), None);
        });
    }

    #[test]
    fn requests_are_padded_and_answers_are_read_to_their_end() {
        let message = request(CONTROL, CTRL_CMD_GETFAMILY, (CTRL_ATTR_FAMILY_NAME, b"netdev\0"));
        assert_eq!((message.len(), message[0], message[20], message[22]), (32, 32, 11, 2));
        assert_eq!(attribute_of(&message, CTRL_ATTR_FAMILY_NAME).as_deref(), Some(&b"netdev\0"[..]));
        assert_eq!(attribute_of(&message, 7), None);
        (0..message.len()).for_each(|end| assert_eq!(attribute_of(&message[..end], CTRL_ATTR_FAMILY_NAME), None));
        let error = request(NLMSG_ERROR, 0, (1, &[0; 2]));
        assert_eq!(attribute_of(&error, 1), None);
    }
}
