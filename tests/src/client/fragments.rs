//! Datagrams in fragments that are cut here, not by the kernel, so that a test sends them in any order.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, send, socket,
};

use super::Client;
use crate::{
    bytes,
    packets::{checksum, octets},
};

/// The longest packet of the client's link.
const MTU: usize = 1_500;
const IPV4: usize = 20;
/// An IPv6 header and a fragment header.
const IPV6: usize = 40 + 8;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;

/// A datagram to a VIP, in fragments that are still to be sent, and the socket that receives its answer.
#[derive(Debug)]
pub struct Fragmented {
    answers: UdpSocket,
    raw: OwnedFd,
    /// IP packets, in the order of their offsets.
    packets: Vec<Vec<u8>>,
    payload: Vec<u8>,
}

impl Client {
    /// A datagram of the next source with so many bytes of payload, cut into as few fragments as the link takes.
    ///
    /// # Errors
    /// If it has no socket.
    pub fn fragmented(&self, target: SocketAddr, length: usize, identification: u32) -> Result<Fragmented> {
        let source = self.sources.next(target);
        self.netns.run(|| {
            let answers = UdpSocket::bind(source).with_context(|| format!("cannot bind {source}"))?;
            answers.connect(target).context("connect")?;
            let (family, ours) = match target {
                SocketAddr::V4(_) => (AddressFamily::Inet, answers.local_addr()?),
                SocketAddr::V6(_) => (AddressFamily::Inet6, answers.local_addr()?),
            };
            // Of this protocol the sender makes the IP header as well.
            let raw = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).context("raw socket")?;
            let portless = SockaddrStorage::from(SocketAddr::new(target.ip(), 0));
            connect(raw.as_raw_fd(), &portless).context("raw socket")?;
            let payload = bytes::block(length);
            let packets = cut(ours, target, &payload, identification)?;
            Ok(Fragmented { answers, raw, packets, payload })
        })
    }
}

impl Fragmented {
    /// How many fragments there are.
    pub fn fragments(&self) -> usize {
        self.packets.len()
    }

    /// Sends the fragments with these numbers, from 0 on, in this order.
    ///
    /// # Errors
    /// If one is not sent.
    pub fn send(&self, numbers: impl IntoIterator<Item = usize>) -> Result<()> {
        for n in numbers {
            let packet = self.packets.get(n).with_context(|| format!("there is no fragment {n}"))?;
            let sent = send(self.raw.as_raw_fd(), packet, MsgFlags::empty()).context("send")?;
            ensure!(sent == packet.len(), "sent {sent} of {} bytes", packet.len());
        }
        Ok(())
    }

    /// The backend that answered the datagram, if one does within this time.
    ///
    /// # Errors
    /// If the answer is not the datagram.
    pub fn answer(&self, patience: Duration) -> Result<Option<String>> {
        self.answers.set_read_timeout(Some(patience))?;
        let mut answer = vec![0; 64 * 1024];
        let length = match self.answers.recv(&mut answer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
            received => received.context("receive")?,
        };
        let Some(at) = answer[..length].iter().position(|byte| *byte == b':') else { bail!("the answer has no name") };
        ensure!(answer[at + 1..length] == self.payload, "the answer has {length} other bytes");
        Ok(Some(String::from_utf8_lossy(&answer[..at]).into_owned()))
    }
}

/// A datagram as IP packets.
fn cut(source: SocketAddr, target: SocketAddr, payload: &[u8], identification: u32) -> Result<Vec<Vec<u8>>> {
    let length = u16::try_from(payload.len() + 8).context("a datagram's length")?;
    let mut datagram = [source.port(), target.port(), length, 0].map(u16::to_be_bytes).concat();
    datagram.extend(payload);
    let sum = checksum(&[&octets(source.ip())[..], &octets(target.ip()), &[0, UDP], &length.to_be_bytes(), &datagram]);
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    let header = if target.is_ipv4() { IPV4 } else { IPV6 };
    let most = (MTU - header) / 8 * 8;
    let pieces = datagram.len().div_ceil(most);
    let packet = |(n, piece): (usize, &[u8])| {
        let (offset, more) = ((n * most / 8) as u16, u16::from(n + 1 < pieces));
        let mut packet = header_of(source.ip(), target.ip(), piece.len() as u16, offset, more, identification);
        packet.extend(piece);
        packet
    };
    Ok(datagram.chunks(most).enumerate().map(packet).collect())
}

fn header_of(source: IpAddr, target: IpAddr, length: u16, offset: u16, more: u16, identification: u32) -> Vec<u8> {
    let mut header = match target {
        IpAddr::V4(_) => {
            let [total, fragment] = [length + IPV4 as u16, more << 13 | offset].map(u16::to_be_bytes);
            let [_, _, c, d] = identification.to_be_bytes();
            // The kernel fills in the checksum.
            vec![0x45, 0, total[0], total[1], c, d, fragment[0], fragment[1], 64, UDP, 0, 0]
        }
        IpAddr::V6(_) => {
            let length = (length + 8).to_be_bytes();
            vec![0x60, 0, 0, 0, length[0], length[1], FRAGMENT, 64]
        }
    };
    header.extend(octets(source));
    header.extend(octets(target));
    if target.is_ipv6() {
        let fragment = (offset << 3 | more).to_be_bytes();
        header.extend([UDP, 0, fragment[0], fragment[1]]);
        header.extend(identification.to_be_bytes());
    }
    header
}
