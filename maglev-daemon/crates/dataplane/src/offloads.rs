//! What a network card does with VLAN tags (`SIOCETHTOOL`). It must not know which interfaces there are.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `ETHTOOL_GFLAGS`: reads the flags.
const GET_FLAGS: u32 = 0x25;
/// `ETHTOOL_SFLAGS`: sets them.
#[cfg(test)]
const SET_FLAGS: u32 = 0x26;
/// `ETH_FLAG_TXVLAN`: the card inserts tags.
#[cfg(test)]
const TX_VLAN: u32 = 1 << 7;
/// `ETH_FLAG_RXVLAN`: the card strips tags.
const RX_VLAN: u32 = 1 << 8;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether an interface's card strips VLAN tags before an XDP program sees frames; `None` if the driver does not say.
pub(super) fn strips_tags(interface: &str) -> Option<bool> {
    flags(interface, Value { command: GET_FLAGS, data: 0 }).ok().map(|flags| flags & RX_VLAN != 0)
}

/// Leaves tags in the bytes of frames that are sent.
#[cfg(test)]
pub(super) fn keep_tags_in_bytes(interface: &str) {
    let before = flags(interface, Value { command: GET_FLAGS, data: 0 }).unwrap();
    flags(interface, Value { command: SET_FLAGS, data: before & !(TX_VLAN | RX_VLAN) }).unwrap();
}

/// The flags after a command.
fn flags(interface: &str, mut value: Value) -> Result<u32, Errno> {
    // SAFETY: of zeroes and plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(Errno::ENODEV);
    }
    request.ifr_name.iter_mut().zip(interface.bytes()).for_each(|(to, from)| *to = from as libc::c_char);
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // Another integer with musl than with glibc.
    let ethtool = libc::SIOCETHTOOL as libc::Ioctl;
    // SAFETY: the kernel reads and writes `value`, as long as both commands want it, through the pointer in `request`.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), ethtool, &raw mut request) })?;
    Ok(value.data)
}
