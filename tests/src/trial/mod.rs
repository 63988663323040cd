//! A trial: a site whose pools serve held connections while their backends change. The affinity tests and the demo share
//! it; which changes come in which order is theirs.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    client::held::{Break, Held, Plan, Report, Seen},
    lab::{
        Affinity, Backend, Balancer, Lab, NEAR, Pool, Services, Settings, Site, Topology, UPLINK, Vip,
        addresses::{ALT4, ALT6, WWW4, WWW6},
    },
};

mod change;

pub use change::Change;

/// The VIPs of the first pool and of the second, a pair of both families each.
const VIPS: [[IpAddr; 2]; 2] = [[WWW4, WWW6], [ALT4, ALT6]];
/// The weight of a backend that nothing is said of.
const WEIGHT: u32 = 100;
/// The polling interval of waits.
const LOOK: Duration = Duration::from_millis(100);
/// How long connections that are ordered to leave may take: a second and an exchange.
const LEFT_WITHIN: Duration = Duration::from_secs(30);
/// A load balancer's links share their rings with a flood: its neighbors are asked so often until they count as gone.
const NEIGHBOUR_PROBES: &str = "20";

/// The site to build and the connections to hold.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Load balancers.
    pub balancers: u8,
    /// Backends, all in every pool from the start.
    pub backends: u8,
    /// Further ones, in no pool yet.
    pub spare: u8,
    /// A pool for each of these ways of tracking, with the same backends and the same trace: one or two.
    pub tracking: &'static [&'static str],
    /// The pools' learning time, in seconds.
    pub learning: u64,
    /// The pools' idle time, in seconds.
    pub idle: u64,
    /// Connections held by each pool.
    pub held: usize,
    /// How often the others speak, give or take a half.
    pub pace: Duration,
    /// How long a fifth of them is silent at a time.
    pub silence: Duration,
    /// Connections of each pool that come and go, in a second.
    pub arrivals: u32,
    /// Entries of each load balancer's flow table on each CPU; the release's default if nothing is said.
    pub flows: Option<u32>,
    /// What happens to a data plane whose daemon is stopped: `detach` or `keep`.
    pub on_stop: &'static str,
}

/// A site under held connections.
#[derive(Debug)]
pub struct Trial {
    learning: Duration,
    idle: Duration,
    /// The pools, and what each one holds. Ended before the site goes.
    pools: Vec<(&'static str, Held)>,
    /// The place of the load balancer whose daemon does not run.
    away: Option<usize>,
    /// Where it takes place.
    pub site: Site,
}

impl Setting {
    fn services(&self, lab: &Lab) -> Services {
        let weights: Vec<(u8, u32)> = (1..=self.backends).map(|n| (n, WEIGHT)).collect();
        let Self { learning, idle, .. } = *self;
        let pool = |&tracking: &&'static str| Pool {
            affinity: Some(Affinity { tracking, learning, idle }),
            ..lab.pool(tracking, WWW4, &weights)
        };
        let vips = |(pool, addresses): (&&'static str, [IpAddr; 2])| {
            addresses.map(|address| {
                let name = format!("{pool}{}", if address.is_ipv4() { 4 } else { 6 });
                Vip::new(&name, (address, Backend::TALK_PORT), "tcp", pool)
            })
        };
        let pools = self.tracking.iter();
        Services { pools: pools.clone().map(pool).collect(), vips: pools.zip(VIPS).flat_map(vips).collect() }
    }

    fn settings(&self, n: u8) -> Settings {
        let flows = self.flows.map(|flows| format!("flow_table: {{ flows: {flows} }}\n"));
        Settings { more: flows.unwrap_or_default(), on_stop: self.on_stop, ..Settings::new(n) }
    }

    fn plan(&self, vips: [IpAddr; 2]) -> Plan {
        Plan {
            targets: vips.map(|vip| SocketAddr::from((vip, Backend::TALK_PORT))).to_vec(),
            held: self.held,
            arrivals: self.arrivals,
            pace: self.pace,
            silence: self.silence,
            seed: 1,
        }
    }
}

impl Trial {
    /// Builds the site and opens every connection.
    ///
    /// # Errors
    /// If anything does not come up.
    pub fn begin(setting: &Setting) -> Result<Self> {
        let topology = Topology::new(setting.balancers, setting.backends + setting.spare);
        let site = Site::with_settings(topology, |lab| setting.services(lab), |n| setting.settings(n))?;
        site.balancers.iter().try_for_each(insist_on_neighbors)?;
        let pools = setting.tracking.iter().zip(VIPS);
        let pools: Vec<_> = pools.map(|(&name, vips)| (name, site.lab.client().hold(setting.plan(vips)))).collect();
        for (name, held) in &pools {
            held.await_open().with_context(|| format!("pool {name}"))?;
        }
        let [learning, idle] = [setting.learning, setting.idle].map(Duration::from_secs);
        Ok(Self { learning, idle, pools, away: None, site })
    }

    /// From now on, the daemon of the load balancer at this place does not run: changes and waits are for the others.
    pub fn leave_out(&mut self, away: Option<usize>) {
        self.away = away;
    }

    /// The load balancers whose daemon runs.
    pub fn present(&self) -> impl Iterator<Item = &Balancer> {
        self.site.balancers.iter().enumerate().filter(|(n, _)| self.away != Some(*n)).map(|(_, balancer)| balancer)
    }

    /// The connections of all pools so far.
    pub fn so_far(&self) -> Seen {
        self.pools.iter().map(|(_, held)| held.so_far()).fold(Seen::default(), |sum, seen| sum + seen)
    }

    /// The connections of all pools that have broken so far.
    pub fn breaks(&self) -> Vec<Break> {
        self.pools.iter().flat_map(|(_, held)| held.breaks()).collect()
    }

    /// Makes a change in every pool on every load balancer; returns the time at which the last had acknowledged it.
    ///
    /// # Errors
    /// If a load balancer refuses it.
    pub fn change(&self, change: Change) -> Result<Instant> {
        for balancer in self.present() {
            for (pool, _) in &self.pools {
                balancer.maglev_ok(&change.command(pool, &self.site.lab).split(' ').collect::<Vec<_>>())?;
            }
        }
        Ok(Instant::now())
    }

    /// Gives every pool other times.
    ///
    /// # Errors
    /// If a load balancer refuses them.
    pub fn learn_for(&mut self, learning: Duration, idle: Duration) -> Result<()> {
        let [learning_text, idle_text] = [learning, idle].map(|time| format!("{}s", time.as_secs()));
        for balancer in self.present() {
            for (pool, _) in &self.pools {
                balancer.maglev_ok(&["pool", "set", pool, "--learning", &learning_text, "--idle", &idle_text])?;
            }
        }
        (self.learning, self.idle) = (learning, idle);
        Ok(())
    }

    /// Waits until no slot is learning any more on any load balancer, and then until every connection has spoken once.
    ///
    /// # Errors
    /// If slots go on learning, or a connection does not speak.
    pub fn await_learned(&self) -> Result<()> {
        self.await_slots()?;
        self.await_spoken()
    }

    /// Waits until no slot is learning any more on any load balancer.
    ///
    /// # Errors
    /// If slots go on learning.
    pub fn await_slots(&self) -> Result<()> {
        let (began, longest) = (Instant::now(), self.learning * 2);
        for balancer in self.present() {
            for (pool, _) in &self.pools {
                loop {
                    let shown = balancer.maglev_json(&["pool", "show", pool])?;
                    let shown = &shown["in_transition"];
                    if shown["learning_slots"] == 0 {
                        break;
                    }
                    ensure!(began.elapsed() < longest, "{}: pool {pool} learns and learns: {shown}", balancer.name());
                    thread::sleep(LOOK);
                }
            }
        }
        Ok(())
    }

    /// Waits until every connection has spoken once more.
    ///
    /// # Errors
    /// If one does not.
    pub fn await_spoken(&self) -> Result<()> {
        let now = Instant::now();
        self.pools.iter().try_for_each(|(name, held)| {
            held.await_spoken(now).with_context(|| format!("pool {name}"))?;
            Ok(())
        })
    }

    /// Lets a part of the learning time pass since then, the trace's own clock: nothing else is waited for.
    pub fn pass_learning(&self, since: Instant, part: f64) {
        thread::sleep((since + self.learning.mul_f64(part)).saturating_duration_since(Instant::now()));
    }

    /// Half of the connections is silent for nine tenths of the learning time.
    pub fn hush(&self) {
        self.pools.iter().for_each(|(_, held)| held.hush(self.learning * 9 / 10));
    }

    /// How many connections live on each backend, over all pools.
    pub fn homes(&self) -> BTreeMap<String, usize> {
        let mut homes = BTreeMap::new();
        for (name, count) in self.pools.iter().flat_map(|(_, held)| held.homes()) {
            *homes.entry(name).or_default() += count;
        }
        homes
    }

    /// Connections on this backend move elsewhere: it is draining.
    pub fn leave(&self, n: u8) {
        self.pools.iter().for_each(|(_, held)| held.leave(&format!("web{n}")));
    }

    /// Waits until no held connection lives on this backend, be it that the load balancers do not know yet.
    ///
    /// # Errors
    /// If one stays.
    pub fn await_left(&self, n: u8) -> Result<()> {
        let (name, began) = (format!("web{n}"), Instant::now());
        while self.pools.iter().any(|(_, held)| held.homes().contains_key(&name)) {
            ensure!(began.elapsed() < LEFT_WITHIN, "connections stay on {name}");
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Waits until every load balancer says of this draining backend that no flow is left to it.
    ///
    /// # Errors
    /// If flows stay for longer than half a minute beyond the learning and the idle time.
    pub fn await_drained(&self, n: u8) -> Result<()> {
        let timeout = format!("{}s", (self.learning + self.idle).as_secs() + 30);
        for balancer in self.present() {
            for (pool, _) in &self.pools {
                let backend = format!("web{n}");
                balancer.maglev_ok(&["backend", "drain", pool, &backend, "--wait", "--timeout", &timeout])?;
            }
        }
        Ok(())
    }

    /// Ends a backend's server and starts it again: connections that still live on it are cut.
    ///
    /// # Errors
    /// If it does not come back.
    pub fn restart(&mut self, n: u8) -> Result<()> {
        let from = Instant::now();
        self.site.backends[usize::from(n) - 1].restart(&self.site.lab)?;
        let until = Instant::now();
        self.pools.iter_mut().for_each(|(_, held)| held.was_cut(&format!("web{n}"), [from, until]));
        Ok(())
    }

    /// Lets every connection say a last word; returns each pool's report.
    ///
    /// # Errors
    /// If the client could not run.
    pub fn finish(self) -> Result<Vec<Report>> {
        self.pools.into_iter().map(|(_, held)| held.finish()).collect()
    }
}

fn insist_on_neighbors(balancer: &Balancer) -> Result<()> {
    let keys = [UPLINK, NEAR].map(|device| ["ipv4", "ipv6"].map(|ip| format!("net.{ip}.neigh.{device}.ucast_solicit")));
    balancer.netns().sysctl(&keys.as_flattened().iter().map(|key| (key.as_str(), NEIGHBOUR_PROBES)).collect::<Vec<_>>())
}
