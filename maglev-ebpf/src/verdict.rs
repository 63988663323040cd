//! What is to become of a packet.

use maglev_common::backend::InterfaceSlot;

/// The end of the path for one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leave it to the host's network stack.
    Pass,
    /// Drop it.
    Drop,
    /// Send it out of the interface it came in by.
    Transmit,
    /// Send it out of the interface in this slot.
    Redirect(InterfaceSlot),
    /// The same, once it has the VLAN tag of that interface: [`crate::path::tag::send`].
    Tag(InterfaceSlot),
}
