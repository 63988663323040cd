//! The keys of `services.yaml`, but for those of checks. The tests of the module above hold each against the decoder.

use super::keys::Absent;
use super::{Group, Key};

pub(super) const GROUPS: &[Group] = &[
    Group { title: "Pools", document: HTTP, keys: POOLS },
    Group { title: "Backends", document: HTTP, keys: BACKENDS },
    Group { title: "VIPs", document: HTTP, keys: VIPS },
];

/// Two pools: the first is checked, and a VIP uses it.
pub(super) const HTTP: &str = "
pools:
  - name: web
    check: { kind: http, interval: 2s }
    backends: [{ name: web1, address: 10.0.1.11, state: draining }]
  - name: dns
vips: [{ name: www, address: 203.0.113.10, port: 443, protocol: tcp, pool: web }]
";

const POOLS: &[Key] = &[
    Key {
        path: "pools",
        kind: "list",
        absent: Absent::Required,
        good: "",
        bad: "",
        meaning: "All pools; `[]` for none.",
    },
    Key {
        path: "pools[].name",
        kind: "name",
        absent: Absent::Required,
        good: "",
        bad: "a b",
        meaning: "Unique among the pools.",
    },
    Key {
        path: "pools[].tracking",
        kind: "word",
        absent: Absent::Is("exception"),
        good: "always",
        bad: "never",
        meaning: "Whether the flow table is used for flows of slots in transition, or for every flow.",
    },
    Key {
        path: "pools[].transition",
        kind: "map",
        absent: Absent::Nothing("the defaults below"),
        good: "",
        bad: "",
        meaning: "How flows stay where they are while backends change.",
    },
    Key {
        path: "pools[].transition.learning",
        kind: "duration",
        absent: Absent::Is("120s"),
        good: "90s",
        bad: "0s",
        meaning: "How long flows have to send a packet after a change; at most `idle`.",
    },
    Key {
        path: "pools[].transition.idle",
        kind: "duration",
        absent: Absent::Is("15m"),
        good: "30m",
        bad: "5s",
        meaning: "How long a silent flow is remembered.",
    },
    Key {
        path: "pools[].transition.udp",
        kind: "word",
        absent: Absent::Is("new"),
        good: "keep",
        bad: "old",
        meaning: "The backend of an unknown flow that is not TCP while its slot learns: the new owner, or the previous one (QUIC).",
    },
    Key {
        path: "pools[].min_healthy",
        kind: "number",
        absent: Absent::Is("1"),
        good: "2",
        bad: "x",
        meaning: "Usable backends that the announcement of the pool's VIPs needs.",
    },
    Key {
        path: "pools[].encap",
        kind: "word",
        absent: Absent::Is("ipip"),
        good: "gue",
        bad: "gre",
        meaning: "How packets for the backends are encapsulated: IP in IP, or GUE (UDP to port 6080).",
    },
    Key {
        path: "pools[].panic",
        kind: "percent",
        absent: Absent::Is("50"),
        good: "30",
        bad: "101",
        meaning: "Below this share of healthy backends, all active ones are used. Needs `check`.",
    },
    Key {
        path: "pools[].slow_start",
        kind: "duration",
        absent: Absent::Is("0s"),
        good: "30s",
        bad: "2h",
        meaning: "How long a backend that returns takes to reach its weight. Needs `check`.",
    },
    Key {
        path: "pools[].on_all_dead",
        kind: "word",
        absent: Absent::Is("withdraw"),
        good: "keep",
        bad: "stay",
        meaning: "The announcement of the pool's VIPs once no backend has answered anything for 60 s. Needs `check`.",
    },
    Key {
        path: "pools[].check",
        kind: "map",
        absent: Absent::Nothing("no checks"),
        good: "",
        bad: "",
        meaning: "How the backends are checked: see below.",
    },
    Key {
        path: "pools[].backends",
        kind: "list",
        absent: Absent::Is("[]"),
        good: "",
        bad: "",
        meaning: "The backends of the pool.",
    },
];

const BACKENDS: &[Key] = &[
    Key {
        path: "pools[].backends[].name",
        kind: "name",
        absent: Absent::Required,
        good: "web2",
        bad: "a b",
        meaning: "Unique in the pool.",
    },
    Key {
        path: "pools[].backends[].address",
        kind: "address",
        absent: Absent::Required,
        good: "10.0.1.12",
        bad: "10.0.1",
        meaning: "The destination of encapsulated packets.",
    },
    Key {
        path: "pools[].backends[].weight",
        kind: "number",
        absent: Absent::Is("100"),
        good: "50",
        bad: "70000",
        meaning: "The backend's share of new flows is its weight over the sum of the pool's weights; 0 takes none.",
    },
    Key {
        path: "pools[].backends[].state",
        kind: "word",
        absent: Absent::Is("active"),
        good: "disabled",
        bad: "drained",
        meaning: "Takes new flows, keeps existing ones only, or receives no packets.",
    },
    Key {
        path: "pools[].backends[].since",
        kind: "number",
        absent: Absent::Nothing("unknown"),
        good: "1767225600",
        bad: "0",
        meaning: "The time of the drain or disable.",
    },
    Key {
        path: "pools[].backends[].check",
        kind: "map",
        absent: Absent::Nothing("as the pool says"),
        good: "",
        bad: "",
        meaning: "What differs from the pool's check.",
    },
    Key {
        path: "pools[].backends[].check.port",
        kind: "port",
        absent: Absent::Nothing("as the pool says"),
        good: "8080",
        bad: "0",
        meaning: "The port of this backend's checks.",
    },
    Key {
        path: "pools[].backends[].check.path",
        kind: "path",
        absent: Absent::Nothing("as the pool says"),
        good: "/ready",
        bad: "ready",
        meaning: "The path of this backend's checks, of kind `http` or `https`.",
    },
    Key {
        path: "pools[].backends[].check.host",
        kind: "host",
        absent: Absent::Nothing("as the pool says"),
        good: "www.example.org",
        bad: "a b",
        meaning: "The host of this backend's checks, of kind `http` or `https`.",
    },
];

const VIPS: &[Key] = &[
    Key {
        path: "vips",
        kind: "list",
        absent: Absent::Required,
        good: "",
        bad: "",
        meaning: "All VIPs; `[]` for none.",
    },
    Key {
        path: "vips[].name",
        kind: "name",
        absent: Absent::Required,
        good: "",
        bad: "a b",
        meaning: "Unique among the VIPs.",
    },
    Key {
        path: "vips[].address",
        kind: "address or prefix",
        absent: Absent::Required,
        good: "203.0.113.16/28",
        bad: "203.0.113.17/28",
        meaning: "The address that clients connect to; or a prefix of such, IPv4 /8 to /32, IPv6 /16 to /128.",
    },
    Key {
        path: "vips[].port",
        kind: "port, range of ports, or `any`",
        absent: Absent::Required,
        good: "8000-8100",
        bad: "8100-8000",
        meaning: "Of VIPs that take a packet, the most specific gets it: the longer prefix, then the one that names the protocol, then the one with fewer ports. Two ranges of the same address and protocol are apart, or one is within the other.",
    },
    Key {
        path: "vips[].protocol",
        kind: "word",
        absent: Absent::Required,
        good: "udp",
        bad: "icmp",
        meaning: "`tcp`, `udp`, `sctp` or `udplite`; or, with `port: any`, `esp`, `gre` or `any`.",
    },
    Key {
        path: "vips[].pool",
        kind: "name of a pool",
        absent: Absent::Required,
        good: "dns",
        bad: "a b",
        meaning: "The pool that serves it.",
    },
    Key {
        path: "vips[].announce",
        kind: "boolean or prefix",
        absent: Absent::Is("true"),
        good: "false",
        bad: "maybe",
        meaning: "By its address or prefix alone, not at all, or by a wider prefix that it shares with other VIPs.",
    },
    Key {
        path: "vips[].communities",
        kind: "list of communities",
        absent: Absent::Is("[]"),
        good: "[\"65010:100\"]",
        bad: "*\"65010:100\"",
        meaning: "Communities of its prefix, beside those of node and neighbor.",
    },
    Key {
        path: "vips[].when_empty",
        kind: "word",
        absent: Absent::Is("drop"),
        good: "reset",
        bad: "refuse",
        meaning: "The handling of its packets while its pool has no backend: dropped, or answered with a TCP RST or an ICMP port unreachable.",
    },
    Key {
        path: "vips[].affinity",
        kind: "`5-tuple`, `source` or `source/LENGTH`",
        absent: Absent::Is("5-tuple"),
        good: "source/24",
        bad: "client",
        meaning: "By what its flows find their backend: addresses, ports and protocol; or the source address, or its first bits, alone. A change moves flows to other backends, which ends connections.",
    },
];
