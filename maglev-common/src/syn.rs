//! SYNs that came to a backend encapsulated, kept for as long as they may be answered: the MSS of their answers is lowered.

use crate::flow::Seconds;
use crate::hash::{FlowHash, HashKey};

/// Entries: a power of two. A SYN is forgotten once another one takes its place; then its answer keeps its MSS.
pub const SYNS: usize = 1 << 16;

/// Seconds for which a SYN is answered: Linux repeats its answer for 31 seconds (`tcp_synack_retries` of 5).
const ANSWERED_FOR: u16 = 64;

/// The key by which SYNs are placed. It is no secret: a flow that is aimed at another one's entry only keeps the other one's MSS as
/// it is.
pub const SYN_KEY: HashKey = HashKey::new(0, 1);

/// An entry: the SYN that took it last. Zero is none.
///
/// ```text
///  63             32 31        16 15           0
/// +-----------------+------------+--------------+
/// | tag of the flow | second     | MSS          |
/// +-----------------+------------+--------------+
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynWord(pub u64);

impl SynWord {
    /// A flow whose SYN came now, and the largest MSS for its answer: not zero.
    #[inline(always)]
    pub const fn new(hash: FlowHash, now: Seconds, mss: u16) -> Self {
        Self((hash.tag() as u64) << 32 | (now.0 as u64) << 16 | mss as u64)
    }

    /// The place of a flow's entry.
    #[inline(always)]
    pub const fn place(hash: FlowHash) -> u32 {
        hash.0 as u32 & (SYNS as u32 - 1)
    }

    /// The largest MSS for the answer to a flow's SYN, if the entry is the flow's and may still be answered.
    #[inline(always)]
    pub fn mss(self, hash: FlowHash, now: Seconds) -> Option<u16> {
        let (tag, came, mss) = ((self.0 >> 32) as u32, Seconds((self.0 >> 16) as u16), self.0 as u16);
        (mss != 0 && tag == hash.tag() && now.since(came) < ANSWERED_FOR).then_some(mss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_its_flows_until_it_is_answered_no_more() {
        let (hash, other) = (FlowHash(7 << 32 | 3), FlowHash(8 << 32 | 3));
        let word = SynWord::new(hash, Seconds(65_535), 1_428);
        assert_eq!(SynWord::place(hash), SynWord::place(other));
        assert_eq!([word.mss(hash, Seconds(65_535)), word.mss(hash, Seconds(62))], [Some(1_428); 2]);
        assert_eq!([word.mss(hash, Seconds(63)), word.mss(other, Seconds(0))], [None; 2]);
        assert_eq!(SynWord::default().mss(FlowHash(0), Seconds(0)), None);
    }
}
