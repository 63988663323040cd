//! Daemons that are killed, upgraded, rolled back and damaged while connections are held and begun: none of them breaks, none fails.
//!
//! A trial is about time: it has a program of its own, beside which no other runs.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use maglev_e2e::{
    client::held::{Kind, Report},
    lab::{Balancer, Site, Start, maglev, site::counter, skip},
    matrix::{Matrix, is_full},
    release::{self, Difference},
    trial::{Change, Setting, Trial},
};
use nix::sys::signal::Signal;

const LEARNING: Duration = Duration::from_secs(8);
/// How long a release is watched here, not for 60 s.
const PROBATION: &str = "2s";

fn trial() -> Result<Trial> {
    trial_of(LEARNING)
}

fn trial_of(learning: Duration) -> Result<Trial> {
    Trial::begin(&Setting {
        balancers: 1,
        backends: 4,
        spare: 1,
        tracking: &["exception"],
        learning: learning.as_secs(),
        idle: 12.max(learning.as_secs()),
        held: 500,
        pace: Duration::from_millis(500),
        silence: LEARNING * 9 / 10,
        arrivals: if is_full() { 2_000 } else { 300 },
        flows: None,
        on_stop: "detach",
    })
}

/// The number of times that something happens: as the issue asks, or in short.
fn times(full: u32, short: u32) -> u32 {
    if is_full() { full } else { short }
}

fn row(subject: &str, name: &str, case: impl FnOnce() -> Result<String>) -> Result<()> {
    Matrix::Hitless.row(subject, name, case)
}

/// Connections that broke or failed: none may.
fn none(trial: Trial) -> Result<String> {
    let reports = trial.finish()?;
    reports.iter().try_for_each(|report| report.none_broken(&Kind::ALL))?;
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let held = sum(|report| report.held as u64);
    Ok(format!("{held} held and {} new connections: 0 broken, 0 failed", sum(|report| report.counts.arrivals)))
}

/// The binaries of other releases, beside the lab's files.
fn binary(trial: &Trial, name: &str, difference: Difference) -> Result<PathBuf> {
    release::write(&trial.site.lab.directory().join(name), difference)
}

fn start(binary: Option<PathBuf>, kept: &str) -> Start {
    Start::watched(binary, PROBATION, kept)
}

/// Slots in transition, and flows that are pinned.
fn in_transition(balancer: &Balancer) -> Result<(u64, u64)> {
    let pool = balancer.maglev_json(&["status"])?["pools"][0]["in_transition"].clone();
    let number = |key: &str| pool[key].as_u64().unwrap_or(0);
    Ok((number("learning_slots") + number("tracked_slots"), number("pinned_flows")))
}

#[test]
fn a_daemon_killed_at_any_moment_while_services_change_breaks_nothing() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut trial = trial()?;
    let kills = times(100, 6);
    row("kill", &format!("{kills} times killed at any moment, changes meanwhile"), || {
        let link = trial.site.balancers[0].links()?;
        let socket = trial.site.balancers[0].socket();
        let (stop, done, refused) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            let changer = scope.spawn(|| {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return Ok::<_, anyhow::Error>(());
                    }
                    let weight = (50 + 50 * (n % 3)).to_string();
                    let backend = format!("web{}", 1 + n % 4);
                    let change: &[&str] = match n % 5 {
                        3 => &["backend", "drain", "exception", "web4"],
                        4 => &["backend", "undrain", "exception", "web4"],
                        _ => &["backend", "weight", "exception", &backend, &weight],
                    };
                    // A call without an answer is no failure: the daemon is dead at the moment.
                    let answer = maglev(&socket, change)?;
                    if answer.code == 0 { &done } else { &refused }.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
            let killed = (0..kills).try_for_each(|n| {
                // From right after the start to a moment of calm.
                thread::sleep(Duration::from_millis(u64::from(n * 37 % 400)));
                trial.site.balancers[0].kill()?;
                trial.site.balancers[0].restart()?;
                let adopted = trial.site.balancers[0].forwarding()?["adopted"] == true;
                ensure!(adopted, "not adopted\n{}", trial.site.balancers[0].log());
                Ok(())
            });
            stop.store(true, Ordering::Relaxed);
            changer.join().expect("the changes")?;
            killed
        })?;
        trial.site.balancers[0].await_sync()?;
        ensure!(trial.site.balancers[0].links()? == link, "a link was made anew");
        let [done, refused] = [done, refused].map(AtomicU32::into_inner);
        ensure!(done > kills, "{done} changes alone were made");
        Ok(format!("{}; {done} changes made, {refused} unanswered; links never detached", none(trial)?))
    })
}

/// Starts what is installed in the place of the running daemon, in mid-transition.
fn upgrade(trial: &mut Trial, change: Change, next: Start) -> Result<(u64, u64)> {
    let changed = trial.change(change)?;
    thread::sleep((changed + Duration::from_millis(800)).saturating_duration_since(Instant::now()));
    let (before, _) = in_transition(&trial.site.balancers[0])?;
    let balancer = &mut trial.site.balancers[0];
    balancer.install(next);
    balancer.kill()?;
    balancer.restart()?;
    let (after, _) = in_transition(balancer)?;
    ensure!(before > 0 && after == before, "{before} slots were in transition, {after} are\n{}", balancer.log());
    let status = balancer.forwarding()?;
    ensure!(status["adopted"] == false, "{status}");
    ensure!(status["continued"].as_array().is_some_and(|all| !all.is_empty()), "{status}\n{}", balancer.log());
    Ok((before, after))
}

/// Changes that can be made in turn, over and over.
const CHANGES: [Change; 4] = [Change::Drain(1), Change::Weight(2, 300), Change::Undrain(1), Change::Weight(2, 100)];

#[test]
fn upgrades_and_rollbacks_in_mid_transition_break_nothing() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let (programs, layouts, rollbacks) = (times(20, 3), times(5, 1), times(5, 1));
    // No slot settles meanwhile, so that those in transition can be compared.
    let mut trial = trial_of(LEARNING * 60)?;
    let link = trial.site.balancers[0].links()?;
    let binaries = [1, 2].map(|n| binary(&trial, &format!("maglevd-{n}"), Difference::Digest(n)));
    let [first, second] = binaries;
    let (first, second) = (first?, second?);
    let mut carried = 0;
    let mut changes = CHANGES.into_iter().cycle();
    let mut change = || changes.next().context("a change");
    row("upgrade", &format!("{programs} upgrades to another program, in mid-transition"), || {
        for n in 0..programs {
            let next = if n % 2 == 0 { &first } else { &second };
            carried += upgrade(&mut trial, change()?, start(Some(next.clone()), "/nonexistent"))?.1;
        }
        Ok(format!("{carried} slots in transition carried over"))
    })?;
    row("layout", &format!("{layouts} upgrades to other sizes of the forwarding state and the flow table"), || {
        let mut carried = 0;
        for n in 0..layouts {
            let config = fs::read_to_string(trial.site.balancers[0].config())?;
            let sizes = format!(
                "limits: {{ pools: {} }}\nflow_table: {{ flows: {} }}\n",
                20 + n,
                if n % 2 == 0 { 100_000 } else { 900_000 }
            );
            let is_other = |line: &&str| !line.starts_with("limits:") && !line.starts_with("flow_table:");
            let others: String = config.lines().filter(is_other).map(|line| format!("{line}\n")).collect();
            fs::write(trial.site.balancers[0].config(), others + &sizes)?;
            carried += upgrade(&mut trial, change()?, start(Some(first.clone()), "/nonexistent"))?.1;
        }
        let promoted = counter(&trial.site.balancers[0].maglev_json(&["counters"])?, "flow_promoted")?;
        ensure!(promoted > 0, "no flow entry was taken over\n{}", trial.site.balancers[0].log());
        Ok(format!("{carried} slots in transition and {promoted} flow entries carried over"))
    })?;
    row("rollback", &format!("{rollbacks} rollbacks to the release before, and forward again"), || {
        let mut carried = 0;
        for _ in 0..rollbacks {
            for next in [&second, &first] {
                carried += upgrade(&mut trial, change()?, start(Some(next.clone()), "/nonexistent"))?.1;
            }
        }
        ensure!(trial.site.balancers[0].links()? == link, "a link was made anew");
        trial.site.balancers[0].await_sync()?;
        Ok(format!("{carried} slots in transition carried over; {}", none(trial)?))
    })
}

/// A release that fails while another one is kept: after its third start the kept one runs again, and all the while packets are
/// forwarded.
fn fails(name: &str, difference: Difference, fail: impl Fn(&mut Balancer) -> Result<()>) -> Result<()> {
    let mut trial = trial()?;
    let good = binary(&trial, "maglevd-good", Difference::Digest(1))?;
    let bad = binary(&trial, "maglevd-bad", difference)?;
    row("unready", name, || {
        let kept = good.display().to_string();
        let balancer = &mut trial.site.balancers[0];
        balancer.install(start(Some(good.clone()), &kept));
        balancer.kill()?;
        balancer.restart()?;
        balancer.await_proof()?;
        trial.change(Change::Drain(1))?;
        let balancer = &mut trial.site.balancers[0];
        balancer.install(start(Some(bad), &kept));
        balancer.kill()?;
        let began = Instant::now();
        for _ in 0..2 {
            balancer.begin()?;
            fail(balancer)?;
        }
        balancer.restart()?;
        let status = balancer.forwarding()?;
        let reason = status["rolled_back"].as_str().unwrap_or_default().to_owned();
        ensure!(reason.contains("was started 2 times"), "{status}\n{}", balancer.log());
        let text = balancer.maglev_ok(&["status"])?;
        ensure!(text.contains("ROLLED BACK: "), "{text}");
        ensure!(balancer.log().contains("ROLLING BACK"), "{}", balancer.log());
        let took = began.elapsed();
        Ok(format!(
            "on the release before after {:.1} s, adopted {}; {}",
            took.as_secs_f64(),
            status["adopted"],
            none(trial)?
        ))
    })
}

#[test]
fn a_release_that_the_kernel_refuses_gives_way_to_the_one_before() -> Result<()> {
    if skip() {
        return Ok(());
    }
    fails("its programs are refused by the kernel", Difference::Instructions, |balancer| {
        let ended = balancer.await_end()?;
        ensure!(ended.code() == Some(1), "{ended}\n{}", balancer.log());
        Ok(())
    })
}

#[test]
fn a_release_that_does_not_start_after_a_reboot_gives_way_too() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    let folder = site.lab.directory();
    let good = release::write(&folder.join("maglevd-good"), Difference::Digest(1))?;
    let bad = release::write(&folder.join("maglevd-bad"), Difference::Instructions)?;
    row("unready", "its programs are refused by the kernel after a reboot", || {
        let kept = good.display().to_string();
        let balancer = &mut site.balancers[0];
        balancer.install(start(Some(good.clone()), &kept));
        balancer.kill()?;
        balancer.restart()?;
        balancer.await_proof()?;
        balancer.kill()?;
        // A reboot leaves files, and nothing that is pinned.
        let mut uninstall = Command::new(&good);
        uninstall.args(["uninstall", "--only", "node", "--pin"]).arg(balancer.pin_folder());
        balancer.netns().output(&mut uninstall)?;
        ensure!(!balancer.pin_folder().exists(), "{:?}", balancer.pinned()?);
        balancer.install(start(Some(bad), &kept));
        for _ in 0..2 {
            balancer.begin()?;
            let ended = balancer.await_end()?;
            ensure!(ended.code() == Some(1), "{ended}\n{}", balancer.log());
        }
        balancer.restart()?;
        let status = balancer.forwarding()?;
        let reason = status["rolled_back"].as_str().unwrap_or_default().to_owned();
        ensure!(reason.contains("was started 2 times"), "{status}\n{}", balancer.log());
        Ok(reason)
    })
}

#[test]
fn a_release_that_aborts_or_hangs_gives_way_to_the_one_before() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let counted = |balancer: &mut Balancer| balancer.await_log("loading programs that continue");
    fails("it aborts as it starts", Difference::Digest(7), move |balancer| {
        counted(balancer)?;
        balancer.signal(Signal::SIGABRT)?;
        balancer.await_end().map(drop)
    })?;
    fails("it hangs as it starts, and is killed", Difference::Digest(8), move |balancer| {
        counted(balancer)?;
        balancer.signal(Signal::SIGSTOP)?;
        thread::sleep(Duration::from_millis(500));
        balancer.kill()
    })
}

#[test]
fn a_release_that_drops_what_was_forwarded_fails_its_probation() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut trial = trial()?;
    let good = binary(&trial, "maglevd-good", Difference::Digest(1))?;
    let next = binary(&trial, "maglevd-next", Difference::Digest(2))?;
    row("probation", "a pool without a backend during the probation: the release before runs again", || {
        let kept = good.display().to_string();
        let balancer = &mut trial.site.balancers[0];
        balancer.install(start(Some(good.clone()), &kept));
        balancer.kill()?;
        balancer.restart()?;
        balancer.await_proof()?;
        balancer.install(start(Some(next), &kept));
        balancer.kill()?;
        balancer.restart()?;
        let id = balancer.process_id();
        for n in 1..=4 {
            balancer.maglev_ok(&["backend", "drain", "exception", &format!("web{n}"), "--force"])?;
        }
        balancer.await_status("the release before", |status| status["forwarding"]["rolled_back"].is_string())?;
        ensure!(balancer.process_id() == id, "it runs in the same process");
        let status = balancer.forwarding()?;
        let reason = status["rolled_back"].as_str().unwrap_or_default().to_owned();
        ensure!(reason.contains("no_backend") || reason.contains("pool exception has no backend"), "{status}");
        for n in 1..=4 {
            balancer.maglev_ok(&["backend", "undrain", "exception", &format!("web{n}")])?;
        }
        Ok(reason)
    })
}

#[test]
fn a_thousand_changes_and_a_daemon_that_is_away_fail_nothing() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let (changes, away) = (times(1_000, 60), times(60, 4));
    let mut trial = trial()?;
    row("changes", &format!("{changes} changes back to back"), || {
        let began = Instant::now();
        for n in 0..changes {
            let change = match n % 4 {
                0 => Change::Weight(3, 100 + n),
                1 => Change::Drain(2),
                2 => Change::Weight(1, 100 + n),
                _ => Change::Undrain(2),
            };
            trial.change(change)?;
        }
        let took = began.elapsed();
        trial.site.balancers[0].await_sync()?;
        Ok(format!("{:.1} ms each", took.as_secs_f64() * 1_000.0 / f64::from(changes)))
    })?;
    row("stopped", &format!("no daemon for {away} s, in mid-transition"), || {
        trial.change(Change::Drain(4))?;
        trial.site.balancers[0].kill()?;
        thread::sleep(Duration::from_secs(u64::from(away)));
        trial.site.balancers[0].restart()?;
        none(trial)
    })
}

/// What is done to a pinned set.
type Damage<'a> = &'a dyn Fn(&PathBuf) -> Result<()>;

#[test]
fn damaged_pins_are_named_and_packets_go_on() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut trial = trial()?;
    let folder = trial.site.balancers[0].pin_folder();
    let set = |folder: &PathBuf| -> Result<PathBuf> {
        let mut sets = fs::read_dir(folder)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        sets.find(|path| path.join("STATE").exists()).context("a set")
    };
    let damages: [(&str, &str, Damage<'_>); 5] = [
        ("the saved state is gone", "saved no state", &|set| Ok(fs::remove_file(set.join("STATE"))?)),
        ("a program is gone", "cannot be adopted as it is", &|set| Ok(fs::remove_file(set.join("egress"))?)),
        ("a map is gone", "cannot be adopted as it is", &|set| Ok(fs::remove_file(set.join("FRAGMENTS"))?)),
        ("two maps have each other's names", "cannot be adopted as it is", &|set| {
            fs::rename(set.join("FLOWS"), set.join("other"))?;
            fs::rename(set.join("COUNTS"), set.join("FLOWS"))?;
            Ok(fs::rename(set.join("other"), set.join("COUNTS"))?)
        }),
        ("a map lies where the state was", "its daemon's state cannot be used", &|set| {
            fs::remove_file(set.join("STATE"))?;
            Ok(fs::rename(set.join("FRAGMENTS"), set.join("STATE"))?)
        }),
    ];
    for (name, said, damage) in damages {
        row("damage", name, || {
            let balancer = &mut trial.site.balancers[0];
            balancer.kill()?;
            damage(&set(&folder)?)?;
            balancer.restart()?;
            ensure!(balancer.log().contains(said), "{}", balancer.log());
            balancer.await_sync()?;
            balancer.kill()?;
            balancer.restart()?;
            ensure!(balancer.forwarding()?["adopted"] == true, "{}", balancer.log());
            Ok(said.to_owned())
        })?;
    }
    row("damage", "all of these under traffic", || none(trial))
}
