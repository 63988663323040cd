//! Socket options that no safe wrapper has: TCP MD5 signatures, the least TTL, and the interface by its index. It must not
//! know which protocol speaks.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket};

/// The longest key of a signature: `TCP_MD5SIG_MAXKEYLEN`.
const MAX_KEY: usize = 80;

/// `IP_MINTTL` of `linux/in.h` and `IPV6_MINHOPCOUNT` of `linux/in6.h`.
const IP_MINTTL: libc::c_int = 21;
const IPV6_MINHOPCOUNT: libc::c_int = 73;

/// DSCP CS6, network control, in the octet of its field.
const NETWORK_CONTROL: i32 = 0xc0;

/// Has every segment to and from an address signed with a key (RFC 2385). On a socket that listens, for that address alone.
///
/// # Errors
/// The kernel has no such signatures, or not for this address or key.
pub fn sign(socket: impl AsFd, address: IpAddr, key: &[u8]) -> io::Result<()> {
    if key.len() > MAX_KEY {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the password has more than 80 octets"));
    }
    set(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_MD5SIG, &signature(address, key))
}

/// `struct tcp_md5sig` of `linux/tcp.h`: the address (128 octets), flags, prefix length, the key's length (16 bits), an
/// interface (32 bits), and the key (80 octets).
fn signature(address: IpAddr, key: &[u8]) -> [u8; 216] {
    const KEY_LENGTH: usize = 128 + 2;
    const KEY: usize = 128 + 8;
    let mut option = [0; 216];
    let family = match address {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    option[..2].copy_from_slice(&(family as u16).to_ne_bytes());
    match address {
        // The port, the address.
        IpAddr::V4(address) => option[4..8].copy_from_slice(&address.octets()),
        // The port, flow information, the address.
        IpAddr::V6(address) => option[8..24].copy_from_slice(&address.octets()),
    }
    option[KEY_LENGTH..KEY_LENGTH + 2].copy_from_slice(&(key.len() as u16).to_ne_bytes());
    option[KEY..KEY + key.len()].copy_from_slice(key);
    option
}

/// Listens at an address that no interface may have yet: at boot it may come later.
///
/// # Errors
/// The kernel refused.
pub fn listen_early(at: SocketAddr) -> io::Result<TcpListener> {
    const WAITING: u32 = 1_024;
    let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(WAITING)
}

/// Has packets dropped that come with a lower TTL, or hop limit (RFC 5082).
///
/// # Errors
/// The kernel refused.
pub fn least_ttl(socket: impl AsFd, v6: bool, ttl: u8) -> io::Result<()> {
    let (level, name) = if v6 { (libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT) } else { (libc::IPPROTO_IP, IP_MINTTL) };
    set(socket.as_fd(), level, name, &i32::from(ttl).to_ne_bytes())
}

/// Sets the TTL, or hop limit, and the traffic class of network control.
///
/// # Errors
/// The kernel refused.
pub fn mark(socket: impl AsFd, v6: bool, ttl: u8) -> io::Result<()> {
    if v6 {
        setsockopt(&socket, sockopt::Ipv6Ttl, &ttl.into())?;
        setsockopt(&socket, sockopt::Ipv6TClass, &NETWORK_CONTROL)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4Ttl, &ttl.into())?;
        setsockopt(&socket, sockopt::Ipv4Tos, &NETWORK_CONTROL)?;
    }
    Ok(())
}

/// Sends packets unfragmented, whatever MTU the kernel has learned of the path: DF on IPv4. One that is longer than the interface's or
/// the route's MTU is an error of the sender.
///
/// # Errors
/// The kernel refused.
pub fn never_fragment(socket: impl AsFd, v6: bool) -> io::Result<()> {
    let (level, name, probe) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
    };
    set(socket.as_fd(), level, name, &probe.to_ne_bytes())
}

/// Binds the socket to one interface: packets are sent and received on it alone.
///
/// # Errors
/// There is no such interface.
pub fn bind_to_interface(socket: impl AsFd, index: u32) -> io::Result<()> {
    let index = index.cast_signed().to_ne_bytes();
    set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, &index)
}

/// Keeps a socket of IPv6 from taking IPv4 too.
///
/// # Errors
/// The kernel refused.
pub fn only_v6(socket: impl AsFd) -> io::Result<()> {
    Ok(setsockopt(&socket, sockopt::Ipv6V6Only, &true)?)
}

/// `setsockopt(2)` with an option as octets.
fn set(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: &[u8]) -> io::Result<()> {
    let length = value.len() as libc::socklen_t;
    // SAFETY: the kernel reads `length` octets from `value`, which is that long and lives through the call, and keeps no
    // pointer to it; the descriptor is open as long as it is borrowed.
    let outcome = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
    use std::time::Duration;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, connect, socket};
    use nix::sys::socket::{SockaddrIn, SockaddrIn6, SockaddrLike};

    use super::*;

    /// Connects with a key of one's own; the listener signs with `key`.
    fn talk(address: IpAddr, key: &[u8], own: &[u8]) -> io::Result<String> {
        let listener = TcpListener::bind((address, 0))?;
        sign(&listener, address, key)?;
        let port = listener.local_addr()?.port();
        let (family, to): (_, Box<dyn SockaddrLike>) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, Box::new(SockaddrIn::new(127, 0, 0, 1, port))),
            IpAddr::V6(address) => {
                (AddressFamily::Inet6, Box::new(SockaddrIn6::from(std::net::SocketAddrV6::new(address, port, 0, 0))))
            }
        };
        let client = socket(family, SockType::Stream, SockFlag::empty(), None)?;
        sign(&client, address, own)?;
        let mut stream = TcpStream::from(client);
        stream.set_write_timeout(Some(Duration::from_millis(300)))?;
        connect(std::os::fd::AsRawFd::as_raw_fd(&stream), to.as_ref())?;
        stream.write_all(b"signed")?;
        drop(stream);
        let mut said = String::new();
        listener.accept()?.0.read_to_string(&mut said)?;
        Ok(said)
    }

    #[test]
    fn signed_segments_arrive_and_others_do_not() {
        for address in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            assert_eq!(talk(address, b"secret", b"secret").unwrap(), "signed");
            let error = talk(address, b"secret", b"wrong").unwrap_err();
            assert!(
                matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EAGAIN | libc::ETIMEDOUT)),
                "{error}"
            );
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(sign(&listener, [127, 0, 0, 1].into(), &[b'x'; 81]).is_err());
    }

    #[test]
    fn packets_from_afar_are_dropped() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        // An ordinary TTL is 64: this listener's packets never reach a peer that requires 255.
        let near = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
        least_ttl(&near, false, 255).unwrap();
        let stream = TcpStream::from(near);
        stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let to = SockaddrIn::new(127, 0, 0, 1, address.port());
        let raw = std::os::fd::AsRawFd::as_raw_fd(&stream);
        assert!(connect(raw, &to).is_err());
        mark(&listener, false, 255).unwrap();
        assert!(TcpStream::connect(address).is_ok());
        let listener6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        mark(&listener6, true, 255).unwrap();
        least_ttl(&listener6, true, 255).unwrap();
    }
}

#[cfg(test)]
mod faults {
    use std::net::SocketAddr;

    use maglev_testing::matrix::Row;
    use maglev_testing::network::{in_namespace_async, ip};

    #[test]
    fn an_address_that_comes_later_is_listened_at() {
        for (family, at) in [("IPv4", "10.9.1.11:9642"), ("IPv6", "[fd09::11]:9642")] {
            let _row = Row::fault("C6", &format!("api.metrics has an {family} address that comes later"));
            in_namespace_async(move || async move {
                let at: SocketAddr = at.parse().unwrap();
                let listener = super::listen_early(at).unwrap();
                ip(&format!("addr add {} dev lo", at.ip()));
                let (client, server) = tokio::join!(tokio::net::TcpStream::connect(at), listener.accept());
                assert_eq!(client.unwrap().local_addr().unwrap(), server.unwrap().1);
            });
        }
    }
}
