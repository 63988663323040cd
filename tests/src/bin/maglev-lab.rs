//! `maglev-lab`: the program that runs inside the lab's namespaces (`serve`), and the demo and the soak that build a lab
//! around it.

use std::{
    net::{Ipv6Addr, SocketAddrV6},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use maglev_e2e::{
    demo,
    server::{self, Identity, Sockets},
    soak,
};

/// The lab's own program.
#[derive(Parser)]
#[command(name = "maglev-lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer HTTP requests, UDP datagrams and held connections with a backend's name.
    Serve {
        /// The name to answer with.
        #[arg(long)]
        name: String,
        /// TCP and UDP port.
        #[arg(long, default_value_t = 80)]
        port: u16,
        /// TCP port of the talk service, for connections that are held.
        #[arg(long, default_value_t = 7_000)]
        talk_port: u16,
        /// TCP port of HTTPS, which is not served otherwise.
        #[arg(long, requires = "authority")]
        tls_port: Option<u16>,
        /// Where to write whose word the certificate is.
        #[arg(long)]
        authority: Option<PathBuf>,
        /// Address to listen on; `::` takes IPv4 as well.
        #[arg(long, default_value_t = Ipv6Addr::UNSPECIFIED)]
        address: Ipv6Addr,
    },
    /// Build a lab, send requests through it while its backends change, and check where they went.
    Demo(demo::DemoArgs),
    /// Change, restart, upgrade and scrape load balancers under connections, in a cycle, and check that nothing grows.
    Soak(soak::SoakArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve { name, port, talk_port, tls_port, authority, address } => {
            serve(&name, address, [port, talk_port], tls_port.zip(authority))
        }
        Command::Demo(args) => demo::run(&args),
        Command::Soak(args) => soak::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(name: &str, address: Ipv6Addr, ports: [u16; 2], tls: Option<(u16, PathBuf)>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio runtime")?;
    let at = |port| SocketAddrV6::new(address, port, 0, 0);
    let [address, talks] = ports.map(at);
    let identity = |(port, authority): (u16, PathBuf)| {
        let identity = Identity::new()?;
        identity.write_authority(&authority)?;
        Ok::<_, anyhow::Error>((at(port), identity))
    };
    let at = Sockets { address, talks, tls: tls.map(identity).transpose()? };
    runtime.block_on(server::serve(name, at, || println!("listening")))
}
