//! What drivers demand of an interface for native XDP: a table from their sources in Linux 6.1 to 6.12, and what follows for one
//! interface. It must not know how facts are read, nor what is attached.
//!
//! A row refuses only what every kernel since 6.1 refuses, or what the reported features rule out. A limit that depends on more than
//! the facts names the probable cause once the kernel has refused. Our programs accept packets in several buffers (`xdp.frags`).

use maglev_net::xdp::XdpFeatures;
use nix::errno::Errno;

use super::offloads::Channels;

/// The facts about an interface; `None` where driver or kernel do not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The driver's name.
    pub(super) driver: Option<String>,
    /// Whether the driver was built outside of the kernel's source tree: other releases of it may have other limits.
    pub(super) out_of_tree: bool,
    /// In bytes, IP header included.
    pub(super) mtu: u32,
    /// Its queues.
    pub(super) channels: Option<Channels>,
    /// Whether LRO is on.
    pub(super) lro: Option<bool>,
    /// The features of native XDP, which Linux reports since 6.3.
    pub(super) features: Option<XdpFeatures>,
    /// One more than the highest number a CPU can have (`nr_cpu_ids`).
    pub(super) cpus: Option<u32>,
    /// Bytes in a page of memory.
    pub(super) page: Option<u32>,
}

/// What a finding means for an attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// The attach will be refused.
    Refused,
    /// The probable cause if the attach was refused: with this error, or with any.
    Cause(Option<Errno>),
    /// It works, with a disadvantage.
    Warning,
    /// It works, but packets stop for a moment while a program is attached.
    Moment,
}

/// One limit that an interface is beyond, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// What it means.
    pub(super) weight: Weight,
    /// Without the name of the interface, unless a command names it.
    pub(super) text: String,
}

/// A driver's limits.
struct Driver {
    name: &'static str,
    limits: &'static [Limit],
}

/// What a driver demands, or does.
enum Limit {
    /// The MTU whose frames fit one buffer, with pages of 4,096 bytes and the smallest `struct skb_shared_info` there is.
    Mtu(u32, Frags),
    /// LRO is off.
    NoLro,
    /// At most half of the queues that there can be are in use.
    HalfOfQueues,
    /// Queues are combined.
    Combined,
    /// A queue for each CPU beside those in use; without them, packets are sent under a lock.
    QueuePerCpu,
    /// At most so many CPUs; above the second number, packets are sent under a lock.
    Cpus(u32, u32),
    /// Packets that other interfaces redirect are sent by the queue of the CPU, if there is one.
    QueueOfCpu,
    /// Packets that other interfaces redirect are not sent.
    NoRedirected,
    /// The queues are set up anew at these times.
    Restarts(&'static str),
    /// The reported features are those of the present settings, or of the time at which the interface came: no reason to refuse.
    FeaturesVary,
    /// A cause that no fact shows, of refusals with this error.
    Hidden(Errno, &'static str),
}

/// The outcome of a larger MTU.
enum Frags {
    /// It is refused.
    Never,
    /// It is refused before this release.
    Since(&'static str),
    /// Some kernels refuse it, and others drop the packets that do not fit.
    Dropped(&'static str),
    /// It is refused by some kernels, or in the settings that these words name.
    Sometimes(&'static str),
}

/// The driver of bonds.
pub(super) const BONDING: &str = "bonding";

const ONCE: &str = "attached or detached";
const ALWAYS: &str = "attached, detached or replaced";

/// In the order of the drivers' names.
const DRIVERS: [Driver; 18] = [
    Driver {
        // `drivers/net/ethernet/broadcom/bnxt/bnxt_xdp.c`: `bnxt_xdp_set`.
        name: "bnxt_en",
        limits: &[
            Limit::Combined,
            Limit::Hidden(
                Errno::ENOMEM,
                "the NIC has no transmit ring left for each receive ring; use fewer (`ethtool -L`)",
            ),
            Limit::Restarts(ALWAYS),
        ],
    },
    Driver {
        // `drivers/net/bonding/bond_main.c`: `bond_xdp_set`, `bond_xdp_set_features`.
        name: BONDING,
        limits: &[
            Limit::FeaturesVary,
            Limit::Hidden(
                Errno::EOPNOTSUPP,
                "the mode of the bond or the driver of a member has no native XDP, or a member runs a program itself",
            ),
        ],
    },
    Driver {
        // `drivers/net/ethernet/amazon/ena/ena_xdp.h`: `ENA_XDP_MAX_MTU`, `ena_xdp_allowed`. Features as of the probe.
        name: "ena",
        limits: &[Limit::Mtu(3_498, Frags::Never), Limit::HalfOfQueues, Limit::FeaturesVary, Limit::Restarts(ONCE)],
    },
    // `drivers/net/ethernet/google/gve/gve_main.c`: `gve_set_netdev_xdp_features`.
    Driver { name: "gve", limits: &[Limit::FeaturesVary, Limit::Restarts(ONCE)] },
    // `drivers/net/hyperv/netvsc_bpf.c`: `netvsc_xdp_set`.
    Driver { name: "hv_netvsc", limits: &[Limit::Mtu(3_506, Frags::Never), Limit::NoLro] },
    // `drivers/net/ethernet/intel/i40e/{i40e_main,i40e_txrx}.c`: `i40e_xdp_setup`, `i40e_xdp_xmit`.
    Driver {
        name: "i40e",
        limits: &[Limit::Mtu(3_050, Frags::Since("6.4")), Limit::QueueOfCpu, Limit::Restarts(ONCE)],
    },
    Driver {
        // `drivers/net/ethernet/intel/ice/ice_main.c`: `ice_xdp_setup_prog`, `ice_vsi_determine_xdp_res`, `ice_xdp_safe_mode`.
        name: "ice",
        limits: &[
            Limit::Mtu(3_046, Frags::Since("6.3")),
            Limit::Hidden(
                Errno::ENOMEM,
                "fewer transmit queues are free than half of the CPUs; use fewer (`ethtool -L`)",
            ),
            Limit::Hidden(Errno::EOPNOTSUPP, "driver ice found no DDP firmware package at its start"),
            Limit::Restarts(ONCE),
        ],
    },
    // `drivers/net/ethernet/intel/igb/igb_main.c`: `igb_xdp_setup`.
    Driver { name: "igb", limits: &[Limit::Mtu(3_046, Frags::Never), Limit::Restarts(ONCE)] },
    // `drivers/net/ethernet/intel/igc/igc_xdp.c`: `igc_xdp_set_prog`.
    Driver { name: "igc", limits: &[Limit::Mtu(1_500, Frags::Never), Limit::Restarts(ALWAYS)] },
    Driver {
        // `drivers/net/ethernet/intel/ixgbe/ixgbe_main.c`: `ixgbe_xdp_setup`.
        name: "ixgbe",
        limits: &[
            Limit::Mtu(3_050, Frags::Never),
            Limit::Cpus(128, 64),
            Limit::Hidden(Errno::EINVAL, "driver ixgbe refuses XDP while SR-IOV, DCB or LRO is on"),
            Limit::Restarts(ONCE),
        ],
    },
    // `drivers/net/ethernet/intel/ixgbevf/ixgbevf_main.c`: `ixgbevf_xdp_setup`; there is no `ndo_xdp_xmit`.
    Driver { name: "ixgbevf", limits: &[Limit::Mtu(3_050, Frags::Never), Limit::NoRedirected, Limit::Restarts(ONCE)] },
    // `drivers/net/ethernet/mellanox/mlx4/en_netdev.c`: `mlx4_xdp_set`; there is no `ndo_xdp_xmit`. The limit was higher before a fix.
    Driver {
        name: "mlx4_en",
        limits: &[Limit::Mtu(3_498, Frags::Sometimes("")), Limit::NoRedirected, Limit::Restarts(ONCE)],
    },
    Driver {
        // `drivers/net/ethernet/mellanox/mlx5/core/en_main.c`: `mlx5e_xdp_allowed`, `mlx5e_params_validate_xdp`; `mlx5e_xdp_xmit`.
        name: "mlx5_core",
        limits: &[
            Limit::NoLro,
            Limit::QueueOfCpu,
            Limit::Mtu(3_498, Frags::Sometimes(" with striding receive queues (private flag rx_striding_rq)")),
            Limit::Hidden(
                Errno::EINVAL,
                "driver mlx5_core refuses XDP while hardware GRO is on (`ethtool -K`, rx-gro-hw)",
            ),
            Limit::FeaturesVary,
            Limit::Restarts(ONCE),
        ],
    },
    // `drivers/net/ethernet/marvell/mvpp2/mvpp2_main.c`, `drivers/net/ethernet/cavium/thunder/nicvf_ethtool.c`.
    Driver { name: "mvpp2", limits: &[Limit::FeaturesVary] },
    Driver { name: "nicvf", limits: &[Limit::FeaturesVary] },
    Driver {
        // `drivers/net/veth.c`: `veth_xdp_set`, `veth_set_xdp_features`.
        name: "veth",
        limits: &[
            Limit::FeaturesVary,
            Limit::Hidden(
                Errno::ENOSPC,
                "it has fewer receive queues than its peer has transmit queues (`ethtool -L`)",
            ),
            Limit::Hidden(Errno::ERANGE, "the MTU of its peer is too large"),
        ],
    },
    Driver {
        // `drivers/net/virtio_net.c`: `virtnet_xdp_set`, `xdp_linearize_page`. Before 6.3, 4,064 bytes are accepted.
        name: "virtio_net",
        limits: &[
            Limit::Mtu(3_506, Frags::Dropped("6.3")),
            Limit::QueuePerCpu,
            Limit::Hidden(
                Errno::EOPNOTSUPP,
                "the host merges packets, and the guest cannot turn that off; turn off guest_tso4, guest_tso6, guest_ecn, \
                 guest_ufo and guest_csum of the virtual NIC",
            ),
        ],
    },
    // `drivers/net/vmxnet3/vmxnet3_xdp.c`: `vmxnet3_xdp_set`.
    Driver { name: "vmxnet3", limits: &[Limit::Mtu(3_494, Frags::Never), Limit::Restarts(ONCE)] },
];

/// The findings about an interface: refusals, causes and warnings. `alone` if every packet is sent on the interface
/// that received it.
pub(super) fn findings(interface: &str, facts: &Facts, alone: bool) -> Vec<Finding> {
    let Some(name) = facts.driver.as_deref() else { return Vec::new() };
    let limits = DRIVERS.iter().find(|driver| driver.name == name).map_or(&[][..], |driver| driver.limits);
    let mut findings: Vec<_> = limits
        .iter()
        .flat_map(|limit| limit.findings(interface, name, facts, alone))
        .chain(reported(name, facts, limits))
        .collect();
    if let Some(features) = facts.features.filter(|features| features.has(XdpFeatures::BASIC))
        && !alone
        && !features.has(XdpFeatures::REDIRECT)
    {
        findings.push(warning(format!("driver {name} drops packets that are routed by another interface")));
    }
    if facts.out_of_tree {
        let unsure = findings.iter_mut().filter(|finding| finding.weight == Weight::Refused);
        unsure.for_each(|finding| finding.weight = Weight::Cause(None));
    }
    findings
}

/// What the kernel reports of drivers without native XDP.
fn reported(name: &str, facts: &Facts, limits: &[Limit]) -> Option<Finding> {
    facts.features.filter(|features| !features.has(XdpFeatures::BASIC))?;
    let varies = limits.iter().any(|limit| matches!(limit, Limit::FeaturesVary));
    let weight = if varies { Weight::Cause(None) } else { Weight::Refused };
    let state = if varies { " with its present settings" } else { "" };
    Some(Finding { weight, text: format!("driver {name} has no native XDP{state}") })
}

impl Limit {
    fn findings(&self, interface: &str, name: &str, facts: &Facts, alone: bool) -> Vec<Finding> {
        match self {
            Self::Mtu(largest, frags) => mtu(interface, name, facts, *largest, frags),
            Self::NoLro if facts.lro == Some(true) => {
                let text = format!("driver {name} refuses XDP while LRO is on: `ethtool -K {interface} lro off`");
                vec![refused(text)]
            }
            Self::HalfOfQueues => facts.channels.and_then(|of| half(interface, name, of)).into_iter().collect(),
            Self::Combined => facts.channels.and_then(|of| combined(interface, name, of)).into_iter().collect(),
            Self::QueuePerCpu => {
                facts.channels.zip(facts.cpus).and_then(|(of, cpus)| per_cpu(interface, of, cpus)).into_iter().collect()
            }
            Self::Cpus(most, unlocked) => match facts.cpus {
                Some(cpus) if cpus > *most => {
                    let text = format!("{cpus} possible CPUs are above the limit of driver {name} for XDP, {most}");
                    vec![refused(format!("{text}: start the kernel with `nr_cpus={most}`"))]
                }
                Some(cpus) if cpus > *unlocked => {
                    let text = format!("driver {name} has {unlocked} XDP queues for {cpus} CPUs");
                    vec![warning(format!("{text}: packets are sent under a lock"))]
                }
                _ => Vec::new(),
            },
            Self::QueueOfCpu if !alone => facts
                .channels
                .zip(facts.cpus)
                .and_then(|(of, cpus)| of_cpu(interface, name, of, cpus))
                .into_iter()
                .collect(),
            Self::NoRedirected if !alone => {
                vec![warning(format!(
                    "driver {name} sends no packets that come in by another interface: they are dropped"
                ))]
            }
            Self::Restarts(when) => {
                let text = format!("driver {name} sets up its queues anew when a program is {when}");
                let text = format!("{text}: no packets pass meanwhile, and the link may go down");
                vec![Finding { weight: Weight::Moment, text }]
            }
            Self::Hidden(errno, text) => {
                vec![Finding { weight: Weight::Cause(Some(*errno)), text: (*text).to_owned() }]
            }
            Self::NoLro | Self::QueueOfCpu | Self::NoRedirected | Self::FeaturesVary => Vec::new(),
        }
    }
}

/// An MTU whose frames do not fit one buffer.
fn mtu(interface: &str, name: &str, facts: &Facts, largest: u32, frags: &Frags) -> Vec<Finding> {
    let frags_reported = facts.features.is_some_and(|features| features.has(XdpFeatures::FRAGS));
    if facts.mtu <= largest || facts.page != Some(4_096) || (frags_reported && !matches!(frags, Frags::Sometimes(_))) {
        return Vec::new();
    }
    let case = match frags {
        Frags::Never => String::new(),
        Frags::Since(release) | Frags::Dropped(release) => format!(" before Linux {release}"),
        Frags::Sometimes(case) => (*case).to_owned(),
    };
    let (mtu, remedy) = (facts.mtu, format!("`ip link set dev {interface} mtu {largest}`"));
    let text = format!("MTU {mtu} is above the limit of driver {name} for XDP{case}, {largest}: {remedy}");
    match frags {
        Frags::Never => vec![refused(text)],
        Frags::Since(_) if facts.features.is_some() => vec![refused(text)],
        Frags::Since(_) | Frags::Sometimes(_) => vec![Finding { weight: Weight::Cause(None), text }],
        Frags::Dropped(_) => {
            let cause = Finding { weight: Weight::Cause(Some(Errno::EINVAL)), text };
            let lost = format!("MTU {mtu}: driver {name} drops packets of more than {largest} bytes{case}");
            vec![cause, warning(format!("{lost}, and where the host has no mergeable buffers: {remedy}"))]
        }
    }
}

/// More than half of the queues are in use.
fn half(interface: &str, name: &str, Channels { combined, max_combined, .. }: Channels) -> Option<Finding> {
    (2 * u64::from(combined) > u64::from(max_combined)).then(|| {
        let text = format!(
            "{combined} of {max_combined} queues are in use, and driver {name} needs another one for each with XDP"
        );
        refused(match max_combined / 2 {
            0 => text,
            half => format!("{text}: `ethtool -L {interface} combined {half}`"),
        })
    })
}

/// Queues receive or send, and none does both.
fn combined(interface: &str, name: &str, Channels { rx, combined, max_combined }: Channels) -> Option<Finding> {
    (combined == 0 && rx > 0).then(|| {
        let count = rx.min(max_combined.max(1));
        refused(format!(
            "driver {name} runs XDP on combined queues only: `ethtool -L {interface} rx 0 tx 0 combined {count}`"
        ))
    })
}

/// Fewer queues are free than there are CPUs.
fn per_cpu(interface: &str, Channels { combined, max_combined, .. }: Channels, cpus: u32) -> Option<Finding> {
    (u64::from(combined) + u64::from(cpus) > u64::from(max_combined)).then(|| {
        let text =
            format!("{combined} of {max_combined} queues are in use, and XDP uses another one for each of {cpus} CPUs");
        let remedy = match max_combined.saturating_sub(cpus) {
            0 => format!("give the virtual NIC {} queues", u64::from(cpus) + u64::from(combined)),
            free => format!("`ethtool -L {interface} combined {free}`"),
        };
        warning(format!("{text}: packets are sent under a lock, which is slower; {remedy}"))
    })
}

/// CPUs without a queue.
fn of_cpu(
    interface: &str,
    name: &str,
    Channels { combined, max_combined, .. }: Channels,
    cpus: u32,
) -> Option<Finding> {
    (combined < cpus).then(|| {
        let most = max_combined.min(cpus);
        let remedy = if most > combined {
            format!("`ethtool -L {interface} combined {most}`")
        } else {
            format!("receive on the CPUs below {combined} only")
        };
        let lost = format!("driver {name} drops packets that other interfaces receive on CPUs from {combined} on");
        warning(format!("{combined} queues are fewer than {cpus} CPUs: {lost}; {remedy}"))
    })
}

fn refused(text: String) -> Finding {
    Finding { weight: Weight::Refused, text }
}

fn warning(text: String) -> Finding {
    Finding { weight: Weight::Warning, text }
}

#[cfg(test)]
mod tests;
