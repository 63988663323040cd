//! What an operator does about dropped packets: an entry for each drop reason. It must not know how packets are counted.

use maglev_common::counters::{Counter, DecapCounter};
use serde::Serialize;

use super::text::{BadValue, shown};

/// A counter, and what to do if it grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The counter's name.
    pub name: &'static str,
    /// What became of the packets, in one word.
    pub outcome: &'static str,
    /// The packets that are counted.
    pub meaning: &'static str,
    /// `None` for packets that are not lost.
    #[serde(flatten)]
    pub remedy: Option<Remedy>,
}

/// What to do if the counter grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// Where the cause shows.
    pub check: &'static str,
    /// What ends it, or that nothing needs to.
    pub action: &'static str,
}

/// The entries of the load balancer's counters.
pub fn balancer() -> impl Iterator<Item = Entry> + Clone {
    Counter::ALL.iter().map(|&counter| Entry {
        name: counter.name(),
        outcome: counter.outcome().as_str(),
        meaning: counter.help(),
        remedy: of_balancer(counter),
    })
}

/// The entries of a backend's counters.
pub fn backend() -> impl Iterator<Item = Entry> + Clone {
    DecapCounter::ALL.iter().map(|&counter| Entry {
        name: counter.name(),
        outcome: counter.outcome().as_str(),
        meaning: counter.help(),
        remedy: of_backend(counter),
    })
}

/// The entry of a counter of the load balancer.
///
/// # Errors
/// There is no such counter.
pub fn parse_balancer(name: &str) -> Result<Entry, BadValue> {
    find(name, balancer())
}

/// The entry of a counter of a backend.
///
/// # Errors
/// There is no such counter.
pub fn parse_backend(name: &str) -> Result<Entry, BadValue> {
    find(name, backend())
}

fn find(name: &str, entries: impl Iterator<Item = Entry> + Clone) -> Result<Entry, BadValue> {
    entries.clone().find(|entry| entry.name == name).ok_or_else(|| {
        let known: Vec<_> = entries.map(|entry| entry.name).collect();
        BadValue(format!("unknown counter {}; known: {}", shown(name), known.join(", ")))
    })
}

const fn remedy(check: &'static str, action: &'static str) -> Option<Remedy> {
    Some(Remedy { check, action })
}

/// One arm for each drop reason: a new one needs an entry to compile.
#[rustfmt::skip] // One row for each counter.
const fn of_balancer(counter: Counter) -> Option<Remedy> {
    match counter {
        Counter::NoSuchVip => remedy("`maglev vip list`: is the protocol and port that clients use among them? Scans of all ports count here too, and replies to connections that backends open from the VIP's address.", "Add the VIP that is missing. Otherwise nothing: these packets have no service. `packets.unknown_port: reset` refuses TCP and UDP at once."),
        Counter::NoBackend => remedy("`maglev pool show POOL`: the line `usable`; `maglev backend list POOL`: backends that are disabled, draining, of weight 0, or without a next hop. With `panic: 0`, unhealthy ones count too. `maglev bgp routes`: with a wider prefix, `min_healthy: 0` or static routes, packets still arrive.", "Repair or enable a backend. `when_empty: reset` has clients fail at once instead of waiting."),
        Counter::NextHopUnresolved => remedy("`maglev backend list`: the column NEXT HOP gives the reason. Then `ip route get ADDRESS` and `ip neighbour show` on this node.", "Repair the route or the link to the backend, or list its interface under `interfaces`. The node sends again as soon as the neighbor answers."),
        Counter::TooBig => remedy("`maglev backend show POOL BACKEND`: the longest packet that fits. Compare the MTU of interfaces and routes between the node and the backend, and `mtu` beside the backend in services.yaml.", "Raise the MTU of that path by the outer header: 20 bytes for an IPv4 backend, 40 for IPv6, 12 more for GUE. Let senders of UDP send shorter datagrams. A lower MSS helps TCP alone."),
        Counter::NoHeadroom => remedy("`ethtool -i INTERFACE`: the driver leaves less room before the packet than the outer header and a VLAN tag need.", "Use `encap: ipip`, which needs 12 bytes less than `gue`; another driver or card; or `mode: generic`: drain the node, restart it, and undrain it."),
        Counter::Malformed => remedy("Does it grow steadily? Single packets are scans or damage on the way. Compare the error counters of `ip -s -s link`.", "Nothing, unless a link reports errors or one of your own hosts is the sender."),
        Counter::FragmentUnknown => remedy("`maglev counters`: if another drop reason grows with it, first fragments are refused for that reason. If not: do routers spread fragments by ports? Other nodes count `fragment_noted` where first fragments arrive.", "Let routers hash fragments by addresses alone, and clients send datagrams that fit their path."),
        Counter::SourceRoute => remedy("Nothing uses source routes: these packets are scans or attacks.", "Nothing. Routers at the edge of the network should drop them."),
        Counter::ExtensionHeader => remedy("Nothing uses so many extension headers: these packets are scans or attacks.", "Nothing."),
        Counter::Icmp => remedy("Pings in fragments (`ping -s 2000`), messages with IP options, and messages meant for hosts, such as timestamps.", "Let monitoring send pings that fit in one packet. Otherwise nothing."),
        Counter::OtherProtocol => remedy("`maglev vip list`: does a service use esp, gre, or another protocol without ports?", "Add a VIP with this protocol, or with `any`, if it is a service. Otherwise nothing."),
        Counter::CheckUnsent => remedy("`maglev backend list`: NEXT HOP and HEALTH of the backends; `maglev backend check POOL BACKEND`. A check's packet may also exceed the MTU of its interface with the outer header.", "As for `next_hop_unresolved`, or raise the MTU. The check fails, so clients are sent to other backends."),
        Counter::Stray => remedy("Which program on this node connects to a VIP? `ss -nap dst ADDRESS` shows it. Single ones are answers of the host to late packets of health checks.", "Let programs on this node use a backend's address, or run them elsewhere: a node does not balance its own packets."),
        Counter::HopLimit => remedy("Routers discard such packets: they are forged, or a device on this link is faulty.", "Nothing."),
        Counter::IcmpStray => remedy("Errors about packets that no VIP sent: scans, or answers to forged packets. Also errors about connections that backends open from the VIP's address, and about the node's own answers.", "Nothing."),
        Counter::AnswerLimit => remedy("`maglev counters`: which of `echo_reply`, `packet_too_big`, `reset` and `port_unreachable` grows? The limit of 1,000 a second is shared among the CPUs.", "Nothing against a flood. If it is `packet_too_big`: as for `too_big`; if it is one of the resets: as for `no_backend` or `no_such_vip`."),
        Counter::Unanswerable => remedy("Packets with a forged source or a VIP's, such as a backend's that calls another VIP; or packets shorter than their answer: IPv4 with less than 28 bytes, IPv6 with less than 48 or with extension headers.", "Let backends call other services from an address of their own. Otherwise nothing."),
        Counter::Nested => remedy("Does a client or another node send encapsulated packets to a VIP? An outer source as sender means a second load balancer in front.", "Let tunnels end at a host of their own. Otherwise nothing: a backend might unwrap it a second time."),
        Counter::FragmentLimit => remedy("`maglev counters`: `fragment_noted` against the traffic of UDP VIPs. A flood of fragments shows here.", "Nothing against a flood. Otherwise let clients send datagrams that fit their path."),
        Counter::EchoOff => remedy("`maglev status`, and `packets.echo` in maglev.yaml: with `serving`, no VIP of the address has a backend that takes new connections.", "Set `packets.echo: always` if monitoring pings the address; with `serving`, also as for `no_backend`."),
        Counter::DaemonGone => remedy("`systemctl status maglevd`, and `journalctl -u maglevd`: the daemon ended and did not come back within `dataplane.watchdog`.", "Start the daemon: packets flow as soon as it runs."),
        Counter::FlowTableFull | Counter::FlowEvicted => remedy("`maglev status`: the line `flow table`. `maglev pool list`: TRACKING; `maglev pool show POOL`: slots in transition.", "Raise `flow_table.flows` in maglev.yaml and reload. With `tracking: always`, `exception` records far fewer flows; else change backends in smaller steps, so that fewer slots are in transition at once."),
        Counter::FlowTableMissing => remedy("This should not happen: there is room for every CPU that the machine can have.", "Report it with the output of `maglev status` and the log."),
        Counter::OtherMac => remedy("`ip neighbour show` on the router: is the VIP's next hop a MAC address of another host, or a virtual router's? Frames to other hosts on a shared segment count here too.", "List a virtual router's MAC address as `also` of the interface. Otherwise nothing: another host has the packet."),
        Counter::PacketTooBig => remedy("These packets are lost once, and their sender then sends shorter ones; clients whose path drops ICMP stall.", "As for `too_big`; for such clients, a lower MSS (`mss: auto` in decap.yaml)."),
        Counter::Transmitted | Counter::Redirected | Counter::NotIp | Counter::NotVip | Counter::Truncated
        | Counter::FlowHit | Counter::FlowMiss | Counter::FlowPrevious | Counter::FlowWritten | Counter::FlowPromoted
        | Counter::FlowMemberDead | Counter::CheckSent | Counter::IcmpError | Counter::EchoReply
        | Counter::FragmentNoted | Counter::Reset | Counter::PortUnreachable => None,
    }
}

/// The same for a backend.
#[rustfmt::skip] // One row for each counter.
const fn of_backend(counter: DecapCounter) -> Option<Remedy> {
    match counter {
        DecapCounter::ForeignSource => remedy("`maglev decap status`: are the outer sources of every node (`encap.source` and `encap.source6` in maglev.yaml) among the sources?", "Add the missing prefix to `sources` in decap.yaml and reload. The host drops the packets unless it decapsulates by itself."),
        DecapCounter::Malformed => remedy("`ip -s -s link` on backend and node: does a link report errors? Is something between them that rewrites packets?", "Repair the link. Single packets are forged: the edge of the network should drop packets from outside with the nodes' sources."),
        DecapCounter::Fragment => remedy("Nodes set DF on outer headers: a device between node and backend clears it, or another sender of IP in IP is among `sources`.", "Find that device or sender. Then raise the MTU of the narrow link, or name it: `mtu` beside the backend in services.yaml."),
        DecapCounter::Congestion => remedy("Outer headers carry the ECN bits of the packet inside, so a router marks congestion only where both ends take part: a device rewrites the whole TOS byte.", "Find the rule that rewrites it, such as a QoS policy, and let it change the DSCP alone."),
        DecapCounter::NoRoom => remedy("`ethtool -i INTERFACE`: the driver refuses to shorten a packet at its start.", "Use `mode: generic` for that interface, and restart the service."),
        DecapCounter::ForeignDestination => remedy("`maglev decap status`: is the VIP among `vips`? Addresses beyond the limit are dropped too. `maglev backend list` on the node: is the backend in the right pool?", "If the VIPs are those on lo: add the address there. If decap.yaml lists them: add it to `vips` and reload. Or remove the backend from the pool."),
        DecapCounter::NeighborDiscovery => remedy("Such packets never leave a link, and a node sends none: their outer source is forged.", "The edge of the network should drop packets from outside with the nodes' sources."),
        DecapCounter::ImpossibleSource => remedy("Packets with a forged source, sent by clients to the VIP.", "Nothing. Routers at the edge of the network should drop them."),
        DecapCounter::UnsupportedGue => remedy("Does something else than a node send UDP to port 6080 of this backend?", "Give the other service another port, or list as `sources` the nodes' prefixes alone."),
        DecapCounter::NotEncapsulated => remedy("Packets for the host itself count here. Packets of nodes do too, if they carry a VLAN tag or IPv6 extension headers outside, or are fragments of UDP.", "Attach the program to the interface that receives nodes' packets without a tag; for fragments, as for `fragment`."),
        DecapCounter::Decapsulated | DecapCounter::MssLowered => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drop_reason_has_a_remedy_in_whole_sentences() {
        for Entry { name, outcome, meaning, remedy } in balancer().chain(backend()) {
            assert!(remedy.is_some() || outcome != "dropped", "{name}");
            let parts = remedy.map(|Remedy { check, action }| [check, action]).into_iter().flatten();
            for part in parts.chain([meaning]) {
                let begins = part.starts_with(|first: char| first.is_ascii_uppercase() || first == '`');
                assert!(begins && part.ends_with(['.', '?']), "{name}: {part}");
                assert!(part.matches('`').count().is_multiple_of(2), "{name}: {part}");
            }
        }
    }

    #[test]
    fn an_unknown_counter_is_answered_with_those_known() {
        let known = "known: transmitted, redirected, ";
        assert!(parse_balancer("foreign_source").unwrap_err().0.contains(known));
        assert_eq!(parse_backend("foreign_source").unwrap().outcome, "passed");
    }
}
