//! The changes to a backend that take no time: made by `maglev backend`, previewed by `maglev plan backend`.

use std::net::IpAddr;

use clap::Subcommand;
use maglev_model::{Mtu, Name, Weight, parse_address};

/// The changes to a backend that take no time.
#[derive(Debug, Subcommand)]
pub(super) enum Change {
    /// Add a backend to a pool
    Add {
        /// The pool
        pool: Name,
        /// Its name, unique in the pool
        name: Name,
        /// The destination of encapsulated packets, IPv4 or IPv6
        #[arg(long, value_parser = parse_address)]
        address: IpAddr,
        /// Its share relative to the pool's other backends, 0 to 65535; 0 gets no new flows
        #[arg(long, default_value_t = Weight::DEFAULT)]
        weight: Weight,
        /// The MTU of the path to it, where a link on it is smaller than the node's interface and route show: 1280 to 16382 bytes
        #[arg(long)]
        mtu: Option<Mtu>,
    },
    /// Remove a backend; its flows go to others at once
    Remove {
        /// Its pool
        pool: Name,
        /// Its name
        name: Name,
        /// Even if connections are dropped, or it is the pool's last available backend
        #[arg(long)]
        force: bool,
    },
    /// Send a draining backend new connections again
    Undrain {
        /// Its pool
        pool: Name,
        /// Its name
        name: Name,
    },
    /// Stop all traffic to a backend; its connections are dropped
    Disable {
        /// Its pool
        pool: Name,
        /// Its name
        name: Name,
        /// Even if it is the pool's last available backend
        #[arg(long)]
        force: bool,
    },
    /// Send a disabled backend connections again
    Enable {
        /// Its pool
        pool: Name,
        /// Its name
        name: Name,
    },
    /// Change a backend's weight
    Weight {
        /// Its pool
        pool: Name,
        /// Its name
        name: Name,
        /// The new weight, 0 to 65535; 0 gets no new flows
        weight: Weight,
        /// Even if that leaves the pool without an available backend
        #[arg(long)]
        force: bool,
    },
}
