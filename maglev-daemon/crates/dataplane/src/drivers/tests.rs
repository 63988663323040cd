//! Both sides of each limit in the table.

use super::*;

const FEATURES: XdpFeatures = XdpFeatures::BASIC.and(XdpFeatures::REDIRECT);
const WITH_FRAGS: XdpFeatures = FEATURES.and(XdpFeatures::FRAGS);

/// An ordinary interface of a driver; the kernel reports nothing.
fn of(driver: &str) -> Facts {
    Facts { driver: Some(driver.to_owned()), mtu: 1_500, page: Some(4_096), ..Facts::default() }
}

fn with_mtu(driver: &str, mtu: u32, features: Option<XdpFeatures>) -> Facts {
    Facts { mtu, features, ..of(driver) }
}

fn with_queues(driver: &str, rx: u32, combined: u32, max_combined: u32) -> Facts {
    Facts { channels: Some(Channels { rx, combined, max_combined }), ..of(driver) }
}

/// The texts of one weight.
fn texts(facts: &Facts, weight: Weight) -> Vec<String> {
    let findings = findings("eth0", facts, true).into_iter();
    findings.filter(|finding| finding.weight == weight).map(|finding| finding.text).collect()
}

fn refusals(facts: &Facts) -> Vec<String> {
    texts(facts, Weight::Refused)
}

/// A refusal that ends with this.
fn is_refused(facts: &Facts, remedy: &str) -> bool {
    let refusals = refusals(facts);
    refusals.len() == 1 && refusals[0].ends_with(remedy)
}

/// Warnings but for those of restarts.
fn warnings(facts: &Facts) -> Vec<String> {
    texts(facts, Weight::Warning)
}

#[test]
fn drivers_are_in_order_and_named_once() {
    assert!(DRIVERS.windows(2).all(|pair| pair[0].name < pair[1].name));
}

#[test]
fn nothing_is_known_of_other_drivers_or_without_facts() {
    let extreme = Facts { mtu: 65_535, lro: Some(true), cpus: Some(4_096), ..with_queues("r8169", 8, 0, 1) };
    assert_eq!(findings("eth0", &extreme, false), []);
    assert_eq!(findings("eth0", &Facts { driver: None, ..extreme }, false), []);
    for driver in &DRIVERS {
        let facts = Facts { driver: Some(driver.name.to_owned()), mtu: 1_500, ..Facts::default() };
        assert_eq!((refusals(&facts), warnings(&facts)), (vec![], vec![]), "{}", driver.name);
    }
}

#[test]
fn ordinary_interfaces_are_accepted() {
    for driver in &DRIVERS {
        for features in [None, Some(FEATURES), Some(WITH_FRAGS)] {
            let channels = Some(Channels { rx: 0, combined: 4, max_combined: 16 });
            let facts = Facts { lro: Some(false), cpus: Some(8), channels, features, ..of(driver.name) };
            assert_eq!((refusals(&facts), warnings(&facts)), (vec![], vec![]), "{} {features:?}", driver.name);
        }
    }
}

#[test]
fn larger_mtus_are_refused_by_drivers_of_one_buffer() {
    let limits = [
        ("ena", 3_498),
        ("hv_netvsc", 3_506),
        ("igb", 3_046),
        ("igc", 1_500),
        ("ixgbe", 3_050),
        ("ixgbevf", 3_050),
        ("vmxnet3", 3_494),
    ];
    for (driver, largest) in limits {
        for features in [None, Some(FEATURES)] {
            assert_eq!(refusals(&with_mtu(driver, largest, features)), [""; 0], "{driver}");
            let above = with_mtu(driver, largest + 1, features);
            assert!(is_refused(&above, &format!("`ip link set dev eth0 mtu {largest}`")), "{:?}", refusals(&above));
        }
        assert_eq!(refusals(&with_mtu(driver, 9_000, Some(WITH_FRAGS))), [""; 0], "{driver}: a later release");
        let other_page = Facts { page: Some(65_536), ..with_mtu(driver, 9_000, None) };
        assert_eq!(refusals(&other_page), [""; 0], "{driver}");
    }
}

#[test]
fn a_limit_of_older_kernels_is_refused_where_features_are_reported() {
    for (driver, largest) in [("i40e", 3_050), ("ice", 3_046)] {
        assert_eq!(refusals(&with_mtu(driver, largest, Some(FEATURES))), [""; 0]);
        assert_eq!(refusals(&with_mtu(driver, 9_000, Some(WITH_FRAGS))), [""; 0]);
        assert!(is_refused(&with_mtu(driver, largest + 1, Some(FEATURES)), &format!("mtu {largest}`")));
        // Else only the attach shows it.
        let unknown = with_mtu(driver, largest + 1, None);
        assert_eq!(refusals(&unknown), [""; 0]);
        assert!(texts(&unknown, Weight::Cause(None))[0].contains("before Linux 6."));
        assert_eq!(texts(&with_mtu(driver, largest, None), Weight::Cause(None)), [""; 0]);
    }
}

#[test]
fn a_limit_of_some_settings_only_names_the_cause() {
    for driver in ["mlx4_en", "mlx5_core"] {
        for features in [None, Some(FEATURES), Some(WITH_FRAGS)] {
            let above = with_mtu(driver, 3_499, features);
            assert_eq!(refusals(&above), [""; 0], "{driver}");
            assert_eq!(texts(&above, Weight::Cause(None)).len(), 1, "{driver}");
            assert_eq!(texts(&with_mtu(driver, 3_498, features), Weight::Cause(None)), [""; 0]);
        }
    }
}

#[test]
fn virtio_drops_what_does_not_fit() {
    for features in [None, Some(FEATURES)] {
        assert_eq!(warnings(&with_mtu("virtio_net", 3_506, features)), [""; 0]);
        let above = with_mtu("virtio_net", 3_507, features);
        assert_eq!((refusals(&above).len(), texts(&above, Weight::Cause(Some(Errno::EINVAL))).len()), (0, 1));
        assert!(warnings(&above)[0].contains("drops packets of more than 3506 bytes"), "{:?}", warnings(&above));
    }
    let frags = with_mtu("virtio_net", 9_000, Some(WITH_FRAGS));
    assert_eq!((refusals(&frags), warnings(&frags)), (vec![], vec![]));
}

#[test]
fn virtio_warns_of_too_few_queues() {
    let of = |combined, max, cpus| Facts { cpus: Some(cpus), ..with_queues("virtio_net", 0, combined, max) };
    assert_eq!(warnings(&of(4, 8, 4)), [""; 0]);
    assert!(warnings(&of(5, 8, 4))[0].ends_with("`ethtool -L eth0 combined 4`"));
    assert!(warnings(&of(4, 4, 4))[0].ends_with("give the virtual NIC 8 queues"));
    assert_eq!(warnings(&Facts { cpus: None, ..of(4, 4, 4) }), [""; 0]);
}

#[test]
fn lro_is_refused_where_the_driver_refuses_it() {
    for driver in ["hv_netvsc", "mlx5_core"] {
        assert!(is_refused(&Facts { lro: Some(true), ..of(driver) }, "`ethtool -K eth0 lro off`"));
        assert_eq!(refusals(&Facts { lro: Some(false), ..of(driver) }), [""; 0]);
    }
    // vmxnet3 turns it off itself; with ixgbe it may be without effect.
    for driver in ["vmxnet3", "ixgbe"] {
        assert_eq!(refusals(&Facts { lro: Some(true), ..of(driver) }), [""; 0]);
    }
}

#[test]
fn queues_are_refused_where_there_are_too_few() {
    assert_eq!(refusals(&with_queues("ena", 0, 4, 8)), [""; 0]);
    assert!(is_refused(&with_queues("ena", 0, 5, 8), "`ethtool -L eth0 combined 4`"));
    assert!(is_refused(&with_queues("ena", 0, 1, 1), "needs another one for each with XDP"));
    assert_eq!(refusals(&with_queues("bnxt_en", 0, 8, 8)), [""; 0]);
    assert!(is_refused(&with_queues("bnxt_en", 8, 0, 4), "`ethtool -L eth0 rx 0 tx 0 combined 4`"));
    assert_eq!(refusals(&with_queues("bnxt_en", 0, 0, 0)), [""; 0]);
}

#[test]
fn ixgbe_has_queues_for_some_cpus() {
    let of = |cpus| Facts { cpus: Some(cpus), ..of("ixgbe") };
    assert_eq!((refusals(&of(64)), warnings(&of(64))), (vec![], vec![]));
    assert_eq!((refusals(&of(128)).len(), warnings(&of(65)).len()), (0, 1));
    assert!(is_refused(&of(129), "`nr_cpus=128`"));
}

#[test]
fn drivers_without_native_xdp_are_refused_by_what_the_kernel_reports() {
    let none = |driver| Facts { features: Some(XdpFeatures::NONE), ..of(driver) };
    for driver in ["bridge", "vmxnet3"] {
        assert!(is_refused(&none(driver), "has no native XDP"));
    }
    for driver in ["bonding", "ena", "gve", "mlx5_core", "mvpp2", "nicvf", "veth"] {
        assert_eq!(refusals(&none(driver)), [""; 0], "{driver}: others may be reported than there are");
        assert_eq!(texts(&none(driver), Weight::Cause(None)).len(), 1);
    }
}

#[test]
fn a_driver_that_cannot_redirect_is_warned_of_beside_other_interfaces() {
    let beside = |facts: &Facts| -> Vec<String> {
        let alone = findings("eth0", facts, true);
        let new = findings("eth0", facts, false).into_iter().filter(|finding| !alone.contains(finding));
        new.inspect(|finding| assert_eq!(finding.weight, Weight::Warning)).map(|finding| finding.text).collect()
    };
    let redirects = |driver, features| beside(&Facts { features: Some(features), ..of(driver) });
    assert_eq!(redirects("ixgbevf", XdpFeatures::BASIC).len(), 2);
    assert!(redirects("unknown", XdpFeatures::BASIC)[0].contains("routed by another interface"));
    assert!(redirects("mlx4_en", FEATURES)[0].contains("they are dropped"));
    // Drivers report only while a program is attached that they send for other interfaces.
    assert_eq!(redirects("ixgbe", FEATURES), [""; 0]);
    for driver in ["i40e", "mlx5_core"] {
        let queues = |combined, most| beside(&Facts { cpus: Some(8), ..with_queues(driver, 0, combined, most) });
        assert_eq!(queues(8, 8), [""; 0]);
        assert!(queues(4, 16)[0].ends_with("on CPUs from 4 on; `ethtool -L eth0 combined 8`"), "{:?}", queues(4, 16));
        assert!(queues(4, 4)[0].ends_with("receive on the CPUs below 4 only"));
    }
}

#[test]
fn restarts_are_warned_of() {
    let restarts = |driver| !texts(&of(driver), Weight::Moment).is_empty();
    let names = DRIVERS.iter().map(|driver| driver.name).filter(|name| !restarts(name));
    assert_eq!(
        names.collect::<Vec<_>>(),
        ["bonding", "hv_netvsc", "mvpp2", "nicvf", "veth", "virtio_net"],
        "drivers that exchange programs without an interruption, or were not read"
    );
}

#[test]
fn nothing_is_certain_of_a_driver_from_elsewhere() {
    let facts = Facts { out_of_tree: true, ..with_mtu("ixgbe", 9_000, Some(XdpFeatures::NONE)) };
    assert_eq!(refusals(&facts), [""; 0]);
    assert_eq!(texts(&facts, Weight::Cause(None)).len(), 2);
}
