//! The settings of decapsulation, from a file or from options. It must not know where they are in force.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use maglev_common::settings::Mss;
use maglev_config::{DecapConfig, OnStop};
use maglev_dataplane::{DataplaneError, Decap, DecapSettings, InterfaceSettings, Prefixes};
use maglev_net::links::Link;

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The interfaces that receive encapsulated packets.
    pub interfaces: Vec<InterfaceSettings>,
    /// The load balancers' outer sources.
    pub sources: Vec<IpNet>,
    /// The VIPs; `None`: the addresses on the loopback device.
    pub vips: Option<Vec<IpNet>>,
    /// How the MSS is lowered.
    pub mss: Mss,
    /// Where programs and counters are pinned.
    pub pin: Pin,
    /// The effect of a stop.
    pub on_stop: OnStop,
    /// Where answers are given, if anywhere.
    pub api: Option<Api>,
}

/// Where programs and counters are pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Nowhere.
    Off,
    /// In a folder of the BPF file system.
    Folder(PathBuf),
    /// In a folder if that can be written to, else nowhere.
    IfPossible(PathBuf),
}

/// Where answers are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// The Unix socket.
    pub socket: PathBuf,
    /// The address of `/metrics`, beside the socket.
    pub metrics: Option<SocketAddr>,
}

impl From<DecapConfig> for Settings {
    fn from(config: DecapConfig) -> Self {
        let DecapConfig { interfaces, sources, vips, mss, pin, on_stop, socket, metrics } = config;
        let interface = |interface: maglev_config::Interface| InterfaceSettings {
            name: interface.name,
            mode: match interface.mode {
                maglev_config::Mode::Native => maglev_dataplane::Mode::Native,
                maglev_config::Mode::Generic => maglev_dataplane::Mode::Generic,
            },
            also: interface.also,
        };
        Self {
            interfaces: interfaces.into_iter().map(interface).collect(),
            sources,
            vips,
            mss,
            pin: pin.map_or(Pin::Off, Pin::Folder),
            on_stop,
            api: Some(Api { socket, metrics }),
        }
    }
}

impl Settings {
    /// Starts decapsulation for these VIPs.
    pub(super) fn start(&self, vips: Prefixes, links: &[Link]) -> Result<Decap, DataplaneError> {
        let pin = match &self.pin {
            Pin::Off => None,
            Pin::Folder(folder) | Pin::IfPossible(folder) => Some(folder.clone()),
        };
        let (interfaces, sources) = (self.interfaces.clone(), self.sources.clone());
        let settings = DecapSettings { interfaces, sources, vips, mss: self.mss, pin };
        let may_end = matches!(self.pin, Pin::IfPossible(_)) && self.on_stop == OnStop::Detach;
        match Decap::start(&settings, links) {
            Err(error) if may_end && error.forbids_pinning() => {
                tracing::warn!("{error}: nothing is pinned, decapsulation ends with this process");
                Decap::start(&DecapSettings { pin: None, ..settings }, links)
            }
            started => started,
        }
    }

    /// Warns of sources that let anything in.
    pub(super) fn warn(&self) {
        for source in self.sources.iter().filter(|source| source.prefix_len() == 0) {
            tracing::warn!("{source}: packets from any source address are unwrapped");
        }
    }
}

/// The MSS as it is written.
pub(super) fn mss_word(mss: Mss) -> String {
    match mss {
        Mss::Off => "off".to_owned(),
        Mss::Auto => "auto".to_owned(),
        Mss::Limit(bytes) => bytes.to_string(),
    }
}
