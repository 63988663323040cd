//! Pings of VIPs.

use std::{net::IpAddr, time::Instant};

use anyhow::{Result, ensure};
use maglev_e2e::{
    client::ping::{allow_pings, flood, ping},
    lab::{
        Backend, Lab, Services, Site, Vip,
        addresses::{ALT4, ALT6, WWW4, WWW6},
        site::counter,
        skip,
    },
    matrix::Matrix,
};

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
