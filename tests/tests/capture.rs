//! `maglev capture`: what is in the file, as tshark reads it, and how a capture ends.

use std::{
    fs,
    io::Read as _,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use maglev_e2e::lab::{
    Backend, Balancer, Process, Site,
    addresses::{ALT4, WWW4, WWW6},
    binary, skip,
};
use nix::sys::signal::Signal;

/// A packet in a file, as tshark reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packet {
    interface: String,
    comment: String,
    /// The addresses of all its IP headers, the outer ones first.
    destinations: Vec<String>,
    length: u32,
}

/// Reads a file with tshark: every packet must be one that it can dissect.
fn read(file: &Path) -> Result<Vec<Packet>> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args([
        "-o",
        "tcp.relative_sequence_numbers:FALSE",
        "-T",
        "fields",
        "-E",
        "separator=|",
    ]);
    for field in ["frame.interface_name", "frame.comment", "ip.dst", "ipv6.dst", "frame.len", "_ws.malformed"] {
        command.args(["-e", field]);
    }
    let output = command.output().context("tshark: `cargo xtask setup` installs it")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    println!("{}:\n{text}", file.display());
    text.lines().map(|line| packet(line).with_context(|| line.to_owned())).collect()
}

fn packet(line: &str) -> Result<Packet> {
    let fields: Vec<&str> = line.split('|').collect();
    let [interface, comment, v4, v6, length, malformed] = fields[..] else { anyhow::bail!("six fields") };
    ensure!(malformed.is_empty(), "malformed");
    let destinations = v4.split(',').chain(v6.split(',')).filter(|address| !address.is_empty());
    Ok(Packet {
        interface: interface.to_owned(),
        comment: comment.to_owned(),
        destinations: destinations.map(str::to_owned).collect(),
        length: length.parse()?,
    })
}

/// A capture in the background.
struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Begins one, and waits until packets are captured.
    fn begin(site: &Site, name: &str, conditions: &[&str]) -> Result<Self> {
        let balancer = &site.balancers[0];
        let file = site.lab.directory().join(format!("{name}.pcapng"));
        let mut command = Command::new(binary("maglev")?);
        command.arg("--socket").arg(balancer.socket()).arg("capture").arg("-w").arg(&file).args(conditions);
        let mut process = Process::start(name, balancer.netns(), &site.lab.directory(), &mut command)?;
        process.await_event("the head of the file", |_| Ok(fs::metadata(&file).is_ok_and(|found| found.len() > 0)))?;
        Ok(Self { process, file })
    }

    /// Waits until it ends by itself.
    fn end(mut self) -> Result<(String, Vec<Packet>)> {
        let status = self.process.wait()?;
        ensure!(status.success(), "{status}: {}", self.process.log());
        Ok((self.process.log(), read(&self.file)?))
    }

    /// Waits until so many packets are in its file, and interrupts it.
    fn interrupt(mut self, packets: usize) -> Result<Vec<Packet>> {
        for _ in 0..40 {
            if read(&self.file)?.len() >= packets {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.process.signal(Signal::SIGINT)?;
        let status = self.process.wait()?;
        assert_eq!(status.code(), Some(130), "{}", self.process.log());
        read(&self.file)
    }
}

/// The program on the first interface, by its number.
fn program(balancer: &Balancer) -> Result<u64> {
    let links = balancer.netns().ip_json(&["-details", "link", "show"])?;
    let programs = links.as_array().into_iter().flatten().filter_map(|link| link["xdp"]["prog"]["id"].as_u64());
    programs.min().context("no XDP program")
}

fn await_program(balancer: &mut Balancer, expected: u64) -> Result<()> {
    for _ in 0..500 {
        if program(balancer)? == expected {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    anyhow::bail!("the program that only forwards does not run again\n{}", balancer.log())
}

fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

#[test]
fn packets_are_in_the_file_before_and_after_encapsulation_with_the_decision() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(1)?;
    let plain = program(&site.balancers[0])?;
    for (vip, name, pool, through) in [(WWW4, "www-tcp", "four", "10."), (WWW6, "www6-tcp", "four", "10.")] {
        let capture = Capture::begin(&site, name, &["--vip", name, "--outcome", "forwarded", "--count", "20"])?;
        ensure!(program(&site.balancers[0])? != plain, "another program runs");
        // Packets of another VIP are not captured.
        let targets = [at(vip, Backend::PORT), at(ALT4, Backend::PORT)];
        let outcomes = site.lab.client().requests(&targets, 20, 4)?;
        outcomes.all_answered()?;
        let (log, packets) = capture.end()?;
        ensure!(log.starts_with("maglev: the capture ended: 20 packets are written; 20 packets in "), "{log}");
        ensure!(log.trim_end().ends_with("; 0 beyond the rate, 0 lost"), "{log}");
        assert_eq!(packets.len(), 40, "each as it came in, and as it left");
        for pair in packets.chunks(2) {
            let [before, after] = pair else { unreachable!("pairs") };
            assert_eq!(before.comment, after.comment);
            assert_eq!((before.destinations.as_slice(), after.interface.as_str()), (&[vip.to_string()][..], "sent"));
            ensure!(after.destinations.len() == 2 && after.destinations.contains(&vip.to_string()), "{after:?}");
            ensure!(after.destinations[0].starts_with(through), "{after:?}");
            assert_eq!(after.length, before.length + 20, "an IPv4 header");
            let decided = format!("forwarded: transmitted; vip {name}, pool {pool}, slot ");
            let other = decided.replace("transmitted", "redirected");
            ensure!(before.comment.starts_with(&decided) || before.comment.starts_with(&other), "{before:?}");
            ensure!(before.comment.ends_with(", choice table"), "{before:?}");
        }
        let backends = ["web1", "web2", "web3"].map(|backend| format!("backend {backend},"));
        let named = packets.iter().all(|packet| backends.iter().any(|backend| packet.comment.contains(backend)));
        ensure!(named, "{packets:?}");
    }
    let Site { mut balancers, .. } = site;
    await_program(&mut balancers[0], plain)
}

#[test]
fn dropped_packets_are_captured_by_reason_and_client() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(1)?;
    let netns = site.lab.netns("client");
    let local = netns.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(at(WWW4, 81))?;
        Ok(socket.local_addr()?.ip())
    })?;
    let conditions = ["--reason", "no_such_vip", "--vip", "www-tcp", "--count", "3"];
    let by_reason = Capture::begin(&site, "reason", &conditions)?;
    let client = local.to_string();
    let conditions = ["--client", &client, "--port", "81", "--tcp-flags", "syn,!ack", "--bytes", "64", "--count", "1"];
    let by_client = Capture::begin(&site, "client", &conditions)?;
    netns.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for _ in 0..2 {
            // Another VIP's address, and a port that is one.
            for target in [at(WWW4, 81), at(ALT4, 81), at(WWW4, Backend::PORT)] {
                socket.send_to(b"hello", target)?;
            }
        }
        let refused = TcpStream::connect_timeout(&at(WWW4, 81), Duration::from_millis(300));
        ensure!(refused.is_err(), "no VIP has this port");
        Ok(())
    })?;
    let (_, found) = by_reason.end()?;
    assert_eq!(found.len(), 3, "{found:?}");
    for packet in &found {
        assert_eq!(packet.comment, "dropped: no_such_vip");
        assert_eq!(packet.destinations, [WWW4.to_string()]);
    }
    let (_, found) = by_client.end()?;
    assert_eq!(found.len(), 1, "{found:?}");
    Ok(())
}

#[test]
fn a_capture_follows_its_backend_and_ends_with_its_command() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    let plain = program(&site.balancers[0])?;
    let capture = Capture::begin(&site, "web1", &["--pool", "four", "--backend", "web1", "--outcome", "forwarded"])?;
    // Its member is made anew, each time under another number.
    for order in ["disable", "enable"].into_iter().cycle().take(6) {
        site.balancers[0].maglev_ok(&["backend", order, "four", "web1"])?;
    }
    let outcomes = site.lab.client().requests(&[at(WWW4, Backend::PORT)], 60, 4)?;
    outcomes.all_answered()?;
    let served = outcomes.0.iter().filter(|outcome| outcome.answer.as_deref().is_ok_and(|name| name == "web1")).count();
    ensure!(served > 0, "web1 served none of 60");
    let sent = site.balancers[0].maglev_json(&["counters"])?;
    let backends = sent["backends"].as_array().into_iter().flatten();
    let of_web1 = |backend: &&serde_json::Value| backend["pool"] == "four" && backend["backend"] == "web1";
    let sent = backends.filter(of_web1).find_map(|backend| backend["packets"].as_u64()).context("packets of web1")?;
    let packets = capture.interrupt(2 * usize::try_from(sent)?)?;
    assert_eq!(packets.len() as u64, 2 * sent, "each that web1 received, as it came in and as it left");
    ensure!(packets.iter().all(|packet| packet.comment.contains("pool four, ")), "{packets:?}");
    ensure!(packets.iter().all(|packet| packet.comment.contains("backend web1, ")), "{packets:?}");
    await_program(&mut site.balancers[0], plain)?;

    // Killed, it takes its capture along.
    let mut killed = Capture::begin(&site, "killed", &[])?;
    killed.process.signal(Signal::SIGKILL)?;
    killed.process.wait()?;
    await_program(&mut site.balancers[0], plain)?;

    // The daemon is killed: the next one puts the other program into its place, and no request fails.
    let mut left = Capture::begin(&site, "left", &[])?;
    site.balancers[0].kill()?;
    assert_eq!(left.process.wait()?.code(), Some(1), "{}", left.process.log());
    ensure!(left.process.log().contains("packets in "), "{}", left.process.log());
    site.lab.client().requests(&[at(WWW4, Backend::PORT)], 20, 4)?.all_answered()?;
    site.balancers[0].restart()?;
    await_program(&mut site.balancers[0], plain)?;
    site.lab.client().requests(&[at(WWW4, Backend::PORT)], 20, 4)?.all_answered()
}

#[test]
fn bad_orders_are_refused_and_full_disks_and_closed_pipes_end_a_capture_alone() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    let plain = program(&site.balancers[0])?;
    let file = site.lab.directory().join("new.pcapng").display().to_string();
    let balancer = &site.balancers[0];
    for (conditions, code, why) in [
        ("--vip nosuch", 1, "unknown VIP nosuch; known: alt-tcp, "),
        ("--pool nosuch", 1, "unknown pool nosuch; known: four, six"),
        ("--pool four --backend web9", 1, "unknown backend web9 in pool four; known: web1, web2, web3"),
        ("--reason lost", 2, "reason: unknown reason lost; allowed: transmitted, "),
        ("--reason too_big --outcome passed", 2, "reason: too_big has the outcome dropped, which is not asked for"),
        ("--one-in 0", 2, "--one-in"),
    ] {
        let order: Vec<&str> = ["capture", "-w", &file].into_iter().chain(conditions.split(' ')).collect();
        let refused = balancer.maglev(&order)?;
        ensure!(refused.code == code && refused.stderr.contains(why), "{conditions}: {refused:?}");
        ensure!(!Path::new(&file).exists(), "{conditions}: a file is left");
    }
    let full = balancer.maglev(&["capture", "-w", "/dev/full"])?;
    ensure!(full.code == 1 && full.stderr.starts_with("maglev: cannot write /dev/full: No space left"), "{full:?}");
    await_program(&mut site.balancers[0], plain)?;

    // The reader of a pipe ends after the head of the file.
    let mut piped = Command::new(binary("maglev")?);
    piped.arg("--socket").arg(site.balancers[0].socket()).args(["capture", "-w", "-"]);
    let mut child = piped.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut pipe = child.stdout.take().context("a pipe")?;
    pipe.read_exact(&mut [0; 4])?;
    drop(pipe);
    site.lab.client().requests(&[at(WWW4, Backend::PORT)], 4, 1)?.all_answered()?;
    let ended = child.wait_with_output()?;
    let said = String::from_utf8(ended.stderr)?;
    ensure!(ended.status.success() && said.starts_with("maglev: the reader of standard output has ended"), "{said}");
    await_program(&mut site.balancers[0], plain)?;

    // Fifty at once: eight run, the others are refused, and requests are answered meanwhile.
    let mut captures = Vec::new();
    for n in 0..8 {
        captures.push(Capture::begin(&site, &format!("c{n}"), &["--outcome", "forwarded"])?);
    }
    for n in 8..50 {
        let file = site.lab.directory().join(format!("c{n}.pcapng"));
        let refused = site.balancers[0].maglev(&["capture", "-w", &file.display().to_string()])?;
        assert_eq!((refused.code, refused.stderr.as_str()), (1, "maglev: 8 captures run already: end one first\n"));
        ensure!(!file.exists(), "a file is left");
    }
    site.lab.client().requests(&[at(WWW4, Backend::PORT)], 50, 4)?.all_answered()?;
    for capture in captures {
        ensure!(capture.interrupt(100)?.len() >= 100, "each takes all packets");
    }
    await_program(&mut site.balancers[0], plain)?;

    // One that ends by itself.
    let last = Capture::begin(&site, "last", &["--time", "1s"])?;
    let (log, _) = last.end()?;
    ensure!(log.contains("the capture ended: its time is over; "), "{log}");
    await_program(&mut site.balancers[0], plain)
}
