//! What there is to check of one backend, for an operator who wants to see it. It must not know how, nor count what comes of it.

use maglev_model::{Name, Refusal};

use crate::health::{Order, Orders, targets};

use super::Reconciler;

impl Reconciler {
    /// What is checked of a backend, exactly as its pool says, and by which path.
    ///
    /// # Errors
    /// One line: there is no such backend, or nothing of it can be checked.
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
            let path = self.path(&target).unwrap_or_else(|| Err("the way there is being looked up".into()));
            (target, Order { check, path })
        });
        Ok(orders.collect())
    }
}
