//! `/metrics` of a backend, made from the same views as the answers of `maglev decap`.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use maglev_api::view::{DecapCounters, DecapStatus};

use super::CONTENT;
use super::text::{Registry, count, measure};

/// Bytes of all series: a buffer with enough room is not copied while it grows.
const BYTES: usize = 4 * 1024;

/// The metrics of a backend as an answer.
pub(crate) fn page(status: &DecapStatus, counters: &DecapCounters) -> Response {
    ([(CONTENT_TYPE, CONTENT)], registered(status, counters).end()).into_response()
}

pub(super) fn registered(status: &DecapStatus, counters: &DecapCounters) -> Registry {
    let mut registry = Registry::with_capacity(BYTES);
    let packets = counters.counters.iter().map(|counter| {
        let labels = [("reason", counter.name.clone()), ("outcome", counter.outcome.clone())];
        (labels, counter.packets)
    });
    let help = "Packets that reached a backend by outcome; maglev decap counters explains each reason";
    count(&mut registry, "decap_packets", help, packets);

    let attached = status.interfaces.iter().map(|interface| {
        let labels = [("interface", interface.name.clone()), ("mode", interface.mode.clone())];
        (labels, u64::from(interface.attached))
    });
    let help = "Whether the program that decapsulates is attached to an interface";
    measure(&mut registry, "decap_interface_attached", help, attached);
    let adopted = status.interfaces.iter().map(|interface| {
        let labels = [("interface", interface.name.clone())];
        (labels, u64::from(interface.adopted))
    });
    let help = "Whether program and counters of an interface were adopted from a previous process";
    measure(&mut registry, "decap_interface_adopted", help, adopted);

    let help = "Prefixes of outer sources that packets are unwrapped from";
    measure(&mut registry, "decap_sources", help, [([], status.sources.len() as u64)].into_iter());
    let help = "Prefixes of VIPs that packets are unwrapped for";
    measure(&mut registry, "decap_vips", help, [([], status.vips.len() as u64)].into_iter());
    let help = "Addresses on lo beyond the limit of VIPs: packets for these are dropped";
    measure(&mut registry, "decap_vips_beyond_limit", help, [([], status.vips_beyond_limit as u64)].into_iter());
    let help = "Changed fields of decap.yaml that need a restart";
    measure(&mut registry, "decap_restart_needed", help, [([], status.restart_needed.len() as u64)].into_iter());

    let reloads = || status.last_reload.iter();
    let help = "Whether the last reload of decap.yaml succeeded";
    measure(&mut registry, "decap_reload_successful", help, reloads().map(|last| ([], u64::from(last.successful))));
    let help = "Time of the last reload of decap.yaml, in seconds since 1970";
    measure(&mut registry, "decap_reload_timestamp_seconds", help, reloads().map(|last| ([], last.unix_seconds)));

    let build = [("version", status.version.clone()), ("object", status.object.clone())];
    let help = "The release, and SHA-256 of the backend's eBPF object";
    measure(&mut registry, "decap_build_info", help, [(build, 1)].into_iter());
    let help = "Seconds since maglevd decap started";
    measure(&mut registry, "decap_uptime_seconds", help, [([], status.uptime_seconds)].into_iter());
    registry
}

#[cfg(test)]
pub(super) mod tests {
    use maglev_api::view::{Counter, DecapInterface, LastReload};
    use maglev_common::counters::DecapCounter;

    use super::*;

    /// A backend on which every family has series.
    pub(in crate::metrics) fn backend() -> (DecapStatus, DecapCounters) {
        let interface = DecapInterface { name: "eth0".into(), mode: "native".into(), ..DecapInterface::default() };
        let status = DecapStatus {
            interfaces: vec![DecapInterface { attached: true, adopted: true, ..interface }],
            vips: vec!["203.0.113.10".into(), "2001:db8::10".into()],
            last_reload: Some(LastReload { unix_seconds: 1_700_000_000, successful: false }),
            ..DecapStatus::default()
        };
        let counters = DecapCounter::ALL.iter().zip(1..).map(|(counter, packets)| Counter {
            name: counter.name().into(),
            outcome: counter.outcome().as_str().into(),
            packets,
            help: counter.help().into(),
        });
        (status, DecapCounters { counters: counters.collect() })
    }

    #[test]
    fn the_text_holds_every_kind_of_series() {
        let (status, counters) = backend();
        let text = registered(&status, &counters).end();
        for line in [
            r#"maglev_decap_packets_total{reason="decapsulated",outcome="forwarded"} 1"#,
            r#"maglev_decap_packets_total{reason="foreign_source",outcome="passed"} 3"#,
            r#"maglev_decap_interface_attached{interface="eth0",mode="native"} 1"#,
            r#"maglev_decap_interface_adopted{interface="eth0"} 1"#,
            "maglev_decap_sources 0",
            "maglev_decap_vips 2",
            "maglev_decap_reload_successful 0",
            "maglev_decap_reload_timestamp_seconds 1700000000",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        let first = registered(&DecapStatus::default(), &DecapCounters::default()).end();
        assert!(!first.contains("reload"), "before a reload there is none:\n{first}");
    }
}
