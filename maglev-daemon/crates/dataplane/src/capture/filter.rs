//! A capture's conditions as the program reads them. It must not know which captures run.

use ipnet::IpNet;
use maglev_common::backend::MemberId;
use maglev_common::capture::{AddressWords, DecisionWord, Filter, FilterFamily};

use super::{CaptureFilter, CaptureTarget, packet};

/// Writes the conditions of a filter that takes nothing yet.
pub(super) fn write(filter: &Filter, wanted: &CaptureFilter, kept: u32) {
    let CaptureFilter { target: _, counters, client, port, tcp_flags, one_in, kept: _, rate, lasts: _ } = wanted;
    filter.until.set(0);
    filter.counters.set(*counters);
    let family = match client {
        Some(IpNet::V4(_)) => FilterFamily::V4,
        Some(IpNet::V6(_)) => FilterFamily::V6,
        None if port.is_some() || tcp_flags.0 != 0 => FilterFamily::Either,
        None => FilterFamily::Unread,
    };
    filter.family.set(family as u64);
    put_prefix((&filter.client_mask, &filter.client), *client);
    filter.port.set(u64::from(port.unwrap_or(0).swap_bytes()));
    let (mask, values) = *tcp_flags;
    filter.tcp_flags.set(u64::from(mask) | u64::from(values & mask) << 8);
    filter.sampled.set((1 << 32) / u64::from((*one_in).max(1)));
    filter.kept.set(u64::from(kept));
    filter.rate.set(u64::from(*rate));
}

/// Writes by which numbers a filter takes packets.
pub(super) fn aim(filter: &Filter, target: Option<CaptureTarget>) {
    let Some(CaptureTarget { vip, pool, member }) = target else {
        // Values that these bits cannot have.
        filter.ids_mask.set(DecisionWord::POOL);
        filter.ids.set(u64::MAX);
        return;
    };
    let mut mask = 0;
    let mut take = |is_given: bool, bits: u64| mask |= if is_given { bits } else { 0 };
    take(vip.is_some(), DecisionWord::VIP);
    take(pool.is_some(), DecisionWord::POOL);
    take(member.is_some(), DecisionWord::MEMBER);
    let (id, prefix) = vip.unzip();
    let member = member.unwrap_or(MemberId::NOBODY);
    let ids = DecisionWord::new(id.unwrap_or_default(), pool.unwrap_or_default(), member, 0).0 & mask;
    put_prefix((&filter.service_mask, &filter.service), prefix);
    filter.ids.set(ids);
    filter.ids_mask.set(mask);
}

/// Writes a prefix as a mask and a value; none takes any address.
fn put_prefix((mask, value): (&AddressWords, &AddressWords), prefix: Option<IpNet>) {
    let (bits, address) =
        prefix.map_or(([0; 2], [0; 2]), |prefix| (packet::words(prefix.netmask()), packet::words(prefix.network())));
    mask.iter().zip(bits).for_each(|(word, bits)| word.set(bits));
    value.iter().zip(address).for_each(|(word, address)| word.set(address));
}
