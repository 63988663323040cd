//! One end of a link, from below the kernel's network stack: frames as bytes, sent there and seen there.

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    libc,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, sendto, setsockopt,
        socket, sockopt,
    },
};

use crate::netns::Netns;

/// The longest frame that is seen whole.
const LONGEST: usize = 70_000;

/// An interface of a namespace, and the host at the other end of its link.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    link: LinkAddr,
    peer: [u8; 6],
}

impl Wire {
    /// Opens `interface` of `netns`; frames go to the MAC address of `far`, which is a namespace and its interface.
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn open(netns: &Netns, interface: &str, far: (&Netns, &str)) -> Result<Self> {
        let peer = far.0.run(|| link_of(far.1))?.addr().context("no MAC address")?;
        netns.run(|| {
            let link = link_of(interface)?;
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, Some(SockProtocol::EthAll));
            let socket = socket.context("socket")?;
            setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20)).context("SO_RCVBUFFORCE")?;
            bind(socket.as_raw_fd(), &link).context("bind")?;
            Ok(Self { socket, link, peer })
        })
    }

    /// Sends an IP packet in a frame with these tags, outermost first: the protocol of each, and its VLAN.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn send(&self, packet: &[u8], tags: &[(u16, u16)]) -> Result<()> {
        let mut frame = self.peer.to_vec();
        frame.extend([2, 0, 0, 0, 0, 5]);
        frame.extend(tags.iter().flat_map(|(protocol, vlan)| [*protocol, *vlan]).flat_map(u16::to_be_bytes));
        frame.extend(if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] });
        frame.extend(packet);
        loop {
            match sendto(self.socket.as_raw_fd(), &frame, &self.link, MsgFlags::empty()) {
                Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => std::thread::yield_now(),
                sent => {
                    let sent = sent.context("sendto")?;
                    ensure!(sent == frame.len(), "{sent} bytes of {} were sent", frame.len());
                    return Ok(());
                }
            }
        }
    }

    /// Frames that came from the other end and were not returned before.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn seen(&self) -> Result<Vec<Vec<u8>>> {
        let (mut frames, mut buffer) = (Vec::new(), vec![0; LONGEST]);
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                Err(Errno::EAGAIN) => return Ok(frames),
                Err(Errno::EINTR) => {}
                received => {
                    let (length, from) = received.context("recvfrom")?;
                    if from.is_some_and(|from| from.pkttype() != libc::PACKET_OUTGOING) {
                        frames.push(buffer[..length].to_vec());
                    }
                }
            }
        }
    }
}

fn link_of(interface: &str) -> Result<LinkAddr> {
    let named = getifaddrs().context("interfaces")?.filter(|found| found.interface_name == interface);
    let mut links = named.filter_map(|found| found.address?.as_link_addr().copied());
    links.next().with_context(|| format!("no interface {interface}"))
}
