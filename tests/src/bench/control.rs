//! The control plane: how long a table takes to build, a full node to start and a change to reach packets, and how much
//! memory the daemon takes.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use maglev_model::table::Table;
use maglev_model::{Name, Weight};
use serde::Serialize;

use super::machine::Machine;
use super::stats::Spread;
use crate::lab::{Backend, Balancer, Lab, Pool, Services, Settings, Topology, Vip, addresses::WWW4, is_root};

/// Sizes of pools whose tables are built.
const SIZES: [u32; 4] = [10, 100, 1_000, 10_000];
/// Builds of each.
const BUILDS: usize = 31;
/// Changes whose way to the packets is timed.
const CHANGES: usize = 20;
/// Starts of a full node.
const STARTS: usize = 3;
/// A full node: VIPs, pools, backends in each.
const FULL: (u16, u8, u8) = (512, 64, 100);
/// Backends of nodes whose answers are compared.
const ANSWERED: [u16; 2] = [100, 6_400];

/// How much longer the second may take to answer than the first, in milliseconds.
const BEYOND: f64 = 10.0;
/// Orders of each kind that are timed.
const ORDERS: u16 = 15;
/// How long a probe waits for its answer; and how many are sent before it counts as an outage.
const PATIENCE: Duration = Duration::from_millis(2);
const PROBES: usize = 10_000;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Exit with 1 if a target is missed, naming each
    #[arg(long)]
    assert: bool,
}

/// All figures.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    /// Milliseconds to build a table, by the number of backends.
    table_build: Vec<(u32, Spread)>,
    /// Milliseconds from starting the daemon to the first answer through it: 512 VIPs on 64 pools of 100 backends.
    start: Spread,
    /// Milliseconds from a change's acknowledgement to the first answer of a new flow from the new backend.
    change: Spread,
    /// Milliseconds the change's command took.
    command: Spread,
    /// From call to answer, by the number of backends.
    answers: Vec<Answered>,
    memory: Memory,
}

/// Milliseconds from an order's call to its answer, on a node with so many backends.
#[derive(Debug, Serialize)]
struct Answered {
    backends: u16,
    weight: Spread,
    add: Spread,
    reload: Spread,
    /// To write and sync a file as large as `services.yaml`, by itself: part of each of the others.
    sync: Spread,
}

/// The daemon's memory with everything published, in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Memory {
    /// Resident, mapped BPF maps not counted.
    resident: u64,
    /// BPF maps as mapped.
    maps: u64,
    /// BPF maps that this process has touched.
    maps_resident: u64,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(is_root(), "the benchmark needs root: it makes network namespaces and loads programs; try with sudo");
    let machine = Machine::this();
    eprintln!("bench: building tables");
    let table_build = SIZES.into_iter().map(|size| Ok((size, table_build(size)?))).collect::<Result<_>>()?;
    eprintln!("bench: building the lab");
    let mut lab = Lab::new(Topology::standard(1))?;
    let _backends = lab.start_backends()?;
    let services = full_node(&lab);
    let mut starts = Vec::new();
    let mut balancer = None;
    for n in 1..=STARTS {
        eprintln!("bench: start {n} of {STARTS} of a node with {} VIPs", FULL.0);
        // The one before ends first.
        drop(balancer.take());
        let began = Instant::now();
        let started = Balancer::start(&lab, 1, &Settings::new(1), &services)?;
        await_answer(&lab, "web1")?;
        starts.push(milliseconds(began));
        balancer = Some(started);
    }
    let balancer = balancer.context("no balancer was started")?;
    let memory = Memory::from_process(balancer.process_id())?;
    eprintln!("bench: {CHANGES} changes");
    let (mut changes, mut commands) = (Vec::new(), Vec::new());
    for n in 0..CHANGES {
        let (command, change) = change(&lab, &balancer, n % 2 == 0)?;
        commands.push(command);
        changes.push(change);
    }
    drop(balancer);
    eprintln!("bench: answers of nodes with {ANSWERED:?} backends");
    let answers = ANSWERED.into_iter().map(|size| answers(&lab, size)).collect::<Result<_>>()?;
    let report = Report {
        machine,
        table_build,
        start: spread(starts)?,
        change: spread(changes)?,
        command: spread(commands)?,
        answers,
        memory,
    };
    print!("{}", report.text());
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&report)?;
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let missed = report.missed();
    missed.iter().for_each(|missed| println!("MISSED {missed}"));
    if arguments.assert && !missed.is_empty() {
        bail!("{} targets missed", missed.len());
    }
    Ok(())
}

fn spread(values: Vec<f64>) -> Result<Spread> {
    Spread::from_values(values).context("nothing was measured")
}

/// Times orders to a node with pools of at most a hundred backends.
fn answers(lab: &Lab, backends: u16) -> Result<Answered> {
    let address = |n: u16| IpAddr::from(Ipv4Addr::from(0x0a09_0000 + u32::from(n)));
    let pool = |n: u16| Pool {
        name: format!("p{n}"),
        affinity: None,
        backends: (1..=100).map(|m| (format!("b{m}"), address(100 * n + m), 100)).collect(),
    };
    let services = Services {
        pools: (0..backends / 100).map(pool).collect(),
        vips: vec![Vip::new("www", (WWW4, Backend::PORT), "udp", "p0")],
    };
    let balancer = Balancer::start(lab, 1, &Settings::new(1), &services)?;
    let timed = |order: &[&str]| -> Result<f64> {
        let began = Instant::now();
        balancer.maglev_ok(order)?;
        Ok(milliseconds(began))
    };
    let (mut weight, mut add, mut reload, mut sync) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for n in 0..ORDERS {
        weight.push(timed(&["backend", "weight", "p0", "b7", &(50 + n).to_string()])?);
        let new = address(30_000 + n).to_string();
        add.push(timed(&["backend", "add", "p0", &format!("new{n}"), "--address", &new])?);
        let text = fs::read_to_string(balancer.services())?;
        let edited = text.replacen("weight: 100", &format!("weight: {}", 200 + n), 1);
        fs::write(balancer.services(), &edited)?;
        reload.push(timed(&["reload"])?);
        let (path, began) = (balancer.services().with_extension("bench"), Instant::now());
        fs::write(&path, &edited)?;
        fs::File::open(&path)?.sync_all()?;
        sync.push(milliseconds(began));
    }
    let (weight, add) = (spread(weight)?, spread(add)?);
    Ok(Answered { backends, weight, add, reload: spread(reload)?, sync: spread(sync)? })
}

/// Builds the table of this many backends, each time from the same names.
fn table_build(backends: u32) -> Result<Spread> {
    let names = (0..backends).map(|n| Name::parse(&format!("backend-{n}"))).collect::<Result<Vec<_>, _>>()?;
    let build = || {
        let began = Instant::now();
        let table = std::hint::black_box(Table::build(names.iter().map(|name| (name, Weight(100)))));
        let took = milliseconds(began);
        drop(table);
        took
    };
    Spread::from_values((0..BUILDS).map(|_| build())).context("nothing was built")
}

/// The services of a full node. Only two backends exist; all others are reached by the default route, and one VIP's
/// pool gives them weight 0.
fn full_node(lab: &Lab) -> Services {
    let (vips, pools, size) = FULL;
    let absent = |pool: u8, weight: u32| {
        (2..size).map(move |n| (format!("b{n:03}"), IpAddr::from(Ipv4Addr::new(10, 9, pool, n)), weight))
    };
    let mut all = vec![lab.pool("web", WWW4, &[(1, 100), (2, 0)])];
    all[0].backends.extend(absent(0, 0));
    for pool in 1..pools {
        let first = (0..2).map(|n| (format!("b{n:03}"), IpAddr::from(Ipv4Addr::new(10, 9, pool, 200 + n)), 100));
        all.push(Pool { name: format!("p{pool}"), affinity: None, backends: first.chain(absent(pool, 100)).collect() });
    }
    let mut services = Services { pools: all, vips: vec![Vip::new("www", (WWW4, Backend::PORT), "udp", "web")] };
    for n in 1..vips {
        let pool = format!("p{}", n % (u16::from(pools) - 1) + 1);
        let address = Ipv4Addr::new(203, 0, 113, 20 + (n % 128) as u8);
        services.vips.push(Vip::new(&format!("vip{n}"), (address.into(), 8_000 + n / 128), "tcp", &pool));
    }
    services
}

/// Sends datagrams, each of a new flow, until one is answered by this backend.
fn await_answer(lab: &Lab, backend: &str) -> Result<()> {
    lab.netns("client").run(|| {
        let target = SocketAddr::new(WWW4, Backend::PORT);
        for _ in 0..PROBES {
            if probe(target)?.as_deref() == Some(backend) {
                return Ok(());
            }
        }
        bail!("no datagram was answered by {backend}")
    })
}

/// The backend that answers one datagram, if one does in time.
fn probe(target: SocketAddr) -> Result<Option<String>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot open a socket")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(target).context("no route to the VIP")?;
    let mut answer = [0; 256];
    if socket.send(b"probe").is_err() {
        return Ok(None);
    }
    let received = socket.recv(&mut answer);
    // The server puts its name and a colon before what it was sent.
    let name = |length: usize| String::from_utf8_lossy(&answer[..length]).split(':').next().map(str::to_owned);
    Ok(received.ok().and_then(name))
}

/// Moves all new flows from one backend to the other. Milliseconds the command took, and from its end to the first
/// answer of the other backend.
fn change(lab: &Lab, balancer: &Balancer, to_second: bool) -> Result<(f64, f64)> {
    let (up, down) = if to_second { ("web2", "web1") } else { ("web1", "web2") };
    balancer.maglev_ok(&["backend", "weight", "web", up, "100"])?;
    let began = Instant::now();
    balancer.maglev_ok(&["backend", "weight", "web", down, "0"])?;
    let acknowledged = Instant::now();
    let command = milliseconds(began);
    await_answer(lab, up)?;
    Ok((command, milliseconds(acknowledged)))
}

impl Memory {
    fn from_process(process: u32) -> Result<Self> {
        let file = format!("/proc/{process}/smaps");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        Ok(Self::read(&text))
    }

    /// Sums the mappings of an `smaps` file.
    fn read(smaps: &str) -> Self {
        let (mut memory, mut is_map) = (Self::default(), false);
        for line in smaps.lines() {
            let bytes = |rest: &str| rest.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1_024;
            match line.split_once(':') {
                Some(("Size", rest)) if is_map => memory.maps += bytes(rest),
                Some(("Rss", rest)) if is_map => memory.maps_resident += bytes(rest),
                Some(("Rss", rest)) => memory.resident += bytes(rest),
                // A mapping's first line has its addresses, and holds a colon only in the device's number.
                _ if line.split(' ').next().is_some_and(|word| word.contains('-')) => is_map = line.contains("bpf-map"),
                _ => {}
            }
        }
        memory
    }
}

impl Report {
    fn text(&self) -> String {
        let mut text = self.machine.text();
        let mut line = |what: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {what:48} {value}");
        };
        for (size, spread) in &self.table_build {
            line(&format!("table build, {size} backends"), shown(*spread));
        }
        line("start of a full node to the first answer", shown(self.start));
        line("change acknowledged to the first answer", shown(self.change));
        line("the change's command", shown(self.command));
        for Answered { backends, weight, add, reload, sync } in &self.answers {
            let rows = [("a weight", weight), ("an add", add), ("a reload", reload), ("of it to write and sync", sync)];
            for (what, spread) in rows {
                line(&format!("{backends} backends, {what}, call to answer"), shown(*spread));
            }
        }
        for (what, beyond) in self.beyond() {
            line(
                &format!("{} backends beyond {}, {what}, sync apart", ANSWERED[1], ANSWERED[0]),
                format!("{beyond:.2} ms"),
            );
        }
        let Memory { resident, maps, maps_resident } = self.memory;
        line("daemon, resident without BPF maps", megabytes(resident));
        line("BPF maps", format!("{}, of which touched {}", megabytes(maps), megabytes(maps_resident)));
        format!("{text}\n(full node: {} VIPs, {} pools, {} backends each; median (p10-p90))\n", FULL.0, FULL.1, FULL.2)
    }

    /// How much longer the larger node takes to answer, in milliseconds, beside what it writes and syncs longer.
    fn beyond(&self) -> Vec<(&'static str, f64)> {
        let [small, .., large] = self.answers.as_slice() else { return Vec::new() };
        let sync = large.sync.median - small.sync.median;
        let rows = [("a weight", small.weight, large.weight), ("an add", small.add, large.add)];
        let rows = rows.into_iter().chain([("a reload", small.reload, large.reload)]);
        rows.map(|(what, small, large)| (what, large.median - small.median - sync)).collect()
    }

    fn missed(&self) -> Vec<String> {
        let thousand = self.table_build.iter().find(|(size, _)| *size == 1_000).map_or(0.0, |(_, build)| build.median);
        let resident = self.memory.resident as f64 / 1e6;
        let beyond = self.beyond().into_iter().map(|(what, beyond)| (what, beyond, BEYOND, "ms"));
        let targets = [
            ("table build, 1,000 backends", thousand, 1.5, "ms"),
            ("start of a full node to the first answer", self.start.median, 1_000.0, "ms"),
            ("change acknowledged to the first answer", self.change.median, 10.0, "ms"),
            ("daemon, resident without BPF maps", resident, 64.0, "MB"),
        ];
        let all = targets.into_iter().chain(beyond);
        all.filter(|(_, found, most, _)| found > most)
            .map(|(what, found, most, unit)| format!("{what}: {found:.2} {unit}, target {most} {unit}"))
            .collect()
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn shown(Spread { p10, median, p90 }: Spread) -> String {
    format!("{median:.2} ms ({p10:.2}-{p90:.2})")
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_maps_are_counted_apart() {
        let smaps = "\
7f00-7f10 rw-s 00000000 00:0e 12 anon_inode:bpf-map\nSize:   8 kB\nRss:   4 kB\n\
7f20-7f30 rw-p 00000000 00:00 0 [heap]\nSize:  100 kB\nRss:   40 kB\nVmFlags: rd wr\n";
        let Memory { resident, maps, maps_resident } = Memory::read(smaps);
        assert_eq!((resident, maps, maps_resident), (40 << 10, 8 << 10, 4 << 10));
    }
}
