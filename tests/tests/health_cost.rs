//! The cost of health checks.

use std::time::Duration;

use anyhow::{Result, ensure};
use maglev_e2e::{
    checks::{CASES, Case, Checks, TARGET},
    lab::skip,
    matrix::Matrix,
};

/// How long is measured: CPU time comes in hundredths of a second.
const LASTS: Duration = Duration::from_secs(10);

/// The allowance for a machine that is busy otherwise.
const ROOM: f64 = 2.0;

#[test]
fn hundreds_of_checks_a_second_cost_a_part_of_one_core() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut checks = Checks::new()?;
    for case in CASES {
        let Case { kind, via, backends } = case;
        Matrix::Health.row("cost", &format!("{backends} backends checked each second by {kind}, via {via}"), || {
            let cost = checks.cost(case, LASTS)?;
            let [core, idle, target] = [cost.core, cost.idle, TARGET].map(|part| part * 100.0);
            ensure!(cost.core < TARGET * ROOM, "{core:.1} % of one core");
            Ok(format!("{core:.1} % of one core, {idle:.1} % without checks; at most {target:.0} % are wanted"))
        })?;
    }
    Ok(())
}
