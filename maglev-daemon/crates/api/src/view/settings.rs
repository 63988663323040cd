//! The settings by which a pool keeps connections while its backends change.

use std::time::Duration;

use maglev_model::SettingsChange;
use serde::{Deserialize, Serialize};

use super::NewHealth;

/// For which packets the flow table is consulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tracking {
    /// For packets on slots whose owner changed while the previous owner is alive.
    Exception,
    /// For all packets.
    Always,
}

/// The backend of an unknown flow that is not TCP while its slot is learning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UdpPolicy {
    /// The slot's new owner.
    New,
    /// The slot's previous owner.
    Keep,
}

/// How packets for backends are encapsulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encap {
    /// IP in IP.
    #[default]
    Ipip,
    /// GUE: UDP to port 6080.
    Gue,
}

/// The handling of packets that no backend can be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unserved {
    /// They are dropped.
    #[default]
    Drop,
    /// They are answered: TCP with a RST, UDP with an ICMP port unreachable.
    Reset,
}

/// The settings of a transition: a slot has a new owner while the previous owner is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// The learning time: how long flows of the previous owner are recorded.
    pub learning_seconds: u64,
    /// The idle time: how long the entry of a silent flow is kept.
    pub idle_seconds: u64,
    /// The backend of an unknown flow that is not TCP while its slot is learning.
    pub udp: UdpPolicy,
}

/// The body of `PATCH /v1/pools/NAME`; absent fields keep their value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewSettings {
    /// For which packets the flow table is consulted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracking: Option<Tracking>,
    /// The settings of transitions.
    pub transition: NewTransition,
    /// The number of usable backends below which its VIPs are withdrawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_healthy: Option<u32>,
    /// How packets for its backends are encapsulated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encap: Option<Encap>,
    /// The settings of checks.
    pub health: NewHealth,
}

/// The changed fields of a [`Transition`]; absent fields keep their value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewTransition {
    /// The learning time, 1 to 3600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_seconds: Option<u64>,
    /// The idle time, 10 to 14400.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u64>,
    /// The backend of an unknown flow that is not TCP while its slot is learning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpPolicy>,
}

impl From<SettingsChange> for NewSettings {
    fn from(change: SettingsChange) -> Self {
        let SettingsChange { tracking, learning, idle, udp, min_healthy, encap } = change;
        let seconds = |duration: Duration| duration.as_secs();
        let (learning_seconds, idle_seconds) = (learning.map(seconds), idle.map(seconds));
        let transition = NewTransition { learning_seconds, idle_seconds, udp: udp.map(UdpPolicy::from) };
        let (tracking, encap) = (tracking.map(Tracking::from), encap.map(Encap::from));
        Self { tracking, transition, min_healthy, encap, health: NewHealth::default() }
    }
}

impl From<&NewSettings> for SettingsChange {
    /// All settings except those of checks.
    fn from(settings: &NewSettings) -> Self {
        let NewSettings { tracking, transition, min_healthy, encap, health: _ } = settings;
        let NewTransition { learning_seconds, idle_seconds, udp } = *transition;
        Self {
            tracking: tracking.map(maglev_model::Tracking::from),
            learning: learning_seconds.map(Duration::from_secs),
            idle: idle_seconds.map(Duration::from_secs),
            udp: udp.map(maglev_model::UdpPolicy::from),
            min_healthy: *min_healthy,
            encap: encap.map(maglev_model::EncapKind::from),
        }
    }
}

impl From<maglev_model::TransitionSettings> for Transition {
    fn from(settings: maglev_model::TransitionSettings) -> Self {
        let maglev_model::TransitionSettings { learning, idle, udp } = settings;
        Self { learning_seconds: learning.as_secs(), idle_seconds: idle.as_secs(), udp: udp.into() }
    }
}

impl From<maglev_model::Tracking> for Tracking {
    fn from(tracking: maglev_model::Tracking) -> Self {
        match tracking {
            maglev_model::Tracking::Exception => Self::Exception,
            maglev_model::Tracking::Always => Self::Always,
        }
    }
}

impl From<Tracking> for maglev_model::Tracking {
    fn from(tracking: Tracking) -> Self {
        match tracking {
            Tracking::Exception => Self::Exception,
            Tracking::Always => Self::Always,
        }
    }
}

impl From<maglev_model::EncapKind> for Encap {
    fn from(kind: maglev_model::EncapKind) -> Self {
        match kind {
            maglev_model::EncapKind::IpIp => Self::Ipip,
            maglev_model::EncapKind::Gue => Self::Gue,
        }
    }
}

impl From<maglev_model::Unserved> for Unserved {
    fn from(unserved: maglev_model::Unserved) -> Self {
        match unserved {
            maglev_model::Unserved::Drop => Self::Drop,
            maglev_model::Unserved::Reset => Self::Reset,
        }
    }
}

impl From<Encap> for maglev_model::EncapKind {
    fn from(encap: Encap) -> Self {
        match encap {
            Encap::Ipip => Self::IpIp,
            Encap::Gue => Self::Gue,
        }
    }
}

impl From<Unserved> for maglev_model::Unserved {
    fn from(unserved: Unserved) -> Self {
        match unserved {
            Unserved::Drop => Self::Drop,
            Unserved::Reset => Self::Reset,
        }
    }
}

impl From<maglev_model::UdpPolicy> for UdpPolicy {
    fn from(policy: maglev_model::UdpPolicy) -> Self {
        match policy {
            maglev_model::UdpPolicy::New => Self::New,
            maglev_model::UdpPolicy::Keep => Self::Keep,
        }
    }
}

impl From<UdpPolicy> for maglev_model::UdpPolicy {
    fn from(policy: UdpPolicy) -> Self {
        match policy {
            UdpPolicy::New => Self::New,
            UdpPolicy::Keep => Self::Keep,
        }
    }
}
