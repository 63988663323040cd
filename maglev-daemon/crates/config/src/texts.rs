//! The text of services as it is written, in time proportional to the pools that changed since the last one. It must not know how a
//! pool is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use maglev_model::{Name, Pool, Services};

use super::services::{write_pool, write_vips};

/// The first lines of the file.
const HEAD: &str = "# Services: the same on every node. maglevd rewrites this file with every change made by `maglev`;\n\
                    # comments are not kept. After editing it by hand: `maglev reload`.\n";

/// Writes the services: pools, backends and VIPs in the order of their names, so the same services are the same bytes.
pub fn encode(services: &Services) -> String {
    PoolTexts::default().encode(services)
}

/// The texts of pools as they were written last. A pool is known by its place in memory, which no other has while it is kept here.
#[derive(Debug, Default)]
pub struct PoolTexts(BTreeMap<Name, (Arc<Pool>, String)>);

impl PoolTexts {
    /// Writes the services like [`encode`], which knows no pool yet.
    pub fn encode(&mut self, services: &Services) -> String {
        let Self(texts) = self;
        texts.retain(|name, _| services.pools.contains_key(name));
        for (name, pool) in &services.pools {
            if texts.get(name).is_none_or(|(known, _)| !Arc::ptr_eq(known, pool)) {
                let mut text = String::new();
                // Writing to a string cannot fail.
                let _ = write_pool(&mut text, pool);
                texts.insert(name.clone(), (Arc::clone(pool), text));
            }
        }
        let length: usize = texts.values().map(|(_, text)| text.len()).sum();
        let mut text = String::with_capacity(HEAD.len() + length + LINE * (services.vips.len() + 4));
        text.push_str(HEAD);
        text.push_str(if texts.is_empty() { "pools: []\n" } else { "pools:\n" });
        texts.values().for_each(|(_, pool)| text.push_str(pool));
        let _ = write_vips(&mut text, services);
        text
    }
}

/// About as many bytes as a VIP's line has.
const LINE: usize = 128;
