//! Readers of the API and of the metrics, and what the daemon writes and logs.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use maglev_e2e::{
    lab::{
        Backend, Balancer, Lab, Services, Settings, Site, Topology, Vip, addresses::WWW4, binary, router::Kind, skip,
    },
    matrix::{self, Matrix},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// The time for an answer of the daemon, on a loaded machine too.
const SOON: Duration = Duration::from_secs(10);

/// Memory that readers may take, in KiB.
const ROOM: u64 = 100 * 1024;

/// Backends of the node: as many as it can have, or as many as take a moment.
fn many() -> u32 {
    if matrix::is_full() { 32_767 } else { 3_000 }
}

#[test]
fn slow_readers_and_full_disks_stop_nothing_else() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let settings = |n| {
        let settings = Settings::announcing(n);
        let more = settings.more.replace("gtsm: true", "gtsm: true, hold_time: 3s");
        Settings { more, ..settings }
    };
    let mut site = Site::with_settings(Topology::standard(1).routed_by(Kind::Bird), services, settings)?;
    site.router()?.await_route(WWW4, &[1])?;
    let balancer = &mut site.balancers[0];
    Matrix::Fault.row("C14", "a start with many backends: a count in the log", || few_lines(balancer))?;
    let rounds = if matrix::is_full() { 10 } else { 1 };
    Matrix::Fault
        .row("C2", &format!("64 scrapes at once, {rounds} times, hold time 3 s"), || scraped(balancer, rounds))?;
    for page in ["/v1/backends", "/v1/status"] {
        let name = format!("256 clients ask for {page} and do not read, five times");
        Matrix::Fault.row("C4", &name, || unread(balancer, page))?;
    }
    Matrix::Fault
        .row("C15", "the state for a restart cannot be written: said until it can", || state_file(balancer))?;
    Matrix::Fault
        .row("C16", "node drain and undrain, the disk refuses: done, with a warning", || refusing(balancer))?;
    interrupted(balancer)
}

fn services(lab: &Lab) -> Services {
    let mut web = lab.pool("web", WWW4, &[(1, 100), (2, 100)]);
    let address = |n: u32| Ipv4Addr::from_bits(Ipv4Addr::new(10, 77, 0, 0).to_bits() + n);
    // Two are real ones, and the others cannot be reached.
    web.backends.extend((2..many()).map(|n| (format!("far{n}"), address(n).into(), 1)));
    Services { pools: vec![web], vips: vec![Vip::new("www", (WWW4, Backend::PORT), "tcp", "web")] }
}

fn few_lines(balancer: &Balancer) -> Result<String> {
    let log = balancer.log();
    let lines = log.lines().filter(|line| line.contains("address")).count();
    ensure!(lines <= 30, "{lines} lines about addresses\n{log}");
    Ok(format!("{lines} lines about the addresses of {} backends", many()))
}

fn scraped(balancer: &Balancer, rounds: usize) -> Result<String> {
    let before = sessions(balancer)?;
    let mut bytes = 0;
    for _ in 0..rounds {
        bytes = balancer.netns().run(|| {
            thread::scope(|scope| {
                let all: Vec<_> = (0..64).map(|_| scope.spawn(scrape)).collect();
                let bytes = all.into_iter().map(|one| one.join().map_or(Ok(0), |bytes| bytes));
                bytes.sum::<Result<usize>>()
            })
        })? / 64;
    }
    let after = sessions(balancer)?;
    ensure!(before == after && after.iter().all(|(state, _)| state == "established"), "{before:?}, {after:?}");
    Ok(format!("no session lost; {} backends, {} KiB a scrape", many(), bytes / 1024))
}

fn scrape() -> Result<usize> {
    let mut stream = TcpStream::connect("127.0.0.1:9642")?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut page = Vec::new();
    stream.read_to_end(&mut page)?;
    ensure!(page.ends_with(b"# EOF\n"), "{}", String::from_utf8_lossy(&page[..page.len().min(500)]));
    Ok(page.len())
}

/// Each session's state, and how often it came up.
fn sessions(balancer: &Balancer) -> Result<Vec<(String, u64)>> {
    let neighbors = balancer.maglev_json(&["bgp", "neighbors"])?;
    let of = |neighbor: &Value| Some((neighbor["state"].as_str()?.to_owned(), neighbor["sessions"].as_u64()?));
    Ok(neighbors.as_array().context("neighbors")?.iter().filter_map(of).collect())
}

fn unread(balancer: &Balancer, page: &str) -> Result<String> {
    let (before, mut after, mut slowest) = (memory(balancer, "VmRSS")?, Vec::new(), Duration::ZERO);
    fs::write(format!("/proc/{}/clear_refs", balancer.process_id()), "5").context("clear_refs")?;
    for repeat in 0..5 {
        let mut silent = Vec::new();
        // A change after each 64: the next ones hold another answer.
        for change in 0..4 {
            for _ in 0..64 {
                let mut stream = UnixStream::connect(balancer.socket())?;
                // It may be closed already for lack of a place.
                let _ = write!(stream, "GET {page} HTTP/1.1\r\nhost: x\r\n\r\n");
                silent.push(stream);
            }
            balancer.maglev_ok(&["backend", "weight", "web", "web1", &(100 + repeat * 4 + change).to_string()])?;
            let began = Instant::now();
            balancer.maglev_ok(&["vip", "list"])?;
            slowest = slowest.max(began.elapsed());
        }
        drop(silent);
        after.push(memory(balancer, "VmRSS")?);
    }
    let peak = memory(balancer, "VmHWM")?.saturating_sub(before);
    ensure!(slowest < SOON, "the command line waited {slowest:?}");
    ensure!(peak <= ROOM, "{peak} KiB more than {before} KiB");
    let grown = after[4].saturating_sub(after[0]);
    ensure!(grown <= ROOM / 4, "{after:?} KiB");
    let (slowest, peak) = (slowest.as_millis(), peak / 1024);
    Ok(format!("maglev answers in {slowest} ms, memory +{peak} MiB at its peak, +{} MiB later", grown / 1024))
}

/// A line of the process's status, in KiB.
fn memory(balancer: &Balancer, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", balancer.process_id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().with_context(|| line.to_owned())
}

fn state_file(balancer: &mut Balancer) -> Result<String> {
    let sets = fs::read_dir(balancer.pin_folder())?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let set = sets.into_iter().find(|path| path.join("STATE").exists()).context("a pinned set")?;
    let aside = set.join("STATE-new");
    fs::create_dir(&aside)?;
    balancer.maglev_ok(&["backend", "weight", "web", "web1", "99"])?;
    let said = |status: &Value| status["state_not_saved"].as_str().is_some_and(|why| why.contains("STATE-new"));
    balancer.await_status("the state's fault", said)?;
    let text = balancer.maglev_ok(&["status"])?;
    ensure!(text.contains("state for a restart   NOT SAVED: cannot pin to "), "{text}");
    let metrics = scraped_text(balancer)?;
    ensure!(metrics.contains("maglev_file_write_failed{file=\"state\"} 1\n"), "no metric");
    fs::remove_dir(&aside)?;
    balancer.await_status("the state", |status| status["state_not_saved"].is_null())?;
    ensure!(balancer.log().matches("has no history of transitions").count() == 1, "{}", balancer.log());
    Ok("in status, metrics, and once in the log; written by itself".into())
}

fn scraped_text(balancer: &Balancer) -> Result<String> {
    let answer = balancer.netns().run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9642")?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    });
    answer.context("/metrics")
}

fn refusing(balancer: &mut Balancer) -> Result<String> {
    let file = balancer.services().with_file_name("node-state.json");
    block(&file)?;
    let drained = balancer.maglev(&["node", "drain"])?;
    ensure!(
        drained.code == 0 && drained.stderr.contains("warning: the drain is not saved: cannot replace "),
        "{drained:?}"
    );
    let node = balancer.maglev_json(&["node", "status"])?;
    ensure!(node["drain"]["stages"].is_array() && node["not_saved"].is_string(), "{node}");
    fs::remove_dir_all(&file)?;
    balancer.await_answer("the order is saved", &["node", "status"], |node| node["not_saved"].is_null())?;
    ensure!(file.is_file(), "{} is not written", file.display());

    fs::remove_file(&file)?;
    block(&file)?;
    let served = balancer.maglev(&["node", "undrain"])?;
    ensure!(
        served.code == 0 && served.stderr.contains("warning: the undrain is not saved: cannot remove "),
        "{served:?}"
    );
    let node = balancer.maglev_json(&["node", "status"])?;
    ensure!(node["drain"].is_null() && node["not_saved"].is_string(), "{node}");
    fs::remove_dir_all(&file)?;
    balancer.await_answer("the order is saved", &["node", "status"], |node| node["not_saved"].is_null())?;
    Ok("exit code 0; not_saved until the disk takes it".into())
}

/// Neither replaced nor removed as a file can be.
fn block(file: &Path) -> Result<()> {
    fs::create_dir(file).and_then(|()| fs::write(file.join("x"), "")).with_context(|| file.display().to_string())
}

fn interrupted(balancer: &mut Balancer) -> Result<()> {
    for (arguments, signal, code, line, undo) in [
        (
            &["node", "drain", "--wait"][..],
            Signal::SIGINT,
            130,
            "the node goes on draining; `maglev node undrain` reverses it",
            &["node", "undrain"][..],
        ),
        (
            &["backend", "drain", "web", "web2", "--wait"],
            Signal::SIGTERM,
            143,
            "web2 goes on draining; `maglev backend undrain web web2` reverses it",
            &["backend", "undrain", "web", "web2"],
        ),
        (
            &["events", "--follow"],
            Signal::SIGINT,
            130,
            "nothing was changed; continue with `maglev events --follow --after ",
            &[],
        ),
    ] {
        let name = format!("{signal} ends maglev {}", arguments.join(" "));
        Matrix::Fault.row("C13", &name, || {
            let mut command = Command::new(binary("maglev")?);
            command.arg("--socket").arg(balancer.socket()).args(arguments);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
            // Each says something as soon as it waits.
            let mut first = [0];
            let (mut stdout, mut stderr) =
                (child.stdout.take().context("stdout")?, child.stderr.take().context("stderr")?);
            if undo.is_empty() {
                stdout.read_exact(&mut first)?;
            } else {
                stderr.read_exact(&mut first)?;
            }
            kill(Pid::from_raw(child.id().try_into()?), signal)?;
            let mut said = String::new();
            stderr.read_to_string(&mut said)?;
            let status = child.wait()?;
            ensure!(
                status.code() == Some(code) && said.contains(&format!("maglev: interrupted: {line}")),
                "{status}, {said}"
            );
            if !undo.is_empty() {
                balancer.maglev_ok(undo)?;
            }
            Ok(format!("exit code {code}, and one line"))
        })?;
    }
    Ok(())
}
