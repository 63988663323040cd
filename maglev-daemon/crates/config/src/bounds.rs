//! The size limits of a file. The parser's bounds follow from the limits on services, so that every file that the
//! daemon writes can be read again. It must not know the files' keys.

use std::path::Path;

use maglev_common::maps::{MAX_MEMBERS, MAX_POOLS, MAX_VIPS};
use maglev_model::MAX_COMMUNITIES;
use serde_saphyr::Budget;
use serde_saphyr::budget::BudgetBreach;

use super::check_keys::{COMMON, OF_KINDS};

/// The largest file that is read, and therefore written, in bytes. 32,767 backends with the longest names, states and
/// overrides of port, path and host take nine tenths of it, if paths and hosts are short.
pub const LARGEST: u64 = 16 << 20;

/// A key and its value.
const ENTRY: usize = 2;

/// A map with name, address, weight, state, since, and a check with port, path and host.
const OF_BACKEND: usize = 1 + 6 * ENTRY + 3 * ENTRY;

/// A map with ten keys, of which `transition` holds three and `check` all that checks of any kind take.
const OF_POOL: usize = 1 + 10 * ENTRY + 3 * ENTRY + (COMMON.len() + OF_KINDS.len()) * ENTRY;

/// A map with eight keys, one of them a list of communities.
const OF_VIP: usize = 1 + 8 * ENTRY + MAX_COMMUNITIES;

/// The values that services at their limits need: scalars, lists and maps, keys included.
pub(super) const VALUES: usize =
    1 + 2 * ENTRY + MAX_MEMBERS as usize * OF_BACKEND + MAX_POOLS as usize * OF_POOL + MAX_VIPS as usize * OF_VIP;

/// Values that are read from a file written by hand: it may exceed the limits on services, and is then rejected with its errors.
pub(super) const MOST_VALUES: usize = 2 * VALUES;

/// Levels of lists and maps that are read; the files use seven.
const DEEPEST: usize = 64;

/// The parser's limits for one file.
pub(super) fn budget() -> Option<Budget> {
    serde_saphyr::budget! {
        max_nodes: MOST_VALUES,
        // The end of a list or map is a separate event.
        max_events: 2 * MOST_VALUES + 8,
        max_depth: DEEPEST,
        max_aliases: MAX_MEMBERS as usize,
        // An escape is at least half as long as the text it stands for.
        max_total_scalar_bytes: 2 * LARGEST as usize,
    }
}

/// The message for a file that exceeds a limit of the parser.
pub(super) fn exceeded(breach: &BudgetBreach) -> String {
    match breach {
        BudgetBreach::Depth { .. } => format!("nested deeper than {DEEPEST} levels; remove levels"),
        BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => format!(
            "more than {MOST_VALUES} values, twice what {MAX_MEMBERS} backends, {MAX_POOLS} pools and {MAX_VIPS} VIPs \
             take; remove what is beyond these limits"
        ),
        _ => "too many anchors, aliases or merge keys; write the values out".to_owned(),
    }
}

/// The message for a file that is too large to read.
pub fn too_large_to_read(bytes: u64) -> String {
    format!("{bytes} bytes; allowed: at most {LARGEST} (16 MiB); remove comments, or shorten paths and hosts of checks")
}

/// The message for a file that is not written because it could not be read again.
pub fn too_large_to_write(path: &Path, bytes: usize) -> String {
    format!(
        "{} would have {bytes} bytes; allowed: at most {LARGEST} (16 MiB); shorten paths and hosts of backends' checks, or \
         remove backends",
        path.display()
    )
}
