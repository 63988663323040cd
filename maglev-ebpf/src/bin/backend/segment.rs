//! Outgoing segments: how one number of them is replaced.

use maglev_ebpf::path::mss::Change;

use crate::skb::Skb;

impl Skb {
    /// Makes a change, and adapts the checksum: the kernel knows whether it is finished yet, or left to the network card, which sums the
    /// segment itself. False if the packet cannot be written to.
    #[inline(always)]
    pub(crate) fn replace(&mut self, change: &Change) -> bool {
        let (old, new) = change.summed();
        // The farther one first: if it can be written, so can the checksum.
        self.ctx.store(change.at, &change.new.to_be(), 0).is_ok()
            && self.ctx.l4_csum_replace(change.checksum, old.into(), new.into(), size_of::<u16>() as u64).is_ok()
    }
}
