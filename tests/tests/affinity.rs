//! wip

use std::time::{Duration, Instant};

use anyhow::Result;
use maglev_e2e::{
    client::{
        flood::{Flags, Flood},
        held::Plan,
    },
    lab::{
        Backend, Lab, Services, Site, Topology, Vip,
        addresses::{WWW4, WWW6},
        skip,
    },
};

const TARGET: std::net::SocketAddrV4 = std::net::SocketAddrV4::new(std::net::Ipv4Addr::new(203, 0, 113, 10), 7_000);
const POOL: &str = "web";

#[test]
fn wip() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::of(Topology::new(1, 6), services)?;
    let plan = Plan {
        targets: [WWW4, WWW6].map(|vip| (vip, Backend::TALK_PORT).into()).to_vec(),
        held: 5_000,
        arrivals: 200,
        pace: Duration::from_secs(3),
        silence: Duration::from_secs(9),
        seed: 1,
    };
    let held = site.lab.client().hold(plan);
    println!("open in {:?}", held.await_open()?);
    println!("{:?}", held.homes());
    println!("spoken in {:?}", held.await_spoken(Instant::now())?);
    site.balancers[0].maglev_ok(&["backend", "weight", POOL, "web1", "0"])?;
    for (flags, first, tuples, passes) in
        [(Flags::Ack, 0, 500_000, 1), (Flags::Ack, 500_000, 250_000, 2), (Flags::Syn, 1_000_000, 500_000, 1)]
    {
        let before = site.await_balance();
        println!("before: {before:?}");
        held.hush(Duration::from_secs(9));
        let t = Instant::now();
        let flooding = site.lab.client().flood(TARGET, Flood { flags, first, tuples, passes });
        println!("{:?}", flooding.finish()?);
        println!("spoken in {:?}", held.await_spoken(t)?);
        println!(
            "{}",
            site.balancers[0]
                .maglev_ok(&["counters"])?
                .lines()
                .filter(|l| !l.contains(" 0  "))
                .collect::<Vec<_>>()
                .join("\n")
        );
    }
    held.leave("web1");
    println!("spoken in {:?}", held.await_spoken(Instant::now())?);
    println!("{:?}", held.homes());
    let t = Instant::now();
    let report = held.finish()?;
    println!("finished in {:?}: {report}", t.elapsed());
    println!("{}", site.balancers[0].maglev_ok(&["counters"])?);
    report.none_broken()
}

fn services(lab: &Lab) -> Services {
    let weights = [1, 2, 3, 4, 5].map(|n| (n, 100));
    let vip = |name: &str, address| Vip::new(name, (address, Backend::TALK_PORT), "tcp", POOL);
    Services { pools: vec![lab.pool(POOL, WWW4, &weights)], vips: vec![vip("www", WWW4), vip("www6", WWW6)] }
}
