//! Plans: the ordered steps that take the data plane from the published to the desired state, so that no packet
//! sees a half state. Pure: it names maps' contents, never maps.

use maglev_common::backend::{MemberId, MemberRecord, NextHop};
use maglev_common::encap::EncapKind;
use maglev_common::table::{PoolIndex, PoolWord, TableIndex};
use maglev_common::vip::{Contents, Key4, Key6, VipId};

mod encode;
mod ids;
mod owners;
mod planner;
mod preview;
mod published;
mod saved;
mod slots;
mod tables;
mod turnover;

pub use encode::{Directories, Listed, directories, member_record};
pub use planner::{Known, Planned, Planner, SurveyOrder, Surveyed};
pub use preview::{Preview, Share, table_of};
pub use published::{HOLD, PublishedPool};
pub use saved::{InUse, Live, Saved, SavedPool};
pub use slots::Slots;

/// One step of a plan. Steps are carried out in order; a packet may be handled between any two of them.
///
/// Carrying out a plan again from its first step, after any later one failed, is safe: data that is in use by then is
/// overwritten with the same bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Writes the whole record of a member whose id no packet can meet yet, and zeroes its traffic counters.
    WriteMember {
        /// The member.
        id: MemberId,
        /// Its record.
        record: MemberRecord,
    },
    /// Replaces a member's next hop: one word.
    SetNextHop {
        /// The member.
        id: MemberId,
        /// Its new next hop.
        next_hop: NextHop,
    },
    /// Replaces what stands between a member's outer IP header and its packets: one word.
    SetEncap {
        /// The member.
        id: MemberId,
        /// What stands there from now on.
        kind: EncapKind,
    },
    /// Fills a table that no pool word names.
    FillTable {
        /// The table; never [`TableIndex::EMPTY`].
        table: TableIndex,
        /// All its slots, [`maglev_common::table::SLOTS`] of them.
        slots: Slots,
    },
    /// Rewrites a table that is in use, slot by slot: each slot that differs is correct before and after.
    UpdateTable {
        /// The table; never [`TableIndex::EMPTY`].
        table: TableIndex,
        /// All its slots, [`maglev_common::table::SLOTS`] of them.
        slots: Slots,
    },
    /// Has flow entries bind a pool's flows for so many seconds after their last packet. Entries that were silent for longer than
    /// the time before are cleared if that was shorter.
    SetIdle {
        /// The pool.
        pool: PoolIndex,
        /// At most 32,767; 0 for a pool that is removed.
        seconds: u16,
    },
    /// Switches a pool: one store.
    SwitchPool {
        /// The pool.
        pool: PoolIndex,
        /// Its new word.
        word: PoolWord,
    },
    /// Zeroes the traffic counters of a VIP id that is about to be used.
    ResetVip {
        /// The VIP.
        id: VipId,
    },
    /// Builds the IPv4 VIP directory that is not in use, switches to it, and waits until no packet reads the other.
    SwitchDirectory4 {
        /// All that it holds.
        contents: Contents<Key4>,
    },
    /// The same for IPv6.
    SwitchDirectory6 {
        /// All that it holds.
        contents: Contents<Key6>,
    },
    /// Marks a member dead: flow entries that name it are ignored from now on.
    KillMember {
        /// The member.
        id: MemberId,
    },
    /// Frees a member whose backend is removed: its id is unused from now on, also by health checks.
    RemoveMember {
        /// The member.
        id: MemberId,
    },
    /// Marks a dead member alive again, which is in no table and no flow entry.
    ReviveMember {
        /// The member.
        id: MemberId,
    },
    /// Waits until every packet that was being handled when the step began has ended: data that was unpublished before may
    /// be overwritten after.
    Barrier,
    /// Clears every flow entry of these dead members, so that their ids can be allocated again.
    PurgeFlows {
        /// The members.
        ids: Vec<MemberId>,
    },
}
