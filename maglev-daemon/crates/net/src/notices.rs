//! The netlink socket for notices: changes, undecodable notices, and lost notices. It must not know
//! the effects of a notice.
//!
//! The socket is read here and not by the netlink library: the library drops a message that it cannot decode, and such a
//! message may say that the kernel's routes changed.

use std::io;
use std::sync::Arc;

use futures_util::FutureExt;
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::error::NetError;

/// The content of a notice.
#[derive(Debug)]
pub(super) enum Notice {
    /// Something changed.
    Changed(Box<RouteNetlinkMessage>),
    /// A next hop object or a group of them changed: routes that use it changed without a notice of their own.
    NextHopObject,
    /// Something changed that cannot be decoded: everything has to be read again.
    Unknown,
    /// Notices were lost: everything has to be read again.
    Lost,
}

/// Notices that wait for their reader. More are lost, as they are when the socket overflows: notices that are not read must
/// not fill this process' memory.
const WAITING: usize = 1_024;

/// A socket for notices, apart from the one for requests: where it overflows, no answer is lost.
pub(super) struct Notices {
    waiting: mpsc::Receiver<Notice>,
    lost: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Notices {
    /// Opens the socket in the calling thread's network namespace; needs a tokio runtime.
    pub(super) fn open(groups: &[MulticastGroup]) -> Result<Self, NetError> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        for group in groups {
            socket.socket_mut().add_membership(*group as u32)?;
        }
        let (sender, waiting) = mpsc::channel(WAITING);
        let lost = Arc::new(Notify::new());
        let task = tokio::spawn(read(socket, sender, Arc::clone(&lost)));
        Ok(Self { waiting, lost, task })
    }

    /// The next notice. Nothing is lost if the wait is given up.
    pub(super) async fn next(&mut self) -> Result<Notice, NetError> {
        tokio::select! {
            biased;
            () = self.lost.notified() => {}
            notice = self.waiting.recv() => return notice.ok_or(NetError::Closed),
        }
        Ok(self.all_lost())
    }

    /// A notice that is there already.
    pub(super) fn ready(&mut self) -> Option<Notice> {
        if self.lost.notified().now_or_never().is_some() {
            return Some(self.all_lost());
        }
        self.waiting.try_recv().ok()
    }

    /// Queued notices are useless once an earlier one is lost: everything is read anew.
    fn all_lost(&mut self) -> Notice {
        while self.waiting.try_recv().is_ok() {}
        Notice::Lost
    }

    #[cfg(test)]
    pub(super) const fn task(&self) -> &JoinHandle<()> {
        &self.task
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads the socket until it fails for another reason than an overflow.
async fn read(socket: TokioSocket, sender: mpsc::Sender<Notice>, lost: Arc<Notify>) {
    loop {
        match socket.recv_from_full().await {
            Ok((datagram, _)) => {
                let notices = messages(&datagram).filter_map(notice);
                if notices.map(|notice| sender.try_send(notice)).any(|sent| sent.is_err()) {
                    lost.notify_one();
                }
            }
            Err(error) if is_overflow(&error) => lost.notify_one(),
            Err(_) => return,
        }
    }
}

fn is_overflow(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}

/// Length, type, flags, sequence number and port of a message (netlink(7)).
const HEADER: usize = 16;

/// The messages of a datagram: each begins at a multiple of four bytes with its length.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*datagram.first_chunk()?) as usize;
        // A message with an invalid length is the last one; it cannot be decoded.
        let length = if length < HEADER { datagram.len() } else { length.min(datagram.len()) };
        let message = &datagram[..length];
        datagram = &datagram[length.next_multiple_of(4).min(datagram.len())..];
        Some(message)
    })
}

/// Messages of `RTM_NEWNEXTHOP` and its kin (linux/rtnetlink.h), which the netlink library does not know: the objects, and
/// the buckets of resilient groups.
const fn is_next_hop_object(kind: u16) -> bool {
    matches!(kind, 104..=107 | 116..=119)
}

/// The content of a message; `None` if it is no news.
fn notice(message: &[u8]) -> Option<Notice> {
    let kind = message.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    if kind.is_some_and(is_next_hop_object) {
        return Some(Notice::NextHopObject);
    }
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).map(|message| message.payload) {
        Ok(NetlinkPayload::InnerMessage(message)) => Some(Notice::Changed(Box::new(message))),
        Ok(NetlinkPayload::Overrun(_)) => Some(Notice::Lost),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(?kind, %error, "a netlink notice cannot be decoded: reading everything again");
            Some(Notice::Unknown)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of this type with this body.
    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn notices(datagram: &[u8]) -> Vec<Notice> {
        messages(datagram).filter_map(notice).collect()
    }

    #[test]
    fn a_message_that_cannot_be_decoded_is_a_notice() {
        const NEW_LINK: u16 = 16;
        const UNKNOWN: u16 = 1_000;
        // A link's message without its body, a type that nothing defines, and a next hop object.
        for (kind, body) in [(NEW_LINK, &[][..]), (UNKNOWN, &[0; 8])] {
            assert!(matches!(notices(&message(kind, body))[..], [Notice::Unknown]), "{kind}");
        }
        assert!(matches!(notices(&message(104, &[0; 8]))[..], [Notice::NextHopObject]));
    }

    #[test]
    fn every_message_of_a_datagram_counts_and_a_length_that_lies_ends_it() {
        let mut datagram = [message(105, &[0; 5]), message(1_000, &[1]), message(104, &[])].concat();
        assert!(matches!(notices(&datagram)[..], [Notice::NextHopObject, Notice::Unknown, Notice::NextHopObject]));
        datagram[..4].copy_from_slice(&3_u32.to_ne_bytes());
        assert_eq!(notices(&datagram).len(), 1);
        datagram[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(notices(&datagram).len(), 1);
        assert!(matches!(notices(&[1, 0, 0, 0, 0])[..], [Notice::Unknown]));
    }
}
