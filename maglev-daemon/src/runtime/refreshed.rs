//! The interfaces that the data plane is attached to, as they are after a refresh. It must not know how they are refreshed.

use std::collections::BTreeMap;

use maglev_dataplane::{Dataplane, Interface, Refresh, VlanDevice};
use maglev_net::links::{Link, LinkState};

/// The attached interfaces after a refresh.
#[derive(Clone, Debug, Default)]
pub(super) struct Refreshed {
    pub(super) interfaces: Vec<Interface>,
    /// The VLAN devices on them.
    pub(super) vlans: Vec<VlanDevice>,
    /// The detached ones, with the reason.
    pub(super) refresh: Refresh,
    /// All interfaces that exist, by index.
    pub(super) links: BTreeMap<u32, Link>,
    /// The number of the data plane, among those of this process: slots mean nothing in another one.
    pub(super) plane: u64,
}

impl Refreshed {
    pub(super) fn new(dataplane: &Dataplane, refresh: Refresh, existing: Vec<Link>) -> Self {
        let links = existing.into_iter().map(|link| (link.index, link)).collect();
        let (interfaces, vlans) = (dataplane.interfaces().to_vec(), dataplane.vlans().to_vec());
        Self { interfaces, vlans, refresh, links, plane: 0 }
    }

    /// The renamed interfaces: the name in `maglev.yaml`, and the present one.
    pub(super) fn renamed(&self) -> impl Iterator<Item = (&str, &str)> {
        let link = |interface: &Interface| self.links.get(&interface.index);
        let names = self.interfaces.iter().filter_map(move |it| Some((it.name.as_str(), link(it)?.name.as_str())));
        names.filter(|(configured, now)| configured != now)
    }

    /// The reason why the node cannot forward, if so.
    pub(super) fn trouble(&self) -> Option<String> {
        if let Some(name) = self.refresh.detached.first() {
            if !self.links.values().any(|link| link.name == *name) {
                return Some(format!("interface {name} does not exist"));
            }
            return Some(format!("the XDP program is detached from {name}"));
        }
        let state = |interface: &Interface| self.links.get(&interface.index).map(|link| link.state);
        let mut down = self.interfaces.iter().filter(|it| state(it).is_some_and(|state| !state.is_up()));
        let first = down.next()?;
        let state = if state(first) == Some(LinkState::Down) { "is down" } else { "has no carrier" };
        (down.count() + 1 == self.interfaces.len()).then(|| format!("interface {} {state}", first.name))
    }
}
