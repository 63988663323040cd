//! The keys of `maglev.yaml`, but for those of BGP. The tests of the module above hold each against the decoder.

use super::keys::Absent;
use super::{Group, Key};

pub(super) const GROUPS: &[Group] = &[
    Group { title: "The node", document: NODE, keys: BASIC },
    Group { title: "API and metrics", document: NODE, keys: API },
    Group { title: "Data plane", document: NODE, keys: DATAPLANE },
    Group { title: "Health checks and drain", document: NODE, keys: DRAIN },
];

/// A node with a neighbor over IPv4 that takes both families.
pub(super) const NODE: &str = r#"
interfaces: [{ name: eth0 }]
encap: { kind: ipip, source: 10.64.11.0/24, source6: "2001:db8:64:11::/64" }
hash_key: "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
dataplane: { on_stop: keep }
bgp:
  local_as: 65010
  router_id: 10.0.0.11
  neighbors: [{ address: 10.0.0.1, remote_as: 65000, next_hop6: "2001:db8::11" }]
"#;

const BASIC: &[Key] = &[
    Key {
        path: "interfaces",
        kind: "list",
        absent: Absent::Required,
        good: "[{ name: eth1 }]",
        bad: "*{ name: eth0 }",
        meaning: "The interfaces that receive packets for VIPs and reach the backends.",
    },
    Key {
        path: "interfaces[].name",
        kind: "interface name",
        absent: Absent::Required,
        good: "eth1",
        bad: "a/b",
        meaning: "An interface that does not exist yet is awaited.",
    },
    Key {
        path: "interfaces[].mode",
        kind: "word",
        absent: Absent::Is("native"),
        good: "generic",
        bad: "fast",
        meaning: "How the XDP program is attached: in the driver, or in the network stack (any interface, slower).",
    },
    Key {
        path: "interfaces[].also",
        kind: "list of MAC addresses",
        absent: Absent::Is("[]"),
        good: "[\"00:00:5e:00:01:0a\"]",
        bad: "*\"00:00:5e:00:01:0a\"",
        meaning: "MAC addresses beside the interface's own whose frames are balanced, such as a virtual router's.",
    },
    Key {
        path: "encap",
        kind: "map",
        absent: Absent::Required,
        good: "",
        bad: "",
        meaning: "The outer header of packets to backends. It needs `source`, `source6` or both.",
    },
    Key { path: "encap.kind", kind: "word", absent: Absent::Required, good: "", bad: "gre", meaning: "IP in IP." },
    Key {
        path: "encap.source",
        kind: "IPv4 address or prefix",
        absent: Absent::Nothing("none"),
        good: "10.64.12.0/24",
        bad: "16.0.0.0/4",
        meaning: "The outer source of packets to IPv4 backends. The host bits of a prefix come from the flow hash.",
    },
    Key {
        path: "encap.source6",
        kind: "IPv6 address or prefix",
        absent: Absent::Nothing("none"),
        good: "\"2001:db8:64:12::/64\"",
        bad: "\"2000::/3\"",
        meaning: "The same for IPv6 backends.",
    },
    Key {
        path: "hash_key",
        kind: "text",
        absent: Absent::Required,
        good: "",
        bad: "\"0f\"",
        meaning: "The key of the flow hash, a secret.",
    },
    Key {
        path: "services",
        kind: "path",
        absent: Absent::Is("/var/lib/maglev/services.yaml"),
        good: "services.yaml",
        bad: "",
        meaning: "The services file. A relative path is relative to this file.",
    },
    Key {
        path: "trace",
        kind: "boolean",
        absent: Absent::Is("false"),
        good: "true",
        bad: "",
        meaning: "Whether the packet path logs each decision.",
    },
];

const API: &[Key] = &[
    Key { path: "api", kind: "map", absent: Absent::Nothing("the defaults below"), good: "", bad: "", meaning: "" },
    Key {
        path: "api.socket",
        kind: "path",
        absent: Absent::Is("/run/maglev/maglev.sock"),
        good: "/run/m.sock",
        bad: "",
        meaning: "The Unix socket for reads and changes, mode 0660; at most 107 bytes.",
    },
    Key {
        path: "api.read_socket",
        kind: "path",
        absent: Absent::Nothing("none"),
        good: "/run/read.sock",
        bad: "",
        meaning: "A second Unix socket that answers reads and plans alone, mode 0666; another path than `socket`.",
    },
    Key {
        path: "api.metrics",
        kind: "address and port",
        absent: Absent::Is("off"),
        good: "\"127.0.0.1:9642\"",
        bad: "\"0.0.0.0:9642\"",
        meaning: "Serves `/metrics` on a loopback address.",
    },
];

const DATAPLANE: &[Key] = &[
    Key {
        path: "dataplane",
        kind: "map",
        absent: Absent::Nothing("the defaults below"),
        good: "",
        bad: "",
        meaning: "",
    },
    Key {
        path: "dataplane.pin",
        kind: "path, or `off`",
        absent: Absent::Is("/sys/fs/bpf/maglev"),
        good: "/sys/fs/bpf/other",
        bad: "here",
        meaning: "The folder in the BPF file system that program, maps and links are pinned in, so that they outlive the daemon. A folder of this node's own.",
    },
    Key {
        path: "dataplane.on_stop",
        kind: "word",
        absent: Absent::Derived("keep", "`keep`; `detach` with `dataplane.pin: off`"),
        good: "detach",
        bad: "stop",
        meaning: "What SIGTERM does: detach the program, or keep it forwarding. `keep` needs `pin`. Some drivers reset their link when a program is detached.",
    },
    Key {
        path: "dataplane.watchdog",
        kind: "duration, or `off`",
        absent: Absent::Is("off"),
        good: "60s",
        bad: "5s",
        meaning: "10 s to 1 h. Without a running daemon for so long, packets for VIPs are dropped as `daemon_gone`: a node whose tables nothing keeps up to date does not answer for ever. Longer than a restart or an upgrade takes. Needs `pin`.",
    },
    Key {
        path: "flow_table",
        kind: "map",
        absent: Absent::Nothing("the defaults below"),
        good: "",
        bad: "",
        meaning: "",
    },
    Key {
        path: "flow_table.flows",
        kind: "number",
        absent: Absent::Is("458752"),
        good: "7",
        bad: "0",
        meaning: "Flows that each CPU remembers, rounded up to a power of two of sets of seven. A set takes 64 bytes for each possible CPU.",
    },
    Key { path: "packets", kind: "map", absent: Absent::Nothing("the defaults below"), good: "", bad: "", meaning: "" },
    Key {
        path: "packets.unknown_port",
        kind: "word",
        absent: Absent::Is("drop"),
        good: "reset",
        bad: "refuse",
        meaning: "The handling of TCP and UDP for a VIP's address on ports that no VIP has: dropped, or answered as with `when_empty: reset`.",
    },
    Key {
        path: "packets.echo",
        kind: "word",
        absent: Absent::Is("always"),
        good: "serving",
        bad: "never",
        meaning: "Which pings of VIPs' addresses are answered: all, those to an address of which at least one VIP has a backend that takes new flows, or none.",
    },
    Key { path: "limits", kind: "map", absent: Absent::Nothing("the defaults below"), good: "", bad: "", meaning: "" },
    Key {
        path: "limits.vips",
        kind: "number",
        absent: Absent::Is("512"),
        good: "10",
        bad: "0",
        meaning: "VIPs that this node accepts. A VIP takes 16 bytes of counters for each possible CPU, reserved for as many as can be set.",
    },
    Key {
        path: "limits.pools",
        kind: "number",
        absent: Absent::Is("512"),
        good: "10",
        bad: "0",
        meaning: "Pools that this node accepts. Each takes 131 KB of kernel memory, reserved for as many as are set here.",
    },
    Key {
        path: "limits.backends",
        kind: "number",
        absent: Absent::Is("32767"),
        good: "10",
        bad: "0",
        meaning: "Backends that this node accepts.",
    },
];

const DRAIN: &[Key] = &[
    Key { path: "health", kind: "map", absent: Absent::Nothing("the defaults below"), good: "", bad: "", meaning: "" },
    Key {
        path: "health.common_failure",
        kind: "number of rounds",
        absent: Absent::Is("3"),
        good: "5",
        bad: "101",
        meaning: "While every check fails at once, backends keep their state for this many more rounds of checks.",
    },
    Key {
        path: "health.hold_down",
        kind: "duration",
        absent: Absent::Is("10s"),
        good: "1m",
        bad: "2h",
        meaning: "How long a pool must have enough healthy backends before a prefix that was withdrawn for lack of them is announced again.",
    },
    Key {
        path: "drain",
        kind: "map",
        absent: Absent::Nothing("the defaults below"),
        good: "",
        bad: "",
        meaning: "How `maglev node drain` takes the node out of service.",
    },
    Key {
        path: "drain.lead",
        kind: "duration",
        absent: Absent::Is("10s"),
        good: "30s",
        bad: "2h",
        meaning: "How long prefixes are announced as least preferred before they are withdrawn.",
    },
    Key {
        path: "drain.quiet",
        kind: "duration",
        absent: Absent::Is("10s"),
        good: "30s",
        bad: "0s",
        meaning: "How long no packet for a VIP must arrive until the node is drained.",
    },
    Key {
        path: "drain.last_node",
        kind: "boolean",
        absent: Absent::Is("false"),
        good: "true",
        bad: "",
        meaning: "Whether no other node announces the same VIPs. A drain then warns.",
    },
];
