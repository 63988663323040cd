//! The rules, one function each. A rule knows the names of folders and crates, and no file's content.

use super::{Finding, sizes, source::Source};

/// Words that are allowed in some places only.
struct Territory {
    words: &'static [&'static str],
    /// Prefixes of the allowed paths.
    allowed: &'static [&'static str],
    remedy: &'static str,
}

const TERRITORIES: [Territory; 4] = [
    Territory {
        words: &["aya", "aya_log", "aya_obj"],
        allowed: &["maglev-daemon/crates/dataplane/"],
        remedy: "only the crate maglev-dataplane may: use its functions",
    },
    Territory {
        words: &["rtnetlink"],
        allowed: &["maglev-daemon/crates/net/"],
        remedy: "only the crate maglev-net may: use its functions",
    },
    Territory {
        words: &["serde_saphyr"],
        allowed: &["maglev-daemon/crates/config/"],
        remedy: "only the crate maglev-config may: use its functions",
    },
    Territory {
        words: &["aya_ebpf", "aya_log_ebpf"],
        allowed: &["maglev-ebpf/src/bin/", "maglev-ebpf/harness/src/"],
        remedy: "the packet path is generic over the traits of `env`, and runs on the host too",
    },
];

/// Modules without input, output and clock.
const PURE: [&str; 7] = [
    "maglev-common/src/",
    "maglev-ebpf/src/",
    "maglev-daemon/crates/bgp/src/fsm",
    "maglev-daemon/crates/bgp/src/wire",
    "maglev-daemon/crates/config/",
    "maglev-daemon/crates/core/",
    "maglev-daemon/crates/model/",
];

/// A runtime, a socket, or the present time. A point in time as a parameter is allowed.
const IMPURE_WORDS: [&str; 11] = [
    "tokio",
    "nix",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "UnixDatagram",
    "UnixListener",
    "UnixStream",
    "SystemTime",
    "elapsed",
    "sleep",
];

/// The files with `unsafe`.
const UNSAFE: [&str; 12] = [
    "maglev-common/src/pod.rs",
    "maglev-ebpf/src/bin/frame.rs",
    "maglev-ebpf/src/bin/captured/tap.rs",
    "maglev-ebpf/src/bin/node/maps.rs",
    "maglev-ebpf/src/bin/node/outgoing.rs",
    "maglev-ebpf/src/bin/node/skb.rs",
    "maglev-ebpf/src/bin/backend/maps.rs",
    "maglev-ebpf/harness/src/maps.rs",
    "maglev-ebpf/harness/src/mode.rs",
    "maglev-daemon/crates/dataplane/src/",
    "maglev-daemon/crates/net/src/socket.rs",
    "tests/targets/src/coverage.rs",
];

/// The files with unsafe *attributes* too: for the names that the kernel's loader looks up.
const UNSAFE_ATTRIBUTES: [&str; 10] = [
    "maglev-ebpf/src/bin/captured/main.rs",
    "maglev-ebpf/src/bin/node/functions.rs",
    "maglev-ebpf/src/bin/node/main.rs",
    "maglev-ebpf/src/bin/node/programs.rs",
    "maglev-ebpf/src/bin/backend/main.rs",
    "maglev-ebpf/harness/src/main.rs",
    "maglev-ebpf/harness/src/measured.rs",
    "maglev-ebpf/harness/src/earlier.rs",
    "maglev-ebpf/harness/src/faulty.rs",
    "maglev-ebpf/harness/src/faulty/frame.rs",
];

/// The files that name maps, counters and drop reasons.
const NAMES: [&str; 2] = ["maglev-common/src/maps.rs", "maglev-common/src/counters.rs"];

/// The findings of every rule, in the order of the files.
pub(super) fn all(sources: &[Source]) -> Vec<Finding> {
    let mut findings = named_once(sources);
    for source in sources {
        findings.extend(territory(source));
        findings.extend(purity(source));
        findings.extend(unsafety(source));
        findings.extend(module_line(source));
        findings.extend(exceptions(source));
        findings.extend(sizes::limits(source));
    }
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    findings
}

/// Only the data plane names aya, only `net` names rtnetlink, only the programs name aya-ebpf.
fn territory(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for Territory { words, allowed, remedy } in &TERRITORIES {
        if is_in(source, allowed) {
            continue;
        }
        for (line, word) in source.words().filter(|(_, word)| words.contains(word)) {
            findings.push(finding(source, line, format!("names `{word}`; {remedy}")));
        }
    }
    findings
}

/// The pure modules name no runtime, no socket and no clock.
fn purity(source: &Source) -> Vec<Finding> {
    if !is_in(source, &PURE) {
        return Vec::new();
    }
    let words = source.words().filter(|(_, word)| IMPURE_WORDS.contains(word));
    let clock = source.code.lines().enumerate().filter(|(_, line)| line.contains("Instant::now"));
    let clock = clock.map(|(index, _)| (index + 1, "Instant::now"));
    let message = |word| format!("names `{word}`; this module is pure: time and input come in as parameters");
    words.chain(clock).map(|(line, word)| finding(source, line, message(word))).collect()
}

/// `unsafe` stands only in the files that prove it.
fn unsafety(source: &Source) -> Vec<Finding> {
    if is_in(source, &UNSAFE) {
        return Vec::new();
    }
    let attributes = is_in(source, &UNSAFE_ATTRIBUTES);
    let mut findings = Vec::new();
    for (index, line) in source.code.lines().enumerate() {
        let line = if attributes { line.replace("#[unsafe(", "") } else { line.to_owned() };
        let mut words = line.split(|character: char| !character.is_alphanumeric() && character != '_');
        if words.any(|word| word == "unsafe") {
            findings.push(finding(source, index + 1, format!("`unsafe` may stand only in {}", UNSAFE.join(", "))));
        }
    }
    findings
}

/// Every module begins with a `//!` line.
fn module_line(source: &Source) -> Option<Finding> {
    let said = source.text.strip_prefix("//! ").is_some_and(|rest| !rest.trim_start().is_empty());
    (!said)
        .then(|| finding(source, 1, "must open with a `//!` line: what it holds, and what it must not know".to_owned()))
}

/// An exception to a lint is an `expect`, so that it is reported once its cause is gone.
fn exceptions(source: &Source) -> Vec<Finding> {
    let lines = source.code.lines().enumerate();
    let allows = lines.filter(|(_, line)| line.split_whitespace().collect::<String>().contains("[allow("));
    let message = "is an `allow`; write `#[expect(lint, reason = \"…\")]`";
    allows.map(|(index, _)| finding(source, index + 1, message.to_owned())).collect()
}

/// Names of maps, counters and drop reasons are spelled out only in maglev-common's two files.
///
/// Tests are exempt, since they check the name from outside; a map's `static` in the programs is an identifier.
fn named_once(sources: &[Source]) -> Vec<Finding> {
    let (naming, others): (Vec<&Source>, Vec<&Source>) = sources.iter().partition(|source| is_in(source, &NAMES));
    let is_name = |text: &str| {
        let identifier = text.chars().all(|character| character.is_ascii_alphanumeric() || character == '_');
        identifier && (text.contains('_') || text.chars().any(|character| character.is_ascii_uppercase()))
    };
    let names: Vec<&str> = naming
        .iter()
        .flat_map(|source| source.strings.iter().filter(|(line, _)| *line < source.tests_begin()))
        .map(|(_, text)| text.as_str())
        .filter(|text| is_name(text))
        .collect();
    let mut findings = Vec::new();
    for source in others.into_iter().filter(|source| !is_test(source)) {
        let begin = source.tests_begin();
        for (line, text) in source.strings.iter().filter(|(line, _)| *line < begin) {
            if names.contains(&text.as_str()) {
                findings.push(finding(source, *line, format!("spells out \"{text}\", which maglev-common names")));
            }
        }
    }
    findings
}

fn is_in(source: &Source, places: &[&str]) -> bool {
    places.iter().any(|place| {
        let rest = source.path.strip_prefix(place);
        rest.is_some_and(|rest| place.ends_with('/') || rest.is_empty() || rest.starts_with('/') || rest == ".rs")
    })
}

/// A file of integration tests, or of the lab.
fn is_test(source: &Source) -> bool {
    source.path.starts_with("tests/") || source.path.split('/').nth(1) == Some("tests")
}

fn finding(source: &Source, line: usize, message: String) -> Finding {
    Finding { path: source.path.clone(), line, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: [usize; 0] = [];

    /// The lines at which a file with this content breaks a rule.
    fn broken(path: &str, text: &str) -> Vec<usize> {
        let source = Source::new(path.to_owned(), format!("//! A module.\n{text}"));
        all(&[source]).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn aya_belongs_to_the_data_plane() {
        assert_eq!(broken("maglev-daemon/crates/dataplane/src/load.rs", "use aya::Ebpf;"), CLEAN);
        assert_eq!(broken("maglev-daemon/crates/dataplane/src/lib.rs", "use aya_log::EbpfLogger;"), CLEAN);
        assert_eq!(broken("maglev-daemon/src/runtime.rs", "\nuse aya::Ebpf;"), [3]);
        assert_eq!(broken("tests/src/lab.rs", "use aya::Ebpf; // aya"), [2]);
        assert_eq!(broken("maglev-daemon/crates/dataplane_test/src/lib.rs", "use aya::Ebpf;"), [2]);
    }

    #[test]
    fn rtnetlink_belongs_to_net() {
        assert_eq!(broken("maglev-daemon/crates/net/src/routes.rs", "use rtnetlink::Handle;"), CLEAN);
        assert_eq!(broken("maglev-daemon/src/http/mod.rs", "use rtnetlink::Handle;"), [2]);
    }

    #[test]
    fn the_packet_path_knows_no_aya() {
        assert_eq!(broken("maglev-ebpf/src/bin/node/main.rs", "use aya_ebpf::macros::xdp;"), CLEAN);
        assert_eq!(broken("maglev-ebpf/src/path/forward.rs", "use aya_ebpf::macros::xdp;"), [2]);
    }

    #[test]
    fn pure_modules_take_time_as_a_parameter() {
        assert_eq!(
            broken("maglev-daemon/crates/core/src/reconcile.rs", "fn handle(event: Event, now: Instant) {}"),
            CLEAN
        );
        assert_eq!(broken("maglev-daemon/crates/core/src/node_drain.rs", "let now = Instant::now();"), [2]);
        assert_eq!(broken("maglev-daemon/crates/model/src/table/lookup.rs", "let now = SystemTime::now();"), [2]);
        assert_eq!(broken("maglev-daemon/crates/config/src/node.rs", "use tokio::fs;"), [2]);
        assert_eq!(broken("maglev-common/src/hash.rs", "use std::net::UdpSocket;"), [2]);
        assert_eq!(broken("maglev-daemon/src/runtime.rs", "tokio::spawn(now(Instant::now()));"), CLEAN);
    }

    #[test]
    fn unsafe_stands_in_a_few_files() {
        assert_eq!(broken("maglev-ebpf/src/bin/frame.rs", "unsafe { read() }"), CLEAN);
        assert_eq!(broken("maglev-ebpf/src/path/forward.rs", "// unsafe\nunsafe { read() }"), [3]);
        assert_eq!(broken("maglev-ebpf/src/bin/node/main.rs", "#[unsafe(no_mangle)]\nstatic A: u8 = 1;"), CLEAN);
        assert_eq!(broken("maglev-ebpf/src/bin/node/main.rs", "unsafe { read() }"), [2]);
        assert_eq!(broken("maglev-daemon/crates/net/src/routes.rs", "#[unsafe(no_mangle)]"), [2]);
        assert_eq!(broken("maglev-daemon/src/runtime.rs", "#![deny(unsafe_op_in_unsafe_fn)]"), CLEAN);
    }

    #[test]
    fn a_module_begins_with_its_subject() {
        let at_once = |text: &str| all(&[Source::new("xtask/src/a.rs".to_owned(), text.to_owned())]).len();
        assert_eq!(at_once("//! Holds a thing.\n"), 0);
        assert_eq!(at_once("// A licence.\n//! Holds a thing.\n"), 1);
        assert_eq!(at_once("use std::fs;\n"), 1);
        assert_eq!(at_once(""), 1);
    }

    #[test]
    fn an_exception_expects_its_lint() {
        assert_eq!(broken("xtask/src/a.rs", "#[expect(dead_code, reason = \"allow(\")]"), CLEAN);
        assert_eq!(broken("xtask/src/a.rs", "#[allow(dead_code)]"), [2]);
        assert_eq!(broken("xtask/src/a.rs", "\n#![ allow(dead_code)]"), [3]);
    }

    #[test]
    fn a_name_is_spelled_out_once() {
        let source = |path: &str, text: &str| Source::new(path.to_owned(), format!("//! A module.\n{text}"));
        let names =
            || source("maglev-common/src/counters.rs", r#"const A: &str = "drop_no_vip"; const B: &str = "vip";"#);
        let findings = |path: &str, text: &str| all(&[names(), source(path, text)]).len();
        assert_eq!(findings("maglev-daemon/src/metrics.rs", r#"let a = "drop_no_vip";"#), 1);
        assert_eq!(findings("maglev-daemon/src/metrics.rs", r#"let a = "vip"; // "drop_no_vip""#), 0);
        assert_eq!(findings("maglev-daemon/src/metrics.rs", "#[cfg(test)]\nmod tests { \"drop_no_vip\" }"), 0);
        assert_eq!(findings("tests/tests/forward.rs", r#"let a = "drop_no_vip";"#), 0);
    }
}
