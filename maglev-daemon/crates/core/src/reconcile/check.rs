//! The targets of one backend, for an operator's single check. It must not know how they are checked, nor count the results.

use maglev_model::{Name, Refusal};

use crate::health::{Order, Orders, targets};

use super::Reconciler;

impl Reconciler {
    /// The targets of a backend, with exactly the settings of its pool, and their paths.
    ///
    /// # Errors
    /// One line: the backend is unknown, or has no targets.
    pub fn to_check(&self, pool: &Name, backend: &Name) -> Result<Orders, Refusal> {
        let of_pool = self.target.pool(pool)?;
        let found = of_pool.backends.get(backend).ok_or_else(|| of_pool.no_backend(backend))?;
        let conflict = |line: String| Refusal::Conflict(format!("{line}; nothing was checked"));
        let check = of_pool.health.check_of(backend).ok_or_else(|| {
            conflict(format!(
                "pool {pool} has no check: its backends count as healthy (maglev pool set {pool} --check \"…\" gives it one)"
            ))
        })?;
        if found.is_disabled() {
            let line = format!("backend {backend} of pool {pool} is disabled (maglev backend enable {pool} {backend})");
            return Err(conflict(line));
        }
        let found = targets(&self.target, of_pool, found, &check).map_err(conflict)?;
        let orders = found.into_iter().map(|(target, check)| {
            let path = self.path(&target).unwrap_or_else(|| Err("its route is being looked up".into()));
            (target, Order { check, path })
        });
        Ok(orders.collect())
    }
}
