//! Carries out the steps of a plan on the mapped maps. It must not know why a step is taken, nor the order of steps.

use std::sync::atomic::{Ordering, fence};

use maglev_common::backend::{MemberId, MemberRecord, MemberState, NextHop};
use maglev_common::counters::{Counts, Traffic};
use maglev_common::forwarding::Forwarding;
use maglev_common::pod::Word;
use maglev_common::table::{PoolIndex, PoolWord, SLOTS, SlotWord, TableIndex};
use maglev_common::vip::{Annex, BuildError, Contents, Directory, DirectoryWord, Key, VipId};
use maglev_model::plan::Step;

use super::barrier::Barrier;
use super::error::DataplaneError;
use super::explain;
use super::flows;
use super::maps::Maps;

/// Carries out one step.
pub(super) fn carry_out(maps: &mut Maps, barrier: &mut Barrier, step: &Step) -> Result<(), DataplaneError> {
    match step {
        Step::WriteMember { id, record } => write_member(maps, *id, record),
        Step::SetNextHop { id, next_hop } => change(maps, *id, |member| member.set_next_hop(*next_hop)),
        Step::SetEncap { id, kind } => change(maps, *id, |member| member.set_encap_kind(*kind)),
        Step::FillTable { table, slots } | Step::UpdateTable { table, slots } => {
            fill_table(maps, *table, &slots.words())
        }
        Step::SetIdle { pool, seconds } => set_idle(maps, *pool, *seconds),
        Step::SwitchPool { pool, word } => switch_pool(maps, *pool, *word),
        Step::ResetVip { id } => reset_vip(maps, *id),
        Step::SwitchDirectory4 { contents } => {
            let Forwarding { switch, directories4, annexes4, .. } = maps.forwarding.first_mut();
            switch_directory((directories4, annexes4), &switch.directory4, "IPv4", contents)?;
            barrier.wait()
        }
        Step::SwitchDirectory6 { contents } => {
            let Forwarding { switch, directories6, annexes6, .. } = maps.forwarding.first_mut();
            switch_directory((directories6, annexes6), &switch.directory6, "IPv6", contents)?;
            barrier.wait()
        }
        Step::KillMember { id } => change(maps, *id, |member| member.state.set(member.state().dead().0)),
        Step::RemoveMember { id } => remove_member(maps, *id),
        Step::ReviveMember { id } => change(maps, *id, |member| member.state.set(member.state().living().0)),
        Step::Barrier => barrier.wait(),
        Step::PurgeFlows { ids } => {
            flows::purge(maps, ids);
            Ok(())
        }
    }
}

/// Stores the word that makes earlier writes visible, and not before. The packet path reaches the data that was
/// written through this word's value, which orders its loads.
fn publish(word: &Word, value: u64) {
    fence(Ordering::Release);
    word.set(value);
}

/// Changes a member in place, and how packets are sent to it.
fn change(maps: &Maps, id: MemberId, change: impl FnOnce(&MemberRecord)) -> Result<(), DataplaneError> {
    change(member(maps, id)?);
    maps.forwarding().renew(id);
    Ok(())
}

/// Ends a member. Its addresses stay until the id is allocated again, since packets that are being handled read them; without
/// a state and a next hop, no later packet does.
pub(super) fn remove_member(maps: &Maps, id: MemberId) -> Result<(), DataplaneError> {
    change(maps, id, |member| {
        member.state.set(MemberState::NONE.0);
        member.next_hop.set(NextHop::UNRESOLVED.0);
    })
}

/// Entries that bind no more bind no later flow either, however long the idle time is from now on: none is left.
fn set_idle(maps: &Maps, pool: PoolIndex, seconds: u16) -> Result<(), DataplaneError> {
    let before = maps.forwarding().idle(pool);
    if before != 0 && before < seconds {
        flows::clear_idle(maps, explain::now()?, pool, before);
    }
    maps.forwarding().set_idle(pool, seconds);
    Ok(())
}

fn switch_pool(maps: &Maps, PoolIndex(pool): PoolIndex, word: PoolWord) -> Result<(), DataplaneError> {
    let (index, limit) = (usize::from(pool), maps.sizes.pools as usize);
    let current = maps.forwarding().pools[..limit].get(index).ok_or(out_of_range("pool", index, limit))?;
    publish(current, word.0);
    Ok(())
}

fn reset_vip(maps: &Maps, VipId(id): VipId) -> Result<(), DataplaneError> {
    let (index, limit) = (usize::from(id), maps.sizes.vips as usize);
    if index >= limit {
        return Err(out_of_range("VIP", index, limit));
    }
    reset(maps, |counts| &counts.vips()[index]);
    Ok(())
}

/// The template comes last, though no packet can meet the id yet: a member is sent to only when its record is whole.
fn write_member(maps: &Maps, id: MemberId, record: &MemberRecord) -> Result<(), DataplaneError> {
    let member = member(maps, id)?;
    if member.state().is_alive() && member == record {
        // A plan that failed later is carried out again: the member may be in use by now.
        return Ok(());
    }
    reset(maps, |counts| &counts.members()[usize::from(id.get())]);
    write_record(maps, id, member, record);
    Ok(())
}

/// The same, of one whose traffic is counted already.
pub(super) fn continue_member(maps: &Maps, id: MemberId, record: &MemberRecord) -> Result<(), DataplaneError> {
    write_record(maps, id, member(maps, id)?, record);
    Ok(())
}

fn write_record(maps: &Maps, id: MemberId, member: &MemberRecord, record: &MemberRecord) {
    let MemberRecord { next_hop, state, destination, source, source_hash_mask } = record;
    member.state.set(0);
    member.next_hop.set(next_hop.get());
    for (to, from) in
        [(&member.destination, destination), (&member.source, source), (&member.source_hash_mask, source_hash_mask)]
    {
        to.iter().zip(from).for_each(|(to, from)| to.set(from.get()));
    }
    member.state.set(state.get());
    fence(Ordering::Release);
    maps.forwarding().renew(id);
}

fn fill_table(maps: &Maps, table: TableIndex, slots: &[SlotWord]) -> Result<(), DataplaneError> {
    if table == TableIndex::EMPTY || slots.len() != SLOTS {
        let (what, index) = if table == TableIndex::EMPTY { ("table", 0) } else { ("table length", slots.len()) };
        return Err(DataplaneError::OutOfRange { what, index, limit: SLOTS });
    }
    let (index, limit) = (usize::from(table.0), maps.sizes.tables as usize);
    let table = maps.tables.get(index).ok_or(out_of_range("table", index, limit))?;
    // Only what differs: of a table in use, few slots do, and the packet path's caches hold the rest.
    table.iter().zip(slots).filter(|(to, from)| to.get() != from.0).for_each(|(to, from)| to.set(from.0));
    Ok(())
}

/// Builds the directory that is not in use and switches to it. The other one is built next time, so its readers must
/// have ended by then: a barrier follows.
fn switch_directory<K: Key>(
    (directories, annexes): (&mut [Directory<K>; 2], &mut [Annex; 2]),
    in_use: &Word,
    family: &'static str,
    contents: &Contents<K>,
) -> Result<(), DataplaneError> {
    let unused = DirectoryWord(in_use.get()).directory() ^ 1;
    let refused = |reason: BuildError| DataplaneError::Directory { family, reason };
    let word = directories[unused].build(&mut annexes[unused], unused, contents).map_err(refused)?;
    publish(in_use, word.0);
    Ok(())
}

/// Begins to count anew, on every CPU.
fn reset(maps: &Maps, traffic: impl Fn(&Counts) -> &Traffic) {
    for traffic in maps.counts.values().iter().map(traffic) {
        traffic.packets.set(0);
        traffic.bytes.set(0);
    }
}

fn member(maps: &Maps, id: MemberId) -> Result<&MemberRecord, DataplaneError> {
    let (index, limit) = (usize::from(id.get()), maps.sizes.member_ids as usize);
    if index < limit { Ok(maps.forwarding().member(id)) } else { Err(out_of_range("member", index, limit)) }
}

fn out_of_range(what: &'static str, index: usize, limit: usize) -> DataplaneError {
    DataplaneError::OutOfRange { what, index, limit }
}
