//! Values that the `bgp` section and its neighbors share. It must not know which key holds them.

use std::collections::BTreeSet;

use maglev_model::{Community, MAX_COMMUNITIES, parse_duration, shown};

use crate::decode::{self, Section};

/// How often our AS may be prepended.
const MAX_PREPEND: u64 = 10;

/// AS numbers that a speaker can have: 0 and the last are reserved (RFC 7607, RFC 7300), and 23456 stands for numbers that do not
/// fit into 16 bits (RFC 6793).
pub(super) const AS_NUMBERS: &str = "1 to 4294967294, but not 23456";

/// A key that may be missing.
pub(super) fn optional<T, E: std::fmt::Display>(
    section: &Section<'_>,
    key: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Option<Option<T>> {
    section.get(key).map_or(Some(None), |field| field.parse(parse).map(Some))
}

/// The communities of a section; a list that is too long is reported.
pub(crate) fn decode_communities(section: &Section<'_>) -> Option<BTreeSet<Community>> {
    let Some(field) = section.get("communities") else { return Some(BTreeSet::new()) };
    let items = field.items()?;
    if items.len() > MAX_COMMUNITIES {
        field.report(format_args!("{} communities; allowed: at most {MAX_COMMUNITIES}", items.len()));
        return None;
    }
    items.iter().map(|item| item.parse(str::parse::<Community>)).collect::<Vec<_>>().into_iter().collect()
}

pub(super) fn parse_as(text: &str) -> Result<u32, String> {
    const AS_TRANS: u32 = 23_456;
    let found = text.parse().ok().filter(|number| (1..u32::MAX).contains(number) && *number != AS_TRANS);
    found.ok_or_else(|| format!("{} is not an AS number; allowed: {AS_NUMBERS}", shown(text)))
}

/// Whole seconds with a unit, in a range.
pub(super) fn seconds(text: &str, least: u16, most: u16) -> Option<u16> {
    let time = parse_duration(text).filter(|time| time.subsec_nanos() == 0)?;
    u16::try_from(time.as_secs()).ok().filter(|seconds| (least..=most).contains(seconds))
}

pub(super) fn parse_prepend(text: &str) -> Result<u32, String> {
    decode::parse_number_from(0, text, MAX_PREPEND)
}

pub(super) fn parse_u32(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{} is out of range; allowed: 0 to {}", shown(text), u32::MAX))
}
