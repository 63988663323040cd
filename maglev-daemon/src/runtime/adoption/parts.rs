//! The pools of a state that is written, deflated: a pool that did not change is not deflated again. It must not know what a pool is.

use std::collections::BTreeMap;
use std::sync::Arc;

use maglev_model::plan::SavedPool;
use maglev_store::Part;

/// Pools of a state, deflated, by their allocations, which are held as long.
pub(super) type Parts = BTreeMap<usize, (Arc<SavedPool>, Part)>;

/// The pools, deflated: those that are known are not deflated again.
pub(super) fn deflated(pools: &[Arc<SavedPool>], known: &Parts) -> Result<Parts, String> {
    let part = |pool: &Arc<SavedPool>| {
        let part = match known.get(&Arc::as_ptr(pool).addr()) {
            Some((_, part)) => part.clone(),
            None => Part::new(pool)?,
        };
        Ok((Arc::as_ptr(pool).addr(), (Arc::clone(pool), part)))
    };
    pools.iter().map(part).collect()
}
