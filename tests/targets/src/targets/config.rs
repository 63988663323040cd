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
    ];
    pages.into_iter().flat_map(blocks).chain(files.map(|file| file.as_bytes().to_vec())).collect()
}

fn service_seeds() -> Vec<Vec<u8>> {
    let pages = [include_str!("../../../../docs/config.md"), include_str!("../../../../docs/health.md")];
    let files = [
        include_str!("../../../../deploy/examples/services.yaml"),
        include_str!("../../../../deploy/examples/broken-services.yaml"),
        "pools: []\nvips: []\n",
        "pools:\n  - { name: web, backends: [{ name: web1, address: 10.0.1.11, weight: 100 }] }\nvips:\n  \
         - { name: www, address: 203.0.113.10, port: 443, protocol: tcp, pool: web }\n",
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
