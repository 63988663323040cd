//! The keys of `bgp` in `maglev.yaml`. The tests of the module above hold each against the decoder.

use super::keys::Absent;
use super::node_keys::NODE;
use super::{Group, Key};

pub(super) const GROUPS: &[Group] = &[
    Group { title: "BGP", document: NODE, keys: BGP },
    Group { title: "BGP neighbors", document: NODE, keys: NEIGHBORS },
    Group { title: "BGP neighbors in the same AS", document: INTERNAL, keys: INTERNAL_KEYS },
];

/// The same with a neighbor in its own AS.
const INTERNAL: &str = r#"
interfaces: [{ name: eth0 }]
encap: { kind: ipip, source: 10.64.11.0/24 }
hash_key: "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
bgp: { local_as: 65010, router_id: 10.0.0.11, neighbors: [{ address: 10.0.0.1, remote_as: 65010 }] }
"#;

const BGP: &[Key] = &[
    Key { path: "bgp", kind: "map", absent: Absent::Nothing("no prefix is announced"), good: "", bad: "", meaning: "" },
    Key {
        path: "bgp.local_as",
        kind: "AS number",
        absent: Absent::Required,
        good: "65011",
        bad: "0",
        meaning: "The node's AS number.",
    },
    Key {
        path: "bgp.router_id",
        kind: "IPv4 address",
        absent: Absent::Required,
        good: "10.0.0.12",
        bad: "0.0.0.0",
        meaning: "Unique among the nodes of the AS.",
    },
    Key {
        path: "bgp.communities",
        kind: "list of communities",
        absent: Absent::Is("[]"),
        good: "[\"65010:1\"]",
        bad: "[\"x\"]",
        meaning: "Communities of every announced prefix.",
    },
    Key {
        path: "bgp.link_bandwidth",
        kind: "bandwidth",
        absent: Absent::Nothing("none"),
        good: "10G",
        bad: "10",
        meaning: "This node's share of weighted ECMP, announced as a bandwidth community. Set it on every node or on none.",
    },
    Key {
        path: "bgp.on_stop",
        kind: "word",
        absent: Absent::Derived(
            "keep",
            "`keep` with `dataplane.on_stop: keep` and `graceful_restart`; else `withdraw`",
        ),
        good: "withdraw",
        bad: "stop",
        meaning: "What SIGTERM does: withdraw the prefixes, or leave them at the routers for `graceful_restart`. `keep` needs `dataplane.on_stop: keep`.",
    },
    Key {
        path: "bgp.graceful_restart",
        kind: "duration, or `off`",
        absent: Absent::Derived("120s", "`120s`; `off` with `dataplane.pin: off`"),
        good: "60s",
        bad: "2h",
        meaning: "How long routers keep the prefixes while the daemon is away.",
    },
    Key {
        path: "bgp.on_drain",
        kind: "map",
        absent: Absent::Nothing("no addition"),
        good: "",
        bad: "",
        meaning: "What a drain adds to the community 65535:0 (and to LOCAL_PREF 0 within the AS).",
    },
    Key {
        path: "bgp.on_drain.med",
        kind: "number",
        absent: Absent::Nothing("as before the drain"),
        good: "1000",
        bad: "x",
        meaning: "The MED during the drain.",
    },
    Key {
        path: "bgp.on_drain.prepend",
        kind: "number",
        absent: Absent::Is("0"),
        good: "3",
        bad: "11",
        meaning: "How many more times the own AS is prepended during the drain.",
    },
    Key {
        path: "bgp.neighbors",
        kind: "list",
        absent: Absent::Required,
        good: "",
        bad: "*{ address: 10.0.0.1, remote_as: 65000 }",
        meaning: "The routers that prefixes are announced to.",
    },
];

const NEIGHBORS: &[Key] = &[
    Key {
        path: "bgp.neighbors[].name",
        kind: "name",
        absent: Absent::Derived("10.0.0.1", "`address`"),
        good: "tor1",
        bad: "a b",
        meaning: "The name in the CLI, logs and metrics.",
    },
    Key {
        path: "bgp.neighbors[].address",
        kind: "address",
        absent: Absent::Required,
        good: "10.0.0.2",
        bad: "10.0.0",
        meaning: "The neighbor's address.",
    },
    Key {
        path: "bgp.neighbors[].remote_as",
        kind: "AS number",
        absent: Absent::Required,
        good: "65001",
        bad: "0",
        meaning: "The neighbor's AS number.",
    },
    Key {
        path: "bgp.neighbors[].source",
        kind: "address",
        absent: Absent::Nothing("by the route"),
        good: "10.0.0.11",
        bad: "10.0.0",
        meaning: "The node's own address of the session.",
    },
    Key {
        path: "bgp.neighbors[].port",
        kind: "port",
        absent: Absent::Is("179"),
        good: "1179",
        bad: "0",
        meaning: "The neighbor's TCP port.",
    },
    Key {
        path: "bgp.neighbors[].password_file",
        kind: "path",
        absent: Absent::Nothing("no password"),
        good: "tor1",
        bad: "",
        meaning: "A file with one line, the TCP MD5 password; mode 600 or 640. A relative path is relative to this file.",
    },
    Key {
        path: "bgp.neighbors[].multihop",
        kind: "number",
        absent: Absent::Nothing("directly connected"),
        good: "2",
        bad: "255",
        meaning: "Routers on the path to a neighbor that is not directly connected.",
    },
    Key {
        path: "bgp.neighbors[].gtsm",
        kind: "boolean",
        absent: Absent::Is("false"),
        good: "true",
        bad: "",
        meaning: "Accepts only packets from the link itself (RFC 5082); the neighbor must do the same.",
    },
    Key {
        path: "bgp.neighbors[].hold_time",
        kind: "duration",
        absent: Absent::Is("9s"),
        good: "30s",
        bad: "1s",
        meaning: "The hold time that is proposed.",
    },
    Key {
        path: "bgp.neighbors[].keepalive",
        kind: "duration",
        absent: Absent::Nothing("a third of the hold time"),
        good: "2s",
        bad: "0s",
        meaning: "The time between KEEPALIVE messages; shorter than `hold_time`.",
    },
    Key {
        path: "bgp.neighbors[].families",
        kind: "list",
        absent: Absent::Derived("[ipv4, ipv6]", "the family of `address`, and of `next_hop` and `next_hop6` if given"),
        good: "[ipv4]",
        bad: "[ipv5]",
        meaning: "The address families of the session.",
    },
    Key {
        path: "bgp.neighbors[].next_hop",
        kind: "address",
        absent: Absent::Nothing("the session's own address"),
        good: "10.0.0.12",
        bad: "10.0.0",
        meaning: "The next hop of IPv4 prefixes.",
    },
    Key {
        path: "bgp.neighbors[].next_hop6",
        kind: "IPv6 address",
        absent: Absent::Nothing("the session's own address"),
        good: "\"2001:db8::12\"",
        bad: "x",
        meaning: "The next hop of IPv6 prefixes; needed for IPv6 over an IPv4 session.",
    },
    Key {
        path: "bgp.neighbors[].communities",
        kind: "list of communities",
        absent: Absent::Is("[]"),
        good: "[\"65010:1\"]",
        bad: "*\"65010:1\"",
        meaning: "Communities of the prefixes to this neighbor, beside those of `bgp.communities` and of the VIP.",
    },
    Key {
        path: "bgp.neighbors[].med",
        kind: "number",
        absent: Absent::Nothing("none"),
        good: "50",
        bad: "x",
        meaning: "The MED.",
    },
    Key {
        path: "bgp.neighbors[].prepend",
        kind: "number",
        absent: Absent::Is("0"),
        good: "1",
        bad: "11",
        meaning: "How many more times the own AS is prepended; for neighbors in other ASes.",
    },
    Key {
        path: "bgp.neighbors[].role",
        kind: "word",
        absent: Absent::Nothing("none"),
        good: "customer",
        bad: "friend",
        meaning: "The node's own BGP role (RFC 9234); for neighbors in other ASes.",
    },
    Key {
        path: "bgp.neighbors[].passive",
        kind: "boolean",
        absent: Absent::Is("false"),
        good: "true",
        bad: "",
        meaning: "Waits for the neighbor's connection.",
    },
];

const INTERNAL_KEYS: &[Key] = &[Key {
    path: "bgp.neighbors[].local_pref",
    kind: "number",
    absent: Absent::Nothing("100"),
    good: "200",
    bad: "x",
    meaning: "LOCAL_PREF.",
}];
