//! The package in an emulated machine with Debian and systemd: installed, upgraded, rolled back, restarted, rebooted, cut off its power
//! and purged, while connections are held and begun through it. Another node beside it serves while it is away.
//!
//! In a test each row starts where the last one ended.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use maglev_e2e::{
    client::held::{Kind, Plan, Report},
    lab::{
        Affinity, Backend, Balancer, HASH_KEY, Lab, Pool, Router, Services, Settings, Topology, Vip,
        addresses::{WWW4, WWW6, outer_sources},
        router,
        site::counter,
        skip,
    },
    machine::{Done, Hardware, Machine, Packages, VERSIONS},
    matrix::Matrix,
};
use serde_json::Value;

/// Connections that are held, and that begin in a second.
const HELD: usize = 100;
const ARRIVALS: u32 = 200;
/// The node's times of a drain: two seconds are as good as ten in a test.
const DRAIN: &str = "drain: { lead: 2s, quiet: 2s }\n";

/// What a row does, and what it says.
type Case = dyn Fn(&mut Fixture) -> Result<String>;

/// What runs. The lab comes last: it is dropped after what lives in it.
struct Fixture {
    machine: Machine,
    packages: Packages,
    router: Router,
    _other: Balancer,
    _backends: Vec<Backend>,
    services: Services,
    lab: Lab,
}

/// A process of maglevd and what it pinned.
#[derive(Debug, PartialEq, Eq)]
struct Running {
    process: String,
    /// The inodes of the pinned links: a link that was detached and made anew has another one.
    links: String,
}

fn plan() -> Plan {
    Plan {
        targets: [WWW4, WWW6].map(|vip| (vip, Backend::TALK_PORT).into()).to_vec(),
        held: HELD,
        arrivals: ARRIVALS,
        pace: Duration::from_millis(500),
        silence: Duration::from_secs(3),
        seed: 1,
    }
}

fn services(lab: &Lab) -> Services {
    let pool = Pool {
        affinity: Some(Affinity { tracking: "exception", learning: 8, idle: 12 }),
        ..lab.pool("web", WWW4, &[(1, 100), (2, 100), (3, 100)])
    };
    let vips = [("www", WWW4), ("www6", WWW6)];
    Services {
        pools: vec![pool],
        vips: vips.map(|(name, address)| Vip::new(name, (address, Backend::TALK_PORT), "tcp", "web")).to_vec(),
    }
}

/// The sums of a report in which no connection broke or failed.
fn none(report: &Report) -> Result<String> {
    report.none_broken(&Kind::ALL)?;
    Ok(format!("{} held and {} new connections: 0 broken, 0 failed", report.held, report.counts.arrivals))
}

impl Fixture {
    fn new(hardware: Hardware) -> Result<Self> {
        let mut lab = Lab::new(Topology::new(2, 3).routed_by(router::Kind::Bird))?;
        let backends = lab.start_backends()?;
        let mut router = lab.start_router()?.context("the lab has no router")?;
        let services = services(&lab);
        let settings = Settings::announcing(2);
        let mut other =
            Balancer::start(&lab, 2, &Settings { more: settings.more + DRAIN, ..Settings::new(2) }, &services)?;
        other.await_next_hops()?;
        router.await_route(WWW4, &[2])?;
        router.await_route(WWW6, &[2])?;
        let packages = Packages::new()?;
        let machine = Machine::boot(&lab, &packages, hardware)?;
        Ok(Self { machine, packages, router, _other: other, _backends: backends, services, lab })
    }

    /// Holds and begins connections while `action` runs.
    fn traffic(&mut self, action: impl FnOnce(&mut Self) -> Result<String>) -> Result<(Report, String)> {
        let held = self.lab.client().hold(plan());
        held.await_open()?;
        let said = action(self)?;
        held.await_spoken(Instant::now())?;
        Ok((held.finish()?, said))
    }

    /// The same, and none of them breaks or fails.
    fn hitless(&mut self, action: impl FnOnce(&mut Self) -> Result<String>) -> Result<String> {
        let (report, said) = self.traffic(action)?;
        Ok(format!("{}{}{said}", none(&report)?, if said.is_empty() { "" } else { "; " }))
    }

    fn apt(&mut self, words: &str) -> Result<Done> {
        self.machine.run(&format!("DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 --yes {words}"))
    }

    fn apt_ok(&mut self, words: &str) -> Result<String> {
        let Done { code, output } = self.apt(words)?;
        ensure!(code == 0, "apt-get {words} ended with {code}:\n{output}");
        Ok(output)
    }

    fn write(&mut self, file: &str, text: &str) -> Result<()> {
        let text = STANDARD.encode(text);
        self.machine.ok(&format!("echo {text} | base64 --decode > {file}")).map(drop)
    }

    /// An answer of the CLI in the machine.
    fn json(&mut self, words: &str) -> Result<Value> {
        let text = self.machine.ok(&format!("maglev --output json {words}"))?;
        serde_json::from_str(&text).with_context(|| format!("maglev {words} printed {text:?}"))
    }

    /// Waits until the router leads both VIPs through the machine and the other node, or the other one alone.
    fn await_routes(&mut self, through: &[u8]) -> Result<()> {
        let log = |machine: &mut Machine| {
            machine.run("systemctl status maglevd; journalctl --no-pager -n 30").map(|done| done.output)
        };
        for vip in [WWW4, WWW6] {
            if let Err(error) = self.router.await_route(vip, through) {
                let log = log(&mut self.machine).unwrap_or_else(|error| format!("no log: {error:#}"));
                return Err(error.context(log));
            }
        }
        Ok(())
    }

    /// Packets that the machine encapsulated so far.
    fn forwarded(&mut self) -> Result<u64> {
        let counters = self.json("counters")?;
        Ok(counter(&counters, "transmitted")? + counter(&counters, "redirected")?)
    }

    /// Waits until the machine has forwarded some more packets.
    fn await_forwarding(&mut self) -> Result<u64> {
        let (before, began) = (self.forwarded()?, Instant::now());
        loop {
            let more = self.forwarded()?.saturating_sub(before);
            if more > 500 {
                return Ok(more);
            }
            ensure!(began.elapsed() < Duration::from_secs(60), "the machine forwarded {more} packets in a minute");
        }
    }

    fn running(&mut self) -> Result<Running> {
        let process = self.machine.ok("systemctl show --property MainPID --value maglevd")?.trim().to_owned();
        let links = self.machine.ok("stat --format '%i %n' /run/maglev/bpf/node/links/*")?;
        Ok(Running { process, links })
    }

    /// Waits for another process than this one, ready and with nothing to publish, over the same links.
    fn replaced(&mut self, before: &Running) -> Result<()> {
        let ready = format!(
            "timeout 60 sh -c 'until test \"$(systemctl is-active maglevd)\" = active && \
             test \"$(systemctl show --property MainPID --value maglevd)\" != {} && maglev status > /dev/null 2>&1; \
             do sleep 0.1; done'",
            before.process
        );
        let log = "journalctl --no-pager --unit maglevd -n 30";
        ensure!(self.machine.run(&ready)?.code == 0, "no other process came up\n{}", self.machine.ok(log)?);
        let after = self.running()?;
        ensure!(after.links == before.links, "links before: {}after: {}", before.links, after.links);
        let exe = self.machine.ok(&format!("readlink /proc/{}/exe", after.process))?;
        ensure!(exe.trim() == "/usr/bin/maglevd", "maglevd runs from {exe}\n{}", self.machine.ok(log)?);
        self.await_routes(&[1, 2])?;
        self.await_forwarding().map(drop)
    }
}

/// `apt install`, and the commands of docs/deploy.md.
fn install(fixture: &mut Fixture) -> Result<String> {
    fixture.hitless(|fixture| {
        fixture.apt_ok(&format!("install /packages/{}", VERSIONS[0]))?;
        let unit = fixture.machine.run("systemctl is-enabled maglevd; systemctl is-active maglevd")?.output;
        ensure!(unit == "disabled\ninactive\n", "after the installation maglevd is {unit}");
        let [source, source6] = outer_sources(1);
        let example = "/etc/maglev/maglev.yaml.example";
        fixture.machine.ok(&format!(
            "sed 's/HASH_KEY/{HASH_KEY}/; s/^interfaces:/&\\n  - {{ name: eth1 }}/; s#source: .* }}#source: {source}, source6: \"{source6}\" }}#' \
             {example} > /etc/maglev/maglev.yaml"
        ))?;
        let more = Settings::announcing(1).more + DRAIN;
        fixture.write("/tmp/more", &more)?;
        fixture.machine.ok("cat /tmp/more >> /etc/maglev/maglev.yaml && maglevd check && systemctl enable --now maglevd")?;
        let services = fixture.services.to_string();
        fixture.write("/tmp/services.yaml", &services)?;
        fixture.machine.ok("cd /tmp && maglev services apply services.yaml")?;
        fixture.await_routes(&[1, 2])?;
        let forwarded = fixture.await_forwarding()?;
        let counters = fixture.json("counters")?;
        let [transmitted, redirected] = ["transmitted", "redirected"].map(|name| counter(&counters, name));
        ensure!(transmitted? > 0 && redirected? > 0, "not both transmitted and redirected: {counters}");
        Ok(format!("{forwarded} packets forwarded"))
    })
}

/// Installs a release over the other.
fn change(fixture: &mut Fixture, to: usize) -> Result<String> {
    fixture.hitless(|fixture| {
        let before = fixture.running()?;
        fixture.await_forwarding()?;
        fixture.apt_ok(&format!("install --allow-downgrades /packages/{}", VERSIONS[to]))?;
        fixture.replaced(&before)?;
        let version = fixture.machine.ok("dpkg-query --show --showformat '${Version}' maglev")?;
        ensure!(version == fixture.packages.versions[to], "{version} is installed");
        let status = fixture.json("status")?["forwarding"].clone();
        ensure!(status["continued"].as_array().is_some_and(|all| !all.is_empty()), "not continued: {status}");
        Ok(String::new())
    })
}

fn restart(fixture: &mut Fixture, command: &str) -> Result<String> {
    fixture.hitless(|fixture| {
        let before = fixture.running()?;
        fixture.await_forwarding()?;
        fixture.machine.ok(command)?;
        fixture.replaced(&before)?;
        let status = fixture.json("status")?["forwarding"].clone();
        ensure!(status["adopted"] == true, "not adopted: {status}");
        Ok(String::new())
    })
}

/// An operator drains the node, restarts the machine and puts the node back.
fn reboot_after_drain(fixture: &mut Fixture) -> Result<String> {
    fixture.hitless(|fixture| {
        fixture.await_forwarding()?;
        fixture.machine.ok("maglev node drain --wait --timeout 60s --reason 'new kernel'")?;
        fixture.await_routes(&[2])?;
        let ready = fixture.machine.reboot()?;
        fixture.machine.ok("timeout 60 sh -c 'until maglev status > /dev/null 2>&1; do sleep 0.2; done'")?;
        let node = fixture.json("node status")?;
        ensure!(node["drain"]["reason"] == "new kernel", "the drain did not outlive the reboot: {node}");
        fixture.machine.ok("maglev node undrain")?;
        fixture.await_routes(&[1, 2])?;
        fixture.await_forwarding()?;
        Ok(format!("back after {} s", ready.after.as_secs()))
    })
}

/// The machine restarts, and the units drain it and put it back.
fn reboot(fixture: &mut Fixture) -> Result<String> {
    fixture.hitless(|fixture| {
        fixture.await_forwarding()?;
        let ready = fixture.machine.reboot()?;
        fixture.await_routes(&[1, 2])?;
        fixture.await_forwarding()?;
        Ok(format!("back after {} s", ready.after.as_secs()))
    })
}

/// Connections may break: they are counted.
fn power_cut(fixture: &mut Fixture) -> Result<String> {
    let (report, said) = fixture.traffic(|fixture| {
        fixture.await_forwarding()?;
        fixture.machine.cut_power()?;
        let began = Instant::now();
        fixture.await_routes(&[2])?;
        let gone = began.elapsed();
        let ready = fixture.machine.await_ready()?;
        fixture.await_routes(&[1, 2])?;
        fixture.await_forwarding()?;
        Ok(format!("routes gone after {} s, back after {} s", gone.as_secs(), ready.after.as_secs()))
    })?;
    let (held, arrivals) = (report.broken(&Kind::HELD), report.broken(&[Kind::Arrival]));
    let all = report.counts.arrivals;
    Ok(format!("{held} of {} held broken, {arrivals} of {all} new failed; {said}", report.held))
}

/// A removal is refused while the node serves; after a drain, removal and purge leave what the docs say.
fn purge(fixture: &mut Fixture) -> Result<String> {
    fixture.hitless(|fixture| {
        let Done { code, output } = fixture.apt("remove maglev")?;
        ensure!(code != 0 && output.contains("maglev node drain"), "a removal in service ended with {code}: {output}");
        fixture.await_forwarding()?;
        fixture.machine.ok("maglev node drain --wait --timeout 60s")?;
        fixture.await_routes(&[2])?;
        fixture.apt_ok("remove maglev")?;
        fixture.machine.ok("test -e /etc/maglev/maglev.yaml && test -e /var/lib/maglev/services.yaml")?;
        let attached = fixture
            .machine
            .run("ip link | grep xdp; mount | grep maglev; grep --files-with-matches maglev /proc/[0-9]*/comm")?
            .output;
        ensure!(attached.is_empty(), "a removal leaves {attached}");
        fixture.apt_ok("purge maglev")?;
        let left = fixture.machine.ok(
            "find / -xdev -iname '*maglev*' ! -path '/packages/*' ! -path '/proc/*'; find /run -iname '*maglev*'",
        )?;
        ensure!(left.is_empty(), "a purge leaves {left}");
        let failed = fixture.machine.ok("systemctl --failed --no-legend --plain")?;
        ensure!(failed.is_empty(), "failed units: {failed}");
        fixture.machine.ok("getent passwd maglev")?;
        Ok("no file is left; the user is".to_owned())
    })
}

#[test]
fn a_package_in_a_machine_loses_nothing() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut fixture = Fixture::new(Hardware::USUAL)?;
    let mut row = |subject: &str, name: &str, case: &Case| Matrix::Machines.row(subject, name, || case(&mut fixture));
    // Without it there is nothing to change.
    row("install", "apt install, configured as docs/deploy.md says", &install)?;
    let rows: [(&str, &str, &Case); 8] = [
        ("upgrade", "apt install of the next release", &|fixture| change(fixture, 1)),
        ("rollback", "apt install of the release before", &|fixture| change(fixture, 0)),
        ("restart", "systemctl restart maglevd", &|fixture| restart(fixture, "systemctl restart maglevd")),
        ("restart", "killed, and started by systemd", &|fixture| {
            restart(fixture, "systemctl kill --signal KILL maglevd")
        }),
        ("reboot", "drained by an operator, rebooted, put back", &reboot_after_drain),
        ("reboot", "rebooted, drained by its unit", &reboot),
        ("power", "power cut, and back at once", &power_cut),
        ("purge", "apt remove, refused in service; after a drain; apt purge", &purge),
    ];
    let failed: Vec<String> = rows
        .iter()
        .filter_map(|(subject, name, case)| row(subject, name, case).err().map(|error| format!("{name}: {error:#}")))
        .collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
    Ok(())
}

/// Other kernels and cards, each with the subject of its rows.
const OTHERS: [(&str, Hardware); 3] = [
    ("6.1", Hardware { kernel: "6.1", ..Hardware::USUAL }),
    ("queues", Hardware { queues: 4, ..Hardware::USUAL }),
    ("vmxnet3", Hardware { card: "vmxnet3", ..Hardware::USUAL }),
];

#[test]
fn drivers_of_other_kernels_and_cards_keep_the_program_attached() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let kill = "systemctl kill --signal KILL maglevd";
    for (subject, hardware) in OTHERS {
        let mut fixture = Fixture::new(hardware).with_context(|| format!("{hardware:?}"))?;
        let mut row = |name: &str, case: &Case| {
            Matrix::Machines.row(subject, name, || case(&mut fixture)).with_context(|| format!("{hardware:?}"))
        };
        row("attached; packets transmitted and redirected", &install)?;
        row("killed, and adopted", &|fixture| restart(fixture, kill))?;
        row("replaced by the next release", &|fixture| change(fixture, 1))?;
    }
    Ok(())
}
