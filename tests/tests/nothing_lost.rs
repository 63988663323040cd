//! Three thousand datagrams a second pass while a node is drained and comes back, and while a daemon is killed and started
//! again: each of them is answered, be the router BIRD or FRR.
//!
//! It counts packets: it has a program of its own, beside which no other runs.

use std::{net::SocketAddr, sync::Mutex};

use anyhow::{Context, Result, ensure};
use maglev_e2e::{
    client::stream::{Stream, Streamed},
    lab::{
        Backend, Lab, Services, Settings, Site, Topology, Vip,
        addresses::{WWW4, WWW6},
        router::Kind,
        skip,
    },
    matrix::Matrix,
};
use serde_json::Value;

/// Datagrams a second.
const RATE: u32 = 3_000;
/// Datagrams before and after each change.
const AROUND: u64 = 3_000;

/// The change to a site while datagrams pass.
type Change = fn(&mut Site, &Stream) -> Result<()>;

#[test]
fn with_bird() -> Result<()> {
    if skip() { Ok(()) } else { nothing_is_lost(Kind::Bird) }
}

#[test]
fn with_frr() -> Result<()> {
    if skip() { Ok(()) } else { nothing_is_lost(Kind::Frr) }
}

fn nothing_is_lost(kind: Kind) -> Result<()> {
    // One at a time: a test that panicked before has failed on its own.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    let mut site = Site::with_settings(Topology::standard(2).routed_by(kind), services, settings)?;
    lead(&mut site, &[1, 2])?;
    let mut row = |case: &str, through: &[u8], change: Change| {
        Matrix::Bgp.row(&kind.to_string(), case, || {
            let streamed = stream_through(&mut site, through, change).context(case.to_owned())?;
            Ok(format!("0 of {} lost at {:.0} packets/s, both families", streamed.sent, streamed.rate()))
        })
    };
    row("kill -9 and restart of one of two nodes", &[1, 2], |site, stream| killed(site, stream, 1))?;
    row("drain", &[2], |site, _| {
        let drained = site.balancers[0].maglev_ok(&["node", "drain", "--wait", "--timeout", "60s"])?;
        ensure!(drained.contains("safe to stop"), "{drained}");
        Ok(())
    })?;
    row("kill -9 and restart of the only node", &[2], |site, stream| {
        let watch = site.router()?.watch()?;
        killed(site, stream, 2)?;
        for vip in [WWW4, WWW6] {
            let changes = watch.changes(vip)?;
            ensure!(changes.is_empty(), "the router's route changed: {changes:?}");
        }
        Ok(())
    })?;
    row("undrain", &[1, 2], |site, _| site.balancers[0].maglev_ok(&["node", "undrain"]).map(drop))
}

/// Sends datagrams before, during and after a change at whose end the VIPs lead through these nodes.
fn stream_through(site: &mut Site, through: &[u8], change: Change) -> Result<Streamed> {
    let targets = [WWW4, WWW6].map(|vip| SocketAddr::from((vip, Backend::PORT)));
    let stream = site.lab.client().stream(&targets, RATE);
    stream.pass(AROUND)?;
    let from = stream.began().elapsed();
    change(site, &stream)?;
    lead(site, through)?;
    let until = stream.began().elapsed();
    stream.pass(AROUND)?;
    let streamed = stream.finish()?;
    streamed
        .none_lost()
        .with_context(|| format!("the change began after {from:.3?} and was done after {until:.3?}"))?;
    Ok(streamed)
}

/// Kills a daemon, and starts it again once packets have passed without it.
fn killed(site: &mut Site, stream: &Stream, n: usize) -> Result<()> {
    let balancer = &mut site.balancers[n - 1];
    balancer.kill()?;
    stream.pass(AROUND)?;
    balancer.restart()?;
    let status = balancer.maglev_json(&["status"])?;
    ensure!(status["forwarding"]["adopted"] == true, "{status}\n{}", balancer.log());
    balancer.await_answer("its sessions", &["bgp", "neighbors"], |neighbors| {
        let reported = |neighbor: &Value| neighbor["state"] == "established" && neighbor["prefixes_sent"] == 1;
        neighbors.as_array().is_some_and(|all| all.iter().all(reported))
    })
}

fn lead(site: &mut Site, through: &[u8]) -> Result<()> {
    [WWW4, WWW6].into_iter().try_for_each(|vip| site.router()?.await_route(vip, through))
}

/// Two seconds of each stage are as good as ten in a test.
fn settings(n: u8) -> Settings {
    let settings = Settings::announcing(n);
    Settings { more: settings.more + "drain: { lead: 2s, quiet: 2s }\n", ..settings }
}

fn services(lab: &Lab) -> Services {
    let pool = lab.pool("echo", WWW4, &[(1, 100), (2, 100), (3, 100)]);
    let vip = |name, vip| Vip::new(name, (vip, Backend::PORT), "udp", "echo");
    Services { pools: vec![pool], vips: vec![vip("echo4", WWW4), vip("echo6", WWW6)] }
}
