//! A services file that is mostly in use already: a pool whose text equals what would be written for the known pool is taken over
//! without being parsed. It must not know a pool's content.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use maglev_model::{Name, Pool, Rules, Services};

use super::decode::Collector;
use super::services::{decode, decode_root, write_pool};
use super::{Problems, tree};

/// The first line of the list of pools, and how each of them begins, as they are written.
const POOLS: &str = "pools:\n";
const POOL: &str = "  - ";
const NAME: &str = "name: ";

/// Reads the services like [`decode`], in time proportional to what is new: pools with the same text as these known services are
/// taken over. `known` follow the same rules.
///
/// # Errors
/// All errors, each with line and field.
pub fn decode_since(file: &Path, text: &str, rules: &Rules, known: &Services) -> Result<Services, Problems> {
    decode_new(file, text, rules, known).map_or_else(|| decode(file, text, rules), Ok)
}

/// The services of the file, if it has the form that the daemon writes and no errors.
fn decode_new(file: &Path, text: &str, rules: &Rules, known: &Services) -> Option<Services> {
    let Split { rest, kept } = split(text, known)?;
    let root = tree::parse_plain(&rest)?;
    let out = Collector::new(file);
    let services = decode_root(&root, &out, Services { pools: kept, ..Services::default() }, rules);
    out.finish().is_empty().then_some(services)
}

/// A file without the pools that are known.
struct Split {
    rest: String,
    kept: BTreeMap<Name, Arc<Pool>>,
}

fn split(text: &str, known: &Services) -> Option<Split> {
    let (head, behind) = match text.strip_prefix(POOLS) {
        Some(behind) => ("", behind),
        None => text.split_once("\npools:\n")?,
    };
    // Up to the next key of the document.
    let end = line_starts(behind).find(|&at| behind[at..].starts_with(|first: char| first.is_ascii_lowercase()));
    let (pools, tail) = behind.split_at(end?);
    if !pools.starts_with(POOL) {
        return None;
    }
    let (mut kept, mut new) = (BTreeMap::new(), String::new());
    let starts: Vec<_> = line_starts(pools).filter(|&at| pools[at..].starts_with(POOL)).collect();
    for (n, &start) in starts.iter().enumerate() {
        let chunk = &pools[start..starts.get(n + 1).copied().unwrap_or(pools.len())];
        match known_pool(chunk, known) {
            Some(pool) if !kept.contains_key(&pool.name) => drop(kept.insert(pool.name.clone(), Arc::clone(pool))),
            _ => new.push_str(chunk),
        }
    }
    let list = if new.is_empty() { "pools: []\n" } else { POOLS };
    Some(Split { rest: [head, "\n", list, &new, tail].concat(), kept })
}

/// The known pool with exactly this text.
fn known_pool<'a>(chunk: &str, known: &'a Services) -> Option<&'a Arc<Pool>> {
    let name = chunk.strip_prefix(POOL)?.strip_prefix(NAME)?.lines().next()?;
    let pool = known.pools.get(&Name::parse(name.trim_matches('"')).ok()?)?;
    let mut written = String::with_capacity(chunk.len());
    write_pool(&mut written, pool).ok()?;
    (written == chunk).then_some(pool)
}

/// Where lines begin.
fn line_starts(text: &str) -> impl Iterator<Item = usize> {
    let behind = text.match_indices('\n').map(|(at, _)| at + 1).filter(|&at| at < text.len());
    (!text.is_empty()).then_some(0).into_iter().chain(behind)
}
