//! The allowed dependencies between crates, as data with the reason of each edge. And no cycle: neither of crates, which cargo
//! forbids, nor of the modules at the top of a crate, which it does not.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, source::Source};

/// A crate that may use others, and why it uses each.
type Allowed = (&'static str, &'static [(&'static str, &'static str)]);

/// Dependencies among the crates of the workspace, those of tests apart. One that is not here is an error, as is one that is here
/// and nowhere else.
const CRATES: [Allowed; 21] = [
    ("maglev-common", &[]),
    ("maglev-ebpf", &[("maglev-common", "the types of both sides of a map")]),
    (
        "maglev-harness",
        &[
            ("maglev-common", "the types of both sides of a map"),
            ("maglev-ebpf", "the packet path that is measured, and its trait of packets"),
        ],
    ),
    ("maglev-model", &[("maglev-common", "a plan's steps hold values of maps")]),
    (
        "maglev-core",
        &[("maglev-common", "the next hops that are adopted"), ("maglev-model", "services, plans and transitions")],
    ),
    (
        "maglev-config",
        &[("maglev-common", "limits, and the hash key"), ("maglev-model", "the types that a file decodes into")],
    ),
    (
        "maglev-store",
        &[("maglev-config", "parses and writes files"), ("maglev-model", "the services that are written")],
    ),
    ("maglev-net", &[("maglev-model", "the types of next hops and addresses")]),
    (
        "maglev-bgp",
        &[("maglev-model", "settings, routes, and the state of sessions"), ("maglev-net", "socket options")],
    ),
    (
        "maglev-probe",
        &[
            ("maglev-core", "targets, orders and results of checks"),
            ("maglev-model", "settings of checks"),
            ("maglev-net", "sockets that are bound to an interface"),
        ],
    ),
    (
        "maglev-dataplane",
        &[
            ("maglev-common", "the layout of maps"),
            ("maglev-ebpf", "explain runs the packet path itself"),
            ("maglev-harness", "the rig's objects, for the benchmark and tests alone"),
            ("maglev-model", "the steps of plans"),
            ("maglev-net", "interfaces, and the programs on them"),
        ],
    ),
    ("maglev-program", &[]),
    ("maglev-api", &[("maglev-model", "views are made from it, and hold its settings")]),
    ("maglev-doctor", &[("maglev-api", "findings are a view, and the daemon's views are facts")]),
    (
        "maglev-cli",
        &[
            ("maglev-api", "the client and the views"),
            ("maglev-model", "names, and values on the command line"),
            ("maglev-program", "exit codes and usage errors, the same in both programs"),
        ],
    ),
    (
        "maglev-daemon",
        &[
            ("maglev-api", "the views that it answers with"),
            ("maglev-bgp", "starts the speaker"),
            ("maglev-common", "counters"),
            ("maglev-config", "the node's configuration"),
            ("maglev-core", "carries out its effects"),
            ("maglev-dataplane", "starts the data plane and gives it plans"),
            ("maglev-doctor", "gives it the facts of this host, and answers with its findings"),
            ("maglev-ebpf", "the decision that explain returns"),
            ("maglev-model", "services and changes"),
            ("maglev-net", "starts the resolver and follows interfaces"),
            ("maglev-probe", "starts checks"),
            ("maglev-program", "exit codes and usage errors, the same in both programs"),
            ("maglev-store", "reads and writes the files"),
        ],
    ),
    ("maglev-testing", &[]),
    (
        "maglev-e2e",
        &[
            ("maglev-common", "the model and the benchmark look into maps"),
            ("maglev-core", "the model runs the reconciler"),
            ("maglev-dataplane", "the benchmark's rig"),
            ("maglev-ebpf", "the model runs the packet path"),
            ("maglev-model", "the model and the benchmark make plans"),
        ],
    ),
    (
        "maglev-fuzz",
        &[
            ("maglev-common", "the oracle's contract with the programs: the flow hash, counters, records"),
            ("maglev-dataplane", "loads and runs the programs"),
            ("maglev-model", "services, tables, and the steps that publish them"),
        ],
    ),
    (
        "maglev-fuzz-targets",
        &[
            ("maglev-bgp", "messages of BGP are a target"),
            ("maglev-config", "the files are a target"),
            ("maglev-daemon", "the API is a target"),
            ("maglev-ebpf", "the packet path is a target"),
            ("maglev-model", "the rules that services are read by"),
        ],
    ),
    ("xtask", &[]),
];

/// A dependency between crates of the workspace.
pub(super) type Edge = (String, String);

/// Dependencies that break the graph of crates. `found` are the normal dependencies, as cargo knows them.
pub(super) fn check_crates(found: &BTreeSet<Edge>) -> Vec<Finding> {
    let declared: BTreeSet<Edge> =
        CRATES.iter().flat_map(|(from, to)| to.iter().map(|(to, _)| ((*from).to_owned(), (*to).to_owned()))).collect();
    let of = |(from, to): &Edge, what: &str| Finding {
        path: "xtask/src/tidy/edges.rs".to_owned(),
        line: 1,
        message: format!("{from} {what} {to}"),
    };
    let undeclared = found.difference(&declared).map(|edge| of(edge, "may not depend on"));
    let unused = declared.difference(found).map(|edge| of(edge, "is allowed to depend on, and does not:"));
    undeclared.chain(unused).collect()
}

/// The cycles among the modules at the top of each crate, tests apart.
pub(super) fn check_modules(sources: &[Source]) -> Vec<Finding> {
    let mut crates = BTreeMap::<&str, Vec<&Source>>::new();
    for source in sources {
        if let Some((root, _)) = source.path.split_once("/src/") {
            crates.entry(root).or_default().push(source);
        }
    }
    crates.into_iter().flat_map(|(root, sources)| cycles_of(root, &sources)).collect()
}

fn cycles_of(root: &str, sources: &[&Source]) -> Vec<Finding> {
    let inner = |source: &Source| source.path[root.len() + "/src/".len()..].to_owned();
    let is_root = |source: &&&Source| matches!(inner(source).as_str(), "lib.rs" | "main.rs");
    let modules: BTreeSet<String> =
        sources.iter().filter(is_root).flat_map(|source| declared_modules(source)).collect();
    let mut graph = BTreeMap::<String, BTreeMap<String, (String, usize)>>::new();
    for source in sources {
        let inner = inner(source);
        let module = inner.split(['/', '.']).next().unwrap_or_default().to_owned();
        if !modules.contains(&module) || is_test(&inner) {
            continue;
        }
        let at_top = inner == format!("{module}.rs") || inner == format!("{module}/mod.rs");
        for (line, used) in uses(source, at_top) {
            if used != module && modules.contains(&used) {
                graph.entry(module.clone()).or_default().entry(used).or_insert((source.path.clone(), line));
            }
        }
    }
    // An edge that leads back to where it began is part of a cycle.
    let mut findings = Vec::new();
    for (from, edges) in &graph {
        for (to, (path, line)) in edges {
            if let Some(back) = path_between(&graph, to, from) {
                let message = format!("a cycle of modules: {from} → {}", back.join(" → "));
                findings.push(Finding { path: path.clone(), line: *line, message });
            }
        }
    }
    findings
}

/// The modules on a path from one to another, both included; `None` if none leads there.
fn path_between(
    graph: &BTreeMap<String, BTreeMap<String, (String, usize)>>,
    from: &str,
    to: &str,
) -> Option<Vec<String>> {
    let (mut known, mut open) = (BTreeSet::from([from.to_owned()]), vec![vec![from.to_owned()]]);
    while let Some(path) = open.pop() {
        let last = path.last()?;
        if last == to {
            return Some(path);
        }
        for next in graph.get(last).into_iter().flat_map(BTreeMap::keys) {
            if known.insert(next.clone()) {
                open.push([path.as_slice(), std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}

/// Tests may use every module.
fn is_test(inner: &str) -> bool {
    let names = ["tests", "faults", "testing", "fixtures", "interop"];
    let mut parts = inner.split(['/', '.']);
    inner.ends_with("_tests.rs") || parts.any(|part| names.contains(&part))
}

/// Modules that a file declares outside of tests.
fn declared_modules(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let mut for_tests = false;
    for line in source.code.lines().map(str::trim) {
        let rest = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(crate) ")).unwrap_or(line);
        if let Some(name) = rest.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            found.extend((!for_tests).then(|| name.to_owned()));
        }
        for_tests = line.starts_with("#[cfg(test)]") || (for_tests && line.starts_with("#["));
    }
    found
}

/// The first names of the paths that begin at the crate's root, with their lines, from 1. In a module at the top, `super` is that
/// root.
fn uses(source: &Source, at_top: bool) -> Vec<(usize, String)> {
    let end = source.tests_begin();
    let code: String = source.code.lines().take(end - 1).flat_map(|line| [line, "\n"]).collect();
    let mut found = Vec::new();
    for root in ["crate::", "super::"].into_iter().take(if at_top { 2 } else { 1 }) {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == ':' || before == '$')
            {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            found.extend(first_names(&code[at + root.len()..]).into_iter().map(|name| (line, name)));
        }
    }
    found
}

/// `name` of `name::rest`, and all of `{name::rest, other}`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| {
        let text = text.trim_start();
        let end = text.find(|character: char| !character.is_alphanumeric() && character != '_').unwrap_or(text.len());
        text[..end].to_owned()
    };
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut depth, mut names, mut begin) = (0_u32, vec![name(group)], None);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begin = Some(at + 1),
            _ => {}
        }
        if let Some(begin) = begin.take() {
            names.push(name(&group[begin..]));
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source::new(path.to_owned(), format!("//! A module.\n{text}"))
    }

    #[test]
    fn a_dependency_that_is_not_declared_is_found_and_one_that_is_gone() {
        let edge = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        let declared = CRATES.iter().flat_map(|(from, to)| to.iter().map(|(to, _)| edge(from, to)));
        let mut all: BTreeSet<Edge> = declared.collect();
        assert_eq!(check_crates(&all), []);
        all.insert(edge("maglev-cli", "maglev-dataplane"));
        assert_eq!(check_crates(&all)[0].message, "maglev-cli may not depend on maglev-dataplane");
        all.remove(&edge("maglev-cli", "maglev-dataplane"));
        all.remove(&edge("maglev-cli", "maglev-api"));
        assert_eq!(check_crates(&all)[0].message, "maglev-cli is allowed to depend on, and does not: maglev-api");
    }

    #[test]
    fn every_edge_has_a_reason_and_leads_down() {
        let mut known = BTreeSet::new();
        for (name, edges) in &CRATES {
            for (to, reason) in *edges {
                assert!(known.contains(to), "{name} → {to}: a crate stands below those that use it");
                assert!(reason.len() > 3, "{name} → {to}");
            }
            known.insert(name);
        }
    }

    #[test]
    fn a_cycle_of_modules_is_found_wherever_it_is_closed() {
        let root = || source("a/src/lib.rs", "mod one;\npub mod two;\nmod three;\n#[cfg(test)]\nmod tests;\n");
        let cycle = [
            root(),
            source("a/src/one.rs", "use super::two::Two;\n"),
            source("a/src/two/mod.rs", "mod inner;\n"),
            source("a/src/two/inner.rs", "use super::one;\nuse crate::{three::{x, y}, one::z};\n"),
            source("a/src/three.rs", "#[cfg(test)]\nmod tests { use crate::one; }\n"),
            source("a/src/tests.rs", "use crate::one;\n"),
        ];
        let lines: Vec<String> = check_modules(&cycle).into_iter().map(|found| found.message).collect();
        assert_eq!(lines, ["a cycle of modules: one → two → one", "a cycle of modules: two → one → two"]);
        let straight = [root(), source("a/src/one.rs", "use super::two::Two; use crate::three;\n")];
        assert_eq!(check_modules(&straight), []);
    }

    #[test]
    fn the_names_of_a_group_are_read_at_its_first_level() {
        assert_eq!(first_names("a::b;"), ["a"]);
        assert_eq!(first_names("{a::{b, c}, d, e::f};"), ["a", "d", "e"]);
        assert_eq!(first_names("{\n    a,\n    b::{c},\n};"), ["a", "b"]);
    }
}
