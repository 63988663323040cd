//! The cost of health checks: a daemon that checks hundreds of backends, all of them one server with many addresses.

use std::{
    fmt::{self, Display, Formatter},
    fs,
    net::{IpAddr, Ipv4Addr},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    lab::{
        AUTHORITY, Balancer, Lab, NEAR, Pool, Process, Services, Settings, Topology, Vip,
        addresses::{self, WWW4},
        binary, decapsulate,
    },
    server::Identity,
};

/// How backends are checked, each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By a connection.
    Tcp,
    /// By a request.
    Http,
    /// By a request over TLS, with the certificate verified.
    Https,
}

/// Checks each second.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// How.
    pub kind: Kind,
    /// Along which way: `encap` or `direct`.
    pub via: &'static str,
    /// How many backends.
    pub backends: u16,
}

/// The check that may cost no more than [`TARGET`].
pub const CASES: [Case; 4] = [
    Case { kind: Kind::Tcp, via: "encap", backends: 1_000 },
    Case { kind: Kind::Http, via: "encap", backends: 1_000 },
    Case { kind: Kind::Http, via: "direct", backends: 1_000 },
    Case { kind: Kind::Https, via: "encap", backends: 200 },
];

/// How much of one core may be spent on them.
pub const TARGET: f64 = 0.20;

/// The cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// The part of one core, in the daemon and in the kernel for it.
    pub core: f64,
    /// The same without any check.
    pub idle: f64,
}

/// The addresses of backends that are all one: 10.9.0.0/16.
const MANY: &str = "10.9.0.0/16";
/// Backends in a pool.
const POOL: u16 = 250;
/// The ports of the one server.
const PORTS: [u16; 3] = [80, 7_000, 443];

/// A daemon, and the one server. The lab comes last.
#[derive(Debug)]
pub struct Checks {
    balancer: Balancer,
    _processes: [Process; 2],
    _lab: Lab,
}

impl Case {
    fn check(self) -> String {
        let Self { kind, via, backends: _ } = self;
        let port = match kind {
            Kind::Tcp | Kind::Http => format!("port: {}", PORTS[0]),
            Kind::Https => format!("port: {}, sni: {}", PORTS[2], Identity::NAME),
        };
        format!("check: {{ kind: {kind}, {port}, via: {via}, interval: 1s, timeout: 500ms }}")
    }

    /// Services with so many backends, and a VIP for each of their pools.
    fn services(self) -> String {
        let address = |n: u16| IpAddr::from(Ipv4Addr::new(10, 9, (n / 250) as u8, (n % 250 + 1) as u8));
        let pool = |first: u16| {
            let its = first..self.backends.min(first + POOL);
            let backends = its.map(|n| (format!("b{n}"), address(n), 100)).collect();
            Pool { name: format!("p{}", first / POOL), affinity: None, backends }
        };
        let pools: Vec<Pool> = (0..self.backends).step_by(POOL.into()).map(pool).collect();
        let vips = (8_000..).zip(&pools).map(|(port, pool)| Vip::new(&pool.name, (WWW4, port), "tcp", &pool.name));
        let text = Services { vips: vips.collect(), pools }.to_string();
        text.replace("    backends:", &format!("    {}\n    backends:", self.check()))
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

impl Checks {
    /// A daemon that checks nothing yet.
    ///
    /// # Errors
    /// If the lab does not come up.
    pub fn new() -> Result<Self> {
        // The third backend is on the load balancer's own segment: no router's work is mistaken for the daemon's.
        let lab = Lab::new(Topology::new(1, 3))?;
        let one = addresses::on_link(13).v4;
        lab.netns("web3").ip(&[format!("route add local {MANY} dev lo")])?;
        let ways = [MANY, &format!("{WWW4}/32")].map(|to| format!("route add {to} via {one} dev {NEAR}"));
        lab.netns("lb1").ip(&ways)?;
        let authority = lab.directory().join(AUTHORITY);
        let mut command = Command::new(binary("maglev-lab")?);
        let [port, talks, tls] = PORTS.map(|port| port.to_string());
        command.args(["serve", "--name", "web3", "--port", &port, "--talk-port", &talks, "--tls-port", &tls]);
        let mut server =
            Process::start("web3", &lab.netns("web3"), &lab.directory(), command.arg("--authority").arg(authority))?;
        server.await_line("listening")?;
        let decap = decapsulate(&lab, "web3", &lab.directory().join("web3.counters"))?;
        let balancer = Balancer::start(&lab, 1, &Settings::new(1), &Services::default())?;
        Ok(Self { balancer, _processes: [decap, server], _lab: lab })
    }

    /// The load balancer.
    pub const fn balancer(&mut self) -> &mut Balancer {
        &mut self.balancer
    }

    /// Checks backends, and measures for as long, once all are healthy.
    ///
    /// # Errors
    /// If they do not become healthy, or do not stay so.
    pub fn cost(&mut self, case: Case, lasts: Duration) -> Result<Cost> {
        self.serve(&Services::default().to_string())?;
        let idle = self.measure(lasts / 2)?;
        self.serve(&case.services())?;
        let healthy = |status: &serde_json::Value| {
            let all = status["backends"].as_array().into_iter().flatten();
            all.filter(|backend| backend["health"]["state"] == "healthy").count() == usize::from(case.backends)
        };
        self.balancer.await_status("healthy backends", healthy)?;
        // Before that, the server's route had to be resolved: a backend that was checked meanwhile was not healthy.
        let known = self.balancer.log().len();
        let core = self.measure(lasts)?;
        self.balancer.await_status("healthy backends", healthy)?;
        let log = self.balancer.log();
        let meanwhile = log.get(known..).unwrap_or_default();
        anyhow::ensure!(!meanwhile.contains("is unhealthy"), "{meanwhile}");
        Ok(Cost { core, idle })
    }

    /// The part of one core that the daemon has for this long.
    fn measure(&self, lasts: Duration) -> Result<f64> {
        let (before, began) = (self.balancer.cpu_time()?, Instant::now());
        thread::sleep(lasts);
        let spent = self.balancer.cpu_time()? - before;
        Ok(spent.as_secs_f64() / began.elapsed().as_secs_f64())
    }

    fn serve(&self, services: &str) -> Result<()> {
        fs::write(self.balancer.services(), services).context("services.yaml")?;
        // Each case replaces what the last one served.
        self.balancer.maglev_ok(&["reload", "--force"]).map(drop)
    }
}
