//! Echo requests, from sockets that need no privilege.

use std::{
    io::ErrorKind,
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::netns::Netns;

/// Lets all users in a namespace send echo requests.
///
/// # Errors
/// If the kernel refuses.
pub fn allow_pings(netns: &Netns) -> Result<()> {
    netns.sysctl(&[("net.ipv4.ping_group_range", "0 2147483647")])
}

/// Whether an echo request with this many bytes is answered with the same bytes, within a second.
///
/// # Errors
/// If it cannot be sent.
pub fn ping(target: IpAddr, length: usize) -> Result<bool> {
    let socket = ping_socket(target)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let kind = if target.is_ipv4() { 8 } else { 128 };
    let request = [&[kind, 0, 0, 0, 0, 0, 0, 7][..], &vec![0xa5; length]].concat();
    socket.send(&request)?;
    let mut answer = vec![0; length + 100];
    match socket.recv(&mut answer) {
        Ok(received) => Ok(received == request.len() && answer[8..received] == request[8..]),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
        // A router may say that there is no such host.
        Err(error) if matches!(error.kind(), ErrorKind::HostUnreachable | ErrorKind::ConnectionRefused) => Ok(false),
        Err(error) => Err(error).context("an echo request"),
    }
}

/// Sends many echo requests over IPv4, and reads no answer.
///
/// # Errors
/// If one cannot be sent.
pub fn flood(target: IpAddr, requests: usize) -> Result<()> {
    let socket = ping_socket(target)?;
    for _ in 0..requests {
        socket.send(&[8, 0, 0, 0, 0, 0, 0, 7])?;
    }
    Ok(())
}

fn ping_socket(target: IpAddr) -> Result<UdpSocket> {
    let (family, protocol) = match target {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let socket = UdpSocket::from(socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?);
    socket.connect((target, 0))?;
    Ok(socket)
}
