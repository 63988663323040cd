//! The data plane outlives its daemon: one that keeps forwarding when it stops, a second one of the same identity,
//! and one that cannot go on with what is pinned.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use maglev_e2e::lab::{
    Backend, Balancer, Settings, Site, Topology,
    addresses::{WWW4, WWW6},
    binary,
    site::every_family,
    skip,
};
use serde_json::Value;

#[test]
fn a_daemon_may_leave_its_data_plane_forwarding_when_it_stops() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site =
        Site::with_settings(Topology::standard(1), every_family, |n| Settings { on_stop: "keep", ..Settings::new(n) })?;
    answered(&site)?;
    site.balancers[0].stop()?;
    answered(&site)?;
    site.balancers[0].restart()?;
    let status = forwarding(&site.balancers[0])?;
    ensure!(status["adopted"] == true, "{status}");
    let text = site.balancers[0].maglev_ok(&["status"])?;
    ensure!(text.contains("adopted from the previous daemon; pinned in /sys/fs/bpf/maglev-lab/"), "{text}");
    answered(&site)?;

    // Another daemon with the same identity, though its socket is another's.
    let balancer = &site.balancers[0];
    let config = fs::read_to_string(balancer.config())?.replace("maglev.sock", "other.sock").replace(":9642", ":9643");
    let other = site.lab.directory().join("other.yaml");
    fs::write(&other, config)?;
    let mut second = Command::new(binary("maglevd")?);
    let output = balancer.netns().run(|| second.args(["run", "--config"]).arg(&other).output().context("maglevd"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let first = format!("another maglevd (process {}) holds the pin folder", balancer.process_id());
    ensure!(output.status.code() == Some(1) && said.contains(&first), "{said}");
    answered(&site)
}

#[test]
fn what_is_pinned_and_does_not_fit_is_continued_or_replaced_without_a_gap() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    answered(&site)?;
    site.balancers[0].kill()?;
    answered(&site)?;
    let balancer = &mut site.balancers[0];
    let config = fs::read_to_string(balancer.config())?;
    let traffic = site.lab.client().start(&targets(), u64::MAX, 4);
    fs::write(balancer.config(), config + "flow_table: { flows: 70000 }\n")?;
    balancer.restart()?;
    let status = forwarding(balancer)?;
    ensure!(status["adopted"] == false && status["continued"][0] == "`flow_table`", "{status}");
    let text = balancer.maglev_ok(&["status"])?;
    ensure!(text.contains("continued from the previous daemon (`flow_table` changed)"), "{text}");
    let events = balancer.maglev_ok(&["events"])?;
    let event = "programs of this release continue the pinned data plane: `flow_table` changed";
    ensure!(events.contains(event), "{events}");
    let outcomes = traffic.stop()?;
    outcomes.all_answered()?;
    ensure!(sets(balancer)? == 2, "the set before stays during the probation: {:?}", balancer.pinned()?);

    // Another key: every flow finds another slot, and nothing of the data plane before is of use.
    balancer.kill()?;
    let config = fs::read_to_string(balancer.config())?;
    let key = config.lines().find(|line| line.starts_with("hash_key: ")).context("a hash key")?.to_owned();
    fs::write(balancer.config(), config.replace(&key, "hash_key: '00112233445566778899aabbccddeeff'"))?;
    let preflight = Command::new(binary("maglevd")?).args(["preflight", "--config"]).arg(balancer.config()).output();
    let preflight = preflight.context("maglevd preflight")?;
    let said = String::from_utf8_lossy(&preflight.stdout).into_owned();
    ensure!(preflight.status.code() == Some(1) && said.contains("REPLACES") && said.contains("FORGETS"), "{said}");
    balancer.restart()?;
    balancer.await_log("replacing the pinned data plane")?;
    ensure!(balancer.log().contains("`hash_key` differs"), "{}", balancer.log());
    ensure!(sets(balancer)? == 1, "{:?}", balancer.pinned()?);

    // Configured to detach, it leaves nothing in the kernel, and `preflight` reports that; the next one reads which backends were in use.
    let mut preflight = Command::new(binary("maglevd")?);
    preflight.args(["preflight", "--config"]).arg(balancer.config());
    let warned = balancer.netns().run(|| preflight.output().context("maglevd preflight"))?;
    let said = String::from_utf8_lossy(&warned.stdout);
    ensure!(warned.status.code() == Some(1) && said.contains("dataplane.on_stop is detach"), "{said}");
    balancer.stop()?;
    ensure!(!balancer.pin_folder().exists(), "{:?}", balancer.pinned()?);
    ensure!(!balancer.socket().exists(), "the API's socket stays");
    ensure!(balancer.socket().with_extension("state").exists(), "the backends that were in use are not kept");
    balancer.restart()?;
    ensure!(forwarding(balancer)?["adopted"] == false, "there is nothing to adopt");
    answered(&site)?;
    Ok(())
}

#[test]
fn a_node_whose_daemon_is_gone_for_longer_than_the_watchdog_drops_what_is_for_vips() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::with_settings(Topology::standard(1), every_family, |n| Settings {
        on_stop: "keep, watchdog: 10s",
        ..Settings::new(n)
    })?;
    answered(&site)?;
    site.balancers[0].kill()?;
    let killed = Instant::now();
    answered(&site)?;
    while site.lab.client().requests(&targets(), 2, 1)?.all_answered().is_ok() {
        ensure!(killed.elapsed() < Duration::from_secs(30), "packets are still forwarded");
    }
    ensure!(killed.elapsed() > Duration::from_secs(7), "dropped after {:?}", killed.elapsed());
    site.balancers[0].restart()?;
    answered(&site)?;
    let status = forwarding(&site.balancers[0])?;
    ensure!(status["adopted"] == true, "{status}");
    let counters = site.balancers[0].maglev_json(&["counters"])?;
    let all = counters["counters"].as_array().context("counters")?;
    let gone = all.iter().find(|counter| counter["name"] == "daemon_gone").context("daemon_gone")?;
    ensure!(gone["packets"].as_u64() > Some(0), "{gone}");
    // A daemon that runs is not gone, however quiet it is.
    thread::sleep(Duration::from_secs(12));
    answered(&site)
}

/// A BPF file system of a test. Dropping it unmounts it.
struct BpfMount(PathBuf);

impl BpfMount {
    fn new(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&folder).status()?;
        ensure!(mounted.success(), "cannot mount at {}", folder.display());
        Ok(Self(folder))
    }
}

impl Drop for BpfMount {
    fn drop(&mut self) {
        // It fails if the test has unmounted it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

#[test]
fn a_bpf_file_system_that_vanishes_is_named_and_packets_go_on() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    let mount = BpfMount::new(site.lab.directory().join("bpf"))?;
    let balancer = &mut site.balancers[0];
    balancer.stop()?;
    let (config, folder) = (fs::read_to_string(balancer.config())?, balancer.pin_folder());
    let pins = mount.0.join("node");
    fs::write(balancer.config(), config.replace(&folder.display().to_string(), &pins.display().to_string()))?;
    balancer.restart()?;
    ensure!(pins.join("links").exists(), "nothing is pinned in {}", pins.display());
    let traffic = site.lab.client().start(&targets(), u64::MAX, 4);
    drop(mount);
    let balancer = &mut site.balancers[0];
    ensure!(!pins.exists(), "{} is still there", pins.display());
    balancer.maglev_ok(&["backend", "weight", "four", "web1", "50"])?;
    balancer.await_status("the missing pins", |status| status["state_not_saved"].is_string())?;
    let text = balancer.maglev_ok(&["status"])?;
    ensure!(text.contains("NOT SAVED") && text.contains(&pins.display().to_string()), "{text}");
    answered(&site)?;
    traffic.stop()?.all_answered()?;

    // Without a BPF file system there, the next daemon does not start; with one it does, and forwards.
    let balancer = &mut site.balancers[0];
    balancer.kill()?;
    balancer.begin()?;
    let ended = balancer.await_end()?;
    ensure!(ended.code() == Some(1), "{ended}\n{}", balancer.log());
    ensure!(balancer.log().contains(&pins.display().to_string()), "{}", balancer.log());
    let _mount = BpfMount::new(site.lab.directory().join("bpf"))?;
    site.balancers[0].restart()?;
    answered(&site)?;
    site.balancers[0].stop()
}

fn sets(balancer: &Balancer) -> Result<usize> {
    Ok(balancer.pinned()?.iter().filter(|name| name.starts_with('v')).count())
}

fn targets() -> Vec<SocketAddr> {
    [WWW4, WWW6].map(|vip| (vip, Backend::PORT).into()).to_vec()
}

fn answered(site: &Site) -> Result<()> {
    site.lab.client().requests(&targets(), 200, 8)?.all_answered()
}

fn forwarding(balancer: &Balancer) -> Result<Value> {
    Ok(balancer.maglev_json(&["status"])?["forwarding"].clone())
}
