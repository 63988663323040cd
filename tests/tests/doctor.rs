//! `maglevd doctor` and `maglev doctor`: on a healthy node and backend they find nothing; then faults are seeded in the lab, one at a
//! time, and each is found with its remedy, and gone once it is undone.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use maglev_e2e::lab::{
    Backend, Lab, NEAR, Netns, Process, Services, Settings, Site, Topology, UPLINK,
    addresses::{OUTER_SOURCES, VIPS, WWW4},
    binary, router,
    site::every_family,
    skip,
};
use serde_json::Value;

/// What `doctor` found, and its exit code.
#[derive(Debug)]
struct Found {
    findings: Vec<Value>,
    code: Option<i32>,
}

impl Found {
    fn parse(stdout: &str, code: Option<i32>, stderr: &str) -> Result<Self> {
        let findings = serde_json::from_str(stdout).with_context(|| format!("{code:?}: {stdout:?} {stderr:?}"))?;
        Ok(Self { findings, code })
    }

    /// The problems, but those about these subjects: the machine's own.
    fn problems(&self, but: &[&str]) -> Vec<&Value> {
        let is_problem =
            |finding: &&Value| finding["level"] != "ok" && but.iter().all(|subject| finding["subject"] != *subject);
        self.findings.iter().filter(is_problem).collect()
    }

    /// Holds that a fault was found, with its remedy and its page.
    fn hold(&self, fault: &str, (level, found, remedy): Expected) -> Result<()> {
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let is_it = |finding: &&Value| {
            finding["level"] == level
                && text(finding, "found").contains(found)
                && text(finding, "remedy").contains(remedy)
        };
        let problems = self.problems(&[]);
        let finding = problems.iter().find(|finding| is_it(finding));
        let finding = finding.with_context(|| format!("{fault} is not among {problems:#?}"))?;
        ensure!(text(finding, "document").starts_with("docs/"), "{fault}: {finding}");
        ensure!(level != "error" || self.code == Some(1), "{fault}: exit code {:?}", self.code);
        println!("found: {fault}");
        Ok(())
    }
}

/// Level, words of what was found, and words of the remedy.
type Expected = (&'static str, &'static str, &'static str);

/// A place where `maglevd doctor` runs.
struct Place<'a> {
    netns: Netns,
    config: PathBuf,
    backend: bool,
    lab: &'a Lab,
}

impl Place<'_> {
    /// A time service that says so: the machine's own may have none.
    fn clock(&self, answer: &str) -> Result<PathBuf> {
        let folder = self.lab.directory().join(format!("clock-{answer}"));
        fs::create_dir_all(&folder)?;
        let tool = folder.join("timedatectl");
        fs::write(&tool, format!("#!/bin/sh\necho {answer}\n"))?;
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755))?;
        Ok(folder)
    }

    /// Runs it with this file, in a shell after these words.
    fn examine_with(&self, config: &Path, before: &str, clock: &str) -> Result<Found> {
        let maglevd = binary("maglevd")?;
        let role = if self.backend { " --backend" } else { "" };
        let line =
            format!("{before} exec {} doctor{role} --strict --json --config {}", maglevd.display(), config.display());
        let path = format!("{}:{}", self.clock(clock)?.display(), env::var("PATH")?);
        let mut command = Command::new("sh");
        command.args(["-c", &line]).env("PATH", path);
        let output = self.netns.run(|| command.output().context("maglevd doctor"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Found::parse(&text(&output.stdout), output.status.code(), &text(&output.stderr))
    }

    fn examine(&self) -> Result<Found> {
        self.examine_with(&self.config, "", "yes")
    }

    /// Nothing but `ok`, which even `--strict` takes.
    fn is_healthy(&self) -> Result<()> {
        let found = self.examine()?;
        let problems = found.problems(&[]);
        ensure!(problems.is_empty() && found.code == Some(0), "{:?}: {problems:#?}", found.code);
        ensure!(found.findings.len() > 10, "{:#?}", found.findings);
        Ok(())
    }

    /// Seeds a fault in the namespace, and undoes it.
    fn seed(&self, fault: &str, lines: &[String], undo: &[String], expected: Expected) -> Result<()> {
        self.netns.ip(lines)?;
        let found = self.examine();
        self.netns.ip(undo)?;
        found?.hold(fault, expected)
    }

    fn setting(&self, key: &str, [wrong, right]: [&str; 2], expected: Expected) -> Result<()> {
        self.netns.sysctl(&[(key, wrong)])?;
        let found = self.examine();
        self.netns.sysctl(&[(key, right)])?;
        found?.hold(key, expected)
    }

    /// The same with a mode of a file.
    fn mode(&self, path: &Path, wrong: u32, expected: Expected) -> Result<()> {
        let right = fs::metadata(path)?.permissions();
        fs::set_permissions(path, fs::Permissions::from_mode(wrong))?;
        let found = self.examine();
        fs::set_permissions(path, right)?;
        found?.hold(&format!("{}: mode {wrong:o}", path.display()), expected)
    }

    /// Examines another file, in which a text is replaced.
    fn variant(&self, fault: &str, [from, to]: [&str; 2], expected: Expected) -> Result<()> {
        let text = fs::read_to_string(&self.config)?;
        ensure!(text.contains(from), "{fault}: {from} is not in\n{text}");
        let other = self.config.with_file_name("other.yaml");
        fs::write(&other, text.replacen(from, to, 1))?;
        fs::set_permissions(&other, fs::Permissions::from_mode(0o640))?;
        let found = self.examine_with(&other, "", "yes");
        fs::remove_file(&other)?;
        found?.hold(fault, expected)
    }
}

fn lines<const N: usize>(lines: [&str; N]) -> Vec<String> {
    lines.map(str::to_owned).to_vec()
}

/// A node that announces its VIPs to BIRD, with services of both families.
fn site() -> Result<Site> {
    let topology = Topology::standard(1).routed_by(router::Kind::Bird);
    let mut site = Site::with_settings(topology, |lab: &Lab| -> Services { every_family(lab) }, Settings::announcing)?;
    site.router()?.await_route(WWW4, &[1])?;
    Ok(site)
}

#[test]
fn nothing_is_found_on_a_healthy_node_and_each_seeded_fault_with_its_remedy() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = site()?;
    let balancer = &site.balancers[0];
    let config = balancer.config();
    let node = Place { netns: balancer.netns().clone(), config, backend: false, lab: &site.lab };
    node.is_healthy()?;

    of_files(&node, &balancer.services(), &balancer.socket())?;
    of_the_machine(&node)?;
    of_the_network(&node)?;
    foreign_program(&node)?;
    // Interfaces that were down lose their addresses of IPv6: the last ones.
    let router = site.lab.netns("router");
    router.ip(&lines(["link set lb1 down"]))?;
    let found = node.examine()?;
    found.hold("no carrier", ("error", "it has no carrier", "check the cable"))?;
    found.hold("no way to a backend", ("error", "interface eth0 has no carrier", "switch's port"))?;
    router.ip(&lines(["link set lb1 up"]))?;
    node.netns.ip(&[format!("link set {NEAR} down")])?;
    node.examine()?.hold("an interface that is down", ("error", "it is down", "ip link set dev near up"))
}

fn of_files(node: &Place<'_>, services: &Path, socket: &Path) -> Result<()> {
    let state = services.parent().context("a folder")?;
    node.mode(&node.config, 0o644, ("error", "every user can read the secrets", "chmod o= "))?;
    node.mode(services, 0o666, ("error", "every user can write it", "chmod o-w "))?;
    node.mode(state, 0o777, ("error", "every user can replace the files in it", "chmod o-w "))?;
    node.mode(socket, 0o666, ("error", "every user can connect", "chmod 660 "))?;
    node.variant("a wrong key", ["hash_key:", "hash_kye:"], ("error", "hash_kye", "maglevd check"))?;
    node.variant("no interface", [UPLINK, "eth9"], ("error", "the interface does not exist", "correct the name"))
}

fn of_the_machine(node: &Place<'_>) -> Result<()> {
    let found = node.examine_with(&node.config, "", "no")?;
    found.hold("a clock that is not synchronised", ("warning", "not synchronised", "time service"))?;
    let found = node.examine_with(&node.config, "ulimit -n 1000;", "yes")?;
    found.hold("few open files", ("warning", "at most 1000 files", "LimitNOFILE"))?;
    let text = fs::read_to_string(&node.config)?;
    let pin = text
        .lines()
        .find_map(|line| line.strip_prefix("dataplane: { pin: ")?.split(',').next())
        .context("a pin folder")?;
    node.variant("no BPF file system", [pin, "/run/maglev-pins"], ("error", "no BPF file system", "mount -t bpf"))
}

fn of_the_network(node: &Place<'_>) -> Result<()> {
    let default = "route add default via 10.2.1.1";
    node.seed(
        "no route to backends",
        &lines(["route del default"]),
        &lines([default]),
        ("error", "no route to 10.3.1.2: backend web1 of pool four", "ip route add"),
    )?;
    node.seed(
        "a neighbor that does not exist",
        &lines(["route replace 10.3.1.2/32 via 10.2.1.77"]),
        &lines(["route del 10.3.1.2/32"]),
        ("error", "neighbor 10.2.1.77 on eth0", "ip neighbor"),
    )?;
    node.seed(
        "a route by another interface",
        &lines([
            "link add away type veth peer name far",
            "link set away up",
            "link set far up",
            "neighbor add 10.99.0.2 lladdr 02:00:00:00:00:02 dev away",
            "address add 10.99.0.1/24 dev away",
            "route add 10.3.1.2/32 via 10.99.0.2",
        ]),
        &lines(["link del away"]),
        ("error", "routed via away", "add away to `interfaces`"),
    )?;
    node.seed(
        "a small MTU",
        &lines(["link set eth0 mtu 1400"]),
        &lines(["link set eth0 mtu 1600"]),
        ("warning", "clients' packets of 1500 bytes need 1520", "maglevd decap --mss auto"),
    )?;
    node.seed(
        "a VIP on the node",
        &lines(["address add 203.0.113.10/32 dev lo"]),
        &lines(["address del 203.0.113.10/32 dev lo"]),
        ("error", "it cannot be served: 203.0.113.10 is an address of this node", "ip address del"),
    )?;
    node.setting("net.ipv4.conf.all.rp_filter", ["1", "0"], ("warning", "rp_filter is 1", "rp_filter=0"))?;
    let generic = ["name: eth0, mode: native", "name: eth0, mode: generic"];
    node.variant("generic mode without need", generic, ("warning", "has native XDP", "mode: native"))?;
    // The link to the router takes less than its interface says: without a word, packets are lost.
    let router = node.lab.netns("router");
    router.ip(&lines(["link set lb1 mtu 1500"]))?;
    let found = node.examine();
    router.ip(&lines(["link set lb1 mtu 1600"]))?;
    found?.hold("a path that loses long packets", ("error", "packets of 1600 bytes", "raise the MTU"))
}

fn foreign_program(node: &Place<'_>) -> Result<()> {
    node.netns.ip(&lines(["link add extra type veth peer name extra2", "link set extra up", "link set extra2 up"]))?;
    let mut command = Command::new(binary("maglevd")?);
    command.args(["pass", "--interface", "extra"]);
    let mut other = Process::start("foreign", &node.netns, &node.lab.directory(), &mut command)?;
    other.await_line("ready")?;
    let listed = ["interfaces:\n", "interfaces:\n  - { name: extra }\n"];
    node.variant("another XDP program", listed, ("error", "another XDP program is attached: pass", "xdpdrv off"))?;
    other.stop()?;
    node.netns.ip(&lines(["link del extra"]))
}

#[test]
fn the_daemon_adds_what_it_knows() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = site()?;
    let examine = |site: &Site| -> Result<Found> {
        let answer = site.balancers[0].maglev(&["doctor", "--output", "json"])?;
        Found::parse(&answer.stdout, Some(answer.code), &answer.stderr)
    };
    // The machine of the tests may have no time service.
    let found = examine(&site)?;
    ensure!(found.problems(&["clock"]).is_empty() && found.code == Some(0), "{:#?}", found.problems(&[]));
    let subjects: Vec<_> = found.findings.iter().filter_map(|finding| finding["subject"].as_str()).collect();
    for subject in ["BGP router", "BGP router6", "flow tables", "hash key", "services", "forwarding", "path MTU"] {
        ensure!(subjects.contains(&subject), "{subject} is not among {subjects:?}");
    }
    let text = site.balancers[0].maglev_ok(&["doctor"])?;
    ensure!(
        text.contains("measured by probes with DF")
            && text.lines().last().is_some_and(|line| line.starts_with("0 errors, ")),
        "{text}"
    );

    let (config, services) = (site.balancers[0].config(), site.balancers[0].services());
    let [config_text, services_text] = [fs::read_to_string(&config)?, fs::read_to_string(&services)?];
    fs::write(&services, services_text.replacen("weight: 100", "weight: 50", 1))?;
    examine(&site)?.hold("services that are not loaded", ("warning", "is not loaded", "maglev plan reload"))?;
    fs::write(&services, services_text)?;
    fs::write(&config, config_text.replacen("0f1e", "ffff", 1))?;
    examine(&site)?.hold("another hash key", ("error", "is not the key in use", "restart"))?;
    fs::write(&config, config_text.replacen("name: router6", "name: another", 1))?;
    let found = examine(&site)?;
    found.hold("a neighbor that is not loaded", ("warning", "the daemon does not know it", "maglev reload"))?;
    found.hold("a neighbor that is gone", ("warning", "does not name any more", "maglev reload"))?;
    fs::write(&config, &config_text)?;
    site.balancers[0].maglev_ok(&["node", "drain"])?;
    examine(&site)?.hold("a drained node", ("warning", "by order", "maglev node undrain"))?;
    site.balancers[0].maglev_ok(&["node", "undrain"])?;
    // The router is gone.
    site.router = None;
    let down =
        |neighbors: &Value| neighbors.as_array().is_some_and(|all| all.iter().all(|one| one["state"] != "established"));
    site.balancers[0].await_answer("the end of the sessions", &["bgp", "neighbors"], down)?;
    let found = examine(&site)?;
    found.hold("a BGP session that is down", ("error", "the session is not established", "TCP port 179"))?;
    ensure!(found.code == Some(1), "{:?}", found.code);
    let usage = site.balancers[0].maglev(&["doctor", "--no-such-option"])?;
    ensure!(usage.code == 2, "{usage:?}");
    Ok(())
}

#[test]
fn nothing_is_found_on_a_healthy_backend_and_each_seeded_fault_with_its_remedy() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut lab = Lab::new(Topology::standard(1))?;
    let mut backends = lab.start_backends()?;
    let backend: &mut Backend = &mut backends[0];
    backend.stop_decap()?;
    let [file, socket] = ["decap.yaml", "decap.sock"].map(|name| lab.directory().join(name));
    let quoted = |all: &[String]| all.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>().join(", ");
    let text = format!(
        "interfaces: [{{ name: eth0 }}]\nsources: [{}]\nvips: [{}]\n\
         dataplane: {{ pin: {}, on_stop: detach }}\napi: {{ socket: {} }}\n",
        quoted(&OUTER_SOURCES.map(str::to_owned)),
        quoted(&VIPS.map(|vip| vip.to_string())),
        backend.pins(&lab).display(),
        socket.display(),
    );
    fs::write(&file, text)?;
    backend.start_service(&lab, &file)?;
    let place = Place { netns: lab.netns("web1"), config: file.clone(), backend: true, lab: &lab };
    place.is_healthy()?;

    place.seed(
        "a VIP that is not on lo",
        &lines(["address del 203.0.113.10/32 dev lo"]),
        &lines(["address add 203.0.113.10/32 dev lo"]),
        ("error", "203.0.113.10/32 is on no interface", "ip address add 203.0.113.10/32 dev lo"),
    )?;
    let conf = |key: &str| format!("net.ipv4.conf.all.{key}");
    place.setting(&conf("arp_ignore"), ["0", "1"], ("error", "arp_ignore is 0", "arp_ignore=1"))?;
    place.setting(&conf("arp_announce"), ["0", "2"], ("error", "arp_announce is 0", "arp_announce=2"))?;
    place.setting(&conf("rp_filter"), ["1", "0"], ("warning", "rp_filter is 1", "rp_filter=0"))?;
    place.seed(
        "a small MTU",
        &lines(["link set eth0 mtu 1500"]),
        &lines(["link set eth0 mtu 1600"]),
        ("warning", "clients' packets of 1500 bytes need", "`mss: auto` in decap.yaml"),
    )?;
    place.mode(&file, 0o666, ("error", "every user can write it", "chmod o-w "))?;
    place.mode(&socket, 0o666, ("error", "every user can connect", "chmod 660 "))?;
    let any = ["\"10.64.0.0/16\"", "\"0.0.0.0/0\""];
    place.variant("packets from any source", any, ("warning", "from any source", "encap.source"))?;
    place.variant("no interface", ["eth0", "eth9"], ("error", "does not exist", "in decap.yaml"))?;
    place.variant("no BPF file system", ["/sys/fs/bpf", "/run"], ("error", "no BPF file system", "mount -t bpf"))?;
    place.variant("a wrong key", ["sources:", "source:"], ("error", "source", "--check"))?;
    place.is_healthy()?;

    backend.stop_service()?;
    place.examine()?.hold("no decapsulation", ("error", "no program decapsulates", "systemctl start maglev-decap"))?;
    let mut command = Command::new(binary("maglevd")?);
    command.args(["pass", "--interface", "eth0"]);
    let mut other = Process::start("foreign", &place.netns, &lab.directory(), &mut command)?;
    other.await_line("ready")?;
    place.examine()?.hold("another XDP program", ("error", "another XDP program is attached: pass", "xdpdrv off"))?;
    other.stop()?;
    Ok(())
}

#[test]
fn a_file_that_does_not_exist_is_a_finding() -> Result<()> {
    if skip() {
        return Ok(());
    }
    for role in [&[][..], &["--backend"]] {
        let mut command = Command::new(binary("maglevd")?);
        let output = command.arg("doctor").args(role).args(["--config", "/nonexistent", "--json"]).output()?;
        let found = Found::parse(&String::from_utf8_lossy(&output.stdout), output.status.code(), "")?;
        found.hold("no file", ("error", "there is no such file", ""))?;
        let wrong = Command::new(binary("maglevd")?).args(["doctor", "--no-such-option"]).output()?;
        ensure!(wrong.status.code() == Some(2), "{wrong:?}");
    }
    Ok(())
}
