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
        Counter::NoSuchVip => remedy("`maglev vip list`: is the protocol and port of the address that clients use among them? Scans of all ports count here too.", "Add the VIP that is missing. Otherwise nothing: these packets have no service. `packets.unknown_port: reset` refuses them at once."),
        Counter::NoBackend => remedy("`maglev pool list`, then `maglev backend list POOL`: which backends are unhealthy, disabled, draining, or without a next hop?", "Repair or enable a backend. `when_empty: reset` has clients fail at once instead of waiting; `min_healthy` withdraws the prefix, so that another node is used."),
        Counter::NextHopUnresolved => remedy("`maglev backend list`: the column NEXT HOP gives the reason. Then `ip route get ADDRESS` and `ip neighbour show` on this node.", "Repair the route or the link to the backend, or list its interface under `interfaces`. The node sends again as soon as the neighbor answers."),
        Counter::TooBig => remedy("`maglev backend show POOL BACKEND`: the longest packet that fits. Compare the MTU of interfaces and routes between the node and the backend.", "Raise the MTU of that path to 1,520 bytes or more, or let backends lower the MSS (`mss: auto` in decap.yaml)."),
        Counter::NoHeadroom => remedy("`maglevd preflight`: does the driver of an interface leave less room than the outer header needs?", "Use another driver or card, or `mode: generic` for that interface; IPv4 backends need 20 bytes less room than IPv6 backends."),
        Counter::Malformed => remedy("Does it grow steadily? Single packets are scans or damage on the way. Compare the error counters of `ip -s -s link`.", "Nothing, unless a link reports errors or one of your own hosts is the sender."),
        Counter::FragmentUnknown => remedy("Do routers spread fragments by ports? `maglev counters` on the other nodes shows `fragment_noted` where first fragments arrive.", "Let routers hash fragments by addresses alone, and clients send datagrams that fit their path."),
        Counter::SourceRoute => remedy("Nothing uses source routes: these packets are scans or attacks.", "Nothing. Routers at the edge of the network should drop them."),
        Counter::ExtensionHeader => remedy("Nothing uses so many extension headers: these packets are scans or attacks.", "Nothing."),
        Counter::Icmp => remedy("Router and timestamp messages and the like are meant for hosts, and a VIP is none.", "Nothing."),
        Counter::OtherProtocol => remedy("`maglev vip list`: does a service use esp, gre or sctp?", "Add a VIP with this protocol if it is a service. Otherwise nothing."),
        Counter::CheckUnsent => remedy("`maglev backend list`: NEXT HOP and HEALTH of the backends; `maglev backend check POOL BACKEND`.", "As for `next_hop_unresolved`. The check fails, so clients are sent to other backends."),
        Counter::Stray => remedy("Which program on this node connects to a VIP? `ss -tnp dst ADDRESS` shows it.", "Let programs on this node use a backend's address, or run them elsewhere: a node does not balance its own packets."),
        Counter::HopLimit => remedy("Is there a routing loop between routers and this node? traceroute from a client shows it.", "Repair the routes. Single packets are traceroutes."),
        Counter::IcmpStray => remedy("Errors about packets that no VIP sent: scans, or answers to packets with a forged source.", "Nothing."),
        Counter::AnswerLimit => remedy("`maglev counters`: is it `echo_reply`, `packet_too_big` or `reset` that grows? A flood of pings shows here.", "Nothing against a flood. If it is `packet_too_big`: as for `too_big`."),
        Counter::Unanswerable => remedy("Packets with a forged source, or IPv4 datagrams of less than 28 bytes.", "Nothing."),
        Counter::Nested => remedy("Does a client or another node send encapsulated packets to a VIP? An outer source as sender means a second load balancer in front.", "Let tunnels end at a host of their own. Otherwise nothing: a backend might unwrap it a second time."),
        Counter::FragmentLimit => remedy("`maglev counters`: `fragment_noted` against the traffic of UDP VIPs. A flood of fragments shows here.", "Nothing against a flood. Otherwise let clients send datagrams that fit their path."),
        Counter::EchoOff => remedy("`maglev status`, and `packets.echo` in maglev.yaml: with `serving`, is a VIP of the address without backends?", "Set `packets.echo: always` if monitoring pings the VIP. Otherwise nothing."),
        Counter::DaemonGone => remedy("`systemctl status maglevd`, and `journalctl -u maglevd`: the daemon ended and did not come back within `dataplane.watchdog`.", "Start the daemon: packets flow as soon as it runs."),
        Counter::FlowTableFull | Counter::FlowEvicted => remedy("`maglev status`: the line `flow table`. `maglev pool show POOL`: how many slots are in transition?", "Raise `flow_table.flows` in maglev.yaml and reload; or change backends in smaller steps, so that fewer slots are in transition at once."),
        Counter::FlowTableMissing => remedy("A CPU was added that the node did not have at start.", "Restart maglevd: it makes room for every CPU that the machine can have."),
        Counter::Transmitted | Counter::Redirected | Counter::NotIp | Counter::NotVip | Counter::Truncated
        | Counter::FlowHit | Counter::FlowMiss | Counter::FlowPrevious | Counter::FlowWritten | Counter::FlowPromoted
        | Counter::FlowMemberDead | Counter::CheckSent | Counter::OtherMac | Counter::IcmpError | Counter::EchoReply
        | Counter::PacketTooBig | Counter::FragmentNoted | Counter::Reset | Counter::PortUnreachable => None,
    }
}

/// The same for a backend.
#[rustfmt::skip] // One row for each counter.
const fn of_backend(counter: DecapCounter) -> Option<Remedy> {
    match counter {
        DecapCounter::ForeignSource => remedy("`maglev decap status`: are the outer sources of every node (`encap.source` in maglev.yaml) among the sources?", "Add the missing prefix to `sources` in decap.yaml and reload. The host drops the packets unless it decapsulates by itself."),
        DecapCounter::Malformed => remedy("`ip -s -s link` on backend and node: does a link report errors? Is something between them that rewrites packets?", "Repair the link. Single packets are forgeries: accept encapsulated packets from the nodes' prefixes alone."),
        DecapCounter::Fragment => remedy("`maglev backend show POOL BACKEND` on the node: the longest packet. Is a link between node and backend smaller than the node's interface?", "Raise that link's MTU, or name it: `mtu` beside the backend in services.yaml."),
        DecapCounter::Congestion => remedy("A router between node and backend marks congestion on packets of clients that do not take part in ECN.", "Look for the congested link. The drop is what RFC 6040 asks for."),
        DecapCounter::NoRoom => remedy("`maglev decap status`: the mode of the interface, and its driver.", "Use `mode: generic` for that interface."),
        DecapCounter::ForeignDestination => remedy("`maglev decap status`: is the VIP among `vips`? maglev backend list on the node: is the backend in the right pool?", "Add the VIP to `vips` in decap.yaml and reload, or remove the backend from the pool."),
        DecapCounter::NeighborDiscovery => remedy("Such packets never leave a link: a node sends none, so their outer source is forged.", "Accept encapsulated packets from the nodes' prefixes alone, and filter them at the edge of the network."),
        DecapCounter::ImpossibleSource => remedy("Packets with a forged source, sent by clients to the VIP.", "Nothing. Routers at the edge of the network should drop them."),
        DecapCounter::UnsupportedGue => remedy("Does something else than a node send UDP to port 6080 of this backend?", "Give the other service another port, or list as `sources` the nodes' prefixes alone."),
        DecapCounter::Decapsulated | DecapCounter::NotEncapsulated | DecapCounter::MssLowered => None,
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
