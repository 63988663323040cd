//! Digests by which nodes are compared at a glance: of the services, of each pool's table, of the hash key. They must
//! not depend on history, member ids or anything else of one node alone.

use std::fmt;

use maglev_common::hash::HashKey;
use sha2::{Digest as _, Sha256};

use crate::maglev::Table;
use crate::model::{
    Announce, Backend, Pool, PoolHealth, PoolSettings, Services, TransitionSettings, Vip, tracking_word, udp_word,
};

/// A SHA-256 digest. Shown, it is its first twelve hexadecimal digits; `{:#}` shows all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of the services: all that `services.yaml` says, in the order of names, but for since when a backend is in its
    /// state. That differs by seconds between nodes which were told one after the other.
    pub fn of_services(services: &Services) -> Self {
        let mut fields = Fields::new("services");
        for Pool { name, settings, health, backends } in services.pools.values() {
            fields.add(format_args!("pool {name}"));
            let PoolSettings { tracking, transition, min_healthy } = settings;
            let TransitionSettings { learning, idle, udp } = transition;
            let (tracking, udp) = (tracking_word(*tracking), udp_word(*udp));
            let (learning, idle) = (learning.as_secs(), idle.as_secs());
            fields.add(format_args!("settings {tracking} {learning} {idle} {udp} {min_healthy}"));
            if *health != PoolHealth::default() {
                fields.add(format_args!("health {health:?}"));
            }
            for Backend { name, address, weight, state } in backends.values() {
                fields.add(format_args!("backend {name} {address} {weight} {state}"));
            }
        }
        for Vip { name, service, pool, announce } in services.vips.values() {
            fields.add(format_args!("vip {name} {service} {pool}"));
            let Announce { by, communities } = announce;
            fields.add(format_args!("announce {by:?} {communities:?}"));
        }
        fields.finish()
    }

    /// Of a pool's table: the names in their order, then per slot the owner's index in it.
    pub fn of_table(table: &Table) -> Self {
        let mut fields = Fields::new("table");
        for name in table.names() {
            fields.add(format_args!("{name}"));
        }
        let slots: Vec<u8> = table.slots().iter().flat_map(|slot| slot.to_le_bytes()).collect();
        fields.0.update(slots);
        fields.finish()
    }

    /// Of the hash key. The key has 128 random bits, so its digest gives nothing away.
    pub fn of_key(key: HashKey) -> Self {
        let mut fields = Fields::new("hash key");
        fields.0.update(key.k0.to_le_bytes());
        fields.0.update(key.k1.to_le_bytes());
        fields.finish()
    }
}

/// Lines fed to the hash: the kind of thing first, so that two kinds never share a digest.
struct Fields(Sha256);

impl Fields {
    fn new(kind: &str) -> Self {
        let mut fields = Self(Sha256::new());
        fields.add(format_args!("maglev {kind} 1"));
        fields
    }

    /// No field holds a newline, so lines cannot be confused.
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
    use crate::model::{AdminState, Name, Tracking, UnixTime, Weight};

    #[test]
    fn nodes_that_were_told_at_different_times_compare_equal() {
        let name = Name::parse("web").unwrap();
        let of = |state, tracking| {
            let backend = Backend { name: name.clone(), address: [10, 0, 1, 11].into(), weight: Weight(1), state };
            let mut pool = Pool::new(name.clone());
            pool.settings.tracking = tracking;
            pool.backends.insert(name.clone(), backend);
            let mut services = Services::default();
            services.pools.insert(name.clone(), pool);
            Digest::of_services(&services)
        };
        let draining = |since| AdminState::Draining { since };
        let one = of(draining(Some(UnixTime(1_700_000_000))), Tracking::Exception);
        assert_eq!(one, of(draining(None), Tracking::Exception));
        assert_ne!(one, of(draining(None), Tracking::Always));
        assert_ne!(one, of(AdminState::Active, Tracking::Exception));
        assert_ne!(one, of(AdminState::Disabled { since: None }, Tracking::Exception));
    }

    #[test]
    fn kinds_and_contents_are_told_apart() {
        let empty = Digest::of_services(&Services::default());
        let name = Name::parse("web").unwrap();
        let mut services = Services::default();
        services.pools.insert(name.clone(), Pool::new(name.clone()));
        let one = Digest::of_services(&services);
        let table = Digest::of_table(&Table::build([(&name, Weight(1))]));
        let none = Digest::of_table(&Table::build([]));
        let key = Digest::of_key(HashKey { k0: 0, k1: 0 });
        let all = [empty, one, table, none, key];
        assert!(all.iter().enumerate().all(|(n, digest)| !all[..n].contains(digest)));
        assert_eq!(format!("{one}").len(), 12);
        assert_eq!(format!("{one:#}").len(), 64);
    }
}
