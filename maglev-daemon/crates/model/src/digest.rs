//! Digests for a quick comparison of nodes: of the services, of each pool's table, of the hash key. They must not depend on
//! history, member ids or anything else of one node alone.

use std::fmt;

use maglev_common::hash::{HashKey, VERSION};
use sha2::{Digest as _, Sha256};

use crate::Services;
use crate::table::Table;

#[cfg(test)]
mod faults;
mod services;

/// A SHA-256 digest. Shown, it is its first twelve hexadecimal digits; `{:#}` shows all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of the services: everything in `services.yaml`, in the order of names, except since when a backend is in its state: that
    /// time differs by seconds between nodes that received the order one after the other.
    pub fn from_services(services: &Services) -> Self {
        let mut fields = Fields::new("services", 2);
        fields.services(services);
        fields.finish()
    }

    /// Of a pool's table: the names in their order, then per slot the owner's index in it.
    pub fn from_table(table: &Table) -> Self {
        let mut fields = Fields::new("table", 1);
        for name in table.names() {
            fields.add(format_args!("{name}"));
        }
        let slots: Vec<u8> = table.slots().iter().flat_map(|slot| slot.to_le_bytes()).collect();
        fields.0.update(slots);
        fields.finish()
    }

    /// Of the flow hash: its version, and its key. The key has 128 random bits, so its digest reveals nothing.
    pub fn from_key(key: HashKey) -> Self {
        let mut fields = Fields::new("hash key", 1);
        fields.add(format_args!("hash {VERSION}"));
        key.words().iter().for_each(|word| fields.0.update(word.to_le_bytes()));
        fields.finish()
    }
}

/// The input of SHA-256: first the kind of thing, so that two kinds never share a digest, and the version of the rest.
struct Fields(Sha256);

impl Fields {
    fn new(kind: &str, version: u8) -> Self {
        let mut fields = Self(Sha256::new());
        fields.add(format_args!("maglev {kind} {version}"));
        fields
    }

    /// A number of any width, as eight bytes.
    fn number(&mut self, number: impl Into<u64>) {
        self.0.update(number.into().to_le_bytes());
    }

    /// Bytes, after how many they are.
    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Any number of things, after how many they are. What may be absent is a list of at most one.
    fn list<T>(
        &mut self,
        things: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
        add: impl Fn(&mut Self, T),
    ) {
        let things = things.into_iter();
        self.number(things.len() as u64);
        things.for_each(|thing| add(self, thing));
    }

    /// A line. No name holds a newline, so lines cannot be confused.
    fn add(&mut self, line: fmt::Arguments<'_>) {
        self.0.update(line.to_string());
        self.0.update(b"\n");
    }

    fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = if f.alternate() { 32 } else { 6 };
        self.0.iter().take(shown).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AdminState, Backend, Name, Pool, Tracking, UnixTime, Weight};

    #[test]
    fn nodes_with_orders_at_different_times_compare_equal() {
        let name = Name::parse("web").unwrap();
        let of = |state, tracking| {
            let backend =
                Backend { name: name.clone(), address: [10, 0, 1, 11].into(), weight: Weight(1), state, mtu: None };
            let mut pool = Pool::new(name.clone());
            pool.settings.tracking = tracking;
            pool.backends.insert(name.clone(), backend);
            let mut services = Services::default();
            services.pools.insert(name.clone(), pool.into());
            Digest::from_services(&services)
        };
        let draining = |since| AdminState::Draining { since };
        let one = of(draining(Some(UnixTime(1_700_000_000))), Tracking::Exception);
        assert_eq!(one, of(draining(None), Tracking::Exception));
        assert_ne!(one, of(draining(None), Tracking::Always));
        assert_ne!(one, of(AdminState::Active, Tracking::Exception));
        assert_ne!(one, of(AdminState::Disabled { since: None }, Tracking::Exception));
    }

    #[test]
    fn kinds_and_contents_have_different_digests() {
        let empty = Digest::from_services(&Services::default());
        let name = Name::parse("web").unwrap();
        let mut services = Services::default();
        services.pools.insert(name.clone(), Pool::new(name.clone()).into());
        let one = Digest::from_services(&services);
        let table = Digest::from_table(&Table::build([(&name, Weight(1))]));
        let none = Digest::from_table(&Table::build([]));
        let key = Digest::from_key(HashKey::new(0, 0));
        let all = [empty, one, table, none, key];
        assert!(all.iter().enumerate().all(|(n, digest)| !all[..n].contains(digest)));
        assert_eq!(format!("{one}").len(), 12);
        assert_eq!(format!("{one:#}").len(), 64);
    }
}
