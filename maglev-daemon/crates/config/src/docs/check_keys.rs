//! The keys of checks in `services.yaml`. The tests of the module above hold each against the decoder.

use super::keys::Absent;
use super::service_keys::HTTP;
use super::{Group, Key};

pub(super) const GROUPS: &[Group] = &[
    Group { title: "Checks of every kind", document: HTTP, keys: CHECKS },
    Group { title: "Checks of kind `http` and `https`", document: HTTP, keys: HTTP_KEYS },
    Group { title: "Checks of kind `https` alone", document: HTTPS, keys: HTTPS_KEYS },
    Group { title: "Checks of kind `udp`", document: UDP, keys: UDP_KEYS },
    Group { title: "Checks of kind `dns`", document: DNS, keys: DNS_KEYS },
];

const HTTPS: &str = "
pools: [{ name: web, check: { kind: https, host: www.example.org } }]
vips: []
";

const UDP: &str = "
pools: [{ name: web, check: { kind: udp, payload: ping, expect: pong } }]
vips: []
";

const DNS: &str = "
pools: [{ name: web, check: { kind: dns, query: example.org } }]
vips: []
";

const CHECKS: &[Key] = &[
    Key {
        path: "pools[].check.kind",
        kind: "word",
        absent: Absent::Required,
        good: "",
        bad: "icmp",
        meaning: "The kind of check.",
    },
    Key {
        path: "pools[].check.interval",
        kind: "duration",
        absent: Absent::Is("2s"),
        good: "5s",
        bad: "1ms",
        meaning: "The time from one check to the next.",
    },
    Key {
        path: "pools[].check.timeout",
        kind: "duration",
        absent: Absent::Derived("1s", "half of `interval`, at most 1s"),
        good: "500ms",
        bad: "2h",
        meaning: "A check that takes longer has failed; shorter than `interval`.",
    },
    Key {
        path: "pools[].check.jitter",
        kind: "duration",
        absent: Absent::Derived("200ms", "a tenth of `interval`"),
        good: "100ms",
        bad: "",
        meaning: "Random part of each interval; at most half of `interval`.",
    },
    Key {
        path: "pools[].check.fall",
        kind: "number",
        absent: Absent::Is("2"),
        good: "3",
        bad: "0",
        meaning: "Failed checks in a row that make a backend unhealthy.",
    },
    Key {
        path: "pools[].check.rise",
        kind: "number",
        absent: Absent::Is("3"),
        good: "4",
        bad: "0",
        meaning: "Passed checks in a row that make it healthy.",
    },
    Key {
        path: "pools[].check.port",
        kind: "port",
        absent: Absent::Nothing("the port of the VIP"),
        good: "8080",
        bad: "0",
        meaning: "The port that is checked.",
    },
    Key {
        path: "pools[].check.via",
        kind: "word",
        absent: Absent::Is("encap"),
        good: "direct",
        bad: "vpn",
        meaning: "Through the encapsulation, addressed to a VIP; or directly to the backend's address.",
    },
    Key {
        path: "pools[].check.vip",
        kind: "name of a VIP",
        absent: Absent::Nothing("each VIP of the pool"),
        good: "www",
        bad: "a b",
        meaning: "The VIP that checks are addressed to; for `via: encap`.",
    },
];

const HTTP_KEYS: &[Key] = &[
    Key {
        path: "pools[].check.path",
        kind: "path",
        absent: Absent::Is("/"),
        good: "/healthz",
        bad: "healthz",
        meaning: "The path of the request.",
    },
    Key {
        path: "pools[].check.host",
        kind: "host",
        absent: Absent::Nothing("the address, for `https` the server name"),
        good: "www.example.org",
        bad: "a b",
        meaning: "The Host header.",
    },
    Key {
        path: "pools[].check.status",
        kind: "number or range",
        absent: Absent::Is("\"200-299\""),
        good: "\"200-399\"",
        bad: "99",
        meaning: "The status codes that pass.",
    },
    Key {
        path: "pools[].check.body",
        kind: "text",
        absent: Absent::Nothing("the body is not read"),
        good: "ok",
        bad: "",
        meaning: "A text of at most 1,024 bytes that the first MiB of the body must hold.",
    },
];

const HTTPS_KEYS: &[Key] = &[
    Key {
        path: "pools[].check.sni",
        kind: "server name",
        absent: Absent::Nothing("the name in `host`"),
        good: "web.example.org",
        bad: "a b",
        meaning: "The name of the server in TLS. An https check needs it or `host`.",
    },
    Key {
        path: "pools[].check.verify",
        kind: "boolean",
        absent: Absent::Is("true"),
        good: "false",
        bad: "",
        meaning: "Whether the certificate must be valid by the system's authorities.",
    },
];

const UDP_KEYS: &[Key] = &[
    Key {
        path: "pools[].check.payload",
        kind: "text",
        absent: Absent::Required,
        good: "hello",
        bad: "",
        meaning: "The datagram that is sent; at most 1,024 bytes.",
    },
    Key {
        path: "pools[].check.expect",
        kind: "text",
        absent: Absent::Required,
        good: "hello",
        bad: "",
        meaning: "The beginning of the answer; at most 1,024 bytes.",
    },
];

const DNS_KEYS: &[Key] = &[
    Key {
        path: "pools[].check.query",
        kind: "DNS name",
        absent: Absent::Required,
        good: "www.example.org",
        bad: "a..b",
        meaning: "The name that is queried.",
    },
    Key {
        path: "pools[].check.rcode",
        kind: "word",
        absent: Absent::Is("noerror"),
        good: "nxdomain",
        bad: "ok",
        meaning: "The response code that passes.",
    },
];
