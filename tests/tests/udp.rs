//! Datagrams through the VIPs, each answered from the VIP it was sent to.

use std::net::SocketAddr;

use anyhow::Result;
use maglev_e2e::lab::{Backend, Site, addresses::VIPS, skip};

#[test]
fn datagrams_reach_every_backend_in_every_family() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(2)?;
    for vip in VIPS {
        let outcomes = site.lab.client().datagrams(SocketAddr::new(vip, Backend::PORT), 200)?;
        outcomes.all_answered()?;
        let names: Vec<&str> = outcomes.by_backend().into_keys().collect();
        assert_eq!(names, ["web1", "web2", "web3"], "{vip}");
    }
    let packets = site.await_balance()?;
    // One packet each way, and only one way leads through the load balancers.
    assert_eq!(packets.vips, 4 * 200);
    Ok(())
}
