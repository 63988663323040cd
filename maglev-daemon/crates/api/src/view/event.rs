//! What happened on the node that an operator is told. It must not know who tells it, nor who listens.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::HealthState;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number: greater than that of every event before it, those of earlier daemons included.
    pub sequence: u64,
    /// When it happened, in milliseconds since 1970.
    pub unix_milliseconds: u64,
    /// How much it matters.
    pub level: Level,
    /// What happened, as a sentence.
    pub text: String,
    /// What happened, for programs.
    #[serde(flatten)]
    pub what: What,
}

/// `GET /v1/events/recent`: the last events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// How many of those that were asked for are not known any more.
    pub missed: u64,
    /// Those that are, the oldest first.
    pub events: Vec<Event>,
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// All is well.
    Info,
    /// Something is out of order.
    Warning,
    /// Somebody should look at once.
    Error,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// The daemon started: its first event.
    Started {
        /// Its release.
        version: String,
    },
    /// The daemon was told to stop.
    Stopping,
    /// What checks say of a backend changed.
    BackendHealth {
        /// Its pool.
        pool: String,
        /// Its name.
        backend: String,
        /// What it is now.
        health: HealthState,
        /// Why, if a check failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A backend's next hop was lost, or is there again.
    BackendReach {
        /// Its pool.
        pool: String,
        /// Its name.
        backend: String,
        /// Its address.
        address: IpAddr,
        /// Whether it can be reached.
        reachable: bool,
        /// Why not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A pool uses all its backends since too few are healthy, or does so no more.
    PoolPanic {
        /// The pool.
        pool: String,
        /// Whether it does.
        on: bool,
        /// How many backends are healthy.
        healthy: usize,
        /// Of how many.
        of: usize,
    },
    /// Everything that is checked fails at once, or does so no more.
    CommonFailure {
        /// Whether it does.
        on: bool,
        /// How many things are checked and were healthy.
        healthy: usize,
    },
    /// Routers are told of a prefix of VIPs, or no longer.
    Prefix {
        /// The prefix.
        prefix: IpNet,
        /// Whether it is announced.
        announced: bool,
        /// The VIPs on it.
        vips: Vec<String>,
        /// Why it is withdrawn.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The node's drain came to a stage, or ended.
    Node {
        /// The stage; `serving` once there is no drain any more.
        stage: String,
        /// Why it was ordered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The program came off an interface, or is on it again.
    Interface {
        /// The interface.
        interface: String,
        /// Whether it is attached.
        attached: bool,
    },
    /// A VIP is not served, or is again: its address is needed by the node or its backends.
    VipError {
        /// The VIP.
        vip: String,
        /// What it would cut off; null: it is served again.
        reason: Option<String>,
    },
    /// An interface has another name than `maglev.yaml` gives it, or that one again.
    InterfaceName {
        /// The name in `maglev.yaml`.
        interface: String,
        /// The name it has now; null: it has that one again.
        renamed_to: Option<String>,
    },
    /// An operator changed the services or the node.
    Changed {
        /// The change, as an order.
        change: String,
        /// The user who asked for it.
        uid: Option<u32>,
        /// The process that did.
        pid: Option<i32>,
    },
    /// The files were read again.
    Reloaded {
        /// Whether they were taken over.
        successful: bool,
    },
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
    /// The user who made the change.
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
    /// How much it matters: what is as it should be is told too, but nobody needs to look.
    pub const fn level(&self) -> Level {
        match self {
            Self::PoolPanic { on: true, .. }
            | Self::CommonFailure { on: true, .. }
            | Self::Interface { attached: false, .. }
            | Self::VipError { reason: Some(_), .. }
            | Self::InterfaceName { renamed_to: Some(_), .. }
            | Self::Reloaded { successful: false } => Level::Error,
            Self::BackendHealth { health: HealthState::Unhealthy | HealthState::Unreachable, .. }
            | Self::BackendReach { reachable: false, .. }
            | Self::PoolPanic { on: false, .. }
            | Self::CommonFailure { on: false, .. }
            | Self::Prefix { announced: false, .. } => Level::Warning,
            Self::Started { .. }
            | Self::Stopping
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
            | Self::CommonFailure { on: _, healthy: _ }
            | Self::Node { stage: _, reason: _ }
            | Self::Interface { interface: _, attached: _ }
            | Self::InterfaceName { interface: _, renamed_to: _ }
            | Self::Reloaded { successful: _ } => Fields::default(),
        }
    }
}

/// `: why`, if it is known.
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
            Self::BackendHealth { pool, backend, health, reason } => {
                write!(f, "backend {backend} of pool {pool} is {}{}", health.as_str(), Because(reason))
            }
            Self::BackendReach { pool, backend, address: _, reachable: true, reason: _ } => {
                write!(f, "backend {backend} of pool {pool} can be reached again")
            }
            Self::BackendReach { pool, backend, address: _, reachable: false, reason } => {
                write!(f, "backend {backend} of pool {pool} is out of reach{}", Because(reason))
            }
            Self::PoolPanic { pool, on: true, healthy, of } => {
                write!(f, "PANIC: {healthy} of {of} backends of pool {pool} are healthy: all that are active are used")
            }
            Self::PoolPanic { pool, on: false, healthy, of } => {
                write!(f, "panic of pool {pool} is over: {healthy} of {of} backends are healthy")
            }
            Self::CommonFailure { on: true, healthy } => write!(
                f,
                "every check fails at once, of {healthy} that were good: taken for this node's own fault for now"
            ),
            Self::CommonFailure { on: false, .. } => {
                f.write_str("not every check fails any more, or that is believed now")
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
            Self::Interface { interface, attached: false } => write!(f, "the XDP program came off {interface}"),
            Self::VipError { vip, reason: Some(reason) } => {
                write!(f, "VIP {vip} is not served and not announced: {reason}")
            }
            Self::VipError { vip, reason: None } => {
                write!(f, "VIP {vip} is served again: nothing else needs its address any more")
            }
            Self::InterfaceName { interface, renamed_to: Some(now) } => write!(
                f,
                "interface {interface} was renamed to {now}: it works on, but maglev.yaml names {interface}, and the next \
                 start would wait for it"
            ),
            Self::InterfaceName { interface, renamed_to: None } => {
                write!(f, "interface {interface} has the name again that maglev.yaml gives it")
            }
            Self::Changed { change, uid, pid: _ } => match uid {
                Some(uid) => write!(f, "{change} (by user {uid})"),
                None => f.write_str(change),
            },
            Self::Reloaded { successful: true } => f.write_str("the files were read again and taken over"),
            Self::Reloaded { successful: false } => {
                f.write_str("the files were read again and REFUSED: nothing changed, see the log")
            }
        }
    }
}

/// The names of VIPs, of which a sentence holds a few.
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
    fn each_is_told_in_a_sentence_and_by_how_much_it_matters() {
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
            (reach(false, Some("no route")), Level::Warning, "backend web1 of pool web is out of reach: no route"),
            (reach(true, None), Level::Info, "backend web1 of pool web can be reached again"),
            (
                What::PoolPanic { pool: pool(), on: true, healthy: 1, of: 4 },
                Level::Error,
                "PANIC: 1 of 4 backends of pool web are healthy: all that are active are used",
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
