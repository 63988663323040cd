//! The backend's program as a fuzzer's subject.

use std::collections::BTreeMap;

use anyhow::Result;
use maglev_common::counters::DecapCounter;
use maglev_dataplane::rig::Backend;

use super::balancer::received_as;
use super::{Case, Got};
use crate::oracle::{Balanced, decap};
use crate::world::DecapWorld;

/// The loaded program, and what it has counted.
pub(super) struct Subject<'a> {
    world: &'a DecapWorld,
    backend: Backend,
    counters: Vec<u64>,
    out: Vec<u8>,
}

impl<'a> Subject<'a> {
    /// Loads the program with a world's prefixes.
    pub(super) fn load(world: &'a DecapWorld) -> Result<Self> {
        let backend = Backend::load(&world.sources, &world.vips)?;
        Ok(Self { world, counters: backend.counted(), backend, out: Vec::new() })
    }

    pub(super) fn predict(&self, case: &Case) -> Balanced {
        decap(self.world, &case.frame).into()
    }

    pub(super) fn run(&mut self, case: &Case) -> Got {
        let verdict = match self.backend.receive(&case.frame, &mut self.out) {
            Ok(action) => received_as(action),
            Err(error) => Err(error.to_string()),
        };
        let now = self.backend.counted();
        let moved = DecapCounter::ALL.iter().zip(now.iter().zip(&self.counters));
        let counted: BTreeMap<_, _> = moved
            .filter(|(_, (now, before))| now != before)
            .map(|(counter, (now, before))| (counter.name(), now.wrapping_sub(*before)))
            .collect();
        self.counters = now;
        Got { verdict, bytes: self.out.clone(), mark: 0, counted, miscounted: Vec::new() }
    }
}
