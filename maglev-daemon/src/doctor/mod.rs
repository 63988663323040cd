//! `doctor`: gathers the facts about this host, and returns the findings. It must not know how findings are made, nor the daemon's
//! tasks: what the daemon knows is given.

mod backend;
mod network;

use std::path::Path;

use maglev_api::view::{BgpNeighbors, Findings, Status};
use maglev_config::{NodeConfig, Problems};
use maglev_doctor::facts::{Config, Daemon, Fact, File, Host, Node, Rehearsal, Role};
use maglev_doctor::gather::{self, Gather};
use maglev_model::Services;
use maglev_model::digest::Digest;

pub use backend::backend;
use network::Network;

/// What an examination is given beside the files.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// VIPs that this machine cannot serve, with the reasons.
    pub conflicts: Option<Fact<Vec<(String, String)>>>,
    /// What a start would do.
    pub rehearsal: Option<Fact<Rehearsal>>,
    /// What the running daemon says.
    pub daemon: Option<(Status, BgpNeighbors)>,
}

/// Examines this node; takes seconds, and blocks.
pub fn node(path: &Path, loaded: &Result<(NodeConfig, Services), Problems>, given: Given) -> Findings {
    let gather = Gather::default();
    let Given { conflicts, rehearsal, daemon } = given;
    let attached = daemon.as_ref().map(|(status, _)| attached(status));
    let daemon = daemon.map(|(status, BgpNeighbors(sessions))| Daemon { status, sessions });
    let facts = match loaded {
        Err(problems) => Node {
            config: Err(problems.iter().map(ToString::to_string).collect()),
            files: vec![gather::file(path, Role::Secret)],
            host: host(&gather, None),
            interfaces: Ok(Vec::new()),
            backends: Ok(Vec::new()),
            vips: Ok(Vec::new()),
            neighbors: Ok(Vec::new()),
            conflicts: Ok(Vec::new()),
            rehearsal: None,
            daemon,
        },
        Ok((node, services)) => {
            let Network { interfaces, backends, vips, neighbors } =
                network::of_node(&gather, node, services, attached.as_deref());
            Node {
                config: Ok(config(node, services)),
                files: files(path, node),
                host: host(&gather, node.pin.as_deref()),
                interfaces,
                backends,
                vips,
                neighbors,
                conflicts: conflicts.unwrap_or_else(|| Ok(Vec::new())),
                rehearsal,
                daemon,
            }
        }
    };
    maglev_doctor::node(&facts)
}

/// The interfaces that the daemon has attached its program to.
fn attached(status: &Status) -> Vec<String> {
    let attached = status.interfaces.iter().filter(|interface| interface.attached);
    attached.map(|interface| interface.name.clone()).collect()
}

fn config(node: &NodeConfig, services: &Services) -> Config {
    let neighbors = node.bgp.iter().flat_map(|bgp| &bgp.neighbors);
    Config {
        neighbors: neighbors.map(|neighbor| (neighbor.name.clone(), neighbor.address)).collect(),
        services_digest: Digest::from_services(services).to_string(),
        hash_key_digest: Digest::from_key(node.hash_key).to_string(),
    }
}

fn files(path: &Path, node: &NodeConfig) -> Vec<File> {
    let state = node.services.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    [(path, Role::Secret), (&*node.services, Role::Services), (state, Role::State), (&*node.socket, Role::Socket)]
        .map(|(path, role)| gather::file(path, role))
        .into()
}

/// The machine.
fn host(gather: &Gather, pin: Option<&Path>) -> Host {
    Host {
        missing_feature: Ok(maglev_dataplane::examine::missing_feature()),
        jit: gather.jit(),
        pin: pin.map(gather::pin),
        clock: gather.clock(),
        cpus: gather.cpus(),
        memory: gather.memory(),
    }
}
