//! The backend's side as a service: its file, its API, reloads, a crash under load, and mistakes that change nothing.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail, ensure};
use maglev_e2e::client::Client;
use maglev_e2e::client::flood::{Flags, Flood};
use maglev_e2e::lab::addresses::{ALT4, WWW4, behind_router};
use maglev_e2e::lab::{Answer, Backend, Lab, Netns, Services, Site, Vip, binary, maglev, skip};
use maglev_e2e::matrix::is_full;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket};
use serde_json::Value;

/// The source of load balancer `lb1`.
const OUR_SOURCE: &str = "10.64.1.0/24";
/// Another one.
const OTHER_SOURCE: &str = "10.64.2.0/24";

/// The settings that the tests change.
#[derive(Clone, Debug)]
struct Settings {
    interfaces: &'static str,
    sources: Vec<&'static str>,
    vips: Vec<IpAddr>,
    further: &'static str,
    on_stop: &'static str,
}

/// Two VIPs, all of whose flows are `web1`'s, which runs the service.
struct Setting {
    site: Site,
    settings: Settings,
}

impl Setting {
    fn start() -> Result<Self> {
        let site = Site::new(1, |lab: &Lab| {
            let vip = |name: &str, address: IpAddr| Vip::new(name, (address, Backend::PORT), "tcp", "one");
            Services { pools: vec![lab.pool("one", WWW4, &[(1, 100)])], vips: vec![vip("www", WWW4), vip("alt", ALT4)] }
        })?;
        let settings = Settings {
            interfaces: "[{ name: eth0 }]",
            sources: vec![OUR_SOURCE],
            vips: vec![WWW4],
            further: "",
            on_stop: "keep",
        };
        let mut setting = Self { site, settings };
        setting.site.backends[0].stop_decap()?;
        setting.write()?;
        setting.start_service()?;
        Ok(setting)
    }

    fn file(&self) -> PathBuf {
        self.site.lab.directory().join("decap.yaml")
    }

    fn socket(&self) -> PathBuf {
        self.site.lab.directory().join("decap.sock")
    }

    fn pins(&self) -> PathBuf {
        self.site.backends[0].pins(&self.site.lab)
    }

    fn write(&self) -> Result<()> {
        let Settings { interfaces, sources, vips, further, on_stop } = &self.settings;
        let vips: Vec<_> = vips.iter().map(|vip| format!("\"{vip}\"")).collect();
        let (pin, socket) = (self.pins(), self.socket());
        let text = format!(
            "interfaces: {interfaces}\nsources: [{}]\nvips: [{}]\n{further}\n\
             dataplane: {{ pin: {}, on_stop: {on_stop} }}\napi: {{ socket: {}, metrics: \"127.0.0.1:9102\" }}\n",
            sources.join(", "),
            vips.join(", "),
            pin.display(),
            socket.display()
        );
        fs::write(self.file(), text).context("decap.yaml")
    }

    fn start_service(&mut self) -> Result<()> {
        let file = self.file();
        let Site { lab, backends, .. } = &mut self.site;
        backends[0].start_service(lab, &file)
    }

    fn maglev(&self, arguments: &[&str]) -> Result<Answer> {
        maglev(&self.socket(), arguments)
    }

    /// The text of a command that must succeed.
    fn done(&self, arguments: &[&str]) -> Result<String> {
        let Answer { code, stdout, stderr } = self.maglev(arguments)?;
        ensure!(code == 0, "maglev {arguments:?}: exit code {code}: {stderr}{stdout}");
        Ok(stdout)
    }

    fn json(&self, command: &str) -> Result<Value> {
        let text = self.done(&["decap", command, "--output", "json"])?;
        serde_json::from_str(&text).with_context(|| format!("maglev decap {command} printed {text:?}"))
    }

    fn counter(&self, name: &str) -> Result<u64> {
        let counters = self.json("counters")?;
        let mut all = counters["counters"].as_array().into_iter().flatten();
        let found = all.find(|counter| counter["name"] == name).context("no such counter")?;
        ensure!(found["help"].as_str().is_some_and(|help| help.len() > 10), "{found}");
        found["packets"].as_u64().context("packets")
    }

    /// Waits until a counter has grown to this.
    fn await_counter(&mut self, name: &str, least: u64) -> Result<()> {
        self.await_that(name, |setting| Ok(setting.counter(name)? >= least))
    }

    /// Waits until the service shows something.
    fn await_that(&mut self, what: &str, shown: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        for _ in 0..600 {
            if shown(self)? {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
        bail!("not shown: {what}: {}", self.json("status")?)
    }

    fn answered(&self, vips: &[IpAddr], count: u64) -> Result<()> {
        self.site.lab.client().requests(&targets(vips), count, 8)?.all_answered()
    }

    /// `maglevd decap` with these arguments on the backend, to its end.
    fn decap(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary("maglevd")?);
        command.arg("decap").args(arguments);
        self.site.lab.netns("web1").run(|| command.output().context("maglevd decap"))
    }
}

fn targets(vips: &[IpAddr]) -> Vec<SocketAddr> {
    vips.iter().map(|vip| (*vip, Backend::PORT).into()).collect()
}

#[test]
fn a_reload_changes_what_is_unwrapped_while_clients_are_served() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut setting = Setting::start()?;
    let router = setting.site.lab.netns("router");
    setting.answered(&[WWW4], 50)?;
    setting.await_counter("decapsulated", 50)?;
    syns(&setting, ALT4, 5)?;
    setting.await_counter("foreign_destination", 5)?;
    from_other_source(&router)?;
    setting.await_counter("foreign_source", 1)?;
    let status = setting.json("status")?;
    ensure!(status["vips"][0] == WWW4.to_string() && status["sources"][0] == OUR_SOURCE, "{status}");
    ensure!(status["interfaces"][0]["attached"] == true && status["interfaces"][0]["adopted"] == false, "{status}");

    // Under load: a VIP, a source, an MSS, and an interface that comes later.
    let traffic = setting.site.lab.client().start(&targets(&[WWW4]), u64::MAX, 4);
    setting.settings.vips.push(ALT4);
    setting.settings.sources.push(OTHER_SOURCE);
    setting.write()?;
    let said = setting.done(&["decap", "reload"])?;
    ensure!(said == "reloaded: sources: 1 added; vips: 1 added\n", "{said}");
    setting.answered(&[WWW4, ALT4], 50)?;
    from_other_source(&router)?;
    setting.await_counter("malformed", 1)?;
    setting.settings.further = "mss: auto";
    setting.settings.interfaces = "[{ name: eth0 }, { name: late, mode: generic }]";
    setting.write()?;
    let said = setting.done(&["decap", "reload"])?;
    ensure!(said == "reloaded: interface late added; mss: auto\n", "{said}");
    setting.answered(&[WWW4, ALT4], 50)?;
    ensure!(setting.counter("mss_lowered")? > 0, "no MSS is lowered");
    ensure!(setting.json("status")?["interfaces"][1]["attached"] == false, "{}", setting.json("status")?);
    setting.site.lab.netns("web1").ip(&["link add late type veth peer name early".to_owned()])?;
    setting.await_that("late", |setting| Ok(setting.json("status")?["interfaces"][1]["attached"] == true))?;
    // By signal: back, and one setting that needs a restart.
    setting.settings.interfaces = "[{ name: eth0, mode: generic }]";
    setting.settings.further = "";
    setting.write()?;
    setting.site.backends[0].decap()?.signal(Signal::SIGHUP)?;
    setting.await_that("one interface", |setting| {
        let status = setting.json("status")?;
        Ok(status["interfaces"].as_array().is_some_and(|all| all.len() == 1)
            && status["last_reload"]["successful"] == true)
    })?;
    let status = setting.json("status")?;
    ensure!(status["mss"] == "off" && status["restart_needed"][0] == "interfaces: mode of eth0", "{status}");
    ensure!(!setting.pins().join("late").exists(), "a removed interface leaves pins");
    traffic.stop()?.all_answered()?;
    let text = setting.done(&["decap", "status"])?;
    for part in
        ["203.0.113.10, 203.0.113.11", "10.64.1.0/24, 10.64.2.0/24", "for interfaces: mode of eth0", "successful"]
    {
        ensure!(text.contains(part), "{part} is not in\n{text}");
    }
    Ok(())
}

#[test]
fn a_service_that_is_killed_or_stopped_is_adopted_without_a_lost_packet() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut setting = Setting::start()?;
    let rounds = if is_full() { 20 } else { 3 };
    let traffic = setting.site.lab.client().start(&targets(&[WWW4]), u64::MAX, 4);
    for _ in 0..rounds {
        setting.answered(&[WWW4], 100)?;
        let before = setting.counter("decapsulated")?;
        setting.site.backends[0].kill_decap()?;
        ensure!(setting.maglev(&["decap", "status"])?.code == 3, "no service answers");
        setting.answered(&[WWW4], 100)?;
        setting.start_service()?;
        let status = setting.json("status")?;
        ensure!(status["interfaces"][0]["adopted"] == true, "{status}");
        ensure!(setting.counter("decapsulated")? >= before + 100, "counters go on");
    }
    // `on_stop: keep` is the default.
    setting.site.backends[0].stop_service()?;
    ensure!(!setting.socket().exists(), "the socket stays");
    setting.answered(&[WWW4], 100)?;
    setting.start_service()?;
    ensure!(setting.json("status")?["interfaces"][0]["adopted"] == true, "{}", setting.json("status")?);
    traffic.stop()?.all_answered()?;
    // Removed from the file while the service is stopped.
    setting.site.lab.netns("web1").ip(&["link add held type veth peer name beside".to_owned()])?;
    setting.settings.interfaces = "[{ name: eth0 }, { name: held, mode: generic }]";
    setting.write()?;
    setting.done(&["decap", "reload"])?;
    setting.site.backends[0].stop_service()?;
    setting.settings.interfaces = "[{ name: eth0 }]";
    setting.write()?;
    setting.start_service()?;
    ensure!(setting.json("status")?["abandoned"][0] == "held", "{}", setting.json("status")?);
    fs::remove_dir_all(setting.pins().join("held"))?;
    // From then on, a stop leaves nothing.
    setting.settings.on_stop = "detach";
    setting.write()?;
    let said = setting.done(&["decap", "reload"])?;
    ensure!(said == "reloaded: on_stop: detach\n", "{said}");
    setting.site.backends[0].stop_service()?;
    ensure!(!setting.pins().exists(), "pins stay");
    setting.start_service()?;
    setting.answered(&[WWW4], 10)
}

#[test]
fn mistakes_change_nothing_and_are_all_reported() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut setting = Setting::start()?;
    let traffic = setting.site.lab.client().start(&targets(&[WWW4]), u64::MAX, 4);
    let (file, good) = (setting.file(), fs::read_to_string(setting.file())?);
    let path = file.to_str().context("path")?;
    ensure!(setting.decap(&["--config", path, "--check"])?.status.code() == Some(0), "the file is valid");
    let mistakes =
        ["sources[0]: 10.0.0.1/8 has host bits set", "peers: unknown key", "vips[0]: 127.0.0.1/32 holds no VIP"];
    fs::write(&file, good.replace(OUR_SOURCE, "10.0.0.1/8").replace("203.0.113.10", "127.0.0.1") + "peers: []\n")?;
    let refused = setting.maglev(&["decap", "reload"])?;
    let checked = setting.decap(&["--config", path, "--check"])?;
    let started = setting.decap(&["--config", path])?;
    ensure!(refused.code == 2 && refused.stderr.contains("nothing changed: 3 errors"), "{refused:?}");
    for output in [&checked, &started] {
        ensure!(output.status.code() == Some(2), "{output:?}");
    }
    let outputs = [checked, started].map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
    for said in [&refused.stderr, &outputs[0], &outputs[1]] {
        ensure!(mistakes.iter().all(|mistake| said.contains(mistake)), "{said}");
    }
    let status = setting.json("status")?;
    ensure!(status["last_reload"]["successful"] == false && status["vips"][0] == WWW4.to_string(), "{status}");
    // An interface that runs another program.
    let web1 = setting.site.lab.netns("web1");
    web1.ip(&["link add held type veth peer name beside".to_owned(), "link set held up".to_owned()])?;
    let mut pass = Command::new(binary("maglevd")?);
    let mut pass = maglev_e2e::lab::Process::start(
        "pass",
        &web1,
        &setting.site.lab.directory(),
        pass.args(["pass", "--interface", "held"]),
    )?;
    pass.await_line("ready")?;
    fs::write(
        &file,
        good.replace("[{ name: eth0 }]", "[{ name: eth0 }, { name: held }]").replace(OUR_SOURCE, OTHER_SOURCE),
    )?;
    let refused = setting.maglev(&["decap", "reload"])?;
    let said = "nothing changed: held already runs XDP program 'pass'";
    ensure!(refused.code == 1 && refused.stderr.contains(said), "{refused:?}");
    ensure!(setting.json("status")?["sources"][0] == OUR_SOURCE, "{}", setting.json("status")?);
    // A second service: the same socket; another socket, and the same pins; flags beside a file.
    let process = setting.site.backends[0].decap()?.id();
    fs::write(&file, &good)?;
    let second = setting.decap(&["--config", path])?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(second.status.code() == Some(1) && said.contains("another maglevd answers on"), "{said}");
    let other = setting.site.lab.directory().join("other.yaml");
    let elsewhere = good.replace("decap.sock", "other.sock").replace(":9102", ":9103");
    fs::write(&other, &elsewhere)?;
    let second = setting.decap(&["--config", other.to_str().context("path")?])?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    let first = format!("another maglevd decap (process {process}) runs on eth0");
    ensure!(second.status.code() == Some(1) && said.contains(&first), "{said}");
    // A pin folder elsewhere.
    let pins = setting.pins();
    fs::write(&other, elsewhere.replace(&*pins.to_string_lossy(), "/run/maglev-decap-elsewhere"))?;
    let second = setting.decap(&["--config", other.to_str().context("path")?])?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    let place = "/run/maglev-decap-elsewhere/eth0 is not in a BPF file system";
    ensure!(second.status.code() == Some(1) && said.contains(place), "{said}");
    let both = setting.decap(&["--config", path, "--interface", "eth0"])?;
    ensure!(both.status.code() == Some(2), "{both:?}");
    // The wrong socket.
    let wrong = setting.maglev(&["status"])?;
    ensure!(wrong.code == 2 && wrong.stderr.contains("this is the socket of maglevd decap"), "{wrong:?}");
    traffic.stop()?.all_answered()
}

#[test]
fn metrics_are_on_the_socket_and_on_the_loopback_address() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut setting = Setting::start()?;
    setting.answered(&[WWW4], 50)?;
    setting.await_counter("decapsulated", 50)?;
    let counted = setting.counter("decapsulated")?;
    let client = Client::new(setting.site.lab.netns("web1"), Vec::new());
    let scraped = client.text(([127, 0, 0, 1], 9_102).into(), "/metrics")?;
    let mut stream = UnixStream::connect(setting.socket())?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: maglevd\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 200") && head.contains("application/openmetrics-text"), "{head}");
    let expected = format!("maglev_decap_packets_total{{reason=\"decapsulated\",outcome=\"forwarded\"}} {counted}");
    for text in [scraped.as_str(), body] {
        ensure!(text.lines().any(|line| line == expected), "{expected} is not in\n{text}");
        ensure!(text.contains("maglev_decap_interface_attached{interface=\"eth0\",mode=\"native\"} 1"), "{text}");
        ensure!(text.trim_end().ends_with("# EOF"), "{text}");
    }
    Ok(())
}

/// Sends so many first packets of connections to a VIP.
fn syns(setting: &Setting, vip: IpAddr, count: u32) -> Result<()> {
    let IpAddr::V4(vip) = vip else { bail!("not an IPv4 address") };
    let flood = Flood { flags: Flags::Syn, first: 0, tuples: count, passes: 1 };
    setting.site.lab.client().flood(SocketAddrV4::new(vip, Backend::PORT), flood).finish().map(drop)
}

/// Sends `web1` an encapsulated packet whose inner header is cut short, from the other source.
fn from_other_source(router: &Netns) -> Result<()> {
    let backend: Ipv4Addr = behind_router(1, 2).v4;
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 4, 0, 0, 10, 64, 2, 9];
    packet.extend(backend.octets());
    packet.extend([0x45, 0, 0, 20, 0, 0, 0, 0]);
    router.run(|| {
        let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), Some(SockProtocol::Raw))?;
        let to = SockaddrIn::from(SocketAddrV4::new(backend, 0));
        sendto(raw.as_raw_fd(), &packet, &to, MsgFlags::empty()).context("the packet was not sent").map(drop)
    })
}
