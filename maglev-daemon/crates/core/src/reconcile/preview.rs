//! The slots that a change to a backend would move, without making it. It must not know flows.

use maglev_common::table::PoolIndex;
use maglev_model::plan::{Preview, PublishedPool, table_of};
use maglev_model::table::Table;
use maglev_model::{Change, PoolSettings, Refusal};

use super::Reconciler;

/// The slots that a change would move.
#[derive(Clone, Debug)]
pub struct Previewed {
    /// The change.
    pub change: Change,
    /// The number of its pool. `None` before the pool is planned.
    pub index: Option<PoolIndex>,
    /// How the pool keeps connections.
    pub settings: PoolSettings,
    /// The slots.
    pub preview: Preview,
}

impl Reconciler {
    /// The slots that a change to a backend would move, by the published state and the known next hops.
    ///
    /// # Errors
    /// The refusal of the change itself.
    pub fn preview(&self, change: Change, force: bool) -> Result<Previewed, Refusal> {
        self.review_change(&change, force)?;
        let next = self.working.apply(&change, &self.settings.rules)?;
        let pools = change.backend().and_then(|(pool, _)| Some((self.working.pools.get(pool)?, next.pools.get(pool)?)));
        let Some((was, pool)) = pools else {
            return Err(Refusal::Invalid(format!("cannot plan to {change}; allowed: changes to backends")));
        };
        let published = self.planner.pool(&pool.name);
        let before = published.map_or_else(|| Table::build([]), PublishedPool::table);
        let named = was.backends.keys().chain(pool.backends.keys());
        let preview = Preview::new(&before, &table_of(pool, published), named);
        Ok(Previewed { index: published.map(PublishedPool::index), settings: pool.settings, preview, change })
    }
}
