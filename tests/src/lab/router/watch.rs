//! Changes of the kernel's routes between two reads, which the reads alone do not show.

use std::{net::IpAddr, process::Command};

use anyhow::Result;

use super::Router;
use crate::lab::Process;

/// An unused route: its addition is the sign that changes are being reported.
const SIGN: &str = "198.19.255.255";

/// `ip monitor route` in the router's namespace, with every change since its start.
#[derive(Debug)]
pub struct Watch {
    monitor: Process,
}

impl Router {
    /// Begins to watch the kernel's routes.
    ///
    /// # Errors
    /// If `ip monitor` reports nothing.
    pub fn watch(&self) -> Result<Watch> {
        let mut command = Command::new("ip");
        let mut monitor =
            Process::start("monitor", &self.netns, &self.directory, command.args(["-oneline", "monitor", "route"]))?;
        let sign = |action: &str| self.netns.ip(&[format!("route {action} blackhole {SIGN}")]);
        monitor.await_event("a sign", |monitor| {
            sign("replace")?;
            sign("del")?;
            Ok(monitor.stdout()?.contains(SIGN))
        })?;
        Ok(Watch { monitor })
    }
}

impl Watch {
    /// The lines about an address's route.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn changes(&self, address: IpAddr) -> Result<Vec<String>> {
        let words = |line: &str| line.split_whitespace().any(|word| word == address.to_string());
        Ok(self.monitor.stdout()?.lines().filter(|line| words(line)).map(str::to_owned).collect())
    }
}
