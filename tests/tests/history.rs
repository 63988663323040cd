//! The history of the services: authors and reasons, rollbacks, and kills that lose no acknowledged change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;
use std::{fs, process::Command, thread};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use maglev_e2e::lab::{Balancer, Site, binary, skip};
use maglev_e2e::matrix::Matrix;
use serde_json::Value;

/// The revisions, the newest first: number, command and reason.
fn revisions(balancer: &Balancer, filter: &[&str]) -> Result<Vec<(u64, String, Option<String>)>> {
    let history = balancer.maglev_json(&[&["history"], filter].concat())?;
    let of = |found: &Value| {
        let text = |key: &str| found[key].as_str().map(str::to_owned);
        Some((found["revision"].as_u64()?, text("command")?, text("why")))
    };
    history["revisions"].as_array().context("revisions")?.iter().map(|found| of(found).context("a revision")).collect()
}

#[test]
fn changes_have_an_author_and_a_reason_and_are_taken_back() -> Result<()> {
    Matrix::Store.row("lab", "history, diff and rollback, over a restart", || {
        if skip() {
            return Ok("skipped: needs root".to_owned());
        }
        let mut site = Site::standard(1)?;
        let balancer = &mut site.balancers[0];
        ensure!(revisions(balancer, &[])?.is_empty(), "nothing was changed yet");
        let before = balancer.maglev_json(&["status"])?["services_digest"].clone();

        balancer.maglev_ok(&["backend", "weight", "four", "web1", "7", "-m", "web1 is slow"])?;
        balancer.maglev_ok(&["backend", "drain", "four", "web2"])?;
        let all = revisions(balancer, &[])?;
        let expected = [
            (3, "drain backend web2 of pool four".to_owned(), None),
            (2, "set weight of backend web1 of pool four to 7".to_owned(), Some("web1 is slow".to_owned())),
            (1, "services.yaml as it was found".to_owned(), None),
        ];
        assert_eq!(all, expected);
        assert_eq!(revisions(balancer, &["--pool", "four", "--backend", "web1"])?[0].0, 2);
        let newest = &balancer.maglev_json(&["history"])?["revisions"][0];
        assert_eq!(newest["uid"], 0, "the lab is root's: {newest}");

        // The daemon is killed, and another one knows it all.
        balancer.kill()?;
        balancer.restart()?;
        assert_eq!(revisions(balancer, &[])?, expected);
        let diff = balancer.maglev_ok(&["history", "diff", "1", "3"])?;
        ensure!(diff.contains("weight: 7") && diff.contains("state: draining"), "{diff}");
        let shown = balancer.maglev_ok(&["history", "show", "2"])?;
        ensure!(
            shown.contains("web1 is slow") && shown.contains("weight: 7") && !shown.contains("draining"),
            "{shown}"
        );

        let planned = balancer.maglev_ok(&["plan", "rollback", "1"])?;
        ensure!(planned.contains('2'), "{planned}");
        let done = balancer.maglev_ok(&["rollback", "1", "-m", "as it was"])?;
        ensure!(done.contains("revision 1") && done.contains("revision 4"), "{done}");
        assert_eq!(balancer.maglev_json(&["status"])?["services_digest"], before);
        assert_eq!(
            revisions(balancer, &[])?[0],
            (4, "roll back to revision 1".to_owned(), Some("as it was".to_owned()))
        );

        // A revision that is not kept, one that takes out a pool, and words that are no number: each refused, nothing changed.
        for (order, code, named) in [
            (&["rollback", "99"][..], 2, "kept: 1 to 4"),
            (&["history", "show", "99"], 2, "kept: 1 to 4"),
            (&["rollback", "first"], 2, "first"),
        ] {
            let answer = balancer.maglev(order)?;
            ensure!(answer.code == code && answer.stderr.contains(named), "{order:?}: {answer:?}");
        }
        assert_eq!(balancer.maglev_json(&["status"])?["services_digest"], before);
        Ok("4 revisions".to_owned())
    })
}

#[test]
fn a_rollback_that_takes_out_most_needs_force() -> Result<()> {
    Matrix::Store.row("lab", "a rollback that removes most is refused, and done by force", || {
        if skip() {
            return Ok("skipped: needs root".to_owned());
        }
        let site = Site::standard(1)?;
        let balancer = &site.balancers[0];
        let full = fs::read_to_string(balancer.services())?;
        fs::write(balancer.services(), "pools: []\nvips: []\n")?;
        balancer.maglev_ok(&["reload", "--force"])?;
        fs::write(balancer.services(), &full)?;
        balancer.maglev_ok(&["reload"])?;
        let before = balancer.maglev_json(&["status"])?["services_digest"].clone();
        let refused = balancer.maglev(&["rollback", "2"])?;
        ensure!(
            refused.code == 1 && refused.stderr.contains("nothing changed") && refused.stderr.contains("--force"),
            "{refused:?}"
        );
        assert_eq!(balancer.maglev_json(&["status"])?["services_digest"], before);
        let text = balancer.maglev_ok(&["plan", "rollback", "2"])?;
        ensure!(text.contains("refused"), "{text}");
        balancer.maglev_ok(&["rollback", "2", "--force"])?;
        balancer.maglev_ok(&["rollback", "1"])?;
        assert_eq!(balancer.maglev_json(&["status"])?["services_digest"], before);
        Ok("refused with exit code 1".to_owned())
    })
}

/// A file system of one's own, of this size, until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: PathBuf, size: &str) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&folder).status()?;
        ensure!(mounted.success(), "cannot mount a tmpfs");
        Ok(Self(folder))
    }

    /// Writes until nothing more fits. The file that took the room.
    fn fill(&self) -> Result<PathBuf> {
        let file = self.0.join("filler");
        let full = fs::write(&file, vec![b'x'; 64 << 20]).unwrap_err();
        ensure!(full.kind() == std::io::ErrorKind::StorageFull, "{full}");
        Ok(file)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_changes_and_still_lets_the_node_drain() -> Result<()> {
    Matrix::Store.row("lab", "a full disk: changes are refused, nothing is lost, the node drains", || {
        if skip() {
            return Ok("skipped: needs root".to_owned());
        }
        let mut site = Site::standard(1)?;
        let balancer = &mut site.balancers[0];
        balancer.kill()?;
        let disk = SmallDisk::mount(balancer.services().with_file_name("disk"), "256k")?;
        let services = disk.0.join("services.yaml");
        fs::copy(balancer.services(), &services)?;
        let config = fs::read_to_string(balancer.config())?;
        let path = |path: &Path| path.display().to_string();
        fs::write(balancer.config(), config.replace(&path(&balancer.services()), &path(&services)))?;
        balancer.restart()?;
        balancer.maglev_ok(&["backend", "weight", "four", "web1", "7", "-m", "before"])?;
        let before = (balancer.maglev_json(&["status"])?["services_digest"].clone(), fs::read(&services)?);

        let other = services.with_file_name("other.yaml");
        fs::write(&other, String::from_utf8_lossy(&before.1).replace("weight: 7", "weight: 8"))?;
        let (filler, other) = (disk.fill()?, path(&other));
        let orders = [
            &["backend", "weight", "four", "web1", "9"][..],
            &["backend", "drain", "four", "web2"],
            &["rollback", "1"],
            &["services", "apply", &other],
        ];
        for order in orders {
            let refused = balancer.maglev(order)?;
            let is_named = refused.stderr.contains("No space left") && refused.stderr.contains("nothing changed");
            ensure!(refused.code == 1 && is_named, "{order:?}: {refused:?}");
            let now = (balancer.maglev_json(&["status"])?["services_digest"].clone(), fs::read(&services)?);
            ensure!(now == before, "{order:?} changed something");
        }
        let drained = balancer.maglev(&["node", "drain", "--last-node"])?;
        ensure!(drained.code == 0, "{drained:?}");
        let state = balancer.maglev_json(&["node", "status"])?;
        ensure!(state["not_saved"].as_str().is_some_and(|why| why.contains("No space left")), "{state}");
        balancer.maglev_ok(&["node", "undrain"])?;

        fs::remove_file(filler)?;
        balancer.maglev_ok(&["backend", "weight", "four", "web1", "9", "-m", "after"])?;
        balancer.kill()?;
        balancer.restart()?;
        let whys: Vec<_> = revisions(balancer, &[])?.into_iter().filter_map(|(_, _, why)| why).collect();
        assert_eq!(whys, ["after", "before"]);
        Ok("4 changes refused, 2 kept".to_owned())
    })
}

/// Changes that clients asked for.
#[derive(Default)]
struct Asked {
    acknowledged: BTreeSet<String>,
    all: BTreeSet<String>,
    /// How many may be acknowledged: fewer than the history keeps.
    allowed: usize,
    ended: bool,
}

/// The synchronization between clients and the test.
#[derive(Default)]
struct Storm {
    asked: Mutex<Asked>,
    changed: Condvar,
}

impl Storm {
    /// Waits until something is so, but not for ever.
    fn wait(&self, until: impl Fn(&Asked) -> bool) -> Result<MutexGuard<'_, Asked>> {
        const PATIENCE: Duration = Duration::from_secs(60);
        let asked = self.asked.lock().map_err(|_| anyhow!("another client failed"))?;
        let waited = self.changed.wait_timeout_while(asked, PATIENCE, |asked| !until(asked));
        let (asked, timeout) = waited.map_err(|_| anyhow!("another client failed"))?;
        ensure!(!timeout.timed_out(), "nothing was acknowledged for {PATIENCE:?}");
        Ok(asked)
    }

    /// Changes weights as fast as the daemon takes it, as far as is allowed.
    fn client(&self, client: u32, program: &Path, socket: &Path) -> Result<()> {
        // No two changes set the same: each has a revision.
        for n in 0..15_000 {
            let why = format!("client {client} change {n}");
            {
                let mut asked = self.wait(|asked| asked.ended || asked.acknowledged.len() < asked.allowed)?;
                if asked.ended {
                    return Ok(());
                }
                asked.all.insert(why.clone());
            }
            let (backend, weight) = (format!("web{}", client % 3 + 1), (4 * n + client + 1).to_string());
            let order = ["backend", "weight", "four", &backend, &weight, "-m", &why];
            let done = Command::new(program).arg("--socket").arg(socket).args(order).output()?;
            let said = String::from_utf8_lossy(&done.stderr);
            ensure!(matches!(done.status.code(), Some(0 | 3)), "neither done nor unreachable: {said}");
            if done.status.success() {
                self.asked.lock().map_err(|_| anyhow!("another client failed"))?.acknowledged.insert(why);
                self.changed.notify_all();
            }
        }
        bail!("asked for 15,000 changes without an end")
    }
}

#[test]
fn a_killed_daemon_keeps_every_change_that_it_acknowledged_once() -> Result<()> {
    const KILLS: usize = 12;
    const EACH: usize = 10;
    Matrix::Store.row("kill", "12 x kill -9 in a storm of changes from 4 clients: each acknowledged one once", || {
        if skip() {
            return Ok("skipped: needs root".to_owned());
        }
        let mut site = Site::standard(1)?;
        let balancer = &mut site.balancers[0];
        let (socket, program) = (balancer.socket(), binary("maglev")?);
        let storm = Storm::default();
        let mut seen = Vec::new();
        thread::scope(|scope| -> Result<()> {
            let start = |client| {
                let (storm, program, socket) = (&storm, &program, &socket);
                scope.spawn(move || storm.client(client, program, socket))
            };
            let clients: Vec<_> = (0..4).map(start).collect();
            let mut run = || -> Result<()> {
                for kill in 1..=KILLS {
                    storm.asked.lock().map_err(|_| anyhow!("a client failed"))?.allowed = kill * EACH;
                    storm.changed.notify_all();
                    // In the midst of them.
                    drop(storm.wait(|asked| asked.acknowledged.len() >= kill * EACH - EACH / 2)?);
                    balancer.kill()?;
                    balancer.restart()?;
                    drop(storm.wait(|asked| asked.acknowledged.len() >= kill * EACH)?);
                    seen.extend(revisions(balancer, &[])?);
                }
                Ok(())
            };
            let ran = run();
            storm.asked.lock().map_err(|_| anyhow!("a client failed"))?.ended = true;
            storm.changed.notify_all();
            for client in clients {
                client.join().map_err(|_| anyhow!("a client panicked"))??;
            }
            ran
        })?;
        seen.extend(revisions(balancer, &[])?);
        let asked = storm.asked.into_inner().map_err(|_| anyhow!("a client failed"))?;
        complete(&seen, &asked)
    })
}

/// That a history, read at several times, holds each acknowledged change once, and none that was not asked for.
fn complete(seen: &[(u64, String, Option<String>)], asked: &Asked) -> Result<String> {
    let Asked { acknowledged, all, .. } = asked;
    let distinct: BTreeSet<_> = seen.iter().collect();
    let numbers: BTreeSet<_> = seen.iter().map(|(number, ..)| *number).collect();
    ensure!(distinct.len() == numbers.len(), "a revision was another after a restart");
    ensure!(numbers.iter().copied().eq(1..=numbers.len() as u64), "revisions are missing: {numbers:?}");
    let kept: Vec<_> = distinct.iter().filter_map(|(_, _, why)| why.clone()).collect();
    let once: BTreeSet<_> = kept.iter().cloned().collect();
    ensure!(kept.len() == once.len(), "a change is there twice");
    let lost: Vec<_> = acknowledged.difference(&once).collect();
    ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    ensure!(once.is_subset(all), "changes that no client asked for");
    let unknown = once.len() - acknowledged.len();
    Ok(format!("{} acknowledged, 0 lost, 0 twice; {unknown} more kept, not acknowledged", acknowledged.len()))
}
