//! The demo's narrow links: a download behind a hop whose MTU shrinks while it runs, and an upload across small links to backends.

use std::{process::Command, thread, time::Duration, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::stage::{POOL, Stage};
use crate::{
    bytes,
    client::download::Downloaded,
    lab::{
        Backend, Place, addresses,
        addresses::WWW4,
        site::{Site, counter},
    },
};

/// The lengths of the transfers in bytes.
const DOWN: u64 = 64 << 20;
const UP: u64 = 16 << 20;
/// The MTU of the hop to the client, and of links to backends.
const HOP: u16 = 1_280;
const LINK: u16 = 1_400;
/// What links to backends take otherwise, and bytes of the outer header.
const WIDE: u16 = 1_600;
const OUTER: u16 = 20;
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
        let download = lab.client().download_slowly((WWW4, Backend::PORT).into(), home, DOWN)?;
        router.ip(&[format!("link set client mtu {HOP}")])?;
        let began = Instant::now();
        while counted(&self.site, "icmp_error")? == before {
            ensure!(began.elapsed() < PATIENCE, "the router's link to the client is narrow, and no node saw an error");
            thread::sleep(LOOK);
        }
        let Downloaded { length, took, pause } = download.finish().context("a download behind a narrow hop")?;
        let errors = counted(&self.site, "icmp_error")? - before;
        router.ip(&["link set client mtu 1500".to_owned()])?;
        // What the backend learned of this client's path would lower the MSS of the client's next upload.
        lab.netns(home).output(Command::new("ip").args(["route", "flush", "cache"]))?;
        self.seen.push(format!(
            "router$ ip link set client mtu {HOP}: a download of {length} bytes from {home} goes on, {:.1} s in all, longest pause \
             {} ms; ICMP errors that reached it by the nodes: {errors}",
            took.as_secs_f64(),
            pause.as_millis()
        ));
        Ok(())
    }

    /// An upload to a backend whose link takes no packet of full length with its outer header.
    pub(super) fn narrow_links(&mut self) -> Result<()> {
        let far = self.far()?;
        let names: Vec<_> = far.iter().map(|n| format!("web{n}")).collect();
        // Nodes know of a narrow link before it is one, and of a wide link after it is one: no packet is lost between them.
        self.set_routes(&far, "add", &format!(" mtu {LINK}"))?;
        self.await_longest(&names, LINK - OUTER)?;
        self.set_links(&far, LINK)?;
        let before = counted(&self.site, "packet_too_big")?;
        let (name, took) = self.upload_to(&names)?;
        let answers = counted(&self.site, "packet_too_big")? - before;
        ensure!(answers > 0, "no packet was answered with the MTU");
        self.set_links(&far, WIDE)?;
        self.set_routes(&far, "del", "")?;
        self.await_longest(&names, WIDE - OUTER)?;
        self.seen.push(format!(
            "links of {LINK} bytes to {}: an upload of {UP} bytes to {name} takes {:.1} s; {answers} packets were answered with \
             the MTU",
            names.join(", "),
            took.as_secs_f64()
        ));
        Ok(())
    }

    /// The pool's backends behind the router.
    fn far(&mut self) -> Result<Vec<u8>> {
        let pool = self.balancer(1)?.maglev_json(&["backend", "list", POOL])?;
        let is_in_pool = |n: &u8| {
            let name = format!("web{n}");
            pool.as_array().is_some_and(|all| all.iter().any(|backend| backend["name"] == *name))
        };
        let places = (1..).zip(&self.site.lab.topology().backends);
        let far = places.filter(|(_, place)| **place == Place::BehindRouter).map(|(n, _)| n);
        Ok(far.filter(is_in_pool).collect())
    }

    /// Uploads until one goes to one of these backends; returns which, and how long that upload took.
    fn upload_to(&self, names: &[String]) -> Result<(String, Duration)> {
        for _ in 0..TRIES {
            let began = Instant::now();
            let receipt = self.site.lab.client().upload((WWW4, Backend::PORT).into(), UP);
            let receipt = receipt.context("an upload across a small link")?;
            ensure!(receipt.sha256 == bytes::digest(UP), "other bytes were uploaded");
            if names.contains(&receipt.name) {
                return Ok((receipt.name, began.elapsed()));
            }
        }
        bail!("none of {TRIES} uploads went to {}", names.join(", "))
    }

    /// Adds or deletes each node's routes to backends.
    fn set_routes(&self, backends: &[u8], action: &str, metric: &str) -> Result<()> {
        let lab = &self.site.lab;
        for n in 1..=lab.topology().balancers {
            let route = |backend: &u8| {
                let (to, via) = (addresses::behind_router(*backend, 2).v4, addresses::balancer(n, 1).v4);
                format!("route {action} {to} via {via}{metric}")
            };
            lab.netns(&format!("lb{n}")).ip(&backends.iter().map(route).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Sets the MTU of the router's links to backends.
    fn set_links(&self, backends: &[u8], mtu: u16) -> Result<()> {
        let lines: Vec<_> = backends.iter().map(|n| format!("link set web{n} mtu {mtu}")).collect();
        self.site.lab.netns("router").ip(&lines)
    }

    /// Waits until every node says that this is the longest packet to each of these backends.
    fn await_longest(&mut self, names: &[String], longest: u16) -> Result<()> {
        for balancer in &mut self.site.balancers {
            for name in names {
                let holds = |backend: &Value| backend["next_hop"]["longest_packet"] == longest;
                balancer.await_answer("the path's MTU", &["backend", "show", POOL, name], holds)?;
            }
        }
        Ok(())
    }
}

/// A counter of all nodes.
fn counted(site: &Site, name: &str) -> Result<u64> {
    site.balancers.iter().map(|balancer| counter(&balancer.maglev_json(&["counters"])?, name)).sum()
}
