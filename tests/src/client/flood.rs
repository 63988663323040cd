//! Floods: packets without a connection, by the million, as fast as the lab carries them.
//!
//! They are sent on a raw socket in the client's namespace, from addresses that no connection uses, on the same path as
//! every packet. The backends' answers end at the router. Packets that find the client's link full are sent again.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, connect, send, setsockopt, socket,
        sockopt,
    },
    unistd::Pid,
};

use super::Client;
use crate::addresses::{self, FLOWS_CPU};

/// An IPv4 header and a TCP header, both without options.
const LENGTH: usize = 40;
/// Four bytes more: a fragment that others follow has a multiple of eight bytes.
const FRAGMENT: usize = LENGTH + 4;
/// How many different tuples there are: [`addresses::NOWHERE`] has 17 bits for an address, and a port has 16.
const TUPLES: u64 = 1 << 33;

/// A flood: so many tuples, and all of them again in each further pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood {
    /// The kind of its packets.
    pub flags: Flags,
    /// The first tuple's number; floods whose numbers do not overlap share no tuple.
    pub first: u32,
    /// Different tuples.
    pub tuples: u32,
    /// How often each is sent.
    pub passes: u32,
}

/// TCP flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flags {
    /// The first packet of a connection.
    Syn,
    /// A packet of an established connection.
    Ack,
    /// The first fragment of one, which no other follows.
    Fragment,
}

impl Flags {
    const fn length(self) -> usize {
        match self {
            Self::Syn | Self::Ack => LENGTH,
            Self::Fragment => FRAGMENT,
        }
    }
}

/// A flood under way.
#[derive(Debug)]
pub struct Flooding {
    thread: thread::JoinHandle<Result<Flooded>>,
}

/// The packets sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flooded {
    /// Packets.
    pub packets: u64,
    /// From the first to the last.
    pub took: Duration,
}

impl Flood {
    /// Packets in all.
    pub fn packets(&self) -> u64 {
        u64::from(self.tuples) * u64::from(self.passes)
    }
}

impl Flooding {
    /// Begins to send.
    pub(super) fn start(client: &Client, target: SocketAddrV4, flood: Flood) -> Self {
        let netns = client.netns.clone();
        Self { thread: thread::spawn(move || netns.run(|| pour(target, flood))) }
    }

    /// Whether the last packet is still to come.
    pub fn is_under_way(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Waits for the last packet.
    ///
    /// # Errors
    /// If they could not be sent.
    pub fn finish(self) -> Result<Flooded> {
        match self.thread.join() {
            Ok(flooded) => flooded,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn pour(target: SocketAddrV4, flood: Flood) -> Result<Flooded> {
    // Of this protocol the sender makes the IP header as well.
    let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw);
    let socket = socket.context("raw socket")?;
    // A packet that is dropped on the link is an error of `send`.
    setsockopt(&socket, sockopt::Ipv4RecvErr, &true).context("IP_RECVERR")?;
    // Fewer packets under way than a link's ring has places.
    setsockopt(&socket, sockopt::SndBuf, &(64 * 1024)).context("SO_SNDBUF")?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(target)).context("raw socket")?;
    step_aside()?;
    let mut packet = template(target, flood.flags);
    let began = Instant::now();
    for _ in 0..flood.passes {
        for n in flood.first..flood.first + flood.tuples {
            fill(&mut packet, tuple(n));
            push(&socket, &packet[..flood.flags.length()])?;
        }
    }
    Ok(Flooded { packets: flood.packets(), took: began.elapsed() })
}

/// Sends a packet, as often as it takes.
fn push(socket: &OwnedFd, packet: &[u8]) -> Result<()> {
    loop {
        match send(socket.as_raw_fd(), packet, MsgFlags::empty()) {
            Err(Errno::EINTR) => {}
            Err(Errno::ENOBUFS) => thread::yield_now(),
            sent => {
                let sent = sent.context("send")?;
                ensure!(sent == packet.len(), "sent {sent} of {} bytes", packet.len());
                return Ok(());
            }
        }
    }
}

/// Leaves the CPU that carries every flow (see [`FLOWS_CPU`]) to the packets, if there is another: the flood is twice as
/// fast.
fn step_aside() -> Result<()> {
    let this_thread = Pid::from_raw(0);
    let mut others = sched_getaffinity(this_thread).context("CPUs")?;
    others.unset(FLOWS_CPU).context("CPUs")?;
    if (0..CpuSet::count()).any(|cpu| others.is_set(cpu) == Ok(true)) {
        sched_setaffinity(this_thread, &others).context("CPUs")?;
    }
    Ok(())
}

/// Where the `n`th tuple comes from. No two numbers have the same one, and neighbors have nothing in common.
fn tuple(n: u32) -> SocketAddrV4 {
    let mut x = u64::from(n);
    for factor in [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb_u64] {
        // Each step can be undone: an odd factor modulo a power of two, and a shift laid over.
        x = x.wrapping_mul(factor) % TUPLES;
        x ^= x >> 17;
    }
    SocketAddrV4::new(Ipv4Addr::from_bits(addresses::NOWHERE_FIRST.to_bits() | (x >> 16) as u32), x as u16)
}

/// The packet but for what differs in each. The kernel fills in the IP header's length and checksum.
///
/// ```text
///   0  version, IHL │ DSCP │ length        16  destination address     32  data offset │ flags │ window
///   4  id │ flags, fragment offset         20  ports                   36  checksum │ urgent pointer
///   8  TTL │ protocol │ checksum           24  sequence number
///  12  source address                      28  acknowledgement number
/// ```
fn template(target: SocketAddrV4, flags: Flags) -> [u8; FRAGMENT] {
    let mut packet = [0; FRAGMENT];
    packet[0] = 0x45;
    packet[8] = 64;
    packet[9] = 6;
    packet[16..20].copy_from_slice(&target.ip().octets());
    packet[22..24].copy_from_slice(&target.port().to_be_bytes());
    packet[32] = 5 << 4;
    packet[33] = match flags {
        Flags::Syn => 0x02,
        Flags::Ack | Flags::Fragment => 0x10,
    };
    if flags == Flags::Fragment {
        packet[6] = 0x20;
    }
    packet[34..36].copy_from_slice(&u16::MAX.to_be_bytes());
    packet
}

fn fill(packet: &mut [u8; FRAGMENT], source: SocketAddrV4) {
    packet[12..16].copy_from_slice(&source.ip().octets());
    packet[20..22].copy_from_slice(&source.port().to_be_bytes());
    packet[36..38].fill(0);
    let sum = checksum(packet);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
}

/// The TCP checksum: both addresses, the TCP header, protocol and length, as words in ones' complement.
fn checksum(packet: &[u8; FRAGMENT]) -> u16 {
    let words = packet[12..LENGTH].chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum = words.sum::<u32>() + 6 + 20;
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_tuples_are_the_same_and_all_are_unused() {
        let tuples: BTreeSet<SocketAddrV4> = (0..100_000).map(tuple).collect();
        assert_eq!(tuples.len(), 100_000);
        for tuple in &tuples {
            assert!(matches!(tuple.ip().octets(), [198, 18 | 19, _, _]), "{tuple}");
        }
        let hosts: BTreeSet<Ipv4Addr> = tuples.iter().map(|tuple| *tuple.ip()).collect();
        assert!(hosts.len() > 50_000, "{} hosts", hosts.len());
    }

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        let mut packet = template(SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 80), Flags::Syn);
        fill(&mut packet, SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 1));
        // Summed over everything, checksum included, nothing is left.
        assert_eq!(checksum(&packet), 0);
        // By hand: c612+0001+cb00+710a+0001+0050+5002+ffff+0006+0014 = 35289, folded 528c, inverted.
        assert_eq!(packet[36..38], (!0x528c_u16).to_be_bytes());
    }
}
