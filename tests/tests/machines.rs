//! Other kernels and network cards than the usual ones, and a backend as a machine: `cargo xtask test machines`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use maglev_e2e::{
    lab::{
        Affinity, Backend, Balancer, Lab, Pool, Services, Settings, Topology, Vip,
        addresses::{WWW4, WWW6},
        skip,
    },
    machine::{DECAP_VERSIONS, Done, Hardware, Machine, Node, Packages, Place, Running, connections, none},
    matrix::Matrix,
};

/// What a row does, and what it says.
type Case = dyn Fn(&mut Node) -> Result<String>;

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
        let mut node = Node::boot(hardware).with_context(|| format!("{hardware:?}"))?;
        let mut row = |name: &str, case: &Case| {
            Matrix::Machines.row(subject, name, || case(&mut node)).with_context(|| format!("{hardware:?}"))
        };
        row("attached; packets transmitted and redirected", &Node::install)?;
        row("killed, and adopted", &|node| node.restart(kill))?;
        row("replaced by the next release", &Node::exchange)?;
        let (name, case) =
            LIMITS.iter().find(|(of, ..)| *of == subject).map(|(_, name, case)| (name, case)).context("a limit")?;
        row(name, case)?;
    }
    Ok(())
}

/// The subject of a limit, the name of its row, and what it does.
type Limit = (&'static str, &'static str, fn(&mut Node) -> Result<String>);

/// The largest frames of each.
const LIMITS: [Limit; 3] = [
    ("6.1", "an MTU of 9000 is refused by the driver, and the cause is named", |node| {
        node.with_mtu(9_000, |machine| {
            let warned = preflight(machine)?;
            ensure!(warned.code == 0 && warned.output.contains("MTU 9000"), "{warned:?}");
            let started = machine.run("systemctl start maglevd")?;
            let log = machine.ok("journalctl --no-pager --unit maglevd -n 30")?;
            let cause = "MTU 9000 is above the limit of driver virtio_net for XDP before Linux 6.3, 3506";
            ensure!(started.code != 0 && log.contains("refused native XDP") && log.contains(cause), "{log}");
            Ok(cause.to_owned())
        })
    }),
    ("queues", "frames of 9000 bytes are transmitted and redirected", Node::large_frames),
    ("vmxnet3", "an MTU of 3495 is refused before a program is attached; 3494 is not", |node| {
        node.with_mtu(3_495, |machine| {
            let refused = preflight(machine)?;
            let limit = "MTU 3495 is above the limit of driver vmxnet3 for XDP, 3494";
            ensure!(refused.code == 1 && refused.output.contains(limit), "{refused:?}");
            let started = machine.run("systemctl start maglevd")?;
            let log = machine.ok("journalctl --no-pager --unit maglevd -n 30")?;
            ensure!(started.code != 0 && log.contains(limit) && !log.contains("XDP attached"), "{log}");
            machine.ok("systemctl stop maglevd; ip link set dev eth1 mtu 3494 && systemctl reset-failed maglevd")?;
            machine.ok("systemctl start maglevd && maglev status > /dev/null")?;
            let beyond = machine.run("ip link set dev eth1 mtu 3495")?;
            Ok(format!("the driver itself at 3495: {}", if beyond.code == 0 { "accepted" } else { "refused" }))
        })
    }),
];

fn preflight(machine: &mut Machine) -> Result<Done> {
    machine.run("maglevd preflight --config /etc/maglev/maglev.yaml")
}

/// The unit of a backend, and where it pins.
const UNIT: &str = "maglev-decap";
const PINS: &str = "/run/maglev/bpf/decap";
/// The machine's name as a backend.
const NAME: &str = "web3";

/// A lab whose backend 3 is a machine. The lab comes last: it is dropped after what lives in it.
struct Setting {
    machine: Machine,
    balancer: Balancer,
    _backends: Vec<Backend>,
    lab: Lab,
}

impl Setting {
    fn boot() -> Result<Self> {
        let mut lab = Lab::new(Topology::new(1, 3))?;
        let backends = lab.start_backends_but(NAME)?;
        let affinity = Some(Affinity { tracking: "exception", learning: 8, idle: 12 });
        let pool = Pool { affinity, ..lab.pool("web", WWW4, &[(1, 100)]) };
        let vip = |name, address| Vip::new(name, (address, Backend::TALK_PORT), "tcp", "web");
        let services = Services { pools: vec![pool], vips: vec![vip("www", WWW4), vip("www6", WWW6)] };
        let mut balancer = Balancer::start(&lab, 1, &Settings::new(1), &services)?;
        balancer.await_next_hops()?;
        let machine = Machine::boot(&lab, Place::BACKEND, &Packages::new()?, Hardware::USUAL)?;
        Ok(Self { machine, balancer, _backends: backends, lab })
    }

    /// Holds and begins connections while `action` runs: none breaks or fails.
    fn hitless(&mut self, action: impl FnOnce(&mut Self) -> Result<()>) -> Result<String> {
        let held = self.lab.client().hold(connections());
        held.await_open()?;
        action(self)?;
        held.await_spoken(Instant::now())?;
        let at_machine = held.homes().get(NAME).copied().unwrap_or_default();
        Ok(format!("{}; {at_machine} of the held ones at the machine", none(&held.finish()?)?))
    }

    fn decapsulated(&mut self) -> Result<u64> {
        let counters = self.machine.json("decap counters")?;
        maglev_e2e::lab::site::counter(&counters, "decapsulated")
    }

    /// Waits until the machine has unwrapped some more packets.
    fn await_packets(&mut self) -> Result<()> {
        let (before, began) = (self.decapsulated()?, Instant::now());
        while self.decapsulated()? < before + 500 {
            ensure!(began.elapsed() < Duration::from_secs(60), "fewer than 500 packets were unwrapped in a minute");
        }
        Ok(())
    }

    fn running(&mut self) -> Result<Running> {
        self.machine.running(UNIT, PINS)
    }

    /// Under connections: a command after which another process serves, over the same links, and the counters go on.
    fn replace(&mut self, command: &str) -> Result<String> {
        self.hitless(|setting| {
            setting.await_packets()?;
            let (before, counted) = (setting.running()?, setting.decapsulated()?);
            setting.machine.ok(command)?;
            setting.machine.await_replaced(UNIT, PINS, &before, "maglev decap status")?;
            ensure!(setting.decapsulated()? >= counted, "counters began anew");
            setting.await_packets()
        })
    }
}

/// `apt install`, and the commands of docs/deploy.md; then it joins the pool.
fn install(setting: &mut Setting) -> Result<String> {
    let Setting { machine, lab, .. } = setting;
    machine.apt_ok(&format!("install /packages/{}", DECAP_VERSIONS[0]))?;
    let sources = "10.64.1.0/24\\n  - \"fd64:0:1::\\/64\"".replace("0/24", "0\\/24");
    let example = "/etc/maglev/decap.yaml.example";
    machine.ok(&format!("sed 's/10.64.11.0\\/24/{sources}/' {example} > /etc/maglev/decap.yaml"))?;
    machine.ok(&format!("ip address add {WWW4}/32 dev lo && ip address add {WWW6}/128 dev lo nodad"))?;
    machine.ok("systemctl enable --now maglev-decap")?;
    let [port, talk] = [Backend::PORT, Backend::TALK_PORT];
    machine.ok(&format!(
        "systemd-run --quiet --unit server /packages/maglev-lab serve --name {NAME} --port {port} --talk-port {talk}"
    ))?;
    machine.ok("timeout 20 sh -c 'until journalctl --unit server | grep -q listening; do sleep 0.1; done'")?;
    let address = lab.backend_address(3, WWW4).to_string();
    setting.balancer.maglev_ok(&["backend", "add", "web", NAME, "--address", &address])?;
    setting.balancer.await_next_hops()?;
    setting.hitless(Setting::await_packets)
}

/// A removal is refused while the service runs; after a drain, removal and purge leave what the docs say.
fn purge(setting: &mut Setting) -> Result<String> {
    setting.hitless(|setting| {
        let Done { code, output } = setting.machine.apt("remove maglev-decap")?;
        ensure!(code != 0 && output.contains("backend drain"), "a removal in service ended with {code}: {output}");
        setting.await_packets()
    })?;
    setting.balancer.maglev_ok(&["backend", "drain", "web", NAME, "--wait"])?;
    setting.hitless(|setting| {
        setting.machine.ok("systemctl stop maglev-decap && systemctl reset-failed")?;
        setting.machine.apt_ok("remove maglev-decap")?;
        setting.machine.ok("test -e /etc/maglev/decap.yaml && systemctl stop server")?;
        setting.machine.nothing_runs()?;
        setting.machine.apt_ok("purge maglev-decap")?;
        setting.machine.nothing_is_left()
    })
}

#[test]
fn a_backend_as_a_machine_loses_nothing() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut setting = Setting::boot()?;
    let mut row = |name: &str, case: &dyn Fn(&mut Setting) -> Result<String>| {
        Matrix::Machines.row("backend", name, || case(&mut setting))
    };
    let upgrade =
        format!("DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 --yes install /packages/{}", DECAP_VERSIONS[1]);
    row("apt install, configured as docs/deploy.md says", &install)?;
    row("the unit is confined", &|setting| setting.machine.confined(UNIT))?;
    row("killed, and started by systemd", &|setting| setting.replace("systemctl kill --signal KILL maglev-decap"))?;
    row("systemctl restart maglev-decap", &|setting| setting.replace("systemctl restart maglev-decap"))?;
    row("apt install of the next release", &|setting| setting.replace(&upgrade))?;
    row("apt remove, refused in service; after a drain; apt purge", &purge)
}
