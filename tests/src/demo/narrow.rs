//! The demo's narrow links: a download behind a hop whose MTU shrinks while it runs, and an upload across small links to backends.

use std::{thread, time::Duration, time::Instant};

use anyhow::{Context, Result, bail, ensure};

use super::stage::Stage;
use crate::{
    bytes,
    client::download::Downloaded,
    lab::{
        Backend, Place, addresses,
        addresses::WWW4,
        site::{Site, counter},
    },
};

/// The length of each transfer in bytes.
const LENGTH: u64 = 16 << 20;
/// The MTU of the hop to the client, and of links to backends.
const HOP: u16 = 1_280;
const LINK: u16 = 1_400;
/// How many uploads are tried for one to a backend behind a small link.
const TRIES: usize = 20;
/// How long an error may take to reach a node.
const PATIENCE: Duration = Duration::from_secs(10);
/// The polling interval of waits.
const LOOK: Duration = Duration::from_millis(50);

impl Stage {
    /// A download while the router's link to the client shrinks: the router's errors reach the backend by either node.
    pub(super) fn narrow_hop(&mut self, home: &str) -> Result<()> {
        let Site { lab, .. } = &self.site;
        let router = lab.netns("router");
        let before = counted(&self.site, "icmp_error")?;
        let download = lab.client().download_slowly((WWW4, Backend::PORT).into(), home, LENGTH)?;
        router.ip(&[format!("link set client mtu {HOP}")])?;
        let began = Instant::now();
        while counted(&self.site, "icmp_error")? == before {
            ensure!(began.elapsed() < PATIENCE, "the router's link to the client is narrow, and no node saw an error");
            thread::sleep(LOOK);
        }
        let Downloaded { length, took } = download.finish().context("a download behind a narrow hop")?;
        let errors = counted(&self.site, "icmp_error")? - before;
        router.ip(&["link set client mtu 1500".to_owned()])?;
        self.seen.push(format!(
            "router$ ip link set client mtu {HOP}: a download of {length} bytes from {home} goes on, {:.1} s in all; {errors} errors \
             of the router reached it by the nodes",
            took.as_secs_f64()
        ));
        Ok(())
    }

    /// An upload to a backend whose link takes no packet of full length with its outer header.
    pub(super) fn narrow_links(&mut self) -> Result<()> {
        let far: Vec<u8> = (1..)
            .zip(&self.site.lab.topology().backends)
            .filter(|(_, place)| **place == Place::BehindRouter)
            .map(|(n, _)| n)
            .collect();
        self.set_links(&far, "add", &format!(" mtu {LINK}"), LINK)?;
        let before = counted(&self.site, "packet_too_big")?;
        let (client, names) = (self.site.lab.client(), far.iter().map(|n| format!("web{n}")).collect::<Vec<_>>());
        let mut found = None;
        for _ in 0..TRIES {
            let began = Instant::now();
            let receipt =
                client.upload((WWW4, Backend::PORT).into(), LENGTH).context("an upload across a small link")?;
            ensure!(receipt.sha256 == bytes::digest(LENGTH), "other bytes were uploaded");
            if names.contains(&receipt.name) {
                found = Some((receipt.name, began.elapsed()));
                break;
            }
        }
        let Some((name, took)) = found else { bail!("none of {TRIES} uploads went to {}", names.join(", ")) };
        let answers = counted(&self.site, "packet_too_big")? - before;
        ensure!(answers > 0, "no packet was answered with the MTU");
        self.set_links(&far, "del", "", 1_600)?;
        self.seen.push(format!(
            "links of {LINK} bytes to {}: an upload of {LENGTH} bytes to {name} takes {:.1} s; {answers} packets were answered with \
             the MTU",
            names.join(", "),
            took.as_secs_f64()
        ));
        Ok(())
    }

    /// Adds or deletes each node's routes with an MTU to backends, and sets the MTU of these backends' links.
    fn set_links(&self, backends: &[u8], action: &str, metric: &str, mtu: u16) -> Result<()> {
        let lab = &self.site.lab;
        for n in 1..=lab.topology().balancers {
            let route = |backend: &u8| {
                let (to, via) = (addresses::behind_router(*backend, 2).v4, addresses::balancer(n, 1).v4);
                format!("route {action} {to} via {via}{metric}")
            };
            lab.netns(&format!("lb{n}")).ip(&backends.iter().map(route).collect::<Vec<_>>())?;
        }
        lab.netns("router").ip(&backends.iter().map(|n| format!("link set web{n} mtu {mtu}")).collect::<Vec<_>>())
    }
}

/// A counter of all nodes.
fn counted(site: &Site, name: &str) -> Result<u64> {
    site.balancers.iter().map(|balancer| counter(&balancer.maglev_json(&["counters"])?, name)).sum()
}
