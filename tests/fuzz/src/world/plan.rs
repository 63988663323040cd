//! A world as the steps that publish it, by the same functions that the daemon's plans are made with.

use std::sync::Arc;

use maglev_common::backend::{InterfaceRecord, InterfaceSlot, MemberId, NextHop, Tag};
use maglev_common::settings::{Tracking, UdpPolicy};
use maglev_common::table::{PoolIndex, PoolWord, SLOTS, SlotWord, TableIndex};
use maglev_common::vip::VipId;
use maglev_model::plan::{Listed, Slots, Step, directories, member_record};
use maglev_model::{OuterSources, PacketSettings};

use super::{Backend, Pool, Transition, World};

/// The records of a world's interfaces, in the order of their slots.
pub fn interface_records(world: &World) -> Vec<InterfaceRecord> {
    let record = |interface: &super::Interface| {
        let record = InterfaceRecord::new(interface.mac, interface.index, interface.mtu).with_also(&interface.also);
        match interface.tag {
            Some((protocol, vlan)) => record.tagged(Tag::new(protocol, vlan)),
            None => record,
        }
    };
    world.interfaces.iter().map(record).collect()
}

/// The steps that publish a world.
pub fn steps(world: &World) -> Vec<Step> {
    let mut steps = Vec::new();
    let outer = OuterSources { v4: Some(world.outer4), v6: Some(world.outer6) };
    for (n, pool) in (0..).zip(&world.pools) {
        let index = PoolIndex(n);
        for backend in &pool.backends {
            let record = member_record(index, backend.address, pool.encap, &outer, next_hop(backend));
            steps.push(Step::WriteMember { id: id_of(backend), record });
        }
        if pool.backends.is_empty() {
            continue;
        }
        let (table, Transition { learning, keeps_datagrams, always, .. }) = (TableIndex(2 * n + 1), &pool.transition);
        steps.push(Step::FillTable { table, slots: slots(pool) });
        let tracking = if *always { Tracking::Always } else { Tracking::Exception };
        let udp = if *keeps_datagrams { UdpPolicy::Keep } else { UdpPolicy::New };
        let mut word = PoolWord::settled(table).tracked(tracking, udp);
        if *learning {
            let table = TableIndex(2 * n + 2);
            steps.push(Step::FillTable { table, slots: previous_slots(pool) });
            word = word.learning(table);
        }
        steps.push(Step::SwitchPool { pool: index, word });
    }
    let vips = (0..).zip(&world.vips).map(|(id, vip)| Listed {
        service: vip.service,
        id: VipId(id),
        pool: PoolIndex(vip.pool as u16),
        when_empty: vip.when_empty,
        affinity: vip.affinity,
        is_serving: !world.pools[vip.pool].backends.is_empty(),
    });
    let (four, six) = directories(vips, PacketSettings { unknown_port: world.unknown_port, echo: world.echo });
    steps.extend([Step::SwitchDirectory4 { contents: four }, Step::SwitchDirectory6 { contents: six }]);
    steps
}

fn id_of(backend: &Backend) -> MemberId {
    MemberId::new(backend.id).unwrap_or_default()
}

fn next_hop(backend: &Backend) -> NextHop {
    match backend.next_hop {
        Some(hop) => NextHop::new(hop.mac, InterfaceSlot(hop.slot as u16)).limited_to(hop.mtu),
        None => NextHop::UNRESOLVED,
    }
}

fn slots(pool: &Pool) -> Slots {
    let word = |slot: usize| {
        let owner = id_of(&pool.backends[usize::from(pool.table[slot])]);
        let is_settled = pool.transition.previous.get(slot).is_none_or(|previous| *previous == Transition::NONE);
        if is_settled { SlotWord::settled(owner) } else { SlotWord::moving(owner) }
    };
    (0..SLOTS).map(word).collect::<Arc<[_]>>().into()
}

fn previous_slots(pool: &Pool) -> Slots {
    let word = |slot: usize| {
        let backend = pool.backends.get(usize::from(pool.transition.previous[slot]));
        SlotWord::settled(backend.map_or(MemberId::NOBODY, id_of))
    };
    (0..SLOTS).map(word).collect::<Arc<[_]>>().into()
}
