//! Large transfers, checked by hash. An upload is what tests encapsulation: full-size segments with an outer header on
//! top. A download goes back to the client directly; only its acknowledgements are encapsulated.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use maglev_e2e::{
    bytes,
    lab::{
        Backend, Lab, Services, Site, Vip,
        addresses::{ALT4, ALT6, WWW4, WWW6},
        site::counter,
        skip,
    },
};

const MB: u64 = 1_000_000;

/// Each VIP with one backend: both ways to a backend and every combination of families, (name, VIP, number of the
/// backend, an address of the family it is reached by).
const WAYS: [(&str, IpAddr, u8, IpAddr); 4] = [
    ("far-4in4", WWW4, 1, WWW4),
    ("near-6in4", WWW6, 3, WWW4),
    ("near-4in6", ALT4, 3, WWW6),
    ("far-6in6", ALT6, 2, WWW6),
];

#[test]
fn full_size_uploads_and_a_long_download_arrive_whole() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::new(1, services)?;
    let client = site.lab.client();
    let expected = bytes::digest(50 * MB);
    for (name, vip, backend, _) in WAYS {
        let target = SocketAddr::new(vip, Backend::PORT);
        let receipt = client.upload(target, 50 * MB).context(name)?;
        assert_eq!((receipt.name, receipt.length), (format!("web{backend}"), 50 * MB), "{name}");
        assert_eq!(receipt.sha256, expected, "{name}");
    }
    let counters = site.balancers[0].maglev_json(&["counters"])?;
    for vip in counters["vips"].as_array().context("VIPs")? {
        let (packets, bytes) = (vip["packets"].as_u64().context("packets")?, vip["bytes"].as_u64().context("bytes")?);
        // A full frame has 1,514 bytes; retransmissions and the connection's ends hardly lower the mean.
        ensure!(bytes / packets >= 1_400, "{vip}: the mean frame has {} bytes", bytes / packets);
    }
    assert_eq!(counter(&counters, "too_big")?, 0);

    let target = SocketAddr::new(WWW4, Backend::PORT);
    assert_eq!(client.download(target, 200 * MB)?, bytes::digest(200 * MB));
    Ok(())
}

fn services(lab: &Lab) -> Services {
    let mut services = Services::default();
    for (name, vip, backend, like) in WAYS {
        services.pools.push(lab.pool(name, like, &[(backend, 100)]));
        services.vips.push(Vip::new(name, (vip, Backend::PORT), "tcp", name));
    }
    services
}
