//! Maps of the tests' own: they carry out steps and check after each that a packet handled now, or begun before and
//! not ended yet, sees nothing wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use maglev_common::backend::{MemberId, MemberRecord};
use maglev_common::table::{PoolIndex, PoolWord, SLOTS, SlotWord, TableIndex};
use maglev_common::vip::{Key4, VipId, VipWord};

use maglev_model::plan::{Listed, Live, Step, directories};
use maglev_model::transition::Transition;
use maglev_model::{Name, PacketSettings, Service, Services, Unserved};

#[derive(Debug, Default)]
pub(crate) struct Maps {
    pub(super) members: BTreeMap<u16, MemberRecord>,
    tables: BTreeMap<u16, Filled>,
    pools: BTreeMap<u16, PoolWord>,
    directory: Vec<(Key4, VipWord)>,
    /// Tables unpublished since the last barrier: packets may still read them.
    lingering: BTreeSet<u16>,
    /// Members that flow entries may name.
    in_flows: BTreeSet<u16>,
    killed_since_barrier: BTreeSet<u16>,
    before: Services,
    after: Services,
    /// Whether no plan failed and none was too large for the node's limits: only then is a VIP never without backend.
    strict: bool,
    /// Whether all of a VIP's backends may die.
    pub(super) mortal: bool,
    running: bool,
    /// Whether a plan failed since all was published.
    failed: bool,
}

#[derive(Debug)]
struct Filled {
    slots: Arc<[SlotWord]>,
    owners: BTreeSet<u16>,
}

impl Maps {
    pub(crate) fn begin(&mut self, target: &Services, roomy: bool) {
        // A plan that began and did not end has failed.
        self.failed |= self.running;
        self.strict = roomy && !self.failed;
        self.running = true;
        self.after = target.clone();
    }

    pub(crate) fn end(&mut self) {
        self.running = false;
        assert!(self.lingering.is_empty(), "a plan ends with a barrier after the last unpublication");
    }

    /// Nothing is under way: these services are published.
    pub(super) fn settle(&mut self, services: &Services) {
        self.failed = false;
        self.before = services.clone();
    }

    pub(crate) fn carry_out(&mut self, step: &Step) {
        match step {
            Step::WriteMember { id, record } => self.write_member(id.get(), record),
            Step::SetNextHop { id, next_hop } => {
                let record = self.members.get(&id.get()).unwrap();
                record.set_next_hop(*next_hop);
            }
            Step::SetEncap { id, kind } => self.members[&id.get()].set_encap_kind(*kind),
            Step::FillTable { table, slots } => self.fill(table.0, slots.words().into()),
            Step::UpdateTable { table, slots } => self.update(table.0, slots.words().into()),
            Step::SetIdle { pool: _, seconds } => assert!(*seconds <= u16::MAX / 2),
            Step::SwitchPool { pool, word } => self.switch(pool.0, *word),
            Step::ResetVip { id } => {
                let used = |word: &VipWord| !word.is_address() && word.id() == *id;
                assert!(self.running && (!self.strict || !self.directory.iter().any(|(_, word)| used(word))));
            }
            Step::SwitchDirectory4 { contents } => self.directory.clone_from(&contents.keys),
            Step::SwitchDirectory6 { contents } => assert!(contents.keys.is_empty(), "these tests have no IPv6 VIP"),
            Step::KillMember { id } | Step::RemoveMember { id } => {
                let id = id.get();
                let named = self.in_use().any(|table| self.owners(table).contains(&id));
                assert!(!named, "member {id} dies while a packet may still find it in a table");
                let record = self.members.get(&id).unwrap();
                record.state.set(record.state().dead().0);
                self.killed_since_barrier.insert(id);
            }
            Step::ReviveMember { id } => {
                let record = &self.members[&id.get()];
                assert!(!record.state().is_alive(), "only the dead live again");
                assert!(!self.in_flows.contains(&id.get()), "flow entries of its first life are gone");
                record.state.set(record.state().living().0);
            }
            Step::Barrier => {
                self.lingering.clear();
                self.killed_since_barrier.clear();
            }
            Step::PurgeFlows { ids } => {
                for id in ids.iter().map(|id| id.get()) {
                    assert!(!self.members[&id].state().is_alive(), "only dead members are purged");
                    assert!(!self.killed_since_barrier.contains(&id), "a packet may still write an entry for {id}");
                    self.in_flows.remove(&id);
                }
            }
        }
        self.check();
    }

    /// The daemon was killed: all packets of its time have ended when another one begins, and entries of dead members in flow
    /// tables are cleared.
    pub(crate) fn outlive(&mut self) {
        self.lingering.clear();
        self.killed_since_barrier.clear();
        (self.running, self.failed) = (false, true);
        let members = &self.members;
        self.in_flows.retain(|id| members.get(id).is_some_and(|record| record.state().is_alive()));
    }

    /// Those of another data plane, which begins with these members and the same flow entries.
    pub(super) fn succeed(&self, members: BTreeMap<MemberId, MemberRecord>) -> Self {
        let members: BTreeMap<u16, MemberRecord> = members.into_iter().map(|(id, record)| (id.get(), record)).collect();
        let in_flows = self.in_flows.iter().filter(|id| members.contains_key(id)).copied().collect();
        Self { members, in_flows, before: self.before.clone(), failed: true, mortal: self.mortal, ..Self::default() }
    }

    /// The maps as an adopting daemon finds them.
    pub(crate) fn live(&self, pools: u32) -> Live {
        let word = |index: u32| self.pools.get(&(index as u16)).copied().unwrap_or_default();
        let alive = self.members.iter().filter(|(_, record)| record.state().is_alive());
        let members = alive.filter_map(|(&id, record)| Some((MemberId::new(id)?, record.clone())));
        Live { pools: (0..pools).map(word).collect(), members: members.collect() }
    }

    /// The tables that a pool's word names hold these slots.
    pub(super) fn check_tables(&self, pool: PoolIndex, transition: &Transition) {
        let word = self.pools.get(&pool.0).copied().unwrap_or_default();
        let slots = |table: u16| match table {
            0 => vec![SlotWord::default(); SLOTS],
            table => self.tables[&table].slots.to_vec(),
        };
        let [current, previous] = [word.current(), word.previous()].map(|start| slots(start.table().0));
        assert!(transition.words().eq(current), "pool {}: owners", pool.0);
        assert!(transition.previous_words().eq(previous), "pool {}: previous owners", pool.0);
    }

    /// Per slot the backend of a segment without a flow entry; `None` for a slot without a live owner.
    pub(super) fn routes(&self, pool: PoolIndex) -> Vec<(usize, IpAddr)> {
        let word = self.pools.get(&pool.0).copied().unwrap_or_default();
        let [current, previous] = [word.current(), word.previous()].map(|start| self.tables.get(&start.table().0));
        let Some(current) = current else { return Vec::new() };
        let route = |(slot, word): (usize, &SlotWord)| {
            let previous = previous.filter(|_| word.in_transition()).map(|table| table.slots[slot].owner());
            let id = previous.filter(|id| !id.is_nobody()).unwrap_or(word.owner());
            let member = self.members.get(&id.get()).filter(|member| member.state().serves(pool))?;
            Some((slot, destination(member)))
        };
        // A few slots are as good as all.
        current.slots.iter().enumerate().step_by(61).filter_map(route).collect()
    }

    pub(super) fn is_alive(&self, id: MemberId) -> bool {
        self.members[&id.get()].state().is_alive()
    }

    /// Whether a flow entry may name the member.
    pub(super) fn may_be_in_flows(&self, id: MemberId) -> bool {
        self.in_flows.contains(&id.get())
    }

    fn write_member(&mut self, id: u16, record: &MemberRecord) {
        let named = self.in_use().any(|table| self.owners(table).contains(&id));
        if named || self.in_flows.contains(&id) {
            let old = &self.members[&id];
            assert_eq!((&old.destination, &old.state), (&record.destination, &record.state), "member {id} is in use");
        }
        self.members.insert(id, record.clone());
    }

    fn fill(&mut self, table: u16, slots: Arc<[SlotWord]>) {
        assert_ne!(table, TableIndex::EMPTY.0);
        assert_eq!(slots.len(), SLOTS);
        let in_use = self.in_use().any(|used| used == table);
        assert!(!in_use || self.tables[&table].slots == slots, "table {table} is in use");
        let owners = owners_in(&slots);
        self.tables.insert(table, Filled { slots, owners });
    }

    /// Of a table in use, slots end to learn or to be in transition: each is right before and after.
    fn update(&mut self, table: u16, slots: Arc<[SlotWord]>) {
        let old = &self.tables[&table].slots;
        let previous = self.pools.values().any(|word| word.previous().table().0 == table);
        for (old, new) in old.iter().zip(slots.iter()) {
            let ends = if previous { new.owner().is_nobody() } else { old.owner() == new.owner() };
            assert!(old == new || ends, "{old:?} becomes {new:?} under packets that read it");
        }
        let owners = owners_in(&slots);
        self.tables.insert(table, Filled { slots, owners });
    }

    fn switch(&mut self, pool: u16, word: PoolWord) {
        let tables = |word: PoolWord| [word.current(), word.previous()].map(|start| start.table().0);
        for new in tables(word) {
            assert!(new == 0 || self.tables.contains_key(&new), "a pool switches to a table that was filled");
            let owners = self.owners(new);
            self.in_flows.extend(owners);
        }
        let old = self.pools.insert(pool, word).unwrap_or_default();
        self.lingering.extend(tables(old).into_iter().filter(|old| *old != 0 && !tables(word).contains(old)));
    }

    /// The tables that a packet may read.
    fn in_use(&self) -> impl Iterator<Item = u16> + '_ {
        let named = self.pools.values().flat_map(|word| [word.current(), word.previous()]);
        named.map(|start| start.table().0).filter(|table| *table != 0).chain(self.lingering.iter().copied())
    }

    /// The table that owns a pool's slots.
    fn current(&self, pool: PoolIndex) -> u16 {
        self.pools.get(&pool.0).copied().unwrap_or_default().current().table().0
    }

    fn owners(&self, table: u16) -> BTreeSet<u16> {
        self.tables.get(&table).filter(|_| table != 0).map(|filled| filled.owners.clone()).unwrap_or_default()
    }

    /// The backend that a packet finds now.
    fn check(&self) {
        for (_, word) in self.directory.iter().filter(|(_, word)| !word.is_address()) {
            for id in self.owners(self.current(word.pool())) {
                assert!(self.members[&id].state().serves(word.pool()), "slot owner {id} does not serve its pool");
            }
        }
        if !self.strict || self.mortal {
            return;
        }
        for (service, before) in backends_by_service(&self.before) {
            let after = backends_by_service(&self.after).remove(&service).unwrap_or_default();
            if before.is_empty() || after.is_empty() {
                continue;
            }
            let now = self.backends_of(service).unwrap_or_default();
            assert!(!now.is_empty(), "{service} has no backend, but had some before and will have some");
            // A backend that moves to another pool stays until the directory is switched, whatever happens in the old pool.
            let mut moving = self.before.vips.values().filter(|vip| vip.service == service);
            let left = moving.next().map(|vip| takers(&self.after, &vip.pool)).unwrap_or_default();
            assert!(now.iter().all(|address| [&before, &after, &left].iter().any(|set| set.contains(address))));
        }
    }

    /// In the end, each VIP finds exactly the backends that it should.
    pub(super) fn check_serves(&self, services: &Services) {
        let wanted = backends_by_service(services);
        let vips = self.directory.iter().filter(|(_, word)| !word.is_address()).count();
        assert_eq!(vips, wanted.len());
        for (service, addresses) in wanted {
            assert_eq!(self.backends_of(service), Some(addresses), "{service}");
        }
    }

    /// Whether packets for a VIP are taken.
    pub(crate) fn takes(&self, service: Service) -> bool {
        let key = key_of(service);
        self.directory.iter().any(|(found, _)| *found == key)
    }

    /// Whether packets for a VIP find a backend.
    pub(crate) fn finds_backend(&self, service: Service) -> bool {
        self.backends_of(service).is_some_and(|backends| !backends.is_empty())
    }

    fn backends_of(&self, service: Service) -> Option<BTreeSet<IpAddr>> {
        let key = key_of(service);
        let (_, word) = self.directory.iter().find(|(found, _)| *found == key)?;
        let owners = self.owners(self.current(word.pool()));
        Some(owners.iter().map(|id| destination(&self.members[id])).collect())
    }
}

fn destination(record: &MemberRecord) -> IpAddr {
    let [a, b, c, d, ..] = record.destination[0].get().to_le_bytes();
    IpAddr::from(Ipv4Addr::new(a, b, c, d))
}

/// Per service the addresses of the backends that take new flows.
fn backends_by_service(services: &Services) -> BTreeMap<Service, BTreeSet<IpAddr>> {
    services.vips.values().map(|vip| (vip.service, takers(services, &vip.pool))).collect()
}

/// The addresses of a pool's backends that take new flows.
fn takers(services: &Services, pool: &Name) -> BTreeSet<IpAddr> {
    let backends = services.pools.get(pool).into_iter().flat_map(|pool| pool.backends.values());
    backends.filter(|backend| backend.takes_new_flows()).map(|backend| backend.address).collect()
}

/// The members that a table names. A pool whose backends all take no new flows has a table too, as long as slots learn.
fn owners_in(slots: &[SlotWord]) -> BTreeSet<u16> {
    slots.iter().map(|slot| slot.owner()).filter(|owner| !owner.is_nobody()).map(MemberId::get).collect()
}

/// The directory's key of a service.
fn key_of(service: Service) -> Key4 {
    let (id, pool, when_empty, is_serving) = (VipId(0), PoolIndex(0), Unserved::Drop, true);
    let affinity = maglev_model::Affinity::default();
    let (keys, _) =
        directories([Listed { service, id, pool, when_empty, affinity, is_serving }], PacketSettings::default());
    keys.keys[0].0
}
