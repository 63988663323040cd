//! Interfaces: what exists, and when it changes. It must not know which of them are configured.

use futures_util::TryStreamExt;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, LinkXdp, XdpAttached};
use rtnetlink::MulticastGroup;

use super::connection::{NetError, Notices, Requests};

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
    /// Whether it is up and has a carrier.
    pub up: bool,
    /// The XDP program that is attached to it.
    pub xdp: Option<AttachedXdp>,
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
        let messages: Vec<LinkMessage> = (self.handle.link().get().execute().try_collect().await)
            .map_err(|source| NetError::Request { what: "list interfaces", source })?;
        Ok(messages.iter().map(Link::from_message).collect())
    }
}

impl Link {
    /// What a link message says.
    pub(super) fn from_message(message: &LinkMessage) -> Self {
        let header = &message.header;
        let up = header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
        let mut link = Self { index: header.index, name: String::new(), mac: None, mtu: 0, up, xdp: None };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(address) if header.link_layer_type == LinkLayerType::Ether => {
                    link.mac = address.as_slice().try_into().ok();
                }
                LinkAttribute::Xdp(attributes) => link.xdp = attached(attributes),
                _ => {}
            }
        }
        link
    }
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

/// Follows the interfaces of one network namespace.
pub struct Watch {
    notices: Notices,
    requests: Requests,
}

impl Watch {
    /// Starts to follow the interfaces of the calling thread's network namespace; needs a tokio runtime.
    ///
    /// # Errors
    /// No netlink socket.
    pub fn start() -> Result<Self, NetError> {
        Ok(Self { notices: Notices::open(&[MulticastGroup::Link])?, requests: Requests::open()? })
    }

    /// All interfaces, once one of them changed. `None` once netlink can no longer be asked.
    pub async fn changed(&mut self) -> Option<Vec<Link>> {
        self.notices.next().await?;
        match self.requests.links().await {
            Ok(links) => Some(links),
            Err(error) => {
                tracing::error!(%error, "interfaces are no longer followed");
                None
            }
        }
    }
}
