//! All services as a file: exported, compared and applied; bad files, which change nothing; and the socket on which only reads are
//! served.

use std::{
    fs,
    io::Write as _,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use maglev_e2e::lab::{Answer, Balancer, Lab, Settings, Topology, binary, maglev, site::every_family, skip};
use maglev_e2e::matrix::Matrix;
use serde_json::Value;

/// A daemon, and a folder for files.
struct Node {
    balancer: Balancer,
    files: PathBuf,
    _lab: Lab,
}

impl Node {
    fn start(settings: impl FnOnce(Settings, &Path) -> Settings) -> Result<Self> {
        let lab = Lab::new(Topology::standard(1))?;
        let files = lab.directory().join("files");
        fs::create_dir_all(&files)?;
        let settings = settings(Settings::new(1), &files);
        let balancer = Balancer::start(&lab, 1, &settings, &every_family(&lab))?;
        Ok(Self { balancer, files, _lab: lab })
    }

    /// Writes a file and returns its path.
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<String> {
        let path = self.files.join(name);
        fs::write(&path, content)?;
        Ok(path.display().to_string())
    }

    /// Runs a command that must end with this code.
    fn ends(&self, code: i32, arguments: &[&str]) -> Result<Answer> {
        let answer = self.balancer.maglev(arguments)?;
        ensure!(answer.code == code, "{arguments:?}: expected {code}: {answer:?}");
        Ok(answer)
    }

    /// The state that must not change: the file, the digest and the last revision.
    fn state(&self) -> Result<(String, Value, Value)> {
        let mut status = self.balancer.maglev_json(&["status"])?;
        let text = fs::read_to_string(self.balancer.services())?;
        Ok((text, status["services_digest"].take(), status["revision"].take()))
    }
}

#[test]
fn services_are_exported_edited_compared_and_applied_in_one_revision() -> Result<()> {
    Matrix::Store.row(
        "file",
        "export, edit, diff, dry run, apply: one revision, author and reason in the history",
        || {
            if skip() {
                return Ok("skipped: needs root".to_owned());
            }
            let node = Node::start(|settings, _| settings)?;
            let balancer = &node.balancer;
            // Before any change was made, too.
            let first = balancer.maglev_ok(&["services", "export"])?;
            ensure!(first.starts_with("# revision 1\n"), "{first}");
            balancer.maglev_ok(&["backend", "weight", "four", "web1", "7"])?;
            let exported = balancer.maglev_ok(&["services", "export"])?;
            assert_eq!(exported, fs::read_to_string(balancer.services())?, "the form in which the daemon writes it");
            let path = node.files.join("web.yaml").display().to_string();
            let said = balancer.maglev_ok(&["services", "export", &path])?;
            assert_eq!(said, format!("exported revision 2 to {path}\n"));
            assert_eq!(fs::read_to_string(&path)?, exported);
            let json = balancer.maglev_json(&["services", "export"])?;
            assert_eq!((&json["revision"], &json["services"]), (&Value::from(2), &Value::from(exported.as_str())));

            // The same file: no difference, no revision.
            let before = node.state()?;
            assert_eq!(
                node.ends(0, &["services", "diff", &path])?.stdout,
                format!("no difference between revision 2 and {path}\n")
            );
            for _ in 0..2 {
                assert_eq!(node.ends(0, &["services", "apply", &path])?.stdout, "no change: no revision was made\n");
            }
            assert_eq!(node.state()?, before);

            let edited =
                exported.replace("weight: 7", "weight: 70").replace("pools:\n", "pools:\n  - { name: more }\n");
            let path = node.file("web.yaml", &edited)?;
            let diff = node.ends(1, &["services", "diff", &path])?;
            ensure!(diff.stderr.is_empty() && diff.stdout.starts_with("from revision 2 to "), "{diff:?}");
            for line in
                ["- backend four/web1: ", "+ backend four/web1: ", "weight: 70 ", "+ pool more: default settings"]
            {
                ensure!(diff.stdout.contains(line), "{line} is not in {}", diff.stdout);
            }
            let dry = node.ends(0, &["services", "apply", &path, "--dry-run", "-m", "not yet"])?;
            assert_eq!(dry.stdout, diff.stdout);
            assert_eq!(node.state()?, before, "nothing was changed so far");
            let done = node.ends(0, &["services", "apply", &path, "-m", "ticket 7"])?;
            assert_eq!(done.stdout, "applied as revision 3: pools 1 added; backends 1 changed\n");
            let history = balancer.maglev_json(&["history"])?;
            let newest = &history["revisions"][0];
            let command = format!("apply services from {path}");
            assert_eq!((&newest["command"], &newest["why"]), (&Value::from(command), &Value::from("ticket 7")));
            assert_eq!((&newest["revision"], &newest["uid"]), (&Value::from(3), &Value::from(0)));
            let shown = balancer.maglev_ok(&["history", "diff", "2", "3"])?;
            assert_eq!(shown.lines().skip(1).collect::<Vec<_>>(), diff.stdout.lines().skip(1).collect::<Vec<_>>());
            let kept = fs::read_to_string(balancer.services())?;
            ensure!(
                kept.starts_with("# revision 3\n") && kept == balancer.maglev_ok(&["services", "export"])?,
                "{kept}"
            );

            older(&node, &path)?;
            Ok("5 revisions".to_owned())
        },
    )
}

/// A file that does not know the last change is refused; by force, by standard input and without its first line it is taken.
fn older(node: &Node, path: &str) -> Result<()> {
    let before = node.state()?;
    // One that says what is there already undoes nothing.
    node.ends(0, &["services", "apply", path])?;
    assert_eq!(node.state()?, before);
    let exported = node.balancer.maglev_ok(&["services", "export"])?;
    let other = exported.replace("weight: 70 ", "weight: 71 ");
    let stale = node.file("stale.yaml", other.replace("# revision 3", "# revision 2"))?;
    let dry = node.ends(1, &["services", "apply", &stale, "--dry-run"])?;
    let refused = node.ends(1, &["services", "apply", &stale])?;
    for named in ["stale.yaml is based on revision 2, and one revision has changed since: 3 apply services", "--force"]
    {
        ensure!(refused.stderr.contains(named), "{named}: {refused:?}");
    }
    ensure!(dry.stderr == refused.stderr && dry.stdout.contains("weight: 71"), "{dry:?}");
    node.ends(0, &["services", "apply", &stale, "--dry-run", "--force"])?;
    assert_eq!(node.state()?, before);
    node.ends(0, &["services", "apply", &stale, "--force"])?;
    let bare = exported.split_once('\n').context("a first line")?.1.to_owned();
    let answer = piped(&node.balancer.socket(), &["services", "apply", "-"], &bare)?;
    ensure!(answer.code == 0 && answer.stdout.starts_with("applied as revision 5: "), "{answer:?}");
    let newest = &node.balancer.maglev_json(&["history"])?["revisions"][0];
    assert_eq!(newest["command"], "apply services from stdin");
    Ok(())
}

/// Runs a command with this on standard input.
fn piped(socket: &Path, arguments: &[&str], input: &str) -> Result<Answer> {
    let mut command = Command::new(binary("maglev")?);
    command.arg("--socket").arg(socket).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("stdin")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    Ok(Answer {
        code: output.status.code().context("killed")?,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

#[test]
fn bad_files_are_refused_by_name_and_change_nothing() -> Result<()> {
    Matrix::Store.row("file", "files that are missing, cut off, not text, too large or wrong: refused, nothing changed", || {
        if skip() {
            return Ok("skipped: needs root".to_owned());
        }
        let node = Node::start(|settings, _| settings)?;
        let good = node.balancer.maglev_ok(&["services", "export"])?;
        let large = [good.as_bytes(), &vec![b'#'; 20_000_000]].concat();
        let several = "pools:\n  - name: four\n    colour: red\n    backends:\n      - { name: web1, address: 10.3.1, weight: 70000 }\n\
                       vips:\n  - { name: www, address: 203.0.113.10, port: 0, protocol: icmp, pool: four }\nextra: 1\n";
        let folder = node.files.display().to_string();
        let rows = [
            ("a missing file", folder.clone() + "/none.yaml", 2, vec!["none.yaml: there is no such file"]),
            ("a folder", folder, 2, vec!["a folder; expected a file"]),
            ("an empty file", node.file("empty.yaml", "")?, 2, vec!["empty.yaml: empty; a file without services says"]),
            ("bytes that are no text", node.file("latin.yaml", b"pools: []\n# gr\xf6\xdfe\n")?, 2, vec!["latin.yaml:2: not text"]),
            ("20 MB", node.file("large.yaml", large)?, 2, vec!["bytes; allowed: at most 16777216 (16 MiB)"]),
            ("no YAML", node.file("torn.yaml", "pools: [\n  - name: \"\n")?, 2, vec!["torn.yaml:", "not valid YAML"]),
            (
                "several faults",
                node.file("faults.yaml", several)?,
                2,
                vec![
                    "faults.yaml:3: pools[0].colour: unknown key; allowed: name",
                    "faults.yaml:5: pools[0].backends[0].address: 10.3.1",
                    "faults.yaml:5: pools[0].backends[0].weight: 70000",
                    "faults.yaml:7: vips[0].port: 0",
                    "faults.yaml:7: vips[0].protocol: icmp",
                    "faults.yaml:8: extra: unknown key; allowed: pools, vips",
                ],
            ),
            (
                "a VIP that is the node's own address",
                node.file("own.yaml", good.replace("203.0.113.10", "10.2.1.2"))?,
                2,
                vec!["10.2.1.2", "this node"],
            ),
            ("most VIPs gone", node.file("few.yaml", removed(&good))?, 1, vec!["VIPs (limit: 10 %", "--force does it"]),
        ];
        let before = node.state()?;
        for (case, file, code, named) in &rows {
            let answer = node.ends(*code, &["services", "apply", file])?;
            let missing: Vec<_> = named.iter().filter(|part| !answer.stderr.contains(**part)).collect();
            ensure!(missing.is_empty() && answer.stdout.is_empty(), "{case}: {missing:?}: {answer:?}");
            let dry = node.ends(*code, &["services", "apply", file, "--dry-run"])?;
            assert_eq!(dry.stderr, answer.stderr, "{case}");
            assert_eq!(node.state()?, before, "{case}");
        }
        // A change that takes out most is shown all the same, and is made by force.
        let few = rows[rows.len() - 1].1.as_str();
        ensure!(node.ends(1, &["services", "diff", few])?.stdout.contains("\n- VIP www-tcp: "), "the difference is shown");
        node.ends(0, &["services", "apply", few, "--force"])?;
        assert_eq!(node.balancer.maglev_json(&["vip", "list"])?.as_array().map(Vec::len), Some(1));
        Ok(format!("{} files", rows.len()))
    })
}

/// The services with one VIP of several.
fn removed(text: &str) -> String {
    let (pools, vips) = text.split_once("vips:\n").unwrap_or_default();
    format!("{pools}vips:\n{}\n", vips.lines().next().unwrap_or_default())
}

#[test]
fn a_file_is_applied_while_the_node_drains_and_not_over_an_edit() -> Result<()> {
    Matrix::Store.row(
        "file",
        "a file is applied while the node drains, and not over an edit that was not reloaded",
        || {
            if skip() {
                return Ok("skipped: needs root".to_owned());
            }
            let node = Node::start(|settings, _| settings)?;
            let exported = node.balancer.maglev_ok(&["services", "export"])?;
            node.ends(0, &["node", "drain"])?;
            let path = node.file("web.yaml", exported.replacen("weight: 100", "weight: 99", 1))?;
            node.ends(0, &["services", "apply", &path])?;
            ensure!(node.balancer.maglev_json(&["node", "status"])?["drain"].is_object(), "the node goes on draining");
            let written = fs::read_to_string(node.balancer.services())?;
            fs::write(node.balancer.services(), written.clone() + "# an edit\n")?;
            let path =
                node.file("web.yaml", exported.replacen("weight: 100", "weight: 98", 1).replace("# revision 1\n", ""))?;
            let refused = node.ends(1, &["services", "apply", &path])?;
            ensure!(refused.stderr.contains("was edited since it was read: `maglev reload` first"), "{refused:?}");
            assert_eq!(fs::read_to_string(node.balancer.services())?, written + "# an edit\n");
            Ok("applied; refused".to_owned())
        },
    )
}

#[test]
fn the_socket_for_reads_refuses_changes_and_names_the_other_one() -> Result<()> {
    Matrix::Store.row(
        "file",
        "the socket for reads: reads and plans by any user, changes refused with exit code 1",
        || {
            if skip() {
                return Ok("skipped: needs root".to_owned());
            }
            let mut node = Node::start(|settings, files| {
                let socket = files.join("read.sock");
                // The state that a killed daemon leaves.
                drop(std::os::unix::net::UnixListener::bind(&socket));
                Settings { read_socket: Some(socket), ..settings }
            })?;
            let socket = node.files.join("read.sock");
            let on_reads = |arguments: &[&str]| maglev(&socket, arguments);
            let found = fs::metadata(&socket)?;
            ensure!(found.file_type().is_socket() && found.permissions().mode() & 0o777 == 0o666, "{found:?}");
            let changes = fs::metadata(node.balancer.socket())?;
            assert_eq!(changes.permissions().mode() & 0o777, 0o660);

            let exported = node.balancer.maglev_ok(&["services", "export"])?;
            let path = node.file("web.yaml", exported.replacen("weight: 100", "weight: 99", 1))?;
            let before = node.state()?;
            for (arguments, code) in [
                (&["status"][..], 0),
                (&["counters"], 0),
                (&["events"], 0),
                (&["services", "export"], 0),
                (&["services", "diff", &path], 1),
                (&["services", "apply", &path, "--dry-run"], 0),
                (&["plan", "backend", "drain", "four", "web1"], 0),
                (&["plan", "reload"], 0),
            ] {
                let answer = on_reads(arguments)?;
                ensure!(answer.code == code && answer.stderr.is_empty(), "{arguments:?}: {answer:?}");
            }
            for arguments in [
                &["services", "apply", &path][..],
                &["node", "drain"],
                &["node", "drain", "--wait"],
                &["backend", "weight", "four", "web1", "7"],
                &["backend", "check", "four", "web1"],
                &["vip", "remove", "www-tcp"],
                &["reload", "--force"],
                &["rollback", "1"],
            ] {
                let answer = on_reads(arguments)?;
                let other = format!("send it to {}", node.balancer.socket().display());
                ensure!(
                    answer.code == 1
                        && answer.stderr.contains("serves reads and plans alone")
                        && answer.stderr.contains(&other),
                    "{arguments:?}: {answer:?}"
                );
            }
            assert_eq!(node.state()?, before);
            as_nobody(&socket, &node)?;

            node.balancer.stop()?;
            ensure!(!socket.exists() && !node.balancer.socket().exists(), "both are gone with the daemon");
            node.balancer.restart()?;
            ensure!(on_reads(&["status"])?.code == 0, "and back");
            Ok("8 reads, 8 changes".to_owned())
        },
    )
}

/// Another user is served on the socket for reads, and does not reach the other one.
fn as_nobody(socket: &Path, node: &Node) -> Result<()> {
    const NOBODY: u32 = 65_534;
    // The program and both sockets where every user gets to; the modes of the sockets decide.
    let program = Path::new("/tmp").join(format!("maglev-{}", std::process::id()));
    fs::copy(binary("maglev")?, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let folders =
        [socket, &node.balancer.socket()].map(|path| path.ancestors().skip(1).map(Path::to_owned).collect::<Vec<_>>());
    for folder in folders.iter().flatten().filter(|folder| folder.starts_with("/run/") || folder.starts_with("/tmp/")) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    let ask = |socket: &Path| -> Result<Option<i32>> {
        let mut command = Command::new(&program);
        let done = command.arg("--socket").arg(socket).arg("status").uid(NOBODY).gid(NOBODY).output();
        Ok(done.context("maglev as another user")?.status.code())
    };
    let codes = (ask(socket), ask(&node.balancer.socket()));
    fs::remove_file(&program)?;
    assert_eq!((codes.0?, codes.1?), (Some(0), Some(3)));
    Ok(())
}

#[test]
fn sockets_that_are_the_same_are_refused_before_anything_runs() -> Result<()> {
    Matrix::Store.row("file", "maglevd check: one path for both sockets is refused, with field and value", || {
        if skip() {
            return Ok("skipped: needs root".to_owned());
        }
        let node = Node::start(|settings, _| settings)?;
        let config = fs::read_to_string(node.balancer.config())?;
        let path = node.balancer.socket().display().to_string();
        let same = node.file("same.yaml", config.replacen("api: { ", &format!("api: {{ read_socket: {path}, "), 1))?;
        let output = Command::new(binary("maglevd")?).args(["check", "--config", &same]).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let line = format!("api.read_socket: {path} is api.socket; allowed: another path");
        ensure!(output.status.code() == Some(2) && said.contains(&line), "{said}");
        Ok("exit code 2".to_owned())
    })
}

#[test]
fn large_files_at_once_take_bounded_memory_and_delay_no_read() -> Result<()> {
    Matrix::Store.row("file", "12 files of 15 MiB at once: memory bounded, reads answered meanwhile", || {
        if skip() {
            return Ok("skipped: needs root".to_owned());
        }
        const CLIENTS: usize = 12;
        let node = Node::start(|settings, _| settings)?;
        let exported = node.balancer.maglev_ok(&["services", "export"])?;
        let path = node.file("large.yaml", exported + &format!("# {}\n", "-".repeat(97)).repeat(157_000))?;
        let before = memory(&node.balancer, "VmRSS")?;
        fs::write(format!("/proc/{}/clear_refs", node.balancer.process_id()), "5").context("clear_refs")?;
        let (codes, slowest) = thread::scope(|scope| -> Result<_> {
            let clients: Vec<_> =
                (0..CLIENTS).map(|_| scope.spawn(|| node.balancer.maglev(&["services", "apply", &path]))).collect();
            let mut slowest = Duration::ZERO;
            while clients.iter().any(|client| !client.is_finished()) {
                let began = Instant::now();
                node.balancer.maglev_ok(&["status"])?;
                slowest = slowest.max(began.elapsed());
            }
            let mut codes = Vec::new();
            for client in clients {
                let answer = client.join().map_err(|_| anyhow!("a client panicked"))??;
                // One that waits too long for its turn is refused by name.
                let refused = answer.code == 1 && answer.stderr.contains("reads 2 files at once");
                ensure!(answer.code == 0 || refused, "{answer:?}");
                codes.push(answer.code);
            }
            Ok((codes, slowest))
        })?;
        let taken = memory(&node.balancer, "VmHWM")?.saturating_sub(before) / 1024;
        ensure!(taken < 200 && slowest < Duration::from_secs(5), "{taken} MiB, a read took {slowest:?}");
        let done = codes.iter().filter(|code| **code == 0).count();
        Ok(format!("{done} of {CLIENTS} in turn, {taken} MiB at most, a read took {} ms at most", slowest.as_millis()))
    })
}

/// A line of the daemon's memory, in KiB.
fn memory(balancer: &Balancer, line: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", balancer.process_id()))?;
    let found = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
    let kib = found.and_then(|found| found.trim().strip_suffix(" kB")).with_context(|| line.to_owned())?;
    Ok(kib.trim().parse()?)
}
