//! What a driver counts of packets that are lost at an interface (`ETHTOOL_GSTATS`): frames without a buffer, full rings, errors. It must
//! not know what the programs count.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;

use super::fenced::Fenced;
use super::offloads::{self, MAX_STATISTICS};

/// Words in the names of statistics of lost packets.
const WORDS: [&str; 19] = [
    "drop",
    "drops",
    "dropped",
    "discard",
    "discards",
    "discarded",
    "err",
    "errs",
    "error",
    "errors",
    "missed",
    "lost",
    "fail",
    "failed",
    "failures",
    "overrun",
    "overruns",
    "oob",
    "exceeded",
];

/// Words that follow each other in such names.
const PHRASES: [&str; 7] = ["out_of_buffer", "no_buf", "nobuf", "no_dma", "no_memory", "no_space", "tx_full"];

/// Words in the names of other statistics: of memory, of rules, of interrupts, of bits on the wire.
const OTHERS: [&str; 7] = ["pp", "cache", "recycle", "fdir", "irq", "irqs", "lane"];

/// What a program drops, which it counts itself.
const BY_PROGRAM: [&str; 2] = ["xdp_drop", "xdp_drops"];

/// Words of names that a queue's number may follow without an underscore.
const QUEUES: [&str; 7] = ["rx", "tx", "rxq", "txq", "q", "queue", "ring"];

/// The statistics of an interface that are about lost packets, by name, those of its queues added up; none if the driver has none. The
/// names are the driver's, in lower case and without the numbers of queues. Blocks as long as the driver takes.
pub fn lost_packets(interface: &str) -> BTreeMap<String, u64> {
    let all = read(interface).inspect_err(|errno| tracing::debug!(interface, %errno, "no statistics of the driver"));
    all.map(|all| without_queues(&all)).unwrap_or_default()
}

/// All statistics, as the driver names them.
fn read(interface: &str) -> Result<Vec<(String, u64)>, Errno> {
    let count = offloads::count_statistics(interface)?;
    match count {
        0 => return Ok(Vec::new()),
        1..=MAX_STATISTICS => {}
        _ => return Err(Errno::E2BIG),
    }
    let mut memory = Fenced::new(offloads::bytes_of_names(count))?;
    let names = offloads::statistic_names(interface, &mut memory, count)?.to_vec();
    let values = offloads::statistics(interface, &mut memory, count)?;
    // Between the questions, the driver may have got other queues.
    if names.len() != values.len() {
        return Err(Errno::EAGAIN);
    }
    let names = names.iter().map(|name| String::from_utf8_lossy(name).trim_matches(['\0', ' ']).to_owned());
    Ok(names.zip(values).collect())
}

/// The statistics of lost packets. Those of queues are left out if the driver has their sum too.
fn without_queues(all: &[(String, u64)]) -> BTreeMap<String, u64> {
    let renamed: Vec<_> = all.iter().map(|(name, count)| (without_number(name), *count)).collect();
    let sums: BTreeSet<_> = renamed.iter().filter(|((_, numbered), _)| !numbered).map(|((name, _), _)| name).collect();
    let mut lost = BTreeMap::new();
    for ((name, numbered), count) in &renamed {
        let is_summed = *numbered && sums.contains(name);
        if !is_summed && is_of_lost_packets(name) {
            let total: &mut u64 = lost.entry(name.clone()).or_default();
            *total = total.saturating_add(*count);
        }
    }
    lost
}

fn is_of_lost_packets(name: &str) -> bool {
    let has = |list: &[&str]| name.split('_').any(|word| list.contains(&word));
    let by_program = BY_PROGRAM.iter().any(|end| name.ends_with(end));
    (has(&WORDS) || PHRASES.iter().any(|phrase| name.contains(phrase))) && !has(&OTHERS) && !by_program
}

/// A name without the number of a queue, and whether it had one: `rx_queue_0_drops`, `rx0_drops`, `[0]: rx_drops`.
fn without_number(name: &str) -> (String, bool) {
    let lower = name.to_ascii_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut numbered = false;
    let kept = words.filter_map(|word| {
        let stem = word.trim_end_matches(|c: char| c.is_ascii_digit());
        let is_number = stem.len() < word.len() && (stem.is_empty() || QUEUES.contains(&stem));
        numbered |= is_number;
        Some(if is_number { stem } else { word }).filter(|word| !word.is_empty())
    });
    let kept = kept.collect::<Vec<_>>().join("_");
    (kept, numbered)
}

#[cfg(test)]
mod tests {
    use maglev_testing::network::{Peer, in_namespace};

    use super::*;

    #[test]
    fn names_lose_the_numbers_of_queues_and_nothing_else() {
        let rows = [
            ("rx_queue_0_xdp_drops", ("rx_queue_xdp_drops", true)),
            ("rx12_xdp_drop", ("rx_xdp_drop", true)),
            ("rx_drop[3]", ("rx_drop", true)),
            ("[0]: rx_discards", ("rx_discards", true)),
            ("  drv dropped rx total", ("drv_dropped_rx_total", false)),
            ("rx_crc32_errors", ("rx_crc32_errors", false)),
            ("Rx_Missed", ("rx_missed", false)),
            ("", ("", false)),
        ];
        for (name, (expected, numbered)) in rows {
            assert_eq!(without_number(name), (expected.to_owned(), numbered), "{name}");
        }
    }

    #[test]
    fn queues_are_added_up_unless_the_driver_does_and_only_losses_are_kept() {
        let all = [
            ("rx_queue_0_drops", 3),
            ("rx_queue_1_drops", 4),
            ("rx_xdp_tx_full", 9),
            ("rx0_xdp_tx_full", 5),
            ("rx1_xdp_tx_full", 4),
            ("rx_packets", 1_000),
            ("tx_errors", 0),
            ("tx0_errors_huge", u64::MAX),
            ("tx1_errors_huge", 1),
        ];
        let all = all.map(|(name, count)| (name.to_owned(), count));
        let expected = [("rx_queue_drops", 7), ("rx_xdp_tx_full", 9), ("tx_errors", 0), ("tx_errors_huge", u64::MAX)];
        assert_eq!(without_queues(&all), expected.map(|(name, count)| (name.to_owned(), count)).into());
    }

    #[test]
    fn lost_packets_are_told_from_other_statistics_by_the_words_of_drivers() {
        let lost = [
            "rx_out_of_buffer",
            "rx_no_dma_resources",
            "pkts_rx_oob",
            "pps_allowance_exceeded",
            "tx_no_memory",
            "rx_missed_errors",
            "rx_queue_xdp_tx_errors",
            "rx_xdp_tx_full",
            "tx_queue_xdp_tx_drops",
            "alloc_rx_buff_failed",
            "drv_dropped_rx_total",
        ];
        let others = [
            "rx_pp_recycle_ring_full",
            "fdir_miss",
            "missed_irqs",
            "tx_deferred_ok",
            "rx_err_lane_phy",
            "rx_queue_xdp_drops",
            "rx_xdp_drop",
            "rx_packets",
            "peer_ifindex",
            "interrupts",
            "rx_cache_full",
        ];
        assert_eq!(lost.into_iter().filter(|name| !is_of_lost_packets(name)).collect::<Vec<_>>(), [""; 0]);
        assert_eq!(others.into_iter().filter(|name| is_of_lost_packets(name)).collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn a_veth_counts_what_its_queues_lost() {
        in_namespace(|| {
            let peer = Peer::new();
            peer.connect("eth1", "eth1");
            let all = read("eth1").unwrap();
            // The only value of a veth that is known beforehand.
            let there = peer.run(|| nix::net::if_::if_nametoindex("eth1").unwrap());
            assert!(all.contains(&("peer_ifindex".to_owned(), there.into())), "{all:?}");
            let lost = lost_packets("eth1");
            assert_eq!(lost.get("rx_queue_xdp_tx_errors"), Some(&0), "{lost:?}");
            assert!(!lost.keys().any(|name| name.contains("packets")), "{lost:?}");
            // What is behind an interface without a driver's statistics, and behind none.
            assert_eq!([lost_packets("lo"), lost_packets("eth9")], [BTreeMap::new(), BTreeMap::new()]);
        });
    }

    #[test]
    fn more_statistics_than_there_is_room_for_are_an_error() {
        in_namespace(|| {
            let peer = Peer::new();
            peer.connect("eth1", "eth1");
            // As if the driver had got more of them since they were counted.
            let mut memory = Fenced::new(offloads::bytes_of_names(1)).unwrap();
            let count = offloads::count_statistics("eth1").unwrap();
            assert_eq!(offloads::statistic_names("eth1", &mut memory, count), Err(Errno::EFAULT));
            assert_eq!(offloads::statistics("eth1", &mut memory, count), Err(Errno::EFAULT));
        });
    }
}
