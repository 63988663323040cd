//! The events of a node and their sentences, for log, CLI and stream. It must not know their sources and readers.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::HealthState;

/// An event of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number: greater than that of every event before it, those of earlier daemons included.
    pub sequence: u64,
    /// When it happened, in milliseconds since 1970.
    pub unix_milliseconds: u64,
    /// Its severity.
    pub level: Level,
    /// The sentence.
    pub text: String,
    /// The fields, for programs.
    #[serde(flatten)]
    pub what: What,
}

/// `GET /v1/events/recent`: the last events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// How many of the requested events are lost.
    pub missed: u64,
    /// The oldest first.
    pub events: Vec<Event>,
}

/// The severity of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// All is well.
    Info,
    /// Something is degraded.
    Warning,
    /// An operator is needed at once.
    Error,
}

/// The kind of an event, with its subjects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// The daemon started: its first event.
    Started {
        /// Its release.
        version: String,
    },
    /// The daemon received the order to stop.
    Stopping,
    /// How the daemon continues the pinned data plane, or the verdict on a new release.
    DataPlane {
        /// `continued`, `replaced`, `proven`, `failed` or `rolled_back`.
        stage: DataPlaneStage,
        /// The reason, or the difference.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The health of a backend changed.
    BackendHealth {
        /// Its pool.
        pool: String,
        /// Its name.
        backend: String,
        /// Its new health.
        health: HealthState,
        /// The error of the failed check.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A backend's next hop was lost, or is resolved again.
    BackendReach {
        /// Its pool.
        pool: String,
        /// Its name.
        backend: String,
        /// Its address.
        address: IpAddr,
        /// Whether its next hop is resolved.
        reachable: bool,
        /// The reason why it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A pool is fail-open (panic) since too few backends are healthy, or no longer is.
    PoolPanic {
        /// The pool.
        pool: String,
        /// Whether it is.
        on: bool,
        /// The number of healthy backends.
        healthy: usize,
        /// The number of all backends.
        of: usize,
    },
    /// Every check fails at once, and a local fault is assumed; or the assumption ended.
    CommonFailure {
        /// Whether a local fault is assumed.
        on: bool,
        /// The number of checked targets that were healthy before.
        healthy: usize,
    },
    /// A prefix of VIPs is announced or withdrawn.
    Prefix {
        /// The prefix.
        prefix: IpNet,
        /// Whether it is announced.
        announced: bool,
        /// The VIPs on it.
        vips: Vec<String>,
        /// The reason of the withdrawal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The node's drain reached a stage, or ended.
    Node {
        /// The stage; `serving` after the end of the drain.
        stage: String,
        /// The operator's reason.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The program was detached from an interface, or is attached again.
    Interface {
        /// The interface.
        interface: String,
        /// Whether it is attached.
        attached: bool,
    },
    /// A VIP is not served since the node or its backends need its address, or is served again.
    VipError {
        /// The VIP.
        vip: String,
        /// The user of the address; null: the VIP is served again.
        reason: Option<String>,
    },
    /// An interface was renamed, or has its name in `maglev.yaml` again.
    InterfaceName {
        /// The name in `maglev.yaml`.
        interface: String,
        /// Its new name; null: it has its name in `maglev.yaml` again.
        renamed_to: Option<String>,
    },
    /// An operator changed the services or the node.
    Changed {
        /// The change, as a command in words.
        change: String,
        /// The user of the client.
        uid: Option<u32>,
        /// The process of the client.
        pid: Option<i32>,
    },
    /// A reload of the configuration.
    Reloaded {
        /// Whether the files were valid and are in use.
        successful: bool,
    },
}

/// A stage in the succession of data planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataPlaneStage {
    /// Programs of this release continue the pinned data plane, with its flow entries.
    Continued,
    /// The pinned data plane is replaced, and its flow entries are lost.
    Replaced,
    /// The release passed its probation.
    Proven,
    /// The release failed its probation.
    Failed,
    /// This is the kept binary, in the place of a release that failed.
    RolledBack,
}

/// The subjects of an event, as fields of a log line. Each is `None` where the event has none or has several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    /// The name of the pool.
    pub pool: Option<&'a str>,
    /// The name of the backend.
    pub backend: Option<&'a str>,
    /// The address of the backend.
    pub address: Option<IpAddr>,
    /// The name of the VIP.
    pub vip: Option<&'a str>,
    /// The announced or withdrawn prefix.
    pub prefix: Option<IpNet>,
    /// The user of the client that made the change.
    pub uid: Option<u32>,
    /// The process that made the change.
    pub pid: Option<i32>,
}

impl Level {
    /// The word in JSON and text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl What {
    /// The severity; `info` for events that need no action.
    pub const fn level(&self) -> Level {
        match self {
            Self::PoolPanic { on: true, .. }
            | Self::CommonFailure { on: true, .. }
            | Self::Interface { attached: false, .. }
            | Self::VipError { reason: Some(_), .. }
            | Self::InterfaceName { renamed_to: Some(_), .. }
            | Self::DataPlane { stage: DataPlaneStage::Failed | DataPlaneStage::RolledBack, .. }
            | Self::Reloaded { successful: false } => Level::Error,
            Self::BackendHealth { health: HealthState::Unhealthy | HealthState::Unreachable, .. }
            | Self::BackendReach { reachable: false, .. }
            | Self::PoolPanic { on: false, .. }
            | Self::CommonFailure { on: false, .. }
            | Self::DataPlane { stage: DataPlaneStage::Replaced, .. }
            | Self::Prefix { announced: false, .. } => Level::Warning,
            Self::Started { .. }
            | Self::Stopping
            | Self::DataPlane { stage: DataPlaneStage::Continued | DataPlaneStage::Proven, .. }
            | Self::BackendHealth { health: HealthState::Checking | HealthState::Healthy, .. }
            | Self::BackendReach { reachable: true, .. }
            | Self::Prefix { announced: true, .. }
            | Self::Node { .. }
            | Self::Interface { attached: true, .. }
            | Self::VipError { reason: None, .. }
            | Self::InterfaceName { renamed_to: None, .. }
            | Self::Changed { .. }
            | Self::Reloaded { successful: true } => Level::Info,
        }
    }

    /// The fields of its log line.
    pub fn fields(&self) -> Fields<'_> {
        match self {
            Self::BackendHealth { pool, backend, health: _, reason: _ } => {
                Fields { pool: Some(pool), backend: Some(backend), ..Fields::default() }
            }
            Self::BackendReach { pool, backend, address, reachable: _, reason: _ } => {
                Fields { pool: Some(pool), backend: Some(backend), address: Some(*address), ..Fields::default() }
            }
            Self::PoolPanic { pool, on: _, healthy: _, of: _ } => Fields { pool: Some(pool), ..Fields::default() },
            Self::Prefix { prefix, announced: _, vips, reason: _ } => {
                let vip = if let [vip] = &vips[..] { Some(vip.as_str()) } else { None };
                Fields { vip, prefix: Some(*prefix), ..Fields::default() }
            }
            Self::VipError { vip, reason: _ } => Fields { vip: Some(vip), ..Fields::default() },
            Self::Changed { change: _, uid, pid } => Fields { uid: *uid, pid: *pid, ..Fields::default() },
            Self::Started { version: _ }
            | Self::Stopping
            | Self::DataPlane { stage: _, reason: _ }
            | Self::CommonFailure { on: _, healthy: _ }
            | Self::Node { stage: _, reason: _ }
            | Self::Interface { interface: _, attached: _ }
            | Self::InterfaceName { interface: _, renamed_to: _ }
            | Self::Reloaded { successful: _ } => Fields::default(),
        }
    }
}

/// `: reason`, if there is one.
struct Because<'a>(&'a Option<String>);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

impl fmt::Display for What {
    /// The sentence.
    // long: one arm for each event
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { version } => write!(f, "maglevd {version} started"),
            Self::Stopping => f.write_str("maglevd is stopping"),
            Self::DataPlane { stage, reason } => {
                let said = match stage {
                    DataPlaneStage::Continued => "programs of this release continue the pinned data plane",
                    DataPlaneStage::Replaced => "the pinned data plane is replaced, its flow entries are lost",
                    DataPlaneStage::Proven => "this release passed its probation",
                    DataPlaneStage::Failed => "this release FAILED its probation",
                    DataPlaneStage::RolledBack => "ROLLED BACK: the release before runs",
                };
                write!(f, "{said}{}", Because(reason))
            }
            Self::BackendHealth { pool, backend, health, reason } => {
                write!(f, "backend {backend} of pool {pool} is {}{}", health.as_str(), Because(reason))
            }
            Self::BackendReach { pool, backend, address: _, reachable: true, reason: _ } => {
                write!(f, "backend {backend} of pool {pool} is reachable again")
            }
            Self::BackendReach { pool, backend, address: _, reachable: false, reason } => {
                write!(f, "backend {backend} of pool {pool} is unreachable{}", Because(reason))
            }
            Self::PoolPanic { pool, on: true, healthy, of } => {
                write!(
                    f,
                    "PANIC: {healthy} of {of} backends of pool {pool} are healthy: fail-open, all active backends are used"
                )
            }
            Self::PoolPanic { pool, on: false, healthy, of } => {
                write!(f, "panic of pool {pool} is over: {healthy} of {of} backends are healthy")
            }
            Self::CommonFailure { on: true, healthy } => write!(
                f,
                "every check fails at once, {healthy} passed before: assuming a local fault, keeping backends"
            ),
            Self::CommonFailure { on: false, .. } => {
                f.write_str("the assumption of a local fault is over: check results apply again")
            }
            Self::Prefix { prefix, announced: true, vips, reason: _ } => {
                write!(f, "{prefix} is announced, for {}", Vips(vips))
            }
            Self::Prefix { prefix, announced: false, vips, reason } => {
                write!(f, "{prefix} is withdrawn, for {}{}", Vips(vips), Because(reason))
            }
            Self::Node { stage, reason: _ } if stage == "serving" => f.write_str("the node serves again"),
            Self::Node { stage, reason } => write!(f, "drain of the node: {stage}{}", Because(reason)),
            Self::Interface { interface, attached: true } => {
                write!(f, "the XDP program is attached to {interface} again")
            }
            Self::Interface { interface, attached: false } => write!(f, "the XDP program is detached from {interface}"),
            Self::VipError { vip, reason: Some(reason) } => {
                write!(f, "VIP {vip} is not served and not announced: {reason}")
            }
            Self::VipError { vip, reason: None } => {
                write!(f, "VIP {vip} is served again: its address is no longer needed by the node or its backends")
            }
            Self::InterfaceName { interface, renamed_to: Some(now) } => write!(
                f,
                "interface {interface} was renamed to {now}: it keeps working, but the next start would wait for {interface}: \
                 change maglev.yaml, or rename it back"
            ),
            Self::InterfaceName { interface, renamed_to: None } => {
                write!(f, "interface {interface} has its name in maglev.yaml again")
            }
            Self::Changed { change, uid, pid: _ } => match uid {
                Some(uid) => write!(f, "{change} (by user {uid})"),
                None => f.write_str(change),
            },
            Self::Reloaded { successful: true } => f.write_str("the configuration was reloaded"),
            Self::Reloaded { successful: false } => f.write_str("the reload was REFUSED: nothing changed, see the log"),
        }
    }
}

/// The names of the first few VIPs.
struct Vips<'a>(&'a [String]);

impl fmt::Display for Vips<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const FEW: usize = 8;
        match self.0 {
            [] => f.write_str("no VIP"),
            [one] => write!(f, "VIP {one}"),
            several if several.len() <= FEW => write!(f, "VIPs {}", several.join(", ")),
            many => write!(f, "VIPs {} and {} more", many[..FEW].join(", "), many.len() - FEW),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object_that_is_read_back() {
        let what = What::BackendHealth {
            pool: "web".into(),
            backend: "web1".into(),
            health: HealthState::Unhealthy,
            reason: Some("HTTP 503".into()),
        };
        let event = Event { sequence: 7, unix_milliseconds: 1_000, level: what.level(), text: what.to_string(), what };
        let json = concat!(
            r#"{"sequence":7,"unix_milliseconds":1000,"level":"warning","#,
            r#""text":"backend web1 of pool web is unhealthy: HTTP 503","event":"backend_health","#,
            r#""pool":"web","backend":"web1","health":"unhealthy","reason":"HTTP 503"}"#
        );
        assert_eq!(serde_json::to_string(&event).unwrap(), json);
        assert_eq!(serde_json::from_str::<Event>(json).unwrap(), event);
    }

    #[test]
    fn a_prefix_of_several_vips_names_none_of_them_in_its_fields() {
        let prefix = "203.0.113.10/32".parse().unwrap();
        let event = |vips: &[&str]| What::Prefix {
            prefix,
            announced: true,
            vips: vips.iter().map(ToString::to_string).collect(),
            reason: None,
        };
        let fields = Fields { prefix: Some(prefix), ..Fields::default() };
        assert_eq!(event(&["a", "b"]).fields(), fields);
        assert_eq!(event(&["a"]).fields(), Fields { vip: Some("a"), ..fields });
    }

    #[test]
    fn each_event_has_a_sentence_and_a_level() {
        let (pool, backend) = (|| "web".to_owned(), || "web1".to_owned());
        let prefix = |announced, vips: &[&str], reason: Option<&str>| What::Prefix {
            prefix: "203.0.113.10/32".parse().unwrap(),
            announced,
            vips: vips.iter().map(ToString::to_string).collect(),
            reason: reason.map(str::to_owned),
        };
        let reach = |reachable, reason: Option<&str>| What::BackendReach {
            pool: pool(),
            backend: backend(),
            address: [10, 0, 1, 11].into(),
            reachable,
            reason: reason.map(str::to_owned),
        };
        let node = |stage: &str| What::Node { stage: stage.into(), reason: Some("new disk".into()) };
        let rows = [
            (reach(false, Some("no route")), Level::Warning, "backend web1 of pool web is unreachable: no route"),
            (reach(true, None), Level::Info, "backend web1 of pool web is reachable again"),
            (
                What::PoolPanic { pool: pool(), on: true, healthy: 1, of: 4 },
                Level::Error,
                "PANIC: 1 of 4 backends of pool web are healthy: fail-open, all active backends are used",
            ),
            (
                What::PoolPanic { pool: pool(), on: false, healthy: 3, of: 4 },
                Level::Warning,
                "panic of pool web is over: 3 of 4 backends are healthy",
            ),
            (prefix(true, &["www"], None), Level::Info, "203.0.113.10/32 is announced, for VIP www"),
            (
                prefix(false, &["a", "b"], Some("the node is drained")),
                Level::Warning,
                "203.0.113.10/32 is withdrawn, for VIPs a, b: the node is drained",
            ),
            (
                prefix(true, &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"], None),
                Level::Info,
                "203.0.113.10/32 is announced, for VIPs a, b, c, d, e, f, g, h and 2 more",
            ),
            (node("leaving"), Level::Info, "drain of the node: leaving: new disk"),
            (node("serving"), Level::Info, "the node serves again"),
            (
                What::Changed { change: "drain backend web1 of pool web".into(), uid: Some(0), pid: None },
                Level::Info,
                "drain backend web1 of pool web (by user 0)",
            ),
        ];
        for (what, level, text) in rows {
            assert_eq!((what.level(), what.to_string().as_str()), (level, text));
        }
    }
}
