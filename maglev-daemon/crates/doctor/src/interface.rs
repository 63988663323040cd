//! One interface, on a node or backend: link, program, driver, queues, offloads, packets lost, and the kernel's settings for it. It
//! must not know the others.

use super::facts::{Device, Fact, Interface, Link, Program};
use super::report::{Report, page};

/// What the interface is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// It balances.
    Node,
    /// It decapsulates.
    Backend,
}

impl Of {
    const fn page(self) -> &'static str {
        match self {
            Self::Node => page::NODE,
            Self::Backend => page::BACKEND,
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Self::Node => "maglev.yaml",
            Self::Backend => "decap.yaml",
        }
    }
}

/// Adds the findings about an interface.
pub(crate) fn check(interface: &Interface, cpus: &Fact<u32>, of: Of, report: &mut Report) {
    let Interface { name, native, device } = interface;
    let Some(device) = device else {
        let remedy = format!("correct the name in {}, or create the interface (`ip link`)", of.file());
        return report.error(name, "the interface does not exist", remedy, page::LATE);
    };
    check_link(name, device, of, report);
    check_program(name, *native, device, of, report);
    check_driver(name, *native, device, of, report);
    check_queues(name, device, cpus, report);
    check_offloads(name, *native, device, report);
    check_lost(name, device, report);
    check_return_path(name, device, of, report);
}

fn check_link(name: &str, device: &Device, of: Of, report: &mut Report) {
    let Device { link, mtu, is_ethernet, .. } = device;
    match link {
        Link::Up => report.ok(name, format!("up, MTU {mtu}"), of.page()),
        Link::NoCarrier => {
            report.error(name, "it has no carrier", "check the cable, the switch's port or the other end", of.page());
        }
        Link::Down => report.error(name, "it is down", format!("`ip link set dev {name} up`"), of.page()),
    }
    if !is_ethernet {
        let remedy = format!("list an Ethernet interface in {}", of.file());
        report.error(name, "it has no Ethernet address: the program cannot be attached", remedy, of.page());
    }
}

fn check_program(name: &str, native: bool, device: &Device, of: Of, report: &mut Report) {
    match &device.program {
        None if of == Of::Backend => {
            let remedy = "`systemctl start maglev-decap`, or `maglevd decap`";
            report.error(name, "no program decapsulates: packets from load balancers are lost", remedy, of.page());
        }
        None => report.ok(name, "no XDP program is attached", of.page()),
        Some(Program { id, name: program, is_ours: Some(false), native }) => {
            let keyword = if *native { "xdpdrv" } else { "xdpgeneric" };
            let program = program.as_deref().unwrap_or("without a name");
            let found = format!("another XDP program is attached: {program} (id {id})");
            let remedy =
                format!("stop the service that attached it, or detach it: `ip link set dev {name} {keyword} off`");
            report.error(name, found, remedy, of.page());
        }
        Some(Program { id, is_ours: None, .. }) => {
            report.unchecked(
                name,
                &format!("whether XDP program {id} is Maglev's"),
                "its name is not known to this user",
            );
        }
        Some(Program { is_ours: Some(true), native: runs, .. }) if *runs != native => {
            let [runs, wanted] = [*runs, native].map(|native| if native { "native" } else { "generic" });
            let remedy = "drain, then start once with `--cut`: a change of the mode detaches the program for a moment";
            let found = format!("the program is attached in {runs} mode, and {} names {wanted}", of.file());
            report.warn(name, found, remedy, of.page());
        }
        Some(Program { is_ours: Some(true), native, .. }) => {
            let mode = if *native { "native" } else { "generic" };
            report.ok(name, format!("the program is attached, {mode} mode"), of.page());
        }
    }
}

fn check_driver(name: &str, native: bool, device: &Device, of: Of, report: &mut Report) {
    let Device { driver, runs_native, refusals, advice, .. } = device;
    let driver = driver.as_deref().unwrap_or("unknown");
    if !native {
        if *runs_native == Some(true) {
            let found =
                format!("mode generic, and driver {driver} has native XDP: each packet costs several times as much");
            report.warn(name, found, format!("`mode: native` in {}", of.file()), of.page());
        }
        return;
    }
    let split = |text: &str| match text.split_once(": `") {
        Some((found, remedy)) => (found.to_owned(), format!("`{remedy}")),
        None => match text.split_once("; ") {
            Some((found, remedy)) => (found.to_owned(), remedy.to_owned()),
            None => (text.to_owned(), format!("another NIC or driver, or `mode: generic` in {}", of.file())),
        },
    };
    for text in refusals {
        let (found, remedy) = split(text);
        report.error(name, found, remedy, of.page());
    }
    for text in advice {
        let (found, remedy) = split(text);
        report.warn(name, found, remedy, of.page());
    }
    if refusals.is_empty() && advice.is_empty() {
        report.ok(name, format!("within the XDP limits of driver {driver}"), of.page());
    }
}

fn check_queues(name: &str, device: &Device, cpus: &Fact<u32>, report: &mut Report) {
    let Device { is_physical: true, queues, most_queues, interrupts, .. } = device else { return };
    let cpus = match cpus {
        Ok(cpus) => *cpus,
        Err(reason) => return report.unchecked(name, "its queues against CPUs", reason),
    };
    let Some(queues) = *queues else {
        return report.unchecked(name, "its queues", "the driver does not say");
    };
    let most = most_queues.unwrap_or(queues).min(cpus);
    if queues < most {
        let found = format!("{queues} of {most} possible queues receive, with {cpus} CPUs: the other CPUs are idle");
        report.warn(name, found, format!("`ethtool -L {name} combined {most}`"), page::NODE);
    } else {
        report.ok(name, format!("{queues} queues for {cpus} CPUs"), page::NODE);
    }
    match interrupts {
        Ok(interrupts) => check_interrupts(name, queues.min(cpus), interrupts, report),
        Err(reason) => report.unchecked(name, "the CPUs of its interrupts", reason),
    }
}

/// Interrupts of several queues that can reach one CPU alone.
fn check_interrupts(name: &str, expected: u32, interrupts: &[Vec<u32>], report: &mut Report) {
    let mut used: Vec<u32> = interrupts.iter().flatten().copied().collect();
    used.sort_unstable();
    used.dedup();
    match used.as_slice() {
        [] => report.unchecked(name, "the CPUs of its interrupts", "the card has no interrupts of its own"),
        [only] if expected > 1 => {
            let found = format!("all {} interrupts go to CPU {only}: one CPU forwards everything", interrupts.len());
            let remedy = "start irqbalance, or spread them: /proc/irq/N/smp_affinity_list";
            report.warn(name, found, remedy, page::NODE);
        }
        used => report.ok(name, format!("interrupts go to {} CPUs", used.len()), page::NODE),
    }
}

fn check_offloads(name: &str, native: bool, device: &Device, report: &mut Report) {
    let Device { lro, gro, strips_tags, has_vlans, refusals, .. } = device;
    let mut well = true;
    let mut warn = |found: &str, remedy: String| {
        report.warn(name, found, remedy, page::NODE);
        well = false;
    };
    // A driver that refuses it has said so.
    if *lro == Some(true) && !refusals.iter().any(|text| text.contains("LRO")) {
        warn("LRO merges packets before the program sees them", format!("`ethtool -K {name} lro off`"));
    }
    if !native && *gro == Some(true) {
        let found = "GRO merges packets before the program, in generic mode, sees them: they are too long to be sent";
        warn(found, format!("`ethtool -K {name} gro off`"));
    }
    if native && *has_vlans && *strips_tags == Some(true) {
        let found = "the card strips VLAN tags, which the program does not see: packets from VLANs count as untagged";
        warn(found, format!("`ethtool -K {name} rxvlan off`"));
    }
    if well && !refusals.iter().any(|text| text.contains("LRO")) {
        report.ok(name, "no offload merges packets or hides tags", page::NODE);
    }
}

fn check_lost(name: &str, device: &Device, report: &mut Report) {
    match &device.lost {
        Ok(lost) if lost.is_empty() => report.ok(name, "it lost no packets during the examination", page::LOST),
        Ok(lost) => {
            let counters: Vec<_> = lost.iter().map(|(counter, packets)| format!("{counter} {packets}")).collect();
            let found = format!("packets are being lost: {} during the examination", counters.join(", "));
            let remedy =
                format!("larger rings (`ethtool -G {name} rx 4096`), more queues (`ethtool -L`), or the cable");
            report.warn(name, found, remedy, page::LOST);
        }
        Err(reason) => report.unchecked(name, "packets lost at it", reason),
    }
}

/// The kernel drops answers whose source it would route elsewhere.
fn check_return_path(name: &str, device: &Device, of: Of, report: &mut Report) {
    const STRICT: u32 = 1;
    match &device.rp_filter {
        Ok(STRICT) => {
            let (document, lost) = match of {
                Of::Node => (page::CHECKS, "answers to health checks are dropped if the route to the VIP is another"),
                Of::Backend => (page::BACKEND, "clients' packets are dropped if replies are routed elsewhere"),
            };
            let remedy = format!(
                "`sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{name}.rp_filter=0`, and in /etc/sysctl.d; 2 works too"
            );
            report.warn(name, format!("rp_filter is 1 (strict): {lost}"), remedy, document);
        }
        Ok(value) => report.ok(name, format!("rp_filter is {value}"), of.page()),
        Err(reason) => report.unchecked(name, "rp_filter", reason),
    }
}
