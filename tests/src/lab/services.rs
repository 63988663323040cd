//! The two configuration files a load balancer reads, as the lab writes them.

use std::{
    fmt::{self, Display, Formatter},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

/// `services.yaml`: pools and VIPs.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// Pools, each with its backends.
    pub pools: Vec<Pool>,
    /// VIPs.
    pub vips: Vec<Vip>,
}

/// A pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// How its flows stay where they are; the release's defaults if nothing is said.
    pub affinity: Option<Affinity>,
    /// Its backends: name, address, weight.
    pub backends: Vec<(String, IpAddr, u32)>,
}

/// A pool's tracking, and the times of its transitions in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// `exception` or `always`.
    pub tracking: &'static str,
    /// How long the previous owner gets unknown flows.
    pub learning: u64,
    /// How long a silent flow is remembered.
    pub idle: u64,
}

/// A VIP.
#[derive(Clone, Debug)]
pub struct Vip {
    /// Its name.
    pub name: String,
    /// Address and port.
    pub at: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The pool it sends to.
    pub pool: String,
}

impl Display for Services {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "pools:{}", if self.pools.is_empty() { " []" } else { "" })?;
        for Pool { name, affinity, backends } in &self.pools {
            writeln!(f, "  - name: {name}")?;
            if let Some(Affinity { tracking, learning, idle }) = affinity {
                writeln!(f, "    tracking: {tracking}")?;
                writeln!(f, "    transition: {{ learning: {learning}s, idle: {idle}s }}")?;
            }
            writeln!(f, "    backends:{}", if backends.is_empty() { " []" } else { "" })?;
            for (name, address, weight) in backends {
                writeln!(f, "      - {{ name: {name}, address: \"{address}\", weight: {weight} }}")?;
            }
        }
        writeln!(f, "vips:{}", if self.vips.is_empty() { " []" } else { "" })?;
        for Vip { name, at, protocol, pool } in &self.vips {
            let (address, port) = (at.ip(), at.port());
            writeln!(
                f,
                "  - {{ name: {name}, address: \"{address}\", port: {port}, protocol: {protocol}, pool: {pool} }}"
            )?;
        }
        Ok(())
    }
}

/// `maglev.yaml`: one load balancer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Interfaces and their mode, `native` or `generic`.
    pub interfaces: Vec<(String, &'static str)>,
    /// Outer source prefixes, IPv4 and IPv6.
    pub sources: [Option<String>; 2],
    /// 32 hexadecimal digits.
    pub hash_key: String,
    /// The socket that serves reads alone, if there is one.
    pub read_socket: Option<PathBuf>,
    /// What happens to the data plane when the daemon is stopped: `detach` or `keep`.
    pub on_stop: &'static str,
    /// Further lines of the file.
    pub more: String,
}

/// The hash key of every load balancer in the lab.
pub const HASH_KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

impl Settings {
    /// The file's text; `services` and `socket` are the paths it names. What the daemon pins lies where [`pin_folder`] says.
    pub fn to_yaml(&self, services: &Path, socket: &Path) -> String {
        let Self { interfaces, sources, hash_key, read_socket, on_stop, more } = self;
        let interfaces: String =
            interfaces.iter().map(|(name, mode)| format!("  - {{ name: {name}, mode: {mode} }}\n")).collect();
        let given = ["source", "source6"].into_iter().zip(sources);
        let sources: String =
            given.filter_map(|(key, source)| Some(format!(", {key}: \"{}\"", source.as_ref()?))).collect();
        let reads: String = read_socket.iter().map(|path| format!(", read_socket: {}", path.display())).collect();
        format!(
            "interfaces:\n{interfaces}encap: {{ kind: ipip{sources} }}\nhash_key: \"{hash_key}\"\nservices: {}\n\
             api: {{ socket: {}{reads}, metrics: \"127.0.0.1:9642\" }}\n\
             dataplane: {{ pin: {}, on_stop: {on_stop} }}\n{more}",
            services.display(),
            socket.display(),
            pin_folder(socket).display(),
        )
    }
}

/// The pin folder of the daemon with this socket: each has one of its own, which goes with its lab.
pub(super) fn pin_folder(socket: &Path) -> PathBuf {
    let directory = socket.parent().unwrap_or(socket);
    Path::new(BPF).join(directory.strip_prefix("/run").unwrap_or(directory))
}

/// The BPF file system.
pub(super) const BPF: &str = "/sys/fs/bpf";
