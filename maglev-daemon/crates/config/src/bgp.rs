//! The `bgp` section of `maglev.yaml`: who we are, and the neighbours. It must not know sessions.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use maglev_model::bgp::{Bgp, HOLD_TIME, Neighbor, OnDrain, OnStop, PORT, Password, Role};
use maglev_model::{Community, MAX_COMMUNITIES, Name, not_unicast, parse_address, parse_duration, shown};

use super::decode::{self, Field, Section};
use super::origin::{Origin, decode_path};

/// How often our AS may be said once more.
const MAX_PREPEND: u64 = 10;

/// AS numbers of which a speaker can have one: 0 and the last are reserved (RFC 7607, RFC 7300), and 23456 stands for those that
/// do not fit into 16 bits (RFC 6793).
const AS_NUMBERS: &str = "1 to 4294967294, but not 23456";

/// Neighbours of a node.
const MAX_NEIGHBORS: usize = 64;

/// For how long neighbours keep our prefixes while we restart unless told otherwise: what most of them suggest.
const RESTART_TIME: u16 = 120;

/// What the packet path does without the daemon, as far as neighbours have to rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outlives {
    /// It goes on when the daemon is killed.
    pub(super) killed: bool,
    /// It goes on when the daemon is told to stop.
    pub(super) stopped: bool,
}

/// Reads the section.
pub(super) fn decode(field: &Field<'_>, origin: Origin<'_>, outlives: Outlives) -> Option<Bgp> {
    const KEYS: [&str; 8] = [
        "local_as",
        "router_id",
        "communities",
        "link_bandwidth",
        "on_stop",
        "on_drain",
        "graceful_restart",
        "neighbors",
    ];
    let section = field.section(&KEYS, &[])?;
    let local_as = section.need("local_as", AS_NUMBERS).and_then(|field| field.parse(parse_as));
    let router_id = section.need("router_id", "such as 10.0.0.11").and_then(|field| field.parse(parse_router_id));
    let communities = decode_communities(&section);
    let link_bandwidth = optional(&section, "link_bandwidth", parse_bandwidth);
    let on_stop = section.get("on_stop").map_or(Some(OnStop::default()), |field| field.parse(parse_on_stop));
    let on_drain = section.get("on_drain").map_or(Some(OnDrain::default()), |field| decode_on_drain(&field));
    let usual = outlives.killed.then_some(RESTART_TIME);
    let graceful_restart = section.get("graceful_restart").map_or(Some(usual), |field| field.parse(parse_restart));
    let neighbors = section
        .need("neighbors", "a list such as [{ address: 10.0.0.1, remote_as: 65000 }]")
        .and_then(|field| decode_neighbors(&field, local_as, origin));
    section.accept(check_outlives(on_stop?, graceful_restart?, outlives))?;
    let (local_as, mut communities) = (local_as?, communities?);
    if let Some(bytes) = link_bandwidth? {
        section.accept(check_one_bandwidth(&communities))?;
        communities.insert(Community::bandwidth(local_as, bytes));
    }
    Some(Bgp {
        local_as,
        router_id: router_id?,
        communities,
        on_stop: on_stop?,
        on_drain: on_drain?,
        graceful_restart: graceful_restart?,
        neighbors: neighbors?,
    })
}

/// Neighbours must not keep what nobody forwards.
fn check_outlives(on_stop: OnStop, graceful_restart: Option<u16>, outlives: Outlives) -> Result<(), String> {
    let Outlives { killed, stopped } = outlives;
    if graceful_restart.is_some() && !killed {
        return Err("graceful_restart has neighbours send packets while nothing forwards them: it needs \
                    dataplane.pin; allowed with `pin: off`: off"
            .into());
    }
    if on_stop == OnStop::Keep && graceful_restart.is_none() {
        return Err("on_stop: keep needs graceful_restart, or neighbours drop every prefix at once".into());
    }
    if on_stop == OnStop::Keep && !stopped {
        return Err("on_stop: keep has neighbours send packets while nothing forwards them: it needs \
                    `dataplane: { on_stop: keep }`; allowed with detach: withdraw"
            .into());
    }
    Ok(())
}

/// A prefix has one bandwidth.
fn check_one_bandwidth(communities: &BTreeSet<Community>) -> Result<(), String> {
    match communities.iter().find(|community| community.is_bandwidth()) {
        Some(other) => Err(format!("link_bandwidth and {other} in communities say the same; allowed: one of them")),
        None => Ok(()),
    }
}

/// What makes the node less preferred while it drains, beside the community.
fn decode_on_drain(field: &Field<'_>) -> Option<OnDrain> {
    let section = field.section(&["med", "prepend"], &[])?;
    let med = optional(&section, "med", parse_u32);
    let prepend = optional(&section, "prepend", parse_prepend);
    Some(OnDrain { med: med?, prepend: prepend?.unwrap_or(0) as u8 })
}

fn decode_neighbors(field: &Field<'_>, local_as: Option<u32>, origin: Origin<'_>) -> Option<Vec<Neighbor>> {
    let items = field.items()?;
    if !(1..=MAX_NEIGHBORS).contains(&items.len()) {
        field.report(format_args!("{} neighbours; allowed: 1 to {MAX_NEIGHBORS}", items.len()));
        return None;
    }
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    let decoded = items.iter().map(|item| {
        let neighbor = decode_neighbor(item, local_as, origin)?;
        if !addresses.insert(neighbor.address) {
            item.report(format_args!("{} is the address of an earlier neighbour too", neighbor.address));
        } else if !names.insert(neighbor.name.clone()) {
            item.report(format_args!("{} is the name of an earlier neighbour too", neighbor.name));
        }
        Some(neighbor)
    });
    // Each is decoded, so that each is reported, before any is missed.
    decoded.collect::<Vec<_>>().into_iter().collect()
}

fn decode_neighbor(field: &Field<'_>, local_as: Option<u32>, origin: Origin<'_>) -> Option<Neighbor> {
    const KEYS: [&str; 19] = [
        "name",
        "address",
        "remote_as",
        "source",
        "port",
        "password_file",
        "multihop",
        "gtsm",
        "hold_time",
        "keepalive",
        "families",
        "next_hop",
        "next_hop6",
        "communities",
        "med",
        "prepend",
        "local_pref",
        "role",
        "passive",
    ];
    let section = field.section(&KEYS, &[])?;
    let address = section.need("address", "the neighbour's IP address").and_then(|field| field.parse(parse_neighbor));
    let remote_as = section.need("remote_as", AS_NUMBERS).and_then(|field| field.parse(parse_as));
    let flag = |key| section.get(key).map_or(Some(false), |field| field.boolean());
    let number = |key, most| optional(&section, key, |text| decode::parse_number(text, most));
    let address_of = |key| optional(&section, key, parse_neighbor);

    let name = optional(&section, "name", |text| Name::parse(text).map(|name| name.as_str().to_owned()));
    let (source, next_hop, next_hop6) = (address_of("source"), address_of("next_hop"), address_of("next_hop6"));
    let port = number("port", 65_535);
    let password = section.get("password_file").map_or(Some(None), |field| decode_password(&field, origin).map(Some));
    let (multihop, prepend) = (number("multihop", 254), optional(&section, "prepend", parse_prepend));
    let hold_time = optional(&section, "hold_time", parse_hold_time);
    let keepalive = optional(&section, "keepalive", parse_keepalive);
    let families = section.get("families").map_or(Some(None), |field| decode_families(&field).map(Some));
    let communities = decode_communities(&section);
    let (med, local_pref) = (optional(&section, "med", parse_u32), optional(&section, "local_pref", parse_u32));
    let role = optional(&section, "role", str::parse::<Role>);
    let (gtsm, passive) = (flag("gtsm"), flag("passive"));

    let (address, next_hop6) = (address?, next_hop6?);
    let own = (address.is_ipv4(), address.is_ipv6() || next_hop6.is_some());
    let (ipv4, ipv6) = families?.unwrap_or(own);
    let neighbor = Neighbor {
        name: name?.unwrap_or_else(|| address.to_string()),
        address,
        remote_as: remote_as?,
        source: source?,
        port: port?.map_or(PORT, |port| port as u16),
        password: password?,
        multihop: multihop?.map(|hops| hops as u8),
        gtsm: gtsm?,
        hold_time: hold_time?.unwrap_or(HOLD_TIME),
        keepalive: keepalive?,
        ipv4: ipv4 || next_hop?.is_some(),
        ipv6,
        next_hop: next_hop?,
        next_hop6,
        communities: communities?,
        med: med?,
        prepend: prepend?.unwrap_or(0) as u8,
        local_pref: local_pref?,
        role: role?,
        passive: passive?,
    };
    section.accept(check(&neighbor, local_as))?;
    Some(neighbor)
}

/// What fits by itself and not together.
fn check(neighbor: &Neighbor, local_as: Option<u32>) -> Result<(), String> {
    let Neighbor { address, source, hold_time, keepalive, ipv4, ipv6, next_hop6, prepend, local_pref, role, .. } =
        neighbor;
    if let Some(source) = source.filter(|source| source.is_ipv4() != address.is_ipv4()) {
        return Err(format!("source {source} and address {address} are of different families"));
    }
    if let Some(next_hop) = next_hop6.filter(IpAddr::is_ipv4) {
        return Err(format!("next_hop6 {next_hop} is IPv4; IPv6 prefixes need an IPv6 next hop"));
    }
    if *ipv6 && address.is_ipv4() && next_hop6.is_none() {
        return Err("IPv6 prefixes over an IPv4 session need next_hop6, our IPv6 address towards the neighbour".into());
    }
    if !ipv4 && !ipv6 {
        return Err("families is empty; allowed: ipv4, ipv6".into());
    }
    if let Some(keepalive) = keepalive.filter(|keepalive| *hold_time > 0 && keepalive >= hold_time) {
        return Err(format!("keepalive {keepalive}s is not below hold_time {hold_time}s"));
    }
    let Some(local_as) = local_as else { return Ok(()) };
    let internal = local_as == neighbor.remote_as;
    if !internal && local_pref.is_some() {
        return Err(format!("local_pref is for neighbours in AS {local_as}; this one is in {}", neighbor.remote_as));
    }
    if internal && (*prepend > 0 || role.is_some()) {
        return Err(format!("prepend and role are for neighbours in other ASes; this one is in {local_as} too"));
    }
    Ok(())
}

/// A key that may be missing.
fn optional<T, E: std::fmt::Display>(
    section: &Section<'_>,
    key: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Option<Option<T>> {
    section.get(key).map_or(Some(None), |field| field.parse(parse).map(Some))
}

/// The communities of a section; a list too long is reported.
pub(super) fn decode_communities(section: &Section<'_>) -> Option<BTreeSet<Community>> {
    let Some(field) = section.get("communities") else { return Some(BTreeSet::new()) };
    let items = field.items()?;
    if items.len() > MAX_COMMUNITIES {
        field.report(format_args!("{} communities; allowed: at most {MAX_COMMUNITIES}", items.len()));
        return None;
    }
    items.iter().map(|item| item.parse(str::parse::<Community>)).collect::<Vec<_>>().into_iter().collect()
}

/// Whether IPv4 and IPv6 are among the families.
fn decode_families(field: &Field<'_>) -> Option<(bool, bool)> {
    let parse = |text: &str| match text {
        "ipv4" => Ok(false),
        "ipv6" => Ok(true),
        _ => Err(format!("{} is not a family; allowed: ipv4, ipv6", shown(text))),
    };
    let items = field.items()?;
    let families: Option<Vec<bool>> =
        items.iter().map(|item| item.parse(parse)).collect::<Vec<_>>().into_iter().collect();
    families.map(|families| (families.contains(&false), families.contains(&true)))
}

/// The password in a file. No report shows any of it.
fn decode_password(field: &Field<'_>, Origin { file, read_secret }: Origin<'_>) -> Option<Password> {
    let path = decode_path(field, file)?;
    let text = field.accept(read_secret(&path))?;
    let password = Password::new(text.trim_end_matches(['\n', '\r']));
    field.accept(password.ok_or_else(|| {
        format!("{} holds no password; expected one line of 1 to {} characters", path.display(), Password::MAX)
    }))
}

fn parse_as(text: &str) -> Result<u32, String> {
    const AS_TRANS: u32 = 23_456;
    let found = text.parse().ok().filter(|number| (1..u32::MAX).contains(number) && *number != AS_TRANS);
    found.ok_or_else(|| format!("{} is not an AS number; allowed: {AS_NUMBERS}", shown(text)))
}

fn parse_router_id(text: &str) -> Result<Ipv4Addr, String> {
    let found = text.parse::<Ipv4Addr>().ok().filter(|id| !id.is_unspecified());
    found.ok_or_else(|| {
        format!("{} is not a router id; allowed: four numbers such as 10.0.0.11, not all 0", shown(text))
    })
}

fn parse_neighbor(text: &str) -> Result<IpAddr, String> {
    let address = parse_address(text).map_err(|error| error.to_string())?;
    match not_unicast(address).filter(|_| !address.is_loopback()) {
        Some(kind) => Err(format!("{address} is {kind}; no packet is sent there")),
        None => Ok(address),
    }
}

fn parse_on_stop(text: &str) -> Result<OnStop, String> {
    match text {
        "withdraw" => Ok(OnStop::Withdraw),
        "keep" => Ok(OnStop::Keep),
        _ => Err(format!("{} is not what a stop can mean; allowed: withdraw, keep", shown(text))),
    }
}

fn parse_restart(text: &str) -> Result<Option<u16>, String> {
    match text {
        "off" => Ok(None),
        _ => seconds(text, 1, 4_095).map(Some).ok_or_else(|| {
            format!("{} is not a restart time; allowed: off, or 1s to 4095s in whole seconds", shown(text))
        }),
    }
}

fn parse_hold_time(text: &str) -> Result<u16, String> {
    let found = seconds(text, 3, 65_535).or_else(|| seconds(text, 0, 0));
    found.ok_or_else(|| {
        format!("{} is not a hold time; allowed: 0s (never), or 3s to 65535s in whole seconds", shown(text))
    })
}

fn parse_keepalive(text: &str) -> Result<u16, String> {
    let found = seconds(text, 1, 21_845);
    found.ok_or_else(|| {
        format!("{} is not a time between KEEPALIVEs; allowed: 1s to 21845s in whole seconds", shown(text))
    })
}

/// Whole seconds with a unit, in a range.
fn seconds(text: &str, least: u16, most: u16) -> Option<u16> {
    let time = parse_duration(text).filter(|time| time.subsec_nanos() == 0)?;
    u16::try_from(time.as_secs()).ok().filter(|seconds| (least..=most).contains(seconds))
}

/// Bits a second with a unit; returns bytes a second, which is what routers are told (RFC 10005).
fn parse_bandwidth(text: &str) -> Result<f32, String> {
    const UNITS: [(char, f32); 4] = [('K', 1e3), ('M', 1e6), ('G', 1e9), ('T', 1e12)];
    let unit = UNITS.iter().find_map(|(unit, bits)| Some((text.strip_suffix(*unit)?, bits / 8.0)));
    let digits = unit.filter(|(count, _)| count.bytes().all(|byte| byte.is_ascii_digit()));
    let found = digits.and_then(|(count, bytes)| Some((count.parse::<u16>().ok().filter(|count| *count > 0)?, bytes)));
    found.map(|(count, bytes)| f32::from(count) * bytes).ok_or_else(|| {
        format!("{} is not a bandwidth; allowed: 1 to 65535 with K, M, G or T bits a second, such as 10G", shown(text))
    })
}

fn parse_prepend(text: &str) -> Result<u32, String> {
    decode::parse_number_from(0, text, MAX_PREPEND)
}

fn parse_u32(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{} is out of range; allowed: 0 to {}", shown(text), u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;
    use crate::decode::Collector;
    use crate::tree;
    use maglev_testing::TempDir;

    const BOTH: Outlives = Outlives { killed: true, stopped: true };

    /// Reads any file.
    fn secret(path: &Path) -> Result<String, String> {
        fs::read_to_string(path).map_err(|error| error.to_string())
    }

    /// The section in this text, or what is wrong with it: `field: message`.
    fn decoded(file: &Path, text: &str) -> Result<Bgp, Vec<String>> {
        decoded_for(BOTH, file, text)
    }

    fn decoded_for(outlives: Outlives, file: &Path, text: &str) -> Result<Bgp, Vec<String>> {
        let root = tree::parse(file, text).unwrap();
        let out = Collector::new(file);
        let found = decode(&Field::root(&root, &out), Origin { file, read_secret: secret }, outlives);
        let problems: Vec<String> =
            out.finish().iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect();
        if problems.is_empty() { Ok(found.unwrap()) } else { Err(problems) }
    }

    fn neighbor(rest: &str) -> String {
        format!(
            "{{ local_as: 65010, router_id: 10.0.0.11, neighbors: [{{ address: 10.0.0.1, remote_as: 65000{rest} }}] }}"
        )
    }

    #[test]
    fn a_short_section_means_the_usual() {
        let bgp = decoded(Path::new("maglev.yaml"), &neighbor("")).unwrap();
        let mut expected = Neighbor::new([10, 0, 0, 1].into(), 65_000);
        expected.ipv6 = false;
        assert_eq!(bgp.neighbors, [expected]);
        assert_eq!((bgp.local_as, bgp.on_stop, bgp.graceful_restart), (65_010, OnStop::Withdraw, Some(120)));
        assert_eq!(bgp.on_drain, OnDrain::default());
    }

    #[test]
    fn neighbours_keep_nothing_that_nobody_forwards() {
        let (nothing, killed) = (Outlives { killed: false, stopped: false }, Outlives { stopped: false, ..BOTH });
        let found = |outlives, more: &str| {
            let text = neighbor("").replace("local_as", &format!("{more}local_as"));
            decoded_for(outlives, Path::new("x"), &text).map_err(|problems| problems.join("; "))
        };
        assert_eq!(found(nothing, "").unwrap().graceful_restart, None);
        assert_eq!(found(nothing, "graceful_restart: off, ").unwrap().graceful_restart, None);
        assert_eq!(found(killed, "").unwrap().graceful_restart, Some(120));
        assert_eq!(found(killed, "graceful_restart: off, ").unwrap().graceful_restart, None);
        assert_eq!(found(BOTH, "on_stop: keep, ").unwrap().on_stop, OnStop::Keep);
        let said = found(nothing, "graceful_restart: 60s, ").unwrap_err();
        assert!(said.contains("it needs dataplane.pin; allowed with `pin: off`: off"), "{said}");
        let said = found(killed, "on_stop: keep, ").unwrap_err();
        assert!(said.contains("allowed with detach: withdraw"), "{said}");
        let said = found(BOTH, "on_stop: keep, graceful_restart: off, ").unwrap_err();
        assert!(said.contains("on_stop: keep needs graceful_restart"), "{said}");
    }

    #[test]
    fn every_option_is_read() {
        let directory = TempDir::new();
        let secret = directory.path().join("secret");
        fs::write(&secret, "s3cret\n").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let text = "\
local_as: 4200000010
router_id: 10.0.0.11
communities: ['65010:1']
link_bandwidth: 10G
on_stop: keep
on_drain: { med: 1000, prepend: 2 }
graceful_restart: 2m
neighbors:
  - { name: tor1, address: '2001:db8::1', remote_as: 65000, source: '2001:db8::11', port: 1790, password_file: secret,
      multihop: 2, gtsm: true, hold_time: 30s, keepalive: 5s, families: [ipv4, ipv6], next_hop: 10.0.0.11,
      next_hop6: '2001:db8::12', communities: ['1:2', '1:2:3'], med: 0, prepend: 3, role: customer, passive: true }
";
        let bgp = decoded(&directory.path().join("maglev.yaml"), text).unwrap();
        assert_eq!((bgp.on_stop, bgp.graceful_restart, bgp.communities.len()), (OnStop::Keep, Some(120), 2));
        assert!(bgp.communities.contains(&"bandwidth:23456:1250000000".parse().unwrap()), "{bgp:?}");
        assert_eq!(bgp.on_drain, OnDrain { med: Some(1_000), prepend: 2 });
        let [found] = &bgp.neighbors[..] else { panic!("{bgp:?}") };
        let expected = Neighbor {
            name: "tor1".into(),
            address: "2001:db8::1".parse().unwrap(),
            remote_as: 65_000,
            source: Some("2001:db8::11".parse().unwrap()),
            port: 1_790,
            password: Password::new("s3cret"),
            multihop: Some(2),
            gtsm: true,
            hold_time: 30,
            keepalive: Some(5),
            ipv4: true,
            ipv6: true,
            next_hop: Some([10, 0, 0, 11].into()),
            next_hop6: Some("2001:db8::12".parse().unwrap()),
            communities: ["1:2".parse().unwrap(), "1:2:3".parse().unwrap()].into(),
            med: Some(0),
            prepend: 3,
            local_pref: None,
            role: Some(Role::Customer),
            passive: true,
        };
        assert_eq!(*found, expected);
        assert!(!format!("{found:?}").contains("s3cret"));
    }

    #[test]
    fn all_errors_are_told_at_once_each_with_its_field() {
        let text = "\
local_as: 0
router_id: 300.1.1.1
neighbors:
  - { address: 224.0.0.1, remote_as: 23456 }
  - { address: 10.0.0.1, remote_as: 65000, hold_time: 2s, med: -1, role: boss, frobnicate: 1 }
";
        let problems = decoded(Path::new("maglev.yaml"), text).unwrap_err();
        let starts = [
            "local_as: 0 is not an AS number; allowed: 1 to 4294967294, but not 23456",
            "router_id: 300.1.1.1 is not a router id; allowed: four numbers such as 10.0.0.11, not all 0",
            "neighbors[0].address: 224.0.0.1 is",
            "neighbors[0].remote_as: 23456 is not an AS number; allowed: 1 to 4294967294, but not 23456",
            "neighbors[1].hold_time: 2s is not a hold time; allowed: 0s (never), or 3s to 65535s",
            "neighbors[1].med: -1 is out of range; allowed: 0 to 4294967295",
            "neighbors[1].role: boss is not a role; allowed: provider,",
            "neighbors[1].frobnicate: unknown key; allowed: name, address,",
        ];
        for start in starts {
            assert!(problems.iter().any(|problem| problem.starts_with(start)), "{start}: {problems:#?}");
        }
        assert_eq!(problems.len(), starts.len(), "{problems:#?}");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for (rest, part) in [
            (", source: '2001:db8::1'", "are of different families"),
            (", families: [ipv4, ipv6]", "need next_hop6"),
            (", families: []", "families is empty"),
            (", next_hop6: 10.0.0.1", "IPv6 prefixes need an IPv6 next hop"),
            (", keepalive: 9s", "keepalive 9s is not below hold_time 9s"),
            (", local_pref: 100", "local_pref is for neighbours in AS 65010; this one is in 65000"),
            (", communities: [1]", "1 is not a community"),
            (" }, { address: 10.0.0.1, remote_as: 1", "10.0.0.1 is the address of an earlier neighbour too"),
        ] {
            let problems = decoded(Path::new("maglev.yaml"), &neighbor(rest)).unwrap_err();
            assert!(problems.len() == 1 && problems[0].contains(part), "{rest}: {problems:?}");
        }
        for (rest, part) in [
            ("link_bandwidth: 10", "10 is not a bandwidth; allowed: 1 to 65535 with K, M, G or T bits a second"),
            ("link_bandwidth: 0G", "0G is not a bandwidth"),
            ("link_bandwidth: +1G", "+1G is not a bandwidth"),
            ("link_bandwidth: 1G, communities: ['bandwidth:1:2']", "link_bandwidth and bandwidth:1:2 in communities"),
        ] {
            let text = neighbor("").replacen("{ ", &format!("{{ {rest}, "), 1);
            let problems = decoded(Path::new("maglev.yaml"), &text).unwrap_err();
            assert!(problems.len() == 1 && problems[0].contains(part), "{rest}: {problems:?}");
        }
        let internal =
            "{ local_as: 1, router_id: 1.1.1.1, neighbors: [{ address: 10.0.0.1, remote_as: 1, prepend: 1 }] }";
        assert!(decoded(Path::new("x"), internal).unwrap_err()[0].contains("are for neighbours in other ASes"));
    }

    #[test]
    fn a_password_is_one_line_and_in_no_message() {
        let directory = TempDir::new();
        let problem = |text: Option<&str>| {
            let path = directory.path().join("secret");
            text.into_iter().for_each(|text| fs::write(&path, text).unwrap());
            decoded(&directory.path().join("maglev.yaml"), &neighbor(", password_file: secret")).unwrap_err().remove(0)
        };
        let missing = problem(None);
        assert!(missing.starts_with("neighbors[0].password_file: No such file"), "{missing}");
        let empty = problem(Some("\n"));
        assert!(empty.contains("holds no password; expected one line of 1 to 80 characters"), "{empty}");
        let long = problem(Some(&"x".repeat(81)));
        assert!(long.contains("holds no password") && !long.contains("xxx"), "{long}");
    }
}
