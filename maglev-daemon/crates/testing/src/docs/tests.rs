//! Every command and every block of the pages has a test.

use super::{Fence, fenced, fences, pages};
use crate::network;

/// Programs whose commands the test of their own crate parses.
const PARSED: [&[&str]; 3] = [&["maglev"], &["maglevd"], &["cargo", "xtask"]];

/// Programs whose commands [`prepares_a_backend`] runs.
const RUN: [&str; 2] = ["ip", "sysctl"];

/// Programs whose commands no test runs, and why.
const UNTESTED: [(&str, &str); 11] = [
    ("apt", "needs packages: `cargo xtask dist --check` installs them in a folder with Debian"),
    ("install", "writes to folders of the system"),
    ("sed", "writes to folders of the system"),
    ("sha256sum", "needs a release"),
    ("ssh-keygen", "needs a release"),
    ("tar", "needs a release"),
    ("systemd-sysusers", "makes a user of the system"),
    ("systemd-tmpfiles", "writes to folders of the system"),
    ("systemctl", "needs systemd as the first process"),
    ("tshark", "reads a file of the page's own; the end-to-end tests read theirs with it"),
    ("curl", "may be absent; the end-to-end tests follow the same stream with a client of their own"),
];

#[test]
fn every_command_is_looked_at_by_some_test() {
    let unknown = fenced().into_iter().filter(|command| {
        let first = &*command.words[0];
        let known = RUN.contains(&first) || UNTESTED.iter().any(|(program, _)| *program == first);
        !known && !PARSED.iter().any(|program| command.is(program))
    });
    let unknown: Vec<_> = unknown.map(|command| format!("{}: {}", command.place, command.words.join(" "))).collect();
    assert!(unknown.is_empty(), "commands that no test looks at:\n{}", unknown.join("\n"));
}

#[test]
fn every_block_is_looked_at_by_some_test() {
    let known = |fence: &Fence| match &*fence.language {
        "sh" => true,
        "console" => fence.mark("sample").is_some(),
        "yaml" => fence.mark("file").or(fence.mark("part of")).is_some(),
        // Drawings.
        "" => matches!(&*fence.page, "README.md" | "docs/design/README.md"),
        _ => false,
    };
    let unknown: Vec<_> = fences().iter().filter(|fence| !known(fence)).map(Fence::place).collect();
    assert!(
        unknown.is_empty(),
        "blocks that no test looks at; `console` needs `<!-- sample: NAME -->` above it, `yaml` needs `<!-- file: NAME -->` or \
         `<!-- part of: NAME -->`: {}",
        unknown.join(", ")
    );
}

/// Each command of these programs does what it says on a host with an eth0: in a namespace of its own, in the order of the pages.
#[test]
fn prepares_a_backend() {
    network::in_namespace(|| {
        let peer = network::Peer::new();
        peer.connect("eth0", "far");
        let mut added = std::collections::BTreeSet::new();
        for command in fenced().into_iter().filter(|command| RUN.contains(&&*command.words[0])) {
            // The README and the manual prepare the same backend.
            if !added.insert(command.words.clone()) {
                continue;
            }
            let output = std::process::Command::new(&command.words[0]).args(&command.words[1..]).output().unwrap();
            let (said, line) = (String::from_utf8_lossy(&output.stderr), command.words.join(" "));
            assert!(output.status.success(), "{}: {line}: {said}", command.place);
        }
        assert!(added.len() >= 3, "{added:?}");
    });
}

#[test]
fn the_readme_is_short() {
    let readme = pages().into_iter().find(|page| page.path == "README.md").unwrap();
    assert!(readme.text.len() <= 8_192, "README.md has {} bytes; allowed: 8192", readme.text.len());
}
