//! The decoders of `maglev.yaml` and `services.yaml`.

use std::path::Path;

use maglev_config::{check_text, decode_node, decode_services, decode_services_since, encode_services, parse_check};
use maglev_model::Rules;

use crate::fuzz::Target;

/// `maglev.yaml` decodes to a configuration or to errors, never both or neither.
pub(super) const NODE: Target = Target { name: "node", seeds: node_seeds, words: WORDS, run: run_node };

/// `services.yaml` that is accepted is written to a file that is accepted and means the same.
pub(super) const SERVICES: Target = Target { name: "services", seeds: service_seeds, words: WORDS, run: run_services };

const WORDS: &[&[u8]] = &[
    b": ",
    b"- ",
    b"[",
    b"]",
    b"{ ",
    b" }",
    b"\n",
    b"  ",
    b", ",
    b"\"",
    b"'",
    b"&a ",
    b"*a",
    b"!!str ",
    b"|\n",
    b"null",
    b"true",
    b"0",
    b"1",
    b"65535",
    b"65536",
    b"4294967296",
    b"1e9",
    b"-1",
    b"1s",
    b"250 ms",
    b"24h",
    b"0x10",
    b"203.0.113.0/24",
    b"2001:db8::/64",
    b"10.0.0.1",
    b"any",
    b"8000-8100",
    b"backends",
    b"weight",
    b"state",
    b"check",
    b"vips",
    b"pools",
    b"tracking",
    b"transition",
    b"panic",
    b"announce",
    b"communities",
    b"64512:1",
    b"when_empty",
];

/// Most keys of `maglev.yaml`.
const NODE_FILE: &str = "\
interfaces: [{ name: eth0, mode: generic, also: [\"00:00:5e:00:01:0a\"] }]
encap: { kind: ipip, source: 10.64.11.0/24, source6: \"2001:db8:64::/64\" }
hash_key: \"0f1e2d3c4b5a69788796a5b4c3d2e1f0\"
services: services.yaml
trace: false
api: { socket: /run/m.sock, read_socket: /run/r.sock, metrics: \"127.0.0.1:9642\" }
dataplane: { pin: /sys/fs/bpf/maglev, on_stop: keep }
flow_table: { flows: 458752 }
packets: { unknown_port: reset, echo: serving }
limits: { vips: 512, pools: 512, backends: 32767 }
health: { common_failure: 3, hold_down: 10s }
drain: { lead: 10s, quiet: 10s, last_node: true }
bgp:
  local_as: 65010
  router_id: 10.0.0.11
  communities: [65010:100, \"65010:1:2\", \"rt:65010:100\", graceful-shutdown]
  link_bandwidth: 10G
  on_stop: keep
  graceful_restart: 120s
  on_drain: { med: 100, prepend: 3 }
  neighbors:
    - { name: r1, address: 10.0.0.1, remote_as: 65000, source: 10.0.0.11, port: 179, multihop: 2, hold_time: 9s, keepalive: 3s }
    - { address: \"2001:db8::1\", remote_as: 65000, gtsm: true, families: [ipv4, ipv6], next_hop: 10.0.0.11, role: customer, passive: true, med: 5 }
";

/// Most keys of `services.yaml`.
const SERVICES_FILE: &str = "\
pools:
  - name: web
    tracking: always
    transition: { learning: 90s, idle: 5m, udp: keep }
    min_healthy: 2
    encap: gue
    panic: 30
    slow_start: 10s
    on_all_dead: keep
    check: { kind: http, path: /healthz, host: www.example.org, interval: 2s, timeout: 1s, fall: 2, rise: 3, via: direct, port: 80 }
    backends:
      - { name: web1, address: 10.0.1.11, weight: 5, state: draining, since: 1700000000, check: { port: 8080 } }
      - { name: web2, address: \"2001:db8::11\", weight: 0, state: disabled }
  - { name: dns, check: { kind: dns, query: example.org, rcode: noerror }, backends: [{ name: d1, address: 10.0.1.12 }] }
vips:
  - { name: www, address: 203.0.113.10, port: 443, protocol: tcp, pool: web, when_empty: reset, communities: [\"65010:5\"] }
  - { name: rest, address: 203.0.113.0/28, port: 8000-8100, protocol: udp, pool: dns, announce: 203.0.113.0/24 }
  - { name: six, address: \"2001:db8:113::/64\", port: any, protocol: any, pool: web, announce: false }
";

const FILE: &str = "/etc/maglev/fuzzed.yaml";

/// The code blocks of a page that are of this language.
fn blocks(page: &str) -> impl Iterator<Item = Vec<u8>> {
    page.split("```yaml\n").skip(1).filter_map(|rest| Some(rest.split_once("\n```")?.0.as_bytes().to_vec()))
}

fn node_seeds() -> Vec<Vec<u8>> {
    let pages = [include_str!("../../../../docs/config.md"), include_str!("../../../../docs/bgp.md")];
    let files = [
        include_str!("../../../../deploy/examples/maglev.yaml"),
        include_str!("../../../../deploy/examples/broken.yaml"),
        NODE_FILE,
    ];
    pages.into_iter().flat_map(blocks).chain(files.map(|file| file.as_bytes().to_vec())).collect()
}

fn service_seeds() -> Vec<Vec<u8>> {
    let pages = [include_str!("../../../../docs/config.md"), include_str!("../../../../docs/health.md")];
    let files = [
        include_str!("../../../../deploy/examples/services.yaml"),
        include_str!("../../../../deploy/examples/broken-services.yaml"),
        "pools: []\nvips: []\n",
        SERVICES_FILE,
    ];
    pages.into_iter().flat_map(blocks).chain(files.map(|file| file.as_bytes().to_vec())).collect()
}

fn run_node(input: &[u8]) -> Result<(), String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(()) };
    let draft = decode_node(Path::new(FILE), text, |_| Err("no such file".to_owned()));
    if draft.config.is_some() != draft.problems.is_empty() {
        return Err(format!("a configuration: {}; errors: {}", draft.config.is_some(), draft.problems.count()));
    }
    lines(draft.problems.lines())?;
    if let Ok(check) = parse_check(text) {
        let written = check_text(&check);
        if parse_check(&written).as_ref() != Ok(&check) {
            return Err(format!("a check is written as {written}, which is another"));
        }
    }
    Ok(())
}

fn run_services(input: &[u8]) -> Result<(), String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(()) };
    let (file, rules) = (Path::new(FILE), Rules::default());
    let services = match decode_services(file, text, &rules) {
        Ok(services) => services,
        Err(problems) if problems.is_empty() => return Err("rejected without an error".to_owned()),
        Err(problems) => return lines(problems.lines()),
    };
    let written = encode_services(&services);
    let again = decode_services(file, &written, &rules).map_err(|problems| {
        format!("what is written is rejected: {}\n{written}", problems.lines().collect::<String>())
    })?;
    if again != services {
        return Err(format!("what is written means something else:\n{written}"));
    }
    if encode_services(&again) != written {
        return Err("the same services are written in two ways".to_owned());
    }
    if decode_services_since(file, text, &rules, &services).as_ref().ok() != Some(&services) {
        return Err("an unchanged file means something else".to_owned());
    }
    Ok(())
}

/// Errors are lines.
fn lines(mut errors: impl Iterator<Item = String>) -> Result<(), String> {
    match errors.find(|line| line.contains(char::is_control)) {
        Some(line) => Err(format!("an error with control characters: {line:?}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_with_most_keys_are_accepted() {
        let draft = decode_node(Path::new(FILE), NODE_FILE, |_| Ok("secret".to_owned()));
        assert_eq!(draft.problems.lines().collect::<Vec<_>>(), [""; 0]);
        let problems = decode_services(Path::new(FILE), SERVICES_FILE, &draft.rules).err();
        let lines: Vec<String> = problems.iter().flat_map(maglev_config::Problems::lines).collect();
        assert_eq!(lines, [""; 0]);
    }

    #[test]
    fn the_targets_hold_for_their_seeds() {
        for target in [NODE, SERVICES] {
            for seed in (target.seeds)() {
                assert_eq!((target.run)(&seed), Ok(()), "{}", String::from_utf8_lossy(&seed));
            }
        }
    }
}
