//! Health checks: what decides them, and what must not.

use std::{
    fs,
    net::TcpListener,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use maglev_e2e::{
    lab::{
        AUTHORITY, Backend, Balancer, Lab, Process, Services, Settings, Site, Topology, Vip, addresses::WWW4, binary,
        router::Kind, skip,
    },
    matrix::{Matrix, is_full},
    server::Identity,
};
use serde_json::Value;

const CHECK: &str = "check: { kind: http, via: direct, port: 80, interval: 200ms, timeout: 100ms, jitter: 0s }";

const HTTPS: &str = "check: { kind: https, sni: lab.example, via: direct, port: 443, interval: 500ms, timeout: 250ms, fall: 1, rise: 1 }";

/// A port outside the default range of local ports.
const ONLY_PORT: u16 = 20_000;

/// Rounds of checks that fail, each of which would make every backend fall.
const ROUNDS: u64 = 10;

#[test]
fn the_nodes_own_shortage_is_no_result() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::new(1, one_pool)?;
    check(&site.balancers[0], CHECK)?;
    await_backends(&mut site.balancers[0], "healthy", |backend| backend["health"]["state"] == "healthy")?;
    let before = changes(&site.balancers[0])?;
    Matrix::Fault.row("C8", "no port is left for checks (EADDRNOTAVAIL)", || {
        let netns = site.lab.netns("lb1");
        // Held before it becomes the only port, so that no check has it.
        let held = netns.run(|| TcpListener::bind(("0.0.0.0", ONLY_PORT)).context("the only port"))?;
        netns.sysctl(&[("net.ipv4.ip_local_port_range", &format!("{ONLY_PORT} {ONLY_PORT}"))])?;
        site.balancers[0].await_status("rounds of checks that are not made", |status| {
            status["check_shortage"]["checks"].as_u64() >= Some(ROUNDS * 3)
        })?;
        let text = site.balancers[0].maglev_ok(&["status"])?;
        ensure!(
            text.contains("CHECKS ARE NOT MADE, this node lacks resources: connect: no local address or"),
            "{text}"
        );
        drop(held);
        netns.sysctl(&[("net.ipv4.ip_local_port_range", "32768 60999")])?;
        nothing_fell(&site.balancers[0], &before)
    })?;
    Matrix::Fault.row("C8", "prlimit --nofile below what is open (EMFILE)", || {
        let pid = site.balancers[0].process_id();
        let made = not_made(&site.balancers[0])?;
        let open = fs::read_dir(format!("/proc/{pid}/fd")).context("the daemon's files")?.count();
        limit_files(pid, open.saturating_sub(4))?;
        // A daemon without descriptors cannot be asked how far it is.
        thread::sleep(Duration::from_millis(200 * ROUNDS));
        limit_files(pid, 20_000)?;
        let more = not_made(&site.balancers[0])? - made;
        ensure!(more >= ROUNDS, "{more} checks were not made");
        let said = nothing_fell(&site.balancers[0], &before)?;
        Ok(format!("{more} checks were not made; {said}"))
    })?;
    Matrix::Fault.row("C8", "checks go on once there are descriptors again", || {
        site.backends[0].stop_server()?;
        await_backends(&mut site.balancers[0], "web1 unhealthy", |backend| {
            backend["name"] != "web1" || backend["health"]["state"] == "unhealthy"
        })?;
        Ok("a backend that stops then falls".to_owned())
    })
}

#[test]
fn an_unreachable_backend_does_not_serve() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::new(1, one_pool)?;
    let lb1 = site.lab.netns("lb1");
    Matrix::Fault.row("T1", "the default route is deleted, in a pool without checks", || {
        lb1.ip(&["route del default".to_owned()])?;
        serving(&mut site.balancers[0], 1)?;
        Ok("SERVING 1 of 3: the one on the node's own segment".to_owned())
    })?;
    Matrix::Fault.row("T1", "the interface to the last backend goes down", || {
        lb1.ip(&["link set near down".to_owned()])?;
        serving(&mut site.balancers[0], 0)?;
        Ok("SERVING 0 of 3".to_owned())
    })?;
    Matrix::Fault.row("T1", "the node's interface is gone", || {
        lb1.ip(&["link del eth0".to_owned()])?;
        site.balancers[0].await_status("a node that cannot forward", |status| status["node"]["unable"].is_string())?;
        let text = site.balancers[0].maglev_ok(&["node", "status"])?;
        ensure!(text.contains("NOT FORWARDING") && !text.contains("serving"), "{text}");
        Ok(text.trim().to_owned())
    })
}

#[test]
fn certificate_authorities_are_read_again_on_reload() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let lab = Lab::new(Topology::new(1, 1))?;
    let (trusted, own) = (lab.directory().join(AUTHORITY), lab.directory().join("own.pem"));
    Identity::new()?.write_authority(&trusted)?;
    let mut command = Command::new(binary("maglev-lab")?);
    command.args(["serve", "--name", "web1", "--port", "80", "--talk-port", "7000", "--tls-port", "443"]);
    let web1 = lab.netns("web1");
    let mut server = Process::start("web1", &web1, &lab.directory(), command.arg("--authority").arg(&own))?;
    server.await_line("listening")?;
    let pool = lab.pool("web", WWW4, &[(1, 100)]);
    let services = Services { vips: vec![Vip::new("www", (WWW4, 443), "tcp", "web")], pools: vec![pool] };
    let mut lb1 = Balancer::start(&lab, 1, &Settings::new(1), &services)?;
    check(&lb1, HTTPS)?;
    let unknown = |backend: &Value| backend["health"]["last"]["error"].to_string().contains("invalid peer certificate");
    await_backends(&mut lb1, "an authority that is unknown", unknown)?;
    Matrix::Fault.row("C10", "an authority is added to the system, maglev reload", || {
        fs::copy(&own, &trusted)?;
        let asked = lb1.maglev(&["backend", "check", "web", "web1"])?;
        ensure!(asked.code == 1 && asked.stdout.contains("invalid peer certificate"), "before the reload: {asked:?}");
        lb1.maglev_ok(&["reload"])?;
        lb1.maglev_ok(&["backend", "check", "web", "web1"])?;
        await_backends(&mut lb1, "healthy", |backend| backend["health"]["state"] == "healthy")?;
        Ok("healthy after it".to_owned())
    })?;
    Matrix::Fault.row("C10", "another authority instead, SIGHUP", || {
        Identity::new()?.write_authority(&trusted)?;
        lb1.hang_up()?;
        await_backends(&mut lb1, "an authority that is unknown", unknown)?;
        Ok("unhealthy after it".to_owned())
    })
}

#[test]
fn a_pool_that_answers_nothing_is_withdrawn_after_a_minute() -> Result<()> {
    if skip() || !is_full() {
        return Ok(());
    }
    let mut site = Site::with_settings(Topology::standard(1).routed_by(Kind::Bird), one_pool, Settings::announcing)?;
    check(&site.balancers[0], CHECK)?;
    await_backends(&mut site.balancers[0], "healthy", |backend| backend["health"]["state"] == "healthy")?;
    site.router()?.await_route(WWW4, &[1])?;
    Matrix::Fault.row("C11", "all backends are dead: withdrawn after 60 s", || {
        site.backends.iter_mut().try_for_each(Backend::stop_server)?;
        site.balancers[0].await_log("PANIC")?;
        let began = Instant::now();
        // Longer than what is awaited elsewhere: nothing happens for most of the minute.
        thread::sleep(Duration::from_secs(50));
        site.router()?.await_route(WWW4, &[1])?;
        site.router()?.await_route(WWW4, &[])?;
        let routes = site.balancers[0].maglev_ok(&["bgp", "routes"])?;
        ensure!(routes.contains("none has answered anything for 60 s"), "{routes}");
        Ok(format!("withdrawn {} s after panic began", began.elapsed().as_secs()))
    })?;
    Matrix::Fault.row("C11", "one backend answers again: announced after the hold-down", || {
        let lab = &site.lab;
        site.backends[0].start_server(lab)?;
        let began = Instant::now();
        site.router()?.await_route(WWW4, &[1])?;
        Ok(format!("{} s later", began.elapsed().as_secs()))
    })
}

/// Pool `web` of three backends, and VIP `www`.
fn one_pool(lab: &Lab) -> Services {
    let pool = lab.pool("web", WWW4, &[(1, 100), (2, 100), (3, 100)]);
    Services { vips: vec![Vip::new("www", (WWW4, Backend::PORT), "tcp", "web")], pools: vec![pool] }
}

/// Has pool `web` checked.
fn check(balancer: &Balancer, check: &str) -> Result<()> {
    let text = fs::read_to_string(balancer.services()).context("services.yaml")?;
    let text = text.replacen("    backends:", &format!("    {check}\n    backends:"), 1);
    fs::write(balancer.services(), text).context("services.yaml")?;
    balancer.maglev_ok(&["reload"]).map(drop)
}

fn limit_files(pid: u32, most: usize) -> Result<()> {
    let status = Command::new("prlimit").arg(format!("--pid={pid}")).arg(format!("--nofile={most}:20000")).status();
    ensure!(status.context("prlimit")?.success(), "prlimit {most}");
    Ok(())
}

fn not_made(balancer: &Balancer) -> Result<u64> {
    Ok(balancer.maglev_json(&["status"])?["check_shortage"]["checks"].as_u64().unwrap_or(0))
}

/// How often each backend's health changed.
fn changes(balancer: &Balancer) -> Result<Vec<Value>> {
    let backends = balancer.maglev_json(&["backend", "list"])?;
    let all = backends.as_array().context("backends")?;
    Ok(all.iter().map(|backend| backend["health"]["checks"]["changes"].clone()).collect())
}

fn nothing_fell(balancer: &Balancer, before: &[Value]) -> Result<String> {
    let now = changes(balancer)?;
    ensure!(now == before, "{before:?}, then {now:?}");
    let status = balancer.maglev_json(&["status"])?;
    let serving = &status["vips"][0]["health"]["serving"];
    ensure!(*serving == 3 && status["common_failure"].is_null(), "{serving} serve, {}", status["common_failure"]);
    Ok("no backend fell, all 3 serve".to_owned())
}

fn await_backends(balancer: &mut Balancer, what: &str, holds: impl Fn(&Value) -> bool) -> Result<()> {
    balancer.await_status(what, |status| status["backends"].as_array().is_some_and(|all| all.iter().all(&holds)))
}

/// Waits until so many backends serve, by all views.
fn serving(balancer: &mut Balancer, count: u64) -> Result<()> {
    balancer.await_status("backends that serve", |status| {
        let (vip, pool) = (&status["vips"][0]["health"]["serving"], &status["pools"][0]["usable"]);
        vip.as_u64() == Some(count) && pool.as_u64() == Some(count)
    })?;
    let text = balancer.maglev_ok(&["vip", "list"])?;
    ensure!(text.contains(&format!("{count} of 3")), "{text}");
    let text = balancer.maglev_ok(&["pool", "show", "web"])?;
    ensure!(text.contains(&format!("usable         {count} of 3")), "{text}");
    Ok(())
}
