//! wip
use anyhow::Result;
use maglev_e2e::{
    client::flood::{Flags, Flood},
    lab::{
        Backend, Lab, Services, Site, Topology, Vip,
        addresses::{WWW4, WWW6},
    },
};
const TARGET: std::net::SocketAddrV4 = std::net::SocketAddrV4::new(std::net::Ipv4Addr::new(203, 0, 113, 10), 7_000);
const POOL: &str = "web";
#[test]
fn wip() -> Result<()> {
    let site = Site::of(Topology::new(1, 6), services)?;
    for rule in [false, true] {
        if rule {
            for n in 1..=6 {
                site.lab.netns(&format!("web{n}")).ip(&["rule add from 198.18.0.0/15 blackhole".to_owned()])?;
            }
        }
        for (flags, first, tuples, passes) in [(Flags::Ack, 0, 300_000, 1), (Flags::Syn, 1_000_000, 300_000, 1)] {
            let before = vip(&site)?;
            let flooding = site.lab.client().flood(TARGET, Flood { flags, first, tuples, passes });
            println!("{rule} {flags:?} {:?}", flooding.finish()?);
            std::thread::sleep(std::time::Duration::from_secs(1));
            println!("arrived {}", vip(&site)? - before);
        }
    }
    let sh = |n: &str, c: &str| -> Result<()> {
        println!(
            "{n}: {}",
            String::from_utf8_lossy(&site.lab.netns(n).output(std::process::Command::new("sh").args(["-c", c]))?)
        );
        Ok(())
    };
    sh(
        "router",
        "cat /proc/net/softnet_stat; ip -s link show client; ip -s link show lb1; nstat -az | grep -i -E 'discard|drop|noroute|inerr'",
    )?;
    sh("client", "ip -s link show eth0; nstat -az | grep -i -E 'discard|drop|noroute'")?;
    sh("lb1", "ip -s link show eth0; ethtool -S eth0")?;
    Ok(())
}
fn vip(site: &Site) -> Result<u64> {
    let c = site.balancers[0].maglev_json(&["counters"])?;
    Ok(c["vips"].as_array().unwrap().iter().map(|v| v["packets"].as_u64().unwrap()).sum())
}
fn services(lab: &Lab) -> Services {
    let weights = [1, 2, 3, 4, 5].map(|n| (n, 100));
    let vip = |name: &str, address| Vip::new(name, (address, Backend::TALK_PORT), "tcp", POOL);
    Services { pools: vec![lab.pool(POOL, WWW4, &weights)], vips: vec![vip("www", WWW4), vip("www6", WWW6)] }
}
