//! What the internet sends beside plain packets: pings of VIPs, and errors of routers whose links are narrow, on the way to the
//! client and on the way to the backend.

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use maglev_e2e::{
    bytes,
    client::ping::{allow_pings, flood, ping},
    lab::{
        Backend, Lab, Services, Site, Vip, addresses,
        addresses::{ALT4, ALT6, WWW4, WWW6},
        site::counter,
        skip,
    },
    matrix::Matrix,
    netns::Netns,
};

const MB: u64 = 1_000_000;
/// A transfer of 50 MB may take this long: without an answer to its long packets it would not end at all.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a transfer that cannot end is watched.
const STALL: Duration = Duration::from_secs(3);

/// Each VIP with one backend behind the router: every combination of families, and an address of the family by which the backend
/// is reached.
const VIPS: [(&str, IpAddr, IpAddr); 4] =
    [("4in4", WWW4, WWW4), ("6in4", WWW6, WWW4), ("4in6", ALT4, WWW6), ("6in6", ALT6, WWW6)];

fn services(lab: &Lab) -> Services {
    let mut services = Services::default();
    for (name, vip, like) in VIPS {
        services.pools.push(lab.pool(name, like, &[(1, 100), (2, 100)]));
        services.vips.push(Vip::new(name, (vip, Backend::PORT), "tcp", name));
    }
    services
}

fn ip(netns: &Netns, lines: &[String]) -> Result<()> {
    netns.ip(lines)
}

fn count(site: &Site, n: usize, name: &str) -> Result<u64> {
    counter(&site.balancers[n].maglev_json(&["counters"])?, name)
}

#[test]
fn vips_answer_pings_and_the_rate_is_limited() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::new(1, services)?;
    let client = site.lab.netns("client");
    allow_pings(&client)?;
    for (name, vip, _) in VIPS {
        Matrix::Packets.row("ping", &format!("the VIP of {name} answers an echo request of 1,400 bytes"), || {
            ensure!(client.run(|| ping(vip, 1_400))?, "no answer");
            Ok(String::new())
        })?;
    }
    Matrix::Packets.row("ping", "an address without a VIP is not answered by the node", || {
        let before = count(&site, 0, "echo_reply")?;
        let answered = client.run(|| ping("203.0.113.99".parse()?, 64))?;
        ensure!(!answered && count(&site, 0, "echo_reply")? == before, "answered");
        Ok(String::new())
    })?;
    Matrix::Packets.row("ping", "answers are limited to 1,000 a second and node", || {
        let began = Instant::now();
        client.run(|| flood(WWW4, 20_000))?;
        let seconds = began.elapsed().as_secs() + 2;
        let (answered, limited) = (count(&site, 0, "echo_reply")?, count(&site, 0, "answer_limit")?);
        ensure!(limited > 0 && answered <= 1_000 * seconds, "{answered} answered, {limited} not, in {seconds} s");
        Ok(format!("{answered} answered, {limited} not"))
    })
}

#[test]
fn a_download_passes_a_narrow_hop_whose_errors_reach_another_node() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::new(2, services)?;
    let router = site.lab.netns("router");
    // Clients' packets go to the first node, errors of the router itself to the second.
    site.lab.route_vips(&[1])?;
    errors_via(&router, 2)?;
    ip(&router, &["link set client mtu 1280".to_owned()])?;
    for (name, vip, _) in VIPS {
        let case = format!("50 MB down through a hop of 1,280 bytes, {name}");
        Matrix::Packets.row("narrow", &case, || {
            let before = count(&site, 1, "icmp_error")?;
            let took = whole_download(&site, vip)?;
            let errors = count(&site, 1, "icmp_error")? - before;
            ensure!(errors > 0, "no error came by the second node");
            Ok(format!("{:.1} s, {errors} errors by the other node", took.as_secs_f64()))
        })?;
        // What the backends have learned is forgotten.
        forget(&site)?;
    }
    Matrix::Packets.row("narrow", "the same while the backend drains, 4in4", || {
        for balancer in &site.balancers {
            balancer.maglev_ok(&["backend", "drain", "4in4", "web1"])?;
        }
        let mut slowest = Duration::ZERO;
        for _ in 0..6 {
            forget(&site)?;
            slowest = slowest.max(whole_download(&site, WWW4)?);
        }
        for balancer in &site.balancers {
            balancer.maglev_ok(&["backend", "undrain", "4in4", "web1"])?;
        }
        Ok(format!("six of them, the slowest in {:.1} s", slowest.as_secs_f64()))
    })?;
    forget(&site)?;
    Matrix::Packets.row("narrow", "control: it hangs where the errors are lost", || {
        ip(&router, &["route replace blackhole 203.0.113.0/24 table 200".to_owned()])?;
        let (client, target) = (site.lab.client(), SocketAddr::new(WWW4, Backend::PORT));
        let ended = within(&site, STALL, || client.download(target, 50 * MB));
        ensure!(ended.is_err(), "the download ended without an error");
        Ok(format!("nothing for {} s", STALL.as_secs()))
    })
}

/// Packets of the router itself to the VIPs go to a node.
fn errors_via(router: &Netns, node: u8) -> Result<()> {
    let gateway = addresses::balancer(node, 2);
    let [v4, v6] = addresses::VIP_PREFIXES;
    ip(
        router,
        &[
            format!("route add {v4} via {} table 200", gateway.v4),
            format!("route add {v6} via {} table 200", gateway.v6),
        ],
    )?;
    for family in ["-4", "-6"] {
        let rule = ["rule", "add", "iif", "lo", "lookup", "200", "priority", "100"];
        router.output(Command::new("ip").arg(family).args(rule))?;
    }
    Ok(())
}

/// Downloads 50 MB whole.
fn whole_download(site: &Site, vip: IpAddr) -> Result<Duration> {
    let (began, client) = (Instant::now(), site.lab.client());
    let digest = within(site, PATIENCE, || client.download(SocketAddr::new(vip, Backend::PORT), 50 * MB))?;
    ensure!(digest == bytes::digest(50 * MB), "other bytes");
    Ok(began.elapsed())
}

/// Does a transfer that must end within this time: after it, the client's connections are closed.
fn within<T: Send>(site: &Site, time: Duration, transfer: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let client = site.lab.netns("client");
    thread::scope(|scope| {
        let (done, ended) = mpsc::channel();
        scope.spawn(move || done.send(transfer()));
        ended.recv_timeout(time).unwrap_or_else(|_| {
            reset(&client)?;
            anyhow::bail!("not done within {} s", time.as_secs())
        })
    })
}

/// Ends every TCP connection of the client.
fn reset(client: &Netns) -> Result<()> {
    client.output(Command::new("ss").args(["-K", "-t"])).map(drop)
}

/// Path MTUs that the backends have learned are removed.
fn forget(site: &Site) -> Result<()> {
    for name in site.lab.backend_names() {
        for family in ["-4", "-6"] {
            site.lab.netns(&name).output(Command::new("ip").args([family, "route", "flush", "cache"]))?;
        }
    }
    Ok(())
}

#[test]
fn an_upload_crosses_a_narrow_link_to_its_backend() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::new(1, services)?;
    let (node, router) = (site.lab.netns("lb1"), site.lab.netns("router"));
    let gateway = addresses::balancer(1, 1);
    for n in [1, 2] {
        ip(&router, &[format!("link set web{n} mtu 1400")])?;
        let backend = addresses::behind_router(n, 2);
        let routes =
            [(backend.v4.to_string(), gateway.v4.to_string()), (backend.v6.to_string(), gateway.v6.to_string())];
        ip(&node, &routes.map(|(to, via)| format!("route add {to} via {via} mtu 1400")))?;
    }
    for (name, vip, _) in VIPS {
        let case = format!("50 MB up over a link of 1,400 bytes to the backend, {name}");
        Matrix::Packets.row("upload", &case, || {
            let before = count(&site, 0, "packet_too_big")?;
            let began = Instant::now();
            let (client, target) = (site.lab.client(), SocketAddr::new(vip, Backend::PORT));
            let receipt = within(&site, PATIENCE, || client.upload(target, 50 * MB))?;
            ensure!(receipt.sha256 == bytes::digest(50 * MB), "other bytes");
            let answers = count(&site, 0, "packet_too_big")? - before;
            ensure!(answers > 0, "no packet was too big");
            Ok(format!("{:.1} s, {answers} packets answered with the MTU", began.elapsed().as_secs_f64()))
        })?;
    }
    Ok(())
}
