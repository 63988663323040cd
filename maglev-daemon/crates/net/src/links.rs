//! Interfaces: those that exist, and their changes. It must not know which of them are configured.

use std::time::Duration;

use netlink_packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};
use rtnetlink::MulticastGroup;
use tokio::time::Instant;

use super::connection::{self, Requests, Sockets};
use super::error::NetError;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address, if it is an Ethernet interface.
    pub mac: Option<[u8; 6]>,
    /// Its MTU in bytes, IP header included.
    pub mtu: u32,
    /// Whether packets can be sent on it.
    pub state: LinkState,
    /// The XDP program that is attached to it.
    pub xdp: Option<AttachedXdp>,
    /// What it adds to frames, if it is a VLAN device.
    pub vlan: Option<Vlan>,
    /// The index of the bond or bridge that it is a member of.
    pub master: Option<u32>,
}

/// The tag that a VLAN device gives its frames, and the interface that carries them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// The index of the interface below.
    pub on: u32,
    /// The VLAN's number.
    pub id: u16,
    /// The EtherType that announces the tag.
    pub protocol: u16,
}

/// Whether packets can be sent on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It is up and has a carrier.
    Up,
    /// It is up and has no carrier.
    NoCarrier,
    /// An operator set it down.
    Down,
}

impl LinkState {
    /// Whether packets can be sent.
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Up)
    }

    /// The word in text, JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::NoCarrier => "no carrier",
            Self::Down => "down",
        }
    }
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedXdp {
    /// Where it runs.
    pub at: XdpAt,
    /// Its id.
    pub program: u32,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpAt {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
    /// In the card.
    Hardware,
    /// In more than one of these.
    Several,
}

/// All interfaces of the calling thread's network namespace.
///
/// # Errors
/// Netlink cannot be asked.
pub async fn list() -> Result<Vec<Link>, NetError> {
    Requests::open()?.links().await
}

impl Requests {
    /// All interfaces.
    pub(super) async fn links(&self) -> Result<Vec<Link>, NetError> {
        let messages = connection::all("list interfaces", self.handle.link().get().execute()).await?;
        Ok(messages.iter().map(Link::from_message).collect())
    }
}

impl Link {
    /// The interface in a link message.
    pub(super) fn from_message(message: &LinkMessage) -> Self {
        let header = &message.header;
        let state = match (header.flags.contains(LinkFlags::Up), header.flags.contains(LinkFlags::LowerUp)) {
            (true, true) => LinkState::Up,
            (true, false) => LinkState::NoCarrier,
            (false, _) => LinkState::Down,
        };
        let vlan = vlan(&message.attributes);
        let mut link =
            Self { index: header.index, name: String::new(), mac: None, mtu: 0, state, xdp: None, vlan, master: None };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(address) if header.link_layer_type == LinkLayerType::Ether => {
                    link.mac = address.as_slice().try_into().ok();
                }
                LinkAttribute::Xdp(attributes) => link.xdp = attached(attributes),
                LinkAttribute::Controller(index) => link.master = Some(*index).filter(|index| *index != 0),
                _ => {}
            }
        }
        link
    }
}

/// The VLAN of a device, unless what is below it is in another network namespace.
fn vlan(attributes: &[LinkAttribute]) -> Option<Vlan> {
    let (mut on, mut id, mut protocol) = (None, None, None);
    for attribute in attributes {
        match attribute {
            LinkAttribute::LinkNetNsId(_) => return None,
            LinkAttribute::Link(index) => on = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                let vlan = infos.iter().filter_map(|info| match info {
                    LinkInfo::Data(InfoData::Vlan(vlan)) => Some(vlan),
                    _ => None,
                });
                for of in vlan.flatten() {
                    match of {
                        InfoVlan::Id(number) => id = Some(*number),
                        InfoVlan::Protocol(kind) => protocol = Some(u16::from(*kind)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Vlan { on: on?, id: id?, protocol: protocol? })
}

fn attached(attributes: &[LinkXdp]) -> Option<AttachedXdp> {
    let at = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver) => Some(XdpAt::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(XdpAt::Generic),
        LinkXdp::Attached(XdpAttached::Hardware) => Some(XdpAt::Hardware),
        LinkXdp::Attached(XdpAttached::Multiple | XdpAttached::Other(_)) => Some(XdpAt::Several),
        _ => None,
    })?;
    let program = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    });
    Some(AttachedXdp { at, program: program.unwrap_or(0) })
}

/// How soon all interfaces are reported again on request.
const AGAIN: Duration = Duration::from_secs(5);

/// Follows the interfaces of one network namespace.
pub struct Watch {
    sockets: Sockets,
    /// When all interfaces are to be reported, changed or not.
    due: Option<Instant>,
}

impl Watch {
    /// Starts to follow the interfaces of the calling thread's network namespace; needs a tokio runtime.
    ///
    /// # Errors
    /// No netlink socket.
    pub fn start() -> Result<Self, NetError> {
        Ok(Self { sockets: Sockets::open("interfaces", &[MulticastGroup::Link])?, due: None })
    }

    /// All interfaces as they are now. [`Watch::changed`] reports later changes.
    ///
    /// # Errors
    /// Netlink cannot be asked.
    pub async fn list(&self) -> Result<Vec<Link>, NetError> {
        self.sockets.requests.links().await
    }

    /// All interfaces, once one of them changed. Where netlink fails, it is asked until it answers. Nothing is lost if
    /// the wait is given up.
    pub async fn changed(&mut self) -> Vec<Link> {
        loop {
            match self.next_change().await {
                Ok(links) => {
                    self.sockets.works();
                    self.due = None;
                    return links;
                }
                Err(failure) => {
                    // Changes during the outage are reported after it.
                    self.due = Some(Instant::now());
                    self.sockets.renew(failure).await;
                }
            }
        }
    }

    /// Makes [`Watch::changed`] report all interfaces in a few seconds, changed or not: an operation on one of them
    /// failed.
    pub fn again(&mut self) {
        self.due = Some(Instant::now() + AGAIN);
    }

    async fn next_change(&mut self) -> Result<Vec<Link>, NetError> {
        let Self { sockets, due } = self;
        tokio::select! {
            notice = sockets.notices.next() => drop(notice?),
            () = sleep_until(*due) => {}
        }
        *due = Some(Instant::now());
        // A flood of notices is answered once.
        while sockets.notices.ready().is_some() {}
        sockets.requests.links().await
    }

    #[cfg(test)]
    pub(super) fn breaker(&self) -> impl Fn() + use<> {
        self.sockets.breaker()
    }
}

/// Waits for a time; forever if there is none.
pub(super) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
