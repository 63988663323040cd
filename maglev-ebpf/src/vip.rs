//! Which VIP a packet is for: one probe of the directory for a VIP with the packet's port, two more for everything
//! else.

use maglev_common::hash::{FlowHash, KeyWords, Transport, Tuple4, Tuple6};
use maglev_common::vip::{Directory, Key, Key4, Key6, VipWord};

use crate::env;
use crate::packet::Ip;

/// A flow's tuple, of either family: how it finds its VIP and what it hashes to.
pub trait Tuple: Ip<Address: Address> {
    /// The destination address.
    fn destination(self) -> Self::Address;
    /// Ports and protocol.
    fn transport(self) -> Transport;
    /// The flow hash.
    fn hash(self, key: impl KeyWords) -> FlowHash;
}

/// A destination address, of either family: the directory that knows it and the key it makes.
pub trait Address: Copy {
    /// The directory's key.
    type Key: Key;

    /// The directory in use, and its seed.
    fn directory<T: env::Directory>(tables: &T) -> (&Directory<Self::Key>, u64);
    /// A key of the directory; the service is [`Transport::service`], or 0 for the bare address.
    fn key(self, service: u64) -> Self::Key;
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
    fn hash(self, key: impl KeyWords) -> FlowHash {
        FlowHash::of4(key, self)
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
    fn hash(self, key: impl KeyWords) -> FlowHash {
        FlowHash::of6(key, self)
    }
}

impl Address for u32 {
    type Key = Key4;

    #[inline(always)]
    fn directory<T: env::Directory>(tables: &T) -> (&Directory<Key4>, u64) {
        tables.directory4()
    }

    #[inline(always)]
    fn key(self, service: u64) -> Key4 {
        Key4::from_service(self, service)
    }
}

impl Address for [u64; 2] {
    type Key = Key6;

    #[inline(always)]
    fn directory<T: env::Directory>(tables: &T) -> (&Directory<Key6>, u64) {
        tables.directory6()
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

/// Looks up the VIP of a flow: by its port, then for any port, then the bare address.
#[inline(always)]
pub fn lookup<F: Tuple, T: env::Directory>(tuple: F, tables: &T) -> Lookup {
    let (directory, seed) = F::Address::directory(tables);
    let key = tuple.destination().key(tuple.transport().service());
    let exact = directory.find(seed, key);
    if exact.is_present() {
        return Lookup::Vip(exact);
    }
    let any_port = directory.find(seed, key.any_port());
    if any_port.is_present() {
        return Lookup::Vip(any_port);
    }
    let address = directory.find(seed, key.bare_address());
    if address.is_present() { Lookup::AddressOnly(address) } else { Lookup::Unknown }
}

/// The word of a bare address; not present if no VIP has it.
#[inline(always)]
pub fn address_word<A: Address, T: env::Directory>(address: A, tables: &T) -> VipWord {
    let (directory, seed) = A::directory(tables);
    directory.find(seed, address.key(0))
}

/// Whether some VIP has this address.
#[inline(always)]
pub fn is_vip_address<A: Address, T: env::Directory>(address: A, tables: &T) -> bool {
    address_word(address, tables).is_present()
}
