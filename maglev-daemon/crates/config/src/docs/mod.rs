//! `docs/config.md`: every key of the files, from tables that stand beside the decoder. The decoder itself says what is allowed, and
//! the tests hold it against the tables: its keys are exactly these, and without a key the stated default holds.
//! `cargo xtask docs` writes the page.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use maglev_model::bgp::NeighborChange;
use maglev_model::{Limits, Rules};
use maglev_testing::docs;

use super::{Problems, decode_decap, decode_node, decode_services};

mod bgp_keys;
mod check_keys;
mod decap_keys;
mod keys;
mod node_keys;
mod service_keys;

use keys::{Absent, Group, Key};

/// A file that is documented.
struct File {
    name: &'static str,
    groups: &'static [&'static [Group]],
    /// What a document says, in the words of `Debug`.
    decode: fn(&str) -> Result<String, Problems>,
}

static FILES: [File; 3] = [
    File { name: "maglev.yaml", groups: &[node_keys::GROUPS, bgp_keys::GROUPS], decode: node },
    File { name: "services.yaml", groups: &[service_keys::GROUPS, check_keys::GROUPS], decode: services },
    File { name: "decap.yaml", groups: &[decap_keys::GROUPS], decode: decap },
];

fn node(text: &str) -> Result<String, Problems> {
    let draft = decode_node(Path::new("/etc/maglev/maglev.yaml"), text, |_| Ok("secret".to_owned()));
    draft.config.filter(|_| draft.problems.is_empty()).map(|config| format!("{config:?}")).ok_or(draft.problems)
}

fn services(text: &str) -> Result<String, Problems> {
    let outer = crate::node::any_outer();
    let rules = Rules { limits: Limits::default(), outer };
    decode_services(Path::new("services.yaml"), text, &rules).map(|services| format!("{services:?}"))
}

fn decap(text: &str) -> Result<String, Problems> {
    decode_decap(Path::new("/etc/maglev/decap.yaml"), text).map(|config| format!("{config:?}"))
}

/// Each key with its file and group.
fn all() -> impl Iterator<Item = (&'static File, &'static Group, &'static Key)> {
    let groups = FILES.iter().flat_map(|file| file.groups.iter().copied().flatten().map(move |group| (file, group)));
    groups.flat_map(|(file, group)| group.keys.iter().map(move |key| (file, group, key)))
}

#[test]
fn the_page_has_every_key() {
    for file @ File { name, groups, .. } in &FILES {
        let mut text = String::new();
        for group in groups.iter().copied().flatten() {
            let (column, line) = if is_node(file) { (" change |", "---|") } else { ("", "") };
            text += &format!("### {}\n\n| key | value | default | allowed |{column} meaning |\n", group.title);
            text += &format!("|---|---|---|---|{line}---|\n");
            text.extend(group.keys.iter().map(|key| row(group, key, file)));
            text.push('\n');
        }
        docs::hold("docs/config.md", name, &text);
    }
}

/// Whether the file is the node's, some of whose keys need a restart.
fn is_node(file: &File) -> bool {
    file.name == "maglev.yaml"
}

/// How another value of a key of the node's file applies: as the model has it, for BGP.
fn change(group: &Group, key: &Key) -> &'static str {
    let bgp = |text: &str| {
        let draft = decode_node(Path::new("/etc/maglev/maglev.yaml"), text, |_| Ok("secret".to_owned()));
        draft.config.and_then(|config| config.bgp)
    };
    let before = match key.absent {
        Absent::Required => bgp(group.document),
        _ => bgp(&group.without(key.path)),
    };
    match key.path {
        "api.metrics" | "bgp.neighbors" | "bgp.on_drain" => return "reload",
        "interfaces[].mode" => return "restart with `--cut`",
        path if is_of_data_plane(path) => return "reload",
        path if !path.starts_with("bgp.") => return "restart",
        _ => {}
    }
    let (before, next) = before.zip(bgp(&group.with(key.path, key.good))).expect(key.path);
    if !before.with_live(&next).1.is_empty() {
        return "restart";
    }
    let changes = before.changes(&next);
    assert!(!changes.is_empty(), "{} changes nothing", key.path);
    let resets = changes.iter().any(|(_, change)| matches!(change, NeighborChange::Reset(_)));
    if resets { "reload; the session begins anew" } else { "reload" }
}

/// Whether another data plane takes over with another value of a key. Without `dataplane.pin` none can.
fn is_of_data_plane(path: &str) -> bool {
    let first = path.split(['.', '[']).next().unwrap_or_default();
    path == "dataplane.watchdog" || ["interfaces", "encap", "flow_table", "packets", "limits", "trace"].contains(&first)
}

fn row(group: &Group, key: &Key, file: &File) -> String {
    let default = match key.absent {
        Absent::Required => "required".to_owned(),
        Absent::Is(value) => format!("`{value}`"),
        Absent::Derived(_, words) | Absent::Nothing(words) => words.to_owned(),
    };
    let allowed = allowed(group, key, file.decode);
    let path = format!("`{}`", key.path);
    let change = is_node(file).then(|| change(group, key));
    let cells = [&*path, key.kind, &*default, &*allowed].into_iter().chain(change).chain([key.meaning]);
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>().join(" | "))
}

/// What the decoder says is allowed when it rejects a value.
fn allowed(group: &Group, key: &Key, decode: fn(&str) -> Result<String, Problems>) -> String {
    if key.bad.is_empty() {
        return String::new();
    }
    let problems = decode(&group.with(key.path, key.bad)).expect_err(key.path);
    let problem = problems.iter().find(|problem| problem.field.starts_with(&key.field()));
    let message = &problem.unwrap_or_else(|| panic!("{}: {problems}", key.path)).message;
    let said = ["allowed: ", "expected ", "; "].iter().find_map(|word| Some(message.split_once(word)?.1));
    said.unwrap_or(message).to_owned()
}

#[test]
fn the_decoder_takes_exactly_these_keys() {
    let mut listed: BTreeMap<(&str, &str), (BTreeSet<&str>, &File, &Group)> = BTreeMap::new();
    for (file, group, key) in all() {
        listed.entry((file.name, key.section())).or_insert_with(|| (BTreeSet::new(), file, group)).0.insert(key.name());
    }
    for ((name, section), (listed, file, group)) in listed {
        let unknown = if section.is_empty() { "unknown_key".to_owned() } else { format!("{section}.unknown_key") };
        let problems = (file.decode)(&group.with(&unknown, "1")).expect_err(&unknown);
        let field = unknown.replace("[]", "[0]");
        let message = problems.iter().find(|problem| problem.field == field).map(|problem| &problem.message);
        let known = message.unwrap_or_else(|| panic!("{name}: {problems}")).rsplit(": ").next().unwrap();
        assert_eq!(listed, known.split(", ").collect(), "{name}: keys of {section:?}");
    }
}

#[test]
fn without_a_key_its_default_holds() {
    for (file, group, key) in all() {
        let decode = |text: &str| (file.decode)(text);
        let without = decode(&group.without(key.path));
        match key.absent {
            Absent::Required => {
                let problems = without.expect_err(key.path);
                assert!(problems.iter().any(|problem| problem.field == key.field()), "{}: {problems}", key.path);
            }
            Absent::Is(value) | Absent::Derived(value, _) => {
                let without = without.unwrap_or_else(|problems| panic!("{}: {problems}", key.path));
                let with =
                    decode(&group.with(key.path, value)).unwrap_or_else(|problems| panic!("{}: {problems}", key.path));
                assert_eq!(with, without, "{} is not {value} by default", key.path);
            }
            Absent::Nothing(_) => assert!(without.is_ok(), "{}: {}", key.path, without.unwrap_err()),
        }
    }
}

#[test]
fn each_key_means_something() {
    for (file, group, key) in all().filter(|(_, _, key)| !key.good.is_empty()) {
        let decode = |text: String| (file.decode)(&text);
        let with = decode(group.with(key.path, key.good)).unwrap_or_else(|problems| panic!("{}: {problems}", key.path));
        assert_ne!(Ok(with), decode(group.without(key.path)), "{}: {} changes nothing", key.path, key.good);
    }
}

/// Each block is a file, or a part of one: the document of the file's first group says the rest.
#[test]
fn every_block_of_a_file_decodes() {
    let mut checked = 0;
    for fence in docs::fences().into_iter().filter(|fence| fence.language == "yaml") {
        let (name, whole) = match (fence.mark("file"), fence.mark("part of")) {
            (Some(name), _) => (name, true),
            (None, Some(name)) => (name, false),
            (None, None) => panic!("{}: mark the block as `file: NAME` or `part of: NAME`", fence.place()),
        };
        let file = FILES.iter().find(|file| file.name == name);
        let file = file.unwrap_or_else(|| {
            panic!("{}: {name} is neither maglev.yaml, services.yaml nor decap.yaml", fence.place())
        });
        let text = if whole { fence.text.clone() } else { file.groups[0][0].completed(&fence.text) };
        assert!((file.decode)(&text).is_ok(), "{}: {}", fence.place(), (file.decode)(&text).unwrap_err());
        checked += 1;
    }
    assert!(checked >= 4, "{checked} blocks");
}
