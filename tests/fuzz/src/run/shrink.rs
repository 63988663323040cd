//! Makes a packet that shows a disagreement smaller and plainer, as long as it shows the same kind.

use anyhow::Result;

use super::job::again;
use super::subject::Subject;
use super::{Case, Disagreement, Program};
use crate::packets::LEAST;

/// Rounds over all bytes.
const ROUNDS: usize = 3;

/// The plainest packet found that shows the same. `begun`: packets that may have to come before it, the last one first.
pub(super) fn shrink(
    subject: &mut Subject<'_>,
    program: Program,
    found: Disagreement,
    begun: &[Case],
) -> Result<Disagreement> {
    let signature = found.signature();
    let mut shows = |before: Option<&Case>, case: &Case| -> Result<Option<Disagreement>> {
        Ok(again(subject, program, before, case)?.filter(|other| other.signature() == signature))
    };
    let mut best = None;
    for before in [None].into_iter().chain(begun.iter().map(Some)) {
        best = shows(before, &found.case)?;
        if best.is_some() {
            break;
        }
    }
    let Some(mut best) = best else { return Ok(found) };
    for _ in 0..ROUNDS {
        let before = best.case.clone();
        for candidate in shorter(&best.case) {
            if let Some(other) = shows(best.before.as_ref(), &candidate)? {
                best = other;
                break;
            }
        }
        for at in 0..best.case.frame.len() {
            for value in [0, best.case.frame[at] & 0xf0] {
                let mut candidate = best.case.clone();
                if candidate.frame[at] == value {
                    continue;
                }
                candidate.frame[at] = value;
                if let Some(other) = shows(best.before.as_ref(), &candidate)? {
                    best = other;
                    break;
                }
            }
        }
        if best.case == before {
            break;
        }
    }
    Ok(best)
}

/// The packet cut off, the shortest first.
fn shorter(case: &Case) -> Vec<Case> {
    let length = case.frame.len();
    let cut = |to: usize| Case { frame: case.frame[..to].to_vec(), ..case.clone() };
    (0..64).map(|n| LEAST + (length - LEAST.min(length)) * n / 64).filter(|to| *to < length).map(cut).collect()
}
