//! `maglev-lab`: the program that runs inside the lab's namespaces (`serve`), and the demo that builds a lab around it.

use std::{
    net::{Ipv6Addr, SocketAddrV6},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use maglev_e2e::{demo, server};

/// The lab's own program.
#[derive(Parser)]
#[command(name = "maglev-lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer HTTP requests and UDP datagrams with a backend's name.
    Serve {
        /// The name to answer with.
        #[arg(long)]
        name: String,
        /// TCP and UDP port.
        #[arg(long, default_value_t = 80)]
        port: u16,
        /// Address to listen on; `::` takes IPv4 as well.
        #[arg(long, default_value_t = Ipv6Addr::UNSPECIFIED)]
        address: Ipv6Addr,
    },
    /// Build a lab, send requests through it while its backends change, and check where they went.
    Demo(demo::DemoArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve { name, port, address } => serve(&name, SocketAddrV6::new(address, port, 0, 0)),
        Command::Demo(args) => demo::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(name: &str, address: SocketAddrV6) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio runtime")?;
    runtime.block_on(server::serve(name, address, || println!("listening")))
}
