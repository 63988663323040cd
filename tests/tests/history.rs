//! The history of the services: who changed what and why, the way back, and that a killed daemon loses nothing it acknowledged.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::{fs, process::Command, thread};

use anyhow::{Context as _, Result, ensure};
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

        balancer.maglev_ok(&["backend", "weight", "web", "web1", "7", "-m", "web1 is slow"])?;
        balancer.maglev_ok(&["backend", "drain", "web", "web2"])?;
        let all = revisions(balancer, &[])?;
        let expected = [
            (3, "drain backend web2 of pool web".to_owned(), None),
            (2, "set weight of backend web1 of pool web to 7".to_owned(), Some("web1 is slow".to_owned())),
            (1, "services.yaml as it was found".to_owned(), None),
        ];
        assert_eq!(all, expected);
        assert_eq!(revisions(balancer, &["--pool", "web", "--backend", "web1"])?[0].0, 2);
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

/// Changes that one client asked for: those that were acknowledged, and all.
#[derive(Default)]
struct Asked {
    acknowledged: BTreeSet<String>,
    all: BTreeSet<String>,
}

#[test]
fn a_killed_daemon_keeps_every_change_that_it_acknowledged_once() -> Result<()> {
    const KILLS: usize = 12;
    const CLIENTS: usize = 4;
    Matrix::Store.row("kill", "12 x kill -9 in a storm of changes from 4 clients: each acknowledged one once", || {
        if skip() {
            return Ok("skipped: needs root".to_owned());
        }
        let mut site = Site::standard(1)?;
        let balancer = &mut site.balancers[0];
        let (socket, program) = (balancer.socket().to_owned(), binary("maglev")?);
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Asked::default())));
        let clients: Vec<_> = (0..CLIENTS as u32)
            .map(|client| {
                let (stop, asked, socket, program) = (stop.clone(), asked.clone(), socket.clone(), program.clone());
                thread::spawn(move || -> Result<()> {
                    // The bound: no client asks for more than this.
                    for n in 0..40_000_u32 {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let why = format!("client {client} change {n}");
                        let weight = ((4 * n + client) % 60_000 + 2).to_string();
                        let backend = format!("web{}", client % 3 + 1);
                        asked.lock().map_err(|_| anyhow::anyhow!("a client failed"))?.all.insert(why.clone());
                        let order = ["backend", "weight", "web", &backend, &weight, "-m", &why];
                        let done = Command::new(&program).arg("--socket").arg(&socket).args(order).output()?;
                        if done.status.success() {
                            asked.lock().map_err(|_| anyhow::anyhow!("a client failed"))?.acknowledged.insert(why);
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        let mut seen = Vec::new();
        for kill in 0..KILLS {
            // So many more are acknowledged first, whatever time that takes; the history is read while they go on.
            let enough = (kill + 1) * 8;
            while asked.lock().map_err(|_| anyhow::anyhow!("a client failed"))?.acknowledged.len() < enough {
                thread::yield_now();
            }
            balancer.kill()?;
            balancer.restart()?;
            seen.extend(revisions(balancer, &[])?);
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        seen.extend(revisions(balancer, &[])?);

        let asked = asked.lock().map_err(|_| anyhow::anyhow!("a client failed"))?;
        let distinct: BTreeSet<_> = seen.iter().collect();
        let numbers: BTreeSet<_> = seen.iter().map(|(number, ..)| number).collect();
        ensure!(distinct.len() == numbers.len(), "a revision was another after a restart");
        let complete = numbers.iter().zip(1..).all(|(number, expected)| **number == expected);
        ensure!(complete, "revisions are missing: {numbers:?}");
        let kept: Vec<_> = distinct.iter().filter_map(|(_, _, why)| why.clone()).collect();
        let once: BTreeSet<_> = kept.iter().cloned().collect();
        ensure!(kept.len() == once.len(), "a change is there twice");
        let lost: Vec<_> = asked.acknowledged.difference(&once).collect();
        ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        ensure!(once.is_subset(&asked.all), "changes that nobody asked for");
        let unknown = once.len() - asked.acknowledged.len();
        Ok(format!(
            "{} acknowledged, 0 lost, 0 twice; {unknown} kept whose acknowledgement was cut off",
            asked.acknowledged.len()
        ))
    })
}
