//! A lab whose load balancer 1 is a machine, beside another one that serves while it is away; and what an operator does in it while
//! connections are held and begun. It must not know in which order.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use serde_json::Value;

use super::{Done, Hardware, Machine, Packages, Place, Running, VERSIONS, packages::PROGRAM};
use crate::{
    bytes,
    client::held::{Kind, Plan, Report},
    lab::{
        Affinity, Backend, Balancer, HASH_KEY, Lab, Pool, Router, Services, Settings, Topology, Vip,
        addresses::{WWW4, WWW6, outer_sources},
        router,
        site::counter,
    },
};

/// Connections that are held, and that begin in a second.
const HELD: usize = 100;
const ARRIVALS: u32 = 200;
/// The node's times of a drain: two seconds are as good as ten in a test.
const DRAIN: &str = "drain: { lead: 2s, quiet: 2s }\n";
/// The VIP for uploads.
const UPLOAD: &str = "upload";
/// The MTU of large frames, and the bytes of each upload.
const LARGE: u16 = 9_000;
const UPLOADED: u64 = 5_000_000;
/// The links on the path of uploads, by namespace.
const PATH: [(&str, &[&str]); 7] = [
    ("client", &["eth0"]),
    ("router", &["client", "lb1", "switch", "web1", "web2"]),
    ("lb1", &["eth0", "tap0", "bridge-eth0", "near", "tap1", "bridge-near"]),
    ("switch", &["router", "lb1", "web3", "segment"]),
    ("web1", &["eth0"]),
    ("web2", &["eth0"]),
    ("web3", &["eth0"]),
];
/// The unit, and where it pins.
const UNIT: &str = "maglevd";
const PINS: &str = "/run/maglev/bpf/node";

/// What runs. The lab comes last: it is dropped after what lives in it.
#[derive(Debug)]
pub struct Node {
    /// The machine.
    pub machine: Machine,
    packages: Packages,
    router: Router,
    other: Balancer,
    _backends: Vec<Backend>,
    services: Services,
    lab: Lab,
}

/// The connections of a trial to these VIPs.
pub fn connections() -> Plan {
    Plan {
        targets: [WWW4, WWW6].map(|vip| (vip, Backend::TALK_PORT).into()).to_vec(),
        held: HELD,
        arrivals: ARRIVALS,
        pace: Duration::from_millis(500),
        silence: Duration::from_secs(3),
        seed: 1,
    }
}

/// The sums of a report in which no connection broke or failed.
///
/// # Errors
/// Naming those that did.
pub fn none(report: &Report) -> Result<String> {
    report.none_broken(&Kind::ALL)?;
    Ok(format!("{} held and {} new connections: 0 broken, 0 failed", report.held, report.counts.arrivals))
}

impl Node {
    /// Builds the lab and boots the machine, in which nothing is installed.
    ///
    /// # Errors
    /// If anything does not come up.
    pub fn boot(hardware: Hardware) -> Result<Self> {
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
        let machine = Machine::boot(&lab, Place::BALANCER, &packages, hardware)?;
        Ok(Self { machine, packages, router, other, _backends: backends, services, lab })
    }

    /// Holds and begins connections while `action` runs.
    fn traffic(&mut self, action: impl FnOnce(&mut Self) -> Result<String>) -> Result<(Report, String)> {
        let held = self.lab.client().hold(connections());
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

    /// Waits until the router leads both VIPs through the machine and the other node, or one of them alone.
    fn await_routes(&mut self, through: &[u8]) -> Result<()> {
        for vip in [WWW4, WWW6] {
            if let Err(error) = self.router.await_route(vip, through) {
                let log = self.machine.run("systemctl status maglevd; journalctl --no-pager -n 30");
                return Err(error.context(log.map_or_else(|error| format!("no log: {error:#}"), |done| done.output)));
            }
        }
        Ok(())
    }

    /// Packets that the machine encapsulated so far.
    fn forwarded(&mut self) -> Result<u64> {
        let counters = self.machine.json("counters")?;
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
        self.machine.running(UNIT, PINS)
    }

    /// Waits for another process than this one, ready and forwarding over the same links.
    fn replaced(&mut self, before: &Running) -> Result<()> {
        self.machine.await_replaced(UNIT, PINS, before, "maglev status")?;
        self.await_routes(&[1, 2])?;
        self.await_forwarding().map(drop)
    }

    /// `apt install`, and the commands of docs/deploy.md.
    ///
    /// # Errors
    /// If a step fails or a connection breaks.
    pub fn install(&mut self) -> Result<String> {
        self.hitless(|node| {
            node.machine.apt_ok(&format!("install /packages/{}", VERSIONS[0]))?;
            let unit = node.machine.run("systemctl is-enabled maglevd; systemctl is-active maglevd")?.output;
            ensure!(unit == "disabled\ninactive\n", "after the installation maglevd is {unit}");
            let [source, source6] = outer_sources(1);
            let example = "/etc/maglev/maglev.yaml.example";
            node.machine.ok(&format!(
                "sed 's/HASH_KEY/{HASH_KEY}/; s/^interfaces:/&\\n  - {{ name: eth1 }}/; \
                 s#source: .* }}#source: {source}, source6: \"{source6}\" }}#' {example} > /etc/maglev/maglev.yaml"
            ))?;
            let more = Settings::announcing(1).more + DRAIN;
            node.machine.write("/tmp/more", &more)?;
            node.machine
                .ok("cat /tmp/more >> /etc/maglev/maglev.yaml && maglevd check && systemctl enable --now maglevd")?;
            let services = node.services.to_string();
            node.machine.write("/tmp/services.yaml", &services)?;
            node.machine.ok("cd /tmp && maglev services apply services.yaml")?;
            node.await_routes(&[1, 2])?;
            let forwarded = node.await_forwarding()?;
            let counters = node.machine.json("counters")?;
            let [transmitted, redirected] = ["transmitted", "redirected"].map(|name| counter(&counters, name));
            ensure!(transmitted? > 0 && redirected? > 0, "not both transmitted and redirected: {counters}");
            Ok(format!("{forwarded} packets forwarded"))
        })
    }

    /// Installs a release over the other.
    ///
    /// # Errors
    /// If a step fails or a connection breaks.
    pub fn change(&mut self, to: usize) -> Result<String> {
        self.hitless(|node| {
            let before = node.running()?;
            node.await_forwarding()?;
            node.machine.apt_ok(&format!("install --allow-downgrades /packages/{}", VERSIONS[to]))?;
            node.replaced(&before)?;
            let version = node.machine.ok("dpkg-query --show --showformat '${Version}' maglev")?;
            ensure!(version == node.packages.versions[to], "{version} is installed");
            let status = node.machine.json("status")?["forwarding"].clone();
            ensure!(status["continued"].as_array().is_some_and(|all| !all.is_empty()), "not continued: {status}");
            Ok(String::new())
        })
    }

    /// Installs the next release while the configuration has a key that it does not know; then corrects that, with these further lines,
    /// and restarts.
    ///
    /// # Errors
    /// If the old process does not go on until then, or a connection breaks.
    pub fn change_with_bad_config(&mut self, to: usize, lines: &str, keys: &[&str]) -> Result<String> {
        self.hitless(|node| {
            let before = node.running()?;
            node.await_forwarding()?;
            let config = "/etc/maglev/maglev.yaml";
            node.machine.ok(&format!("cp {config} /tmp/good && echo 'nonsense: 1' >> {config}"))?;
            let said = node.machine.apt_ok(&format!("install --allow-downgrades /packages/{}", VERSIONS[to]))?;
            for line in ["nonsense", "NOT running: the new release rejects the configuration"] {
                ensure!(said.contains(line), "{line:?} is not in {said}");
            }
            ensure!(node.running()? == before, "the old process does not go on");
            node.await_forwarding()?;
            node.machine.write("/tmp/lines", lines)?;
            node.machine.ok(&format!("cat /tmp/good /tmp/lines > {config} && systemctl restart maglevd"))?;
            node.replaced(&before)?;
            let continued = node.machine.json("status")?["forwarding"]["continued"].to_string();
            ensure!(keys.iter().all(|key| continued.contains(key)), "not all of {keys:?} are among {continued}");
            Ok(format!("the old process went on; then continued: {continued}"))
        })
    }

    /// Installs a release while a daemon that was started by hand holds the pins; then stops that one, and starts the service.
    ///
    /// # Errors
    /// If the service takes its place, the two disturb each other, or a connection breaks.
    pub fn change_beside_another(&mut self, to: usize) -> Result<String> {
        self.hitless(|node| {
            let before = node.running()?;
            let capabilities = "CAP_BPF CAP_NET_ADMIN CAP_PERFMON CAP_NET_BIND_SERVICE";
            node.machine.ok(&format!(
                "cp /usr/bin/maglevd /usr/local/sbin/by-hand && systemctl stop maglevd && systemd-run --quiet --unit by-hand \
                 --property User=maglev --property AmbientCapabilities='{capabilities}' \
                 /usr/local/sbin/by-hand run --config /etc/maglev/maglev.yaml"
            ))?;
            node.machine.ok("timeout 60 sh -c 'until maglev status > /dev/null 2>&1; do sleep 0.1; done'")?;
            node.machine.apt_ok(&format!("install --allow-downgrades /packages/{}", VERSIONS[to]))?;
            let refused = node.machine.run("systemctl start maglevd")?;
            let log = node.machine.ok("journalctl --no-pager --unit maglevd -n 30")?;
            let expected = "another maglevd answers on /run/maglev/maglev.sock: stop it first";
            ensure!(refused.code != 0 && log.contains(expected), "{}\n{log}", refused.output);
            node.await_routes(&[1, 2])?;
            node.await_forwarding()?;
            node.machine.ok("systemctl stop by-hand maglevd && systemctl reset-failed && systemctl start maglevd")?;
            node.replaced(&before)?;
            Ok(expected.to_owned())
        })
    }

    /// Puts the next release's program in the place of the present one, and restarts.
    ///
    /// # Errors
    /// If it does not continue what forwards, or a connection breaks.
    pub fn exchange(&mut self) -> Result<String> {
        self.hitless(|node| {
            let before = node.running()?;
            node.await_forwarding()?;
            node.machine
                .ok(&format!("install -m 755 /packages/{PROGRAM} /usr/bin/maglevd && systemctl restart maglevd"))?;
            node.replaced(&before)?;
            let status = node.machine.json("status")?["forwarding"].clone();
            ensure!(status["continued"].as_array().is_some_and(|all| !all.is_empty()), "not continued: {status}");
            Ok(String::new())
        })
    }

    /// Restarts the service by a command.
    ///
    /// # Errors
    /// If it does not adopt what forwards, or a connection breaks.
    pub fn restart(&mut self, command: &str) -> Result<String> {
        self.hitless(|node| {
            let before = node.running()?;
            node.await_forwarding()?;
            node.machine.ok(command)?;
            node.replaced(&before)?;
            let status = node.machine.json("status")?["forwarding"].clone();
            ensure!(status["adopted"] == true, "not adopted: {status}");
            Ok(String::new())
        })
    }

    /// Takes the node out of service and its programs off, sets an MTU of its second interface, does something, and puts everything back.
    ///
    /// # Errors
    /// If a step fails or a connection breaks.
    pub fn with_mtu(&mut self, mtu: u16, action: impl FnOnce(&mut Machine) -> Result<String>) -> Result<String> {
        self.hitless(|node| {
            node.machine.ok("maglev node drain --wait --timeout 60s")?;
            node.await_routes(&[2])?;
            node.machine.ok(&format!(
                "systemctl stop maglevd && maglevd uninstall --config /etc/maglev/maglev.yaml && \
                 ip link set dev eth1 mtu {mtu}"
            ))?;
            let said = action(&mut node.machine)?;
            node.machine
                .ok("systemctl stop maglevd; systemctl reset-failed maglevd; ip link set dev eth1 mtu 1600 && \
                 systemctl start maglevd && maglev node undrain")?;
            node.await_routes(&[1, 2])?;
            node.await_forwarding()?;
            Ok(said)
        })
    }

    /// Uploads over links that take frames of 9,000 bytes, all of them: sent on the interface that they came in by, and redirected.
    ///
    /// # Errors
    /// If an upload fails, or packets are no longer than before.
    pub fn large_frames(&mut self) -> Result<String> {
        self.other.maglev_ok(&["node", "drain", "--wait"])?;
        self.await_routes(&[1])?;
        for (netns, links) in PATH {
            let lines: Vec<_> = links.iter().map(|link| format!("link set {link} mtu {LARGE}")).collect();
            self.lab.netns(netns).ip(&lines)?;
        }
        self.machine.ok(&format!("ip link set dev eth0 mtu {LARGE} && ip link set dev eth1 mtu {LARGE}"))?;
        let path = format!(
            "timeout 10 sh -c 'until maglev backend show web web1 | grep -q {}; do sleep 0.1; done'",
            LARGE - 20
        );
        self.machine.ok(&path)?;
        let before = self.machine.json("counters")?;
        for _ in 0..16 {
            let receipt = self.lab.client().upload((WWW4, Backend::PORT).into(), UPLOADED)?;
            ensure!(receipt.sha256 == bytes::digest(UPLOADED), "other bytes were uploaded");
        }
        let after = self.machine.json("counters")?;
        let more = |name: &str| Ok::<_, anyhow::Error>(counter(&after, name)? - counter(&before, name)?);
        let (transmitted, redirected) = (more("transmitted")?, more("redirected")?);
        let vip = |counters: &Value, field: &str| {
            let all = counters["vips"].as_array().into_iter().flatten();
            all.filter(|vip| vip["name"] == UPLOAD).find_map(|vip| vip[field].as_u64()).context("no such VIP")
        };
        let packets = vip(&after, "packets")? - vip(&before, "packets")?;
        let mean = (vip(&after, "bytes")? - vip(&before, "bytes")?) / packets.max(1);
        ensure!(transmitted > 0 && redirected > 0 && mean > 4_000, "{transmitted}, {redirected}, {mean} bytes each");
        self.other.maglev_ok(&["node", "undrain"])?;
        self.await_routes(&[1, 2])?;
        Ok(format!("{transmitted} transmitted and {redirected} redirected, {mean} bytes each on average"))
    }

    /// An operator drains the node, restarts the machine and puts the node back.
    ///
    /// # Errors
    /// If a step fails or a connection breaks.
    pub fn reboot_after_drain(&mut self) -> Result<String> {
        self.hitless(|node| {
            node.await_forwarding()?;
            node.machine.ok("maglev node drain --wait --timeout 60s --reason 'new kernel'")?;
            node.await_routes(&[2])?;
            let ready = node.machine.reboot()?;
            node.machine.ok("timeout 60 sh -c 'until maglev status > /dev/null 2>&1; do sleep 0.2; done'")?;
            let status = node.machine.json("node status")?;
            ensure!(status["drain"]["reason"] == "new kernel", "the drain did not outlive the reboot: {status}");
            node.machine.ok("maglev node undrain")?;
            node.await_routes(&[1, 2])?;
            node.await_forwarding()?;
            Ok(format!("back after {} s", ready.after.as_secs()))
        })
    }

    /// The machine restarts, and the units drain it and put it back.
    ///
    /// # Errors
    /// If a step fails or a connection breaks.
    pub fn reboot(&mut self) -> Result<String> {
        self.hitless(|node| {
            node.await_forwarding()?;
            let ready = node.machine.reboot()?;
            node.await_routes(&[1, 2])?;
            node.await_forwarding()?;
            Ok(format!("back after {} s", ready.after.as_secs()))
        })
    }

    /// The power is cut, and back at once. Connections may break: they are counted.
    ///
    /// # Errors
    /// If a step fails.
    pub fn power_cut(&mut self) -> Result<String> {
        let (report, said) = self.traffic(|node| {
            node.await_forwarding()?;
            node.machine.cut_power()?;
            let began = Instant::now();
            node.await_routes(&[2])?;
            let gone = began.elapsed();
            let ready = node.machine.await_ready()?;
            // A BIRD whose hold timer expired accepts no session for a minute (`error wait time`).
            let mut routes = node.await_routes(&[1, 2]);
            for _ in 0..3 {
                routes = routes.or_else(|_| node.await_routes(&[1, 2]));
            }
            routes?;
            let [gone, back] = [gone, began.elapsed()].map(|time| time.as_secs());
            node.await_forwarding()?;
            Ok(format!(
                "routes gone after {gone} s, booted after {} s, routes back after {back} s",
                ready.after.as_secs()
            ))
        })?;
        let (held, arrivals) = (report.broken(&Kind::HELD), report.broken(&[Kind::Arrival]));
        let all = report.counts.arrivals;
        Ok(format!("{held} of {} held broken, {arrivals} of {all} new failed; {said}", report.held))
    }

    /// A removal is refused while the node serves; after a drain, removal and purge leave what the docs say.
    ///
    /// # Errors
    /// If a step fails, a connection breaks or something is left.
    pub fn purge(&mut self) -> Result<String> {
        self.hitless(|node| {
            let Done { code, output } = node.machine.apt("remove maglev")?;
            ensure!(
                code != 0 && output.contains("maglev node drain"),
                "a removal in service ended with {code}: {output}"
            );
            node.await_forwarding()?;
            node.machine.ok("maglev node drain --wait --timeout 60s")?;
            node.await_routes(&[2])?;
            node.machine.apt_ok("remove maglev")?;
            node.machine.ok("test -e /etc/maglev/maglev.yaml && test -e /var/lib/maglev/services.yaml")?;
            node.machine.nothing_runs()?;
            node.machine.apt_ok("purge maglev")?;
            node.machine.nothing_is_left()?;
            Ok("no file is left; the user is".to_owned())
        })
    }
}

fn services(lab: &Lab) -> Services {
    let pool = Pool {
        affinity: Some(Affinity { tracking: "exception", learning: 8, idle: 12 }),
        ..lab.pool("web", WWW4, &[(1, 100), (2, 100), (3, 100)])
    };
    let vips = [("www", WWW4), ("www6", WWW6)];
    let mut vips = vips.map(|(name, address)| Vip::new(name, (address, Backend::TALK_PORT), "tcp", "web")).to_vec();
    vips.push(Vip::new(UPLOAD, (WWW4, Backend::PORT), "tcp", "web"));
    Services { pools: vec![pool], vips }
}
