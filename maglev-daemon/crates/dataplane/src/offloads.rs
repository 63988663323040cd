//! What a driver says of an interface (`SIOCETHTOOL`): its name, its queues, what the network card does with frames, and its
//! statistics. It must not know which interfaces there are, nor what follows.

use std::ffi::CStr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::fenced::Fenced;

/// `ETHTOOL_GDRVINFO`: names the driver.
const GET_DRIVER: u32 = 0x03;
/// `ETHTOOL_GGRO`: reads whether the network stack merges packets.
const GET_GRO: u32 = 0x2b;
/// `ETHTOOL_GFLAGS`: reads the flags.
const GET_FLAGS: u32 = 0x25;
/// `ETHTOOL_SFLAGS`: sets them.
#[cfg(test)]
const SET_FLAGS: u32 = 0x26;
/// `ETHTOOL_GSTRINGS`: names the statistics.
const GET_NAMES: u32 = 0x1b;
/// `ETHTOOL_GSTATS`: reads the statistics.
const GET_STATISTICS: u32 = 0x1d;
/// `ETHTOOL_GSSET_INFO`: counts the statistics.
const GET_SET_INFO: u32 = 0x37;
/// `ETH_SS_STATS`: the set of names that statistics have.
const STATISTICS: u32 = 1;
/// `ETH_GSTRING_LEN`: bytes of a name, filled with zeroes.
const NAME: usize = 32;
/// The length of `struct ethtool_gstrings`, before the names.
const NAMES_HEADER: usize = 12;
/// The length of `struct ethtool_stats`, before the values.
const STATISTICS_HEADER: usize = 8;
/// More statistics than any driver has.
pub(super) const MAX_STATISTICS: u32 = 1 << 16;
/// `ETHTOOL_GCHANNELS`: counts the queues.
const GET_CHANNELS: u32 = 0x3c;
/// `ETH_FLAG_TXVLAN`: the card inserts tags.
#[cfg(test)]
const TX_VLAN: u32 = 1 << 7;
/// `ETH_FLAG_RXVLAN`: the card strips tags.
const RX_VLAN: u32 = 1 << 8;
/// `ETH_FLAG_LRO`: the card or its driver merges packets.
const LRO: u32 = 1 << 15;

/// What one command reads and writes.
///
/// # Safety
/// Laid out as the kernel's structure for the command in its first word, without padding, and valid whatever its bytes are.
unsafe trait Command {}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

// SAFETY: two words, which are what `GET_FLAGS`, `SET_FLAGS` and `GET_GRO` take; this file uses it with no other command.
unsafe impl Command for Value {}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct Driver {
    command: u32,
    name: [u8; 32],
    /// Versions and addresses as text, and counts.
    rest: [u8; 160],
}

const _: () = assert!(size_of::<Driver>() == 196);

// SAFETY: a word and bytes, as long as the kernel's structure for `GET_DRIVER`, the only command it is used with.
unsafe impl Command for Driver {}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct RawChannels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

// SAFETY: nine words, as the kernel's structure for `GET_CHANNELS`, the only command it is used with.
unsafe impl Command for RawChannels {}

/// `struct ethtool_sset_info` with the count of one set, filled up to eight bytes. Made by [`Self::new`] alone.
#[repr(C)]
struct SetInfo {
    command: u32,
    reserved: u32,
    sets: u64,
    count: u32,
    rest: u32,
}

impl SetInfo {
    /// Asks for the statistics' set alone.
    const fn new() -> Self {
        Self { command: GET_SET_INFO, reserved: 0, sets: 1 << STATISTICS, count: 0, rest: 0 }
    }
}

// SAFETY: words, as the kernel's structure for `GET_SET_INFO`, the only command it is used with. The kernel writes a count for each
// bit of `sets`: one, for which there is room.
unsafe impl Command for SetInfo {}

/// The queues of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Channels {
    /// Queues that only receive.
    pub(super) rx: u32,
    /// Pairs of a queue that receives and one that sends.
    pub(super) combined: u32,
    /// How many pairs there can be.
    pub(super) max_combined: u32,
}

/// The name of an interface's driver; `None` if it has none.
pub(super) fn driver(interface: &str) -> Option<String> {
    text(&ask_driver(interface)?.name)
}

/// The place of an interface's card, such as `0000:00:03.0` on PCI; `None` if it has none.
pub(super) fn bus(interface: &str) -> Option<String> {
    /// Behind the versions of driver and firmware.
    const BUS: std::ops::Range<usize> = 64..96;
    text(ask_driver(interface)?.rest.get(BUS)?)
}

fn ask_driver(interface: &str) -> Option<Driver> {
    let mut driver = Driver { command: GET_DRIVER, name: [0; 32], rest: [0; 160] };
    ask(interface, &mut driver).ok()?;
    Some(driver)
}

/// The text that a field is filled with, if it is not empty.
fn text(field: &[u8]) -> Option<String> {
    let text = CStr::from_bytes_until_nul(field).ok()?.to_str().ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// Whether the network stack merges packets (GRO), which a program in generic mode meets; `None` if the kernel does not say.
pub(super) fn merges_in_stack(interface: &str) -> Option<bool> {
    let mut value = Value { command: GET_GRO, data: 0 };
    ask(interface, &mut value).ok()?;
    Some(value.data != 0)
}

/// The queues of an interface; `None` if the driver does not say.
pub(super) fn channels(interface: &str) -> Option<Channels> {
    let mut channels = RawChannels { command: GET_CHANNELS, ..RawChannels::default() };
    ask(interface, &mut channels).ok()?;
    let RawChannels { rx, combined, max_combined, .. } = channels;
    Some(Channels { rx, combined, max_combined })
}

/// Whether packets are merged before an XDP program sees them (LRO); `None` if the driver does not say.
pub(super) fn merges(interface: &str) -> Option<bool> {
    flags(interface).ok().map(|flags| flags & LRO != 0)
}

/// Whether an interface's card strips VLAN tags before an XDP program sees frames; `None` if the driver does not say.
pub(super) fn strips_tags(interface: &str) -> Option<bool> {
    flags(interface).ok().map(|flags| flags & RX_VLAN != 0)
}

/// Leaves tags in the bytes of frames that are sent.
#[cfg(test)]
pub(super) fn keep_tags_in_bytes(interface: &str) {
    let data = flags(interface).unwrap() & !(TX_VLAN | RX_VLAN);
    ask(interface, &mut Value { command: SET_FLAGS, data }).unwrap();
}

/// The number of an interface's statistics.
pub(super) fn count_statistics(interface: &str) -> Result<u32, Errno> {
    let mut info = SetInfo::new();
    ask(interface, &mut info)?;
    // The kernel clears the set's bit if the driver has none.
    Ok(if info.sets == 0 { 0 } else { info.count })
}

/// Bytes that the names of so many statistics take, which is more than their values take.
pub(super) const fn bytes_of_names(count: u32) -> usize {
    NAMES_HEADER + count as usize * NAME
}

/// The names of so many statistics: by now there may be more of them than were counted.
///
/// # Errors
/// The driver has none, or more than there is room for (`EFAULT`).
pub(super) fn statistic_names<'a>(
    interface: &str,
    memory: &'a mut Fenced,
    count: u32,
) -> Result<&'a [[u8; NAME]], Errno> {
    let memory = ask_into(interface, memory, [GET_NAMES, STATISTICS, count])?;
    let (header, names) = memory.split_at_checked(NAMES_HEADER).ok_or(Errno::EFAULT)?;
    let (count, (names, _)) = (read_word(header, 2), names.as_chunks());
    Ok(names.get(..count).unwrap_or(names))
}

/// The values of the statistics, in the order of the names.
///
/// # Errors
/// As for [`statistic_names`].
pub(super) fn statistics(interface: &str, memory: &mut Fenced, count: u32) -> Result<Vec<u64>, Errno> {
    let memory = ask_into(interface, memory, [GET_STATISTICS, count, 0])?;
    let (header, values) = memory.split_at_checked(STATISTICS_HEADER).ok_or(Errno::EFAULT)?;
    let (values, _) = values.as_chunks();
    Ok(values.iter().take(read_word(header, 1)).map(|value| u64::from_ne_bytes(*value)).collect())
}

fn read_word(header: &[u8], n: usize) -> usize {
    header.as_chunks().0.get(n).map_or(0, |word| u32::from_ne_bytes(*word) as usize)
}

fn flags(interface: &str) -> Result<u32, Errno> {
    let mut value = Value { command: GET_FLAGS, data: 0 };
    ask(interface, &mut value)?;
    Ok(value.data)
}

/// Has a command carried out.
fn ask<C: Command>(interface: &str, command: &mut C) -> Result<(), Errno> {
    // SAFETY: the kernel reads and writes no more of it than there is (`Command`), and it is mutably borrowed.
    unsafe { ask_at(interface, (&raw mut *command).cast()) }
}

/// Has a command carried out whose answer is as long as the driver makes it; it begins with these words. Returns the answer.
fn ask_into<'a>(interface: &str, memory: &'a mut Fenced, words: [u32; 3]) -> Result<&'a [u8], Errno> {
    let bytes = memory.bytes();
    let [first, second, third, ..] = bytes.as_chunks_mut::<4>().0 else { return Err(Errno::EFAULT) };
    [*first, *second, *third] = words.map(u32::to_ne_bytes);
    // SAFETY: the bytes are mutably borrowed, and the kernel can write nothing behind them (`Fenced`).
    unsafe { ask_at(interface, bytes.as_mut_ptr().cast())? };
    Ok(bytes)
}

/// # Safety
/// What the kernel writes for the command at `command` belongs to the caller, or cannot be written.
unsafe fn ask_at(interface: &str, command: *mut libc::c_char) -> Result<(), Errno> {
    // SAFETY: of zeroes and plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(Errno::ENODEV);
    }
    request.ifr_name.iter_mut().zip(interface.bytes()).for_each(|(to, from)| *to = from as libc::c_char);
    request.ifr_ifru.ifru_data = command;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // Another integer with musl than with glibc.
    let ethtool = libc::SIOCETHTOOL as libc::Ioctl;
    // SAFETY: the kernel reads and writes through the pointer in `request` what the caller answers for.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), ethtool, &raw mut request) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use maglev_testing::network::{Peer, in_namespace};

    use super::*;

    #[test]
    fn a_veth_says_its_driver_and_queues() {
        in_namespace(|| {
            let peer = Peer::new();
            peer.connect("eth1", "eth1");
            assert_eq!(driver("eth1").as_deref(), Some("veth"));
            let channels = channels("eth1").unwrap();
            assert!((channels.rx, channels.combined) != (0, 0), "{channels:?}");
            assert_eq!((merges("eth1"), bus("eth1")), (Some(false), None));
            assert!(merges_in_stack("eth1").is_some());
        });
    }

    #[test]
    fn an_interface_that_does_not_exist_says_nothing() {
        in_namespace(|| {
            for name in ["eth9", "a-name-that-is-too-long"] {
                assert_eq!((driver(name), channels(name), merges(name)), (None, None, None));
            }
        });
    }
}
