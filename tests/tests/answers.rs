//! Packets that no backend can be given, as clients meet them: dropped or refused at once, as the VIP or the node says; and pings of
//! addresses whose VIPs have no backend.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use maglev_e2e::{
    client::ping::{allow_pings, ping},
    lab::{
        Backend, Lab, Services, Settings, Site, Topology, Vip,
        addresses::{ALT4, ALT6, WWW4, WWW6},
        binary,
        site::counter,
        skip,
    },
    matrix::Matrix,
    netns::Netns,
};

/// A client that is not refused by then is taken as not answered.
const SILENCE: Duration = Duration::from_millis(400);
/// A port that no VIP has.
const UNKNOWN: u16 = 9;
/// Bytes of a datagram: enough that an answer of either family is no longer.
const DATAGRAM: usize = 64;

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    Served,
    Refused,
    Silence,
}

/// The first addresses have a pool with a backend, the others an empty one.
fn services(lab: &Lab) -> Services {
    let mut services = Services::default();
    services.pools.push(lab.pool("full", WWW4, &[(1, 100)]));
    services.pools.push(lab.pool("void", WWW4, &[]));
    for (name, address, pool) in
        [("www4", WWW4, "full"), ("www6", WWW6, "full"), ("alt4", ALT4, "void"), ("alt6", ALT6, "void")]
    {
        for protocol in ["tcp", "udp"] {
            services.vips.push(Vip::new(&format!("{name}-{protocol}"), (address, Backend::PORT), protocol, pool));
        }
    }
    services
}

/// A site with one load balancer that has these lines more in its configuration.
fn site(more: &str) -> Result<Site> {
    let settings = |n| Settings { more: more.to_owned(), ..Settings::new(n) };
    Site::with_settings(Topology::standard(1), services, settings)
}

fn count(site: &Site, name: &str) -> Result<u64> {
    counter(&site.balancers[0].maglev_json(&["counters"])?, name)
}

/// Connects, or sends a datagram and waits for an answer or an error.
fn attempt(client: &Netns, protocol: &str, target: SocketAddr) -> Result<(Met, Duration)> {
    let began = Instant::now();
    let outcome = client.run(|| {
        if protocol == "tcp" {
            return Ok(TcpStream::connect_timeout(&target, SILENCE).map(drop));
        }
        let socket = UdpSocket::bind(if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.connect(target)?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.send(&[7; DATAGRAM])?;
        anyhow::Ok(socket.recv(&mut [0; 2_000]).map(drop))
    })?;
    let met = match outcome {
        Ok(()) => Met::Served,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Met::Refused,
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => Met::Silence,
        Err(error) => return Err(error).context("an attempt"),
    };
    Ok((met, began.elapsed()))
}

/// Attempts of both protocols and families all end like this; of the slowest, how long it took.
fn all_meet(client: &Netns, addresses: [IpAddr; 2], port: u16, expected: Met) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    for address in addresses {
        for protocol in ["tcp", "udp"] {
            let (met, took) = attempt(client, protocol, SocketAddr::new(address, port))?;
            ensure!(met == expected, "{protocol} to {address}: {met:?}, not {expected:?}");
            slowest = slowest.max(took);
        }
    }
    Ok(slowest)
}

fn milliseconds(took: Duration) -> String {
    format!("{:.1} ms at most", took.as_secs_f64() * 1_000.0)
}

#[test]
fn a_vip_whose_pool_is_empty_refuses_clients_if_it_says_so() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = site("")?;
    let (client, lb1) = (site.lab.netns("client"), &site.balancers[0]);
    let [empty, full] = [[ALT4, ALT6], [WWW4, WWW6]];
    let set = |rule: &str| -> Result<()> {
        for name in ["alt4-tcp", "alt4-udp", "alt6-tcp", "alt6-udp"] {
            lb1.maglev_ok(&["vip", "set", name, "--when-empty", rule])?;
        }
        Ok(())
    };
    Matrix::Packets.row("refusal", "an empty pool: clients get no answer by default", || {
        let before = count(&site, "no_backend")?;
        all_meet(&client, empty, Backend::PORT, Met::Silence)?;
        ensure!(count(&site, "no_backend")? >= before + 4, "not counted");
        all_meet(&client, full, Backend::PORT, Met::Served).map(|_| String::new())
    })?;
    Matrix::Packets.row("refusal", "the same with when_empty: reset: TCP and UDP are refused at once", || {
        set("reset")?;
        let took = all_meet(&client, empty, Backend::PORT, Met::Refused)?;
        ensure!(took < SILENCE / 2, "{took:?}");
        let (reset, unreachable) = (count(&site, "reset")?, count(&site, "port_unreachable")?);
        ensure!((reset, unreachable) == (2, 2), "{reset} RSTs, {unreachable} ICMP messages");
        let shown = lb1.maglev_json(&["vip", "show", "alt4-tcp"])?;
        ensure!(shown["when_empty"] == "reset", "{shown}");
        let file = fs::read_to_string(lb1.services())?;
        ensure!(file.matches("when_empty: reset").count() == 4, "{file}");
        all_meet(&client, full, Backend::PORT, Met::Served)?;
        Ok(milliseconds(took))
    })?;
    Matrix::Packets.row("refusal", "ports without a VIP: clients get no answer by default", || {
        all_meet(&client, full, UNKNOWN, Met::Silence).map(|_| String::new())
    })?;
    Matrix::Packets.row("refusal", "a flood of datagrams: answers are limited to 1,000 a second and node", || {
        let began = Instant::now();
        let before = count(&site, "port_unreachable")?;
        client.run(|| flood(SocketAddr::new(ALT4, Backend::PORT), 20_000))?;
        let seconds = began.elapsed().as_secs() + 2;
        let (answered, limited) = (count(&site, "port_unreachable")? - before, count(&site, "answer_limit")?);
        ensure!(limited > 0 && answered <= 1_000 * seconds, "{answered} answered, {limited} not, in {seconds} s");
        Ok(format!("{answered} answered, {limited} not"))
    })?;
    Matrix::Packets.row("refusal", "when_empty: drop again: clients get no answer", || {
        set("drop")?;
        all_meet(&client, empty, Backend::PORT, Met::Silence)?;
        let file = fs::read_to_string(lb1.services())?;
        ensure!(!file.contains("when_empty"), "{file}");
        Ok(String::new())
    })?;
    Matrix::Packets.row("refusal", "another rule is refused with what is allowed", || {
        let refused = lb1.maglev(&["vip", "set", "alt4-tcp", "--when-empty", "refuse"])?;
        let allowed = "refuse is not a rule for packets without a backend; allowed: drop, reset";
        ensure!(refused.code == 2 && refused.stderr.contains(allowed), "{refused:?}");
        Ok(String::new())
    })
}

/// Sends many datagrams from as many sockets: an error that a socket holds keeps it from sending.
fn flood(target: SocketAddr, datagrams: usize) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    for _ in 0..datagrams {
        socket.send_to(&[7; DATAGRAM], target)?;
    }
    Ok(())
}

#[test]
fn ports_without_a_vip_and_pings_follow_the_nodes_settings() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = site("packets: { unknown_port: reset, echo: serving }\n")?;
    let client = site.lab.netns("client");
    allow_pings(&client)?;
    let pings = |address| client.run(|| ping(address, 56));
    Matrix::Packets.row(
        "refusal",
        "unknown_port: reset: TCP and UDP are refused at once, of all VIPs' addresses",
        || {
            let served = all_meet(&client, [WWW4, WWW6], UNKNOWN, Met::Refused)?;
            let took = all_meet(&client, [ALT4, ALT6], UNKNOWN, Met::Refused)?.max(served);
            ensure!(took < SILENCE / 2, "{took:?}");
            all_meet(&client, [ALT4, ALT6], Backend::PORT, Met::Silence)?;
            all_meet(&client, [WWW4, WWW6], Backend::PORT, Met::Served)?;
            Ok(milliseconds(took))
        },
    )?;
    Matrix::Packets.row("echo", "serving: addresses with a backend answer, others do not", || {
        for (address, expected) in [(WWW4, true), (WWW6, true), (ALT4, false), (ALT6, false)] {
            ensure!(pings(address)? == expected, "{address}");
        }
        let silent = count(&site, "echo_off")?;
        ensure!(silent == 2, "{silent} requests counted");
        Ok(String::new())
    })?;
    Matrix::Packets.row(
        "echo",
        "serving: an address answers once its pool has a backend, and not any more without",
        || {
            let lb1 = &site.balancers[0];
            let address = site.lab.pool("void", WWW4, &[(1, 100)]).backends[0].1.to_string();
            lb1.maglev_ok(&["backend", "add", "void", "web1", "--address", &address])?;
            let up = until(|| pings(ALT4))?;
            ensure!(pings(ALT6)?, "{ALT6} is silent");
            lb1.maglev_ok(&["backend", "remove", "void", "web1", "--force"])?;
            ensure!(!pings(ALT4)? && !pings(ALT6)?, "an address without a backend answers");
            Ok(format!("answered after {} ms", up.as_millis()))
        },
    )?;
    Matrix::Packets.row("echo", "65,000 bytes in fragments are not answered", || {
        ensure!(!client.run(|| ping(WWW4, 65_000))?, "answered");
        Ok(String::new())
    })?;
    Matrix::Packets.row("echo", "off: after a reload no address answers", || {
        let lb1 = &site.balancers[0];
        let text = fs::read_to_string(lb1.config())?.replace("echo: serving", "echo: off");
        fs::write(lb1.config(), text)?;
        let reloaded = lb1.maglev_json(&["reload"])?;
        ensure!(reloaded["data_plane"].as_array().is_some_and(|all| all.contains(&"packets".into())), "{reloaded}");
        ensure!(!client.run(|| ping(WWW4, 56))? && !client.run(|| ping(WWW6, 56))?, "answered");
        Ok(String::new())
    })?;
    Matrix::Packets.row("echo", "another rule is refused by `maglevd check` with what is allowed", || {
        let config = site.balancers[0].config();
        let text = fs::read_to_string(&config)?.replace("echo: off", "echo: never, unknown_port: refuse");
        let text = text.replace("packets: { unknown_port: reset, ", "packets: { ");
        let bad = config.with_file_name("bad.yaml");
        fs::write(&bad, text)?;
        let output = Command::new(binary("maglevd")?).args(["check", "--config"]).arg(&bad).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        for line in [
            "packets.echo: never is not a rule for echo requests; allowed: always, serving, off",
            "packets.unknown_port: refuse is not a rule for packets without a backend; allowed: drop, reset",
        ] {
            ensure!(output.status.code() == Some(2) && said.contains(line), "{said}");
        }
        Ok(String::new())
    })
}

/// The time until something holds.
fn until(holds: impl Fn() -> Result<bool>) -> Result<Duration> {
    let began = Instant::now();
    while !holds()? {
        if began.elapsed() > Duration::from_secs(10) {
            bail!("not within 10 s");
        }
    }
    Ok(began.elapsed())
}
