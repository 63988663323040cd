//! What the packet path decides, and by what: a flow, what a packet means to it, and where it goes. Data only.

use maglev_common::backend::MemberId;
use maglev_common::hash::FlowHash;
use maglev_common::table::{PoolIndex, PoolWord, Slot, SlotWord};
use maglev_common::vip::VipId;

use super::Forwarding;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// What a packet means to its flow: the TCP flags that matter, or that it is a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment(u8);

impl Segment {
    /// Opens a TCP connection.
    pub const SYN: Self = Self(SYN);
    /// Ends a TCP connection, and never begins one.
    pub const RST: Self = Self(RST);
    /// Any other TCP segment.
    pub const OTHER: Self = Self(ACK);
    /// A UDP datagram.
    pub const DATAGRAM: Self = Self(0x80);

    /// A TCP segment by the fourteenth byte of its header.
    #[inline(always)]
    pub const fn from_flags(flags: u8) -> Self {
        Self(flags & (SYN | ACK | RST | FIN))
    }

    /// As a number, to be handed to another function of the kernel.
    #[inline(always)]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The reverse of [`Self::bits`].
    #[inline(always)]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Whether it opens a TCP connection: SYN set, ACK, RST and FIN clear.
    #[inline(always)]
    pub const fn is_syn(self) -> bool {
        self.0 == SYN
    }

    /// Whether it answers one that opens a TCP connection: SYN and ACK set, RST and FIN clear.
    #[inline(always)]
    pub const fn is_syn_ack(self) -> bool {
        self.0 == SYN | ACK
    }

    /// Whether it is a TCP segment with RST set.
    #[inline(always)]
    pub const fn is_rst(self) -> bool {
        self.0 & RST != 0
    }

    /// Whether it is a UDP datagram.
    #[inline(always)]
    pub const fn is_datagram(self) -> bool {
        self.0 == Self::DATAGRAM.0
    }
}

/// The ends of a flow as a capture knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The source's address: network-order bytes read as little-endian words. An IPv4 address is the first one.
    pub source: [u64; 2],
    /// The destination's.
    pub destination: [u64; 2],
    /// The version of IP.
    pub family: u8,
    /// Source port, then destination port: four bytes of the packet, read little-endian.
    pub ports: u32,
}

/// What a choice depends on beside the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The VIP's pool.
    pub pool: PoolIndex,
    /// The pool's word.
    pub word: PoolWord,
    /// The flow's hash.
    pub hash: FlowHash,
}

/// Why a flow goes to its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The member owns the flow's slot.
    Table,
    /// The flow table remembers the member.
    FlowTable,
    /// The member owned the flow's slot before, and the slot is learning.
    Previous,
}

impl Choice {
    /// As a number, to be handed back by a function of the kernel.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The reverse of [`Self::number`].
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Table,
            1 => Self::FlowTable,
            _ => Self::Previous,
        }
    }

    /// In words, for traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::FlowTable => "flow_table",
            Self::Previous => "previous",
        }
    }
}

/// Where a flow goes, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The VIP.
    pub vip: VipId,
    /// The flow, its pool and the pool's word.
    pub flow: Flow,
    /// The member the flow goes to.
    pub member: MemberId,
    /// Why it goes there.
    pub choice: Choice,
}

impl Decision {
    /// The flow's slot.
    #[inline(always)]
    pub fn slot(&self) -> Slot {
        self.flow.hash.slot()
    }

    /// What the slot holds.
    #[inline(always)]
    pub fn slot_word(&self, tables: &impl Forwarding) -> SlotWord {
        tables.slot(self.flow.word.current(), self.slot())
    }
}
