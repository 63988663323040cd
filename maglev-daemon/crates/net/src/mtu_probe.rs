//! Measures whether packets of a length arrive: echo requests with DF, a short one first. It must not know routes, nor the purpose of
//! an address.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::socket::never_fragment;

/// What probes to an address have shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// A packet of the length was answered.
    Passed,
    /// A short packet was answered, and none of the length.
    Lost,
    /// Not even a short packet was answered.
    Unanswered,
}

/// How long answers are awaited, after each of both lengths.
const PATIENCE: Duration = Duration::from_millis(700);
/// How often a probe of the full length is sent.
const ATTEMPTS: u16 = 3;
/// Bytes of an echo request, without data.
const ECHO: usize = 8;
/// Bytes of the longest packet.
const MOST: u32 = 65_535;

/// Sends probes of these lengths, IP header included, to these addresses. Blocks for at most three seconds.
///
/// # Errors
/// No raw socket: it takes CAP_NET_RAW.
pub fn measure(targets: &BTreeMap<IpAddr, u32>) -> io::Result<BTreeMap<IpAddr, Measured>> {
    let mut measured = BTreeMap::new();
    for v6 in [false, true] {
        let of_family = targets.iter().filter(|(address, _)| address.is_ipv6() == v6);
        let of_family: BTreeMap<IpAddr, u32> = of_family.map(|(address, bytes)| (*address, *bytes)).collect();
        if !of_family.is_empty() {
            measured.extend(Prober::open(v6)?.measure(&of_family)?);
        }
    }
    Ok(measured)
}

struct Prober {
    socket: UdpSocket,
    v6: bool,
    /// Distinguishes its answers from those of others.
    id: u16,
}

impl Prober {
    fn open(v6: bool) -> io::Result<Self> {
        let (family, protocol) = match v6 {
            false => (AddressFamily::Inet, SockProtocol::Icmp),
            true => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let socket: OwnedFd = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        never_fragment(&socket, v6)?;
        Ok(Self { socket: UdpSocket::from(socket), v6, id: fastrand::u16(..) })
    }

    fn measure(&self, targets: &BTreeMap<IpAddr, u32>) -> io::Result<BTreeMap<IpAddr, Measured>> {
        const SHORT: u16 = 0;
        let all: BTreeSet<IpAddr> = targets.keys().copied().collect();
        all.iter().for_each(|to| self.send(*to, SHORT, ECHO));
        let alive = self.answers(SHORT, &all)?;
        let mut passed = BTreeSet::new();
        for attempt in 1..=ATTEMPTS {
            let left: BTreeSet<IpAddr> = alive.difference(&passed).copied().collect();
            for to in &left {
                let header = if self.v6 { 40 } else { 20 };
                self.send(*to, attempt, targets[to].min(MOST).saturating_sub(header) as usize);
            }
            passed.extend(self.answers(attempt, &left)?);
        }
        let outcome = |to: &IpAddr| match (passed.contains(to), alive.contains(to)) {
            (true, _) => Measured::Passed,
            (false, true) => Measured::Lost,
            (false, false) => Measured::Unanswered,
        };
        Ok(all.iter().map(|to| (*to, outcome(to))).collect())
    }

    /// A probe that cannot be sent is one that is not answered.
    fn send(&self, to: IpAddr, sequence: u16, bytes: usize) {
        let _ = self.socket.send_to(&request(self.v6, self.id, sequence, bytes), SocketAddr::new(to, 0));
    }

    /// The addresses that answered, until all have or the time is over.
    fn answers(&self, sequence: u16, expected: &BTreeSet<IpAddr>) -> io::Result<BTreeSet<IpAddr>> {
        let (deadline, mut answered) = (Instant::now() + PATIENCE, BTreeSet::new());
        let mut buffer = vec![0; MOST as usize + 1];
        while answered.len() < expected.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.socket.set_read_timeout(Some(left))?;
            let (length, from) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
                // An ICMP error about a probe.
                Err(_) => continue,
            };
            let is_ours = is_answer(self.v6, buffer.get(..length).unwrap_or_default(), self.id, sequence);
            if is_ours && expected.contains(&from.ip()) {
                answered.insert(from.ip());
            }
        }
        Ok(answered)
    }
}

/// An echo request of so many bytes, at least its header. The kernel fills in the checksum of ICMPv6.
fn request(v6: bool, id: u16, sequence: u16, bytes: usize) -> Vec<u8> {
    let mut message = vec![0; bytes.max(ECHO)];
    message[0] = if v6 { 128 } else { 8 };
    message[4..6].copy_from_slice(&id.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    if !v6 {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// Whether this is the answer: a raw socket of IPv4 receives the IP header too.
fn is_answer(v6: bool, packet: &[u8], id: u16, sequence: u16) -> bool {
    let header = if v6 { 0 } else { packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4) };
    let Some([kind, _, _, _, id0, id1, sequence0, sequence1, ..]) = packet.get(header..) else { return false };
    let reply = if v6 { 129 } else { 0 };
    (*kind, [*id0, *id1], [*sequence0, *sequence1]) == (reply, id.to_be_bytes(), sequence.to_be_bytes())
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use maglev_testing::network::{Peer, in_namespace, ip};

    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_link_that_takes_less_than_the_interface_says_is_found() {
        in_namespace(|| {
            let peer = Peer::new();
            peer.connect("eth1", "eth1");
            ip("address add 10.9.0.1/24 dev eth1");
            ip("address add fd09::1/64 dev eth1 nodad");
            peer.ip("address add 10.9.0.2/24 dev eth1");
            peer.ip("address add fd09::2/64 dev eth1 nodad");
            let targets = ["10.9.0.2", "fd09::2", "10.9.0.3"].map(|text| (at(text), 1_500)).into();
            let all =
                |outcome| [(at("10.9.0.2"), outcome), (at("fd09::2"), outcome), (at("10.9.0.3"), Measured::Unanswered)];
            assert_eq!(measure(&targets).unwrap(), all(Measured::Passed).into());
            // A veth loses what is longer than the other end's MTU, without a word.
            peer.ip("link set eth1 mtu 1300");
            assert_eq!(measure(&targets).unwrap(), all(Measured::Lost).into());
        });
    }

    #[test]
    fn answers_are_those_to_the_own_requests() {
        let mut answer = request(true, 7, 1, 40);
        assert_eq!(answer.len(), 40);
        assert!(!is_answer(true, &answer, 7, 1), "a request");
        answer[0] = 129;
        assert!(is_answer(true, &answer, 7, 1) && !is_answer(true, &answer, 7, 2) && !is_answer(true, &answer, 8, 1));
        (0..8).for_each(|end| assert!(!is_answer(true, &answer[..end], 7, 1)));
        assert!(!is_answer(false, &[], 7, 1) && !is_answer(false, &[0x4f], 7, 1));
        assert_eq!(checksum(&request(false, 0xffff, 0xffff, 2_001)), 0);
    }
}
