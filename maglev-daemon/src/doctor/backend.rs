//! The facts about a backend. It must not know what is right.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use maglev_common::settings::Mss;
use maglev_config::DecapConfig;
use maglev_doctor::facts::{self, Backend, Fact, Role};
use maglev_doctor::gather::{self, Gather};
use maglev_net::host;
use maglev_net::links;
use maglev_net::loopback::Loopback;
use maglev_net::statistics;

use super::network::{self, Wanted};
use maglev_api::view::Findings;

/// Examines this backend by its `decap.yaml`; takes a second, and blocks.
pub fn backend(path: &Path) -> Findings {
    let gather = Gather::default();
    let settings = [gather::file(path, Role::Settings)];
    let facts = match maglev_store::load_decap(path) {
        Err(problems) => Backend {
            config: Err(problems.iter().map(ToString::to_string).collect()),
            files: settings.into(),
            host: super::host(&gather, None),
            interfaces: Ok(Vec::new()),
            own: Ok(Vec::new()),
            loopback: Ok(Vec::new()),
        },
        Ok(config) => {
            let [settings] = settings;
            let Network { interfaces, own, loopback } = read(&gather, &config);
            let DecapConfig { sources, vips, mss, pin, socket, .. } = config;
            Backend {
                config: Ok(facts::DecapConfig { sources, vips, lowers_mss: mss != Mss::Off }),
                files: vec![settings, gather::file(&socket, Role::Socket)],
                host: super::host(&gather, pin.as_deref()),
                interfaces,
                own,
                loopback,
            }
        }
    };
    maglev_doctor::backend(&facts)
}

/// The facts about a backend's network.
struct Network {
    interfaces: Fact<Vec<facts::Interface>>,
    own: Fact<Vec<(IpAddr, String)>>,
    loopback: Fact<Vec<IpNet>>,
}

fn read(gather: &Gather, config: &DecapConfig) -> Network {
    /// Between two readings of the counters of lost packets.
    const BETWEEN: std::time::Duration = std::time::Duration::from_secs(1);
    let failed =
        |reason: String| Network { interfaces: Err(reason.clone()), own: Err(reason.clone()), loopback: Err(reason) };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(format!("cannot start an event loop: {error}")),
    };
    let read = runtime.block_on(async {
        let links = links::list().await?;
        let before = statistics::lost_packets().await;
        tokio::time::sleep(BETWEEN).await;
        let lost = network::lost(before, statistics::lost_packets().await);
        let own = host::Watch::start()?.read().await?.own;
        let loopback = Loopback::start()?.list().await?;
        Ok::<_, maglev_net::NetError>((links, lost, own, loopback))
    });
    match read {
        Err(error) => failed(error.to_string()),
        Ok((links, lost, own, loopback)) => {
            let (configured, ours) = (&*config.interfaces, &network::OF_BACKEND[..]);
            let wanted = Wanted { configured, links: &links, ours, attached: None };
            Network {
                interfaces: Ok(network::interfaces(gather, &wanted, &lost)),
                own: Ok(own.into_iter().collect()),
                loopback: Ok(loopback.into_iter().collect()),
            }
        }
    }
}
