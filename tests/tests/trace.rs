//! Tracing: with `trace: true` the program logs each decision, through the daemon's log.

use std::net::SocketAddr;

use anyhow::Result;
use maglev_e2e::lab::{
    Affinity, Backend, Balancer, Lab, Settings, Topology, addresses::WWW4, site::every_family, skip,
};

#[test]
fn decisions_are_logged_where_it_is_asked_for() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut lab = Lab::new(Topology::standard(1))?;
    let _backends = lab.start_backends()?;
    let settings = Settings { more: "trace: true\n".to_owned(), ..Settings::new(1) };
    let mut services = every_family(&lab);
    services.pools[0].affinity = Some(Affinity { tracking: "always", learning: 120, idle: 900 });
    let mut balancer = Balancer::start(&lab, 1, &settings, &services)?;
    balancer.await_next_hops()?;
    lab.client().requests(&[SocketAddr::new(WWW4, Backend::PORT)], 5, 1)?.all_answered()?;
    // The first packet of a flow is decided by the table, those after it by the flow table.
    balancer.await_log("choice=table")?;
    balancer.await_log("choice=flow_table")?;
    balancer.stop()
}
