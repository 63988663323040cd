//! Which VIP a packet is for: one probe of the directory for a VIP with the packet's address and port, more for everything else.

use maglev_common::hash::{FlowHash, KeyWords, Transport, Tuple4, Tuple6, mask4, mask6};
use maglev_common::vip::{ADDRESS_ALONE, Index, Key, Key4, Key6, VipWord};

use crate::env::{self, Ends};
use crate::packet::Ip;

/// A flow's tuple, of either family: how it finds its VIP and what it hashes to.
pub trait Tuple: Ip<Address: Address> {
    /// The destination address.
    fn destination(self) -> Self::Address;
    /// Ports and protocol.
    fn transport(self) -> Transport;
    /// Its ends as a capture knows them.
    fn ends(self) -> Ends;
    /// The flow hash.
    fn hash(self, key: impl KeyWords) -> FlowHash;
    /// What flows of a source have in common: so many bits of its address, and nothing else.
    #[must_use]
    fn of_source(self, bits: u8) -> Self;
}

/// The hash of a flow of a VIP: by all that identifies the flow, or by its source as the VIP says.
#[inline(always)]
pub fn hash<F: Tuple, T: env::Forwarding>(tuple: F, word: VipWord, tables: &T) -> FlowHash {
    let hash = tuple.hash(tables.hash_key());
    match word.source_bits() {
        0 => hash,
        bits => hash.of_source(tuple.of_source(bits).hash(tables.hash_key())),
    }
}

/// A destination address, of either family: the directory that knows it and the key it makes.
pub trait Address: Copy {
    /// The directory's key.
    type Key: Key;

    /// The directory in use.
    fn directory<T: env::Forwarding>(tables: &T) -> Index<'_, Self::Key>;
    /// A key of the directory; the service is [`Transport::service`].
    fn key(self, service: u64) -> Self::Key;
    /// [`Index::find_by_rules`] for this address.
    fn find_by_rules<T: env::Forwarding>(self, tables: &T, service: u64) -> VipWord;
}

impl Tuple for Tuple4 {
    #[inline(always)]
    fn destination(self) -> u32 {
        (self.addresses >> 32) as u32
    }

    #[inline(always)]
    fn transport(self) -> Transport {
        self.transport
    }

    #[inline(always)]
    fn ends(self) -> Ends {
        let (source, destination) = ([self.addresses & 0xffff_ffff, 0], [self.addresses >> 32, 0]);
        Ends { source, destination, family: 4, ports: self.transport.ports() }
    }

    #[inline(always)]
    fn hash(self, key: impl KeyWords) -> FlowHash {
        FlowHash::of4(key, self)
    }

    #[inline(always)]
    fn of_source(self, bits: u8) -> Self {
        Self { addresses: self.addresses & u64::from(mask4(bits)), transport: Transport::new(0, 0) }
    }
}

impl Tuple for Tuple6 {
    #[inline(always)]
    fn destination(self) -> [u64; 2] {
        [self.addresses[2], self.addresses[3]]
    }

    #[inline(always)]
    fn transport(self) -> Transport {
        self.transport
    }

    #[inline(always)]
    fn ends(self) -> Ends {
        let [a, b, c, d] = self.addresses;
        Ends { source: [a, b], destination: [c, d], family: 6, ports: self.transport.ports() }
    }

    #[inline(always)]
    fn hash(self, key: impl KeyWords) -> FlowHash {
        FlowHash::of6(key, self)
    }

    #[inline(always)]
    fn of_source(self, bits: u8) -> Self {
        let ([a, b], [high, low, ..]) = (mask6(bits), self.addresses);
        Self { addresses: [high & a, low & b, 0, 0], transport: Transport::new(0, 0) }
    }
}

impl Address for u32 {
    type Key = Key4;

    #[inline(always)]
    fn directory<T: env::Forwarding>(tables: &T) -> Index<'_, Key4> {
        tables.forwarding().directory4()
    }

    #[inline(always)]
    fn find_by_rules<T: env::Forwarding>(self, tables: &T, service: u64) -> VipWord {
        tables.find_by_rules4(self, service)
    }

    #[inline(always)]
    fn key(self, service: u64) -> Key4 {
        Key4::from_service(self, service)
    }
}

impl Address for [u64; 2] {
    type Key = Key6;

    #[inline(always)]
    fn directory<T: env::Forwarding>(tables: &T) -> Index<'_, Key6> {
        tables.forwarding().directory6()
    }

    #[inline(always)]
    fn find_by_rules<T: env::Forwarding>(self, tables: &T, service: u64) -> VipWord {
        tables.find_by_rules6(self, service)
    }

    #[inline(always)]
    fn key(self, service: u64) -> Key6 {
        Key6::from_service(self, service)
    }
}

/// What the directory knows of a packet's destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It is for this VIP.
    Vip(VipWord),
    /// Some VIP has the address, none the port and protocol: the word of the bare address.
    AddressOnly(VipWord),
    /// No VIP has the address.
    Unknown,
}

/// The VIP of a flow, if it has this very address and port; else a word that is not present. Most packets for VIPs need no more.
#[inline(always)]
pub fn find_exact<F: Tuple, T: env::Forwarding>(tuple: F, tables: &T) -> VipWord {
    F::Address::directory(tables).find(tuple.destination().key(tuple.transport().service()))
}

/// Looks up the VIP of a flow: by address and port, then by the rules of its address.
#[inline(always)]
pub fn lookup<F: Tuple, T: env::Forwarding>(tuple: F, tables: &T) -> Lookup {
    let exact = find_exact(tuple, tables);
    // A packet of protocol 0 has the key of its bare address.
    let found = exact.is_present() && !exact.is_address();
    let word = if found { exact } else { tuple.destination().find_by_rules(tables, tuple.transport().service()) };
    match word {
        word if word.is_address() => Lookup::AddressOnly(word),
        word if word.is_present() => Lookup::Vip(word),
        _ => Lookup::Unknown,
    }
}

/// The word of an address, or of the longest prefix that it is in; not present if no VIP has it.
#[inline(always)]
pub fn address_word<A: Address, T: env::Forwarding>(address: A, tables: &T) -> VipWord {
    address.find_by_rules(tables, ADDRESS_ALONE)
}

/// Whether some VIP has this address.
#[inline(always)]
pub fn is_vip_address<A: Address, T: env::Forwarding>(address: A, tables: &T) -> bool {
    address_word(address, tables).is_present()
}
