//! Carries out the steps of a plan on the mapped maps. It must not know why a step is taken, nor the order of steps.

use std::sync::atomic::{Ordering, fence};

use maglev_common::backend::{MemberId, MemberRecord, NextHop};
use maglev_common::counters::Traffic;
use maglev_common::pod::Word;
use maglev_common::table::{SLOTS, SlotWord, TableIndex};
use maglev_common::vip::{BuildError, Directory, Key, Switch, VipWord};

use super::barrier::Barrier;
use super::error::DataplaneError;
use super::flows;
use super::maps::{self, Maps};
use super::shared::{Mapped, Shared};
use crate::plan::Step;

/// Carries out one step.
pub(super) fn carry_out(maps: &mut Maps, barrier: &Barrier, step: &Step) -> Result<(), DataplaneError> {
    match step {
        Step::WriteMember { id, record } => write_member(maps, *id, record),
        Step::SetNextHop { id, next_hop: NextHop(word) } => {
            entry(&maps.members, "member", id.get().into()).map(|member| member.next_hop.set(*word))
        }
        Step::FillTable { table, slots } => fill_table(maps, *table, slots),
        Step::SwitchPool { pool, word } => {
            entry(&maps.pools, "pool", pool.0.into()).map(|current| publish(current, word.0))
        }
        Step::ResetVip { id } => reset(&maps.vip_traffic, maps.sizes.vip_region, "VIP", id.0.into()),
        Step::SwitchDirectory4 { entries } => {
            switch_directory(&mut maps.directories4, &maps.switch, "IPv4", |switch| &switch.directory4, entries)?;
            barrier.wait()
        }
        Step::SwitchDirectory6 { entries } => {
            switch_directory(&mut maps.directories6, &maps.switch, "IPv6", |switch| &switch.directory6, entries)?;
            barrier.wait()
        }
        Step::KillMember { id } => {
            entry(&maps.members, "member", id.get().into()).map(|member| member.state.set(member.state().dead().0))
        }
        Step::Barrier => barrier.wait(),
        Step::PurgeFlows { ids } => {
            flows::purge(maps, ids);
            Ok(())
        }
    }
}

/// Stores the word that makes visible what was written before, and not earlier. The packet path reaches what was
/// written through this word's value, which orders its loads.
fn publish(word: &Word, value: u64) {
    fence(Ordering::Release);
    word.set(value);
}

/// The state comes last, though no packet can meet the id yet: a record is alive only when it is whole.
fn write_member(maps: &Maps, id: MemberId, record: &MemberRecord) -> Result<(), DataplaneError> {
    let member = entry(&maps.members, "member", id.get().into())?;
    if member.state().is_alive() && member == record {
        // A plan that failed later is carried out again: the member may be in use by now.
        return Ok(());
    }
    reset(&maps.member_traffic, maps.sizes.member_region, "member", id.get().into())?;
    let MemberRecord { next_hop, state, destination, source, source_hash_mask } = record;
    member.state.set(0);
    member.next_hop.set(next_hop.get());
    for (to, from) in
        [(&member.destination, destination), (&member.source, source), (&member.source_hash_mask, source_hash_mask)]
    {
        to.iter().zip(from).for_each(|(to, from)| to.set(from.get()));
    }
    publish(&member.state, state.get());
    Ok(())
}

fn fill_table(maps: &Maps, table: TableIndex, slots: &[SlotWord]) -> Result<(), DataplaneError> {
    if table == TableIndex::EMPTY || slots.len() != SLOTS {
        let (what, index) = if table == TableIndex::EMPTY { ("table", 0) } else { ("table length", slots.len()) };
        return Err(DataplaneError::OutOfRange { what, index, limit: SLOTS });
    }
    let words = entry(&maps.tables, "table", table.0.into())?;
    words.iter().zip(maps::words(slots)).for_each(|(to, from)| to.set(from));
    Ok(())
}

/// Builds the directory that is not in use and switches to it. The other one is built next time, so its readers must
/// have ended by then: a barrier follows.
fn switch_directory<K: Key>(
    directories: &mut Mapped<Directory<K>>,
    switch: &Mapped<Switch>,
    family: &'static str,
    word: impl Fn(&Switch) -> &Word,
    entries: &[(K, VipWord)],
) -> Result<(), DataplaneError>
where
    Directory<K>: Shared,
{
    let word = word(entry(switch, "switch", 0)?);
    let unused = (word.get() & 1) ^ 1;
    let directory = directories.get_mut(unused as usize).ok_or_else(|| out_of_range("directory", 2, 2))?;
    let refused = |reason: BuildError| DataplaneError::Directory { family, reason };
    directory.build(entries).map_err(refused)?;
    publish(word, unused);
    Ok(())
}

fn reset(traffic: &Mapped<Traffic>, region: u32, what: &'static str, index: usize) -> Result<(), DataplaneError> {
    if index >= region as usize {
        return Err(out_of_range(what, index, region as usize));
    }
    for traffic in Maps::regions(traffic, region, index) {
        traffic.packets.set(0);
        traffic.bytes.set(0);
    }
    Ok(())
}

fn entry<'a, T: Shared>(map: &'a Mapped<T>, what: &'static str, index: usize) -> Result<&'a T, DataplaneError> {
    map.get(index).ok_or_else(|| out_of_range(what, index, map.values().len()))
}

fn out_of_range(what: &'static str, index: usize, limit: usize) -> DataplaneError {
    DataplaneError::OutOfRange { what, index, limit }
}
