//! A lab: the namespaces and links, the backends' servers and `decap` programs, the load balancers.

use std::{
    env,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::{sys::resource, unistd::geteuid};

use crate::client::Client;
use addresses::{BALANCERS_AS, ROUTER_AS};

mod backend;
mod balancer;
mod pinned;
mod process;
pub mod registry;
pub mod router;
mod services;
pub mod site;
mod topology;
mod unhash;

pub use crate::addresses::{self, FLOWS_CPU};
pub use crate::netns::Netns;
pub use backend::Backend;
pub(crate) use backend::decapsulate;
pub use balancer::{AUTHORITY, Answer, Balancer, NOTIFY, Start, WATCHDOG, maglev};
pub use process::Process;
pub use router::Router;
pub use services::{Affinity, HASH_KEY, Pool, Services, Settings, Vip};
pub use site::{Packets, Site};
pub use topology::{NEAR, Place, Topology, UPLINK};

/// A built lab. Dropping it ends its processes and removes its namespaces and files.
#[derive(Debug)]
pub struct Lab {
    topology: Topology,
    client: Client,
    /// The pass programs; ended before the namespaces go.
    passing: Vec<Process>,
    // The last field: dropped after everything that lives in the namespaces.
    claim: registry::Claim,
}

impl Lab {
    /// Builds the links; nothing runs yet.
    ///
    /// # Errors
    /// If this is not root, a tool is missing, or the kernel refuses a step.
    pub fn new(topology: Topology) -> Result<Self> {
        ensure!(is_root(), "the lab needs root: it makes network namespaces and loads programs into the kernel");
        let (_, most) = resource::getrlimit(resource::Resource::RLIMIT_NOFILE)?;
        resource::setrlimit(resource::Resource::RLIMIT_NOFILE, most.min(65_536), most)?;
        let claim = registry::Claim::new()?;
        topology::build(&topology, &claim)?;
        let client = Client::new(claim.netns("client"), addresses::CLIENTS.map(addresses::client).collect());
        Ok(Self { topology, client, passing: Vec::new(), claim })
    }

    /// The topology.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The namespace of a node: `client`, `router`, `switch`, `lb1`, `web1` and so on.
    pub fn netns(&self, node: &str) -> Netns {
        self.claim.netns(node)
    }

    /// The directory of configuration files, sockets and logs.
    pub fn directory(&self) -> PathBuf {
        self.claim.directory()
    }

    /// The client in the client's namespace; there is one, so that no port is used twice in a while.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The address of backend `web<n>` of the family that `like` has.
    pub fn backend_address(&self, n: u8, like: IpAddr) -> IpAddr {
        let place = self.topology.backends[usize::from(n) - 1];
        Topology::backend_address(n, place).like(like)
    }

    /// The names of all backends.
    pub fn backend_names(&self) -> Vec<String> {
        (1..=self.topology.backends.len()).map(|n| format!("web{n}")).collect()
    }

    /// Starts every backend's server.
    ///
    /// # Errors
    /// If one does not come up.
    pub fn start_servers(&self) -> Result<Vec<Backend>> {
        self.backend_names().into_iter().map(|name| Backend::start(self, name)).collect()
    }

    /// Starts every backend: server and `decap`; and the pass programs that a transmitting veth's peer needs.
    ///
    /// # Errors
    /// If a process does not come up.
    pub fn start_backends(&mut self) -> Result<Vec<Backend>> {
        self.start_backends_but("")
    }

    /// The same for all but one, which is something else.
    ///
    /// # Errors
    /// As above.
    pub fn start_backends_but(&mut self, other: &str) -> Result<Vec<Backend>> {
        self.start_passing()?;
        let names = self.backend_names().into_iter().filter(|name| name != other);
        let mut backends = names.map(|name| Backend::start(self, name)).collect::<Result<Vec<_>>>()?;
        backends.iter_mut().try_for_each(|backend| backend.decapsulate(self))?;
        Ok(backends)
    }

    /// Leads the VIPs to these load balancers alone: the router hashes each flow to one of them.
    ///
    /// # Errors
    /// If the router refuses the routes.
    pub fn route_vips(&self, through: &[u8]) -> Result<()> {
        self.netns("router").ip(&topology::vip_routes("replace", through))
    }

    /// Lets another CPU than [`FLOWS_CPU`] carry what comes from the client from now on.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn carry_flows_on(&self, cpu: usize) -> Result<()> {
        topology::one_cpu_a_flow(["client"].into_iter(), &self.netns("router"), cpu)
    }

    /// Starts the router that the topology names, if it names one.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_router(&self) -> Result<Option<Router>> {
        self.topology.router.map(|kind| Router::start(self, kind)).transpose()
    }

    /// Starts every load balancer with the same services, and waits until they can forward.
    ///
    /// # Errors
    /// If one does not come up.
    pub fn start_balancers(&self, services: &Services, settings: impl Fn(u8) -> Settings) -> Result<Vec<Balancer>> {
        (1..=self.topology.balancers)
            .map(|n| {
                let mut balancer = Balancer::start(self, n, &settings(n), services)?;
                balancer.await_next_hops()?;
                Ok(balancer)
            })
            .collect()
    }

    /// A pool of backends with these weights, reached by addresses of the family that `like` has.
    pub fn pool(&self, name: &str, like: IpAddr, weights: &[(u8, u32)]) -> Pool {
        let backends = weights.iter().map(|&(n, weight)| (format!("web{n}"), self.backend_address(n, like), weight));
        Pool { name: name.to_owned(), affinity: None, backends: backends.collect() }
    }

    /// Lets the lab stand when it is dropped.
    ///
    /// # Errors
    /// If the mark for later runs cannot be written.
    pub fn keep(&mut self) -> Result<()> {
        self.passing.iter_mut().for_each(Process::keep);
        self.claim.keep()
    }

    /// A veth drops what is transmitted or redirected to it unless its peer runs an XDP program too.
    fn start_passing(&mut self) -> Result<()> {
        let ports: Vec<String> = (1..=self.topology.balancers).map(|n| format!("lb{n}")).collect();
        for node in ["router", "switch"] {
            let mut command = Command::new(binary("maglevd")?);
            command.arg("pass").args(ports.iter().flat_map(|port| ["--interface", port]));
            let mut process =
                Process::start(&format!("{node}-pass"), &self.netns(node), &self.directory(), &mut command)?;
            process.await_line("ready")?;
            self.passing.push(process);
        }
        Ok(())
    }
}

impl Settings {
    /// Load balancer `n`: native XDP on both interfaces, outer sources of its own.
    pub fn new(n: u8) -> Self {
        Self {
            interfaces: [UPLINK, NEAR].map(|name| (name.to_owned(), "native")).to_vec(),
            sources: addresses::outer_sources(n.into()).map(Some),
            hash_key: HASH_KEY.to_owned(),
            read_socket: None,
            on_stop: "detach",
            more: String::new(),
        }
    }

    /// The same, and it announces its VIPs to the router over both families. The router keeps them while a daemon that died
    /// is started again.
    pub fn announcing(n: u8) -> Self {
        let (router, own) = (addresses::balancer(n, 1), addresses::balancer(n, 2));
        let neighbor = |name: &str, address: IpAddr| {
            format!("    - {{ name: {name}, address: \"{address}\", remote_as: {ROUTER_AS}, gtsm: true }}\n")
        };
        let more = format!(
            "bgp:\n  local_as: {BALANCERS_AS}\n  router_id: {}\n  graceful_restart: 30s\n  neighbors:\n{}{}",
            own.v4,
            neighbor("router", router.v4.into()),
            neighbor("router6", router.v6.into())
        );
        Self { more, ..Self::new(n) }
    }
}

impl Vip {
    /// A VIP for `pool`; `protocol` is `tcp` or `udp`.
    pub fn new(name: &str, at: (IpAddr, u16), protocol: &'static str, pool: &str) -> Self {
        Self { name: name.to_owned(), at: SocketAddr::from(at), protocol, pool: pool.to_owned() }
    }
}

/// Whether this process may build a lab.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Whether an end-to-end test cannot run here; says why. As root no test is skipped.
pub fn skip() -> bool {
    if !is_root() {
        println!("skipped: the lab needs root");
    }
    !is_root()
}

/// The path of one of the workspace's programs: in `MAGLEV_BIN_DIR`; else where this program was built, or beside that
/// in `release`.
///
/// # Errors
/// If it is not there.
pub fn binary(name: &str) -> Result<PathBuf> {
    let folders = match env::var_os("MAGLEV_BIN_DIR") {
        Some(folder) => vec![PathBuf::from(folder)],
        None => {
            let program = env::current_exe().context("where is this program?")?;
            // Cargo puts test programs one level below the others.
            let own = program.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).unwrap_or(Path::new("."));
            vec![own.to_owned(), own.with_file_name("release")]
        }
    };
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!("no {name} in {folders:?}: build it with `cargo xtask build`, or name its folder in MAGLEV_BIN_DIR")
    })
}
