//! The keys of `decap.yaml`. The tests of the module above hold each against the decoder.

use super::keys::Absent;
use super::{Group, Key};

pub(super) const GROUPS: &[Group] = &[Group { title: "Decapsulation on a backend", document: BACKEND, keys: KEYS }];

const BACKEND: &str = "
interfaces: [{ name: eth0 }]
sources: [10.64.11.0/24]
";

const KEYS: &[Key] = &[
    Key {
        path: "interfaces",
        kind: "list",
        absent: Absent::Required,
        good: "[{ name: eth1 }]",
        bad: "*{ name: eth0 }",
        meaning: "The interfaces that receive encapsulated packets. Added and removed by a reload.",
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
        meaning: "How the XDP program is attached: in the driver, or in the network stack (any interface, slower). A change needs a restart.",
    },
    Key {
        path: "sources",
        kind: "list of addresses and prefixes",
        absent: Absent::Required,
        good: "[10.64.12.0/24]",
        bad: "*10.64.11.0/24",
        meaning: "The load balancers' outer sources: `encap.source` and `encap.source6` of every node. Packets from other sources are passed unchanged.",
    },
    Key {
        path: "vips",
        kind: "list of addresses and prefixes",
        absent: Absent::Nothing("the addresses on `lo`, without loopback and link-local ones; changes are followed"),
        good: "[203.0.113.10]",
        bad: "[127.0.0.1]",
        meaning: "The VIPs of this backend, at most 4,096 prefixes of each family. Encapsulated packets for other addresses are dropped.",
    },
    Key {
        path: "mss",
        kind: "word, or number of bytes",
        absent: Absent::Is("off"),
        good: "auto",
        bad: "99",
        meaning: "Lowers the MSS in answers to SYNs that came encapsulated: by the MTU of the interface that received the SYN, or to this many bytes for IPv4 and 20 less for IPv6.",
    },
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
        absent: Absent::Is("/sys/fs/bpf/maglev-decap"),
        good: "/sys/fs/bpf/other",
        bad: "here",
        meaning: "The folder in the BPF file system that programs, counters and links are pinned in, one subfolder for each interface, so that they outlive the process. A change needs a restart.",
    },
    Key {
        path: "dataplane.on_stop",
        kind: "word",
        absent: Absent::Is("keep"),
        good: "detach",
        bad: "stop",
        meaning: "What SIGTERM does: keep decapsulating, or detach the programs and leave nothing. `keep` needs `pin`; with `pin: off` the default is `detach`.",
    },
    Key { path: "api", kind: "map", absent: Absent::Nothing("the defaults below"), good: "", bad: "", meaning: "" },
    Key {
        path: "api.socket",
        kind: "path",
        absent: Absent::Is("/run/maglev-decap/maglev-decap.sock"),
        good: "/run/d.sock",
        bad: "",
        meaning: "The Unix socket of `maglev decap`, mode 0660; at most 107 bytes. It serves `/metrics` too. A change needs a restart.",
    },
    Key {
        path: "api.metrics",
        kind: "address and port",
        absent: Absent::Is("off"),
        good: "\"127.0.0.1:9102\"",
        bad: "\"0.0.0.0:9102\"",
        meaning: "Serves `/metrics` on a loopback address. A change needs a restart.",
    },
];
