//! Records of the history: a line of JSON that identifies the record, and for a revision its objects in the form of
//! `services.yaml`. It must not know how a record lies in the file.

use std::path::Path;

use maglev_config::{decode_services, encode_services};
use maglev_model::{Counts, Delta, Difference, Limits, Name, OuterSources, Removed, Rules, Services};
use serde::{Deserialize, Serialize};

/// The author of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// The user, as the kernel names the process; `None` for the daemon itself.
    pub uid: Option<u32>,
    /// The process.
    pub pid: Option<i32>,
    /// The change in words.
    pub command: String,
    /// The reason that was given.
    pub why: Option<String>,
}

/// One revision of the services, without its contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number, from 1.
    pub revision: u64,
    /// When it was saved, in milliseconds since 1970-01-01T00:00:00Z.
    pub unix_milliseconds: u64,
    /// Its author.
    #[serde(flatten)]
    pub author: Author,
    /// The pools that it affects.
    pub pools: Vec<String>,
    /// The backends that it affects, as `pool/name`; none of a revision with more than [`MOST_BACKENDS`].
    pub backends: Vec<String>,
    /// VIPs, pools and backends that it added, changed and removed.
    counts: [[usize; 3]; 3],
    /// The digest of the services after it, in full; `None` where the next revision was saved together with it.
    pub digest: Option<String>,
}

/// The most backends that are listed of a revision.
pub const MOST_BACKENDS: usize = 100;

impl Revision {
    pub(crate) fn new(revision: u64, unix_milliseconds: u64, author: Author, delta: &Delta) -> Self {
        let all = delta.backends().map(|(pool, name)| format!("{pool}/{name}"));
        let backends: Vec<_> = all.take(MOST_BACKENDS + 1).collect();
        let of = |Counts { added, changed, removed }: Counts| [added, changed, removed];
        let Difference { vips, pools, backends: of_backends } = delta.counts;
        Self {
            revision,
            unix_milliseconds,
            author,
            pools: delta.pools().into_iter().map(ToString::to_string).collect(),
            backends: if backends.len() > MOST_BACKENDS { Vec::new() } else { backends },
            counts: [vips, pools, of_backends].map(of),
            digest: None,
        }
    }

    /// How many of each kind it added, changed and removed.
    pub fn counts(&self) -> Difference {
        let of = |[added, changed, removed]: [usize; 3]| Counts { added, changed, removed };
        let [vips, pools, backends] = self.counts.map(of);
        Difference { vips, pools, backends }
    }
}

/// The first line of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "lowercase")]
pub(super) enum Line {
    /// A revision; its objects follow.
    Revision {
        #[serde(flatten)]
        revision: Box<Revision>,
        /// Whether they are all services, or only the changed ones.
        whole: bool,
        removed_pools: Vec<String>,
        removed_backends: Vec<(String, String)>,
        removed_vips: Vec<String>,
    },
    /// `services.yaml` was replaced: it holds this revision.
    Written {
        revision: u64,
        /// The SHA-256 of its text, in hexadecimal digits.
        text: String,
    },
}

impl Line {
    pub(super) fn delta(revision: &Revision, removed: &Removed) -> Self {
        let Removed { pools, backends, vips } = removed;
        let text = |name: &Name| name.to_string();
        Self::Revision {
            revision: Box::new(revision.clone()),
            whole: false,
            removed_pools: pools.iter().map(text).collect(),
            removed_backends: backends.iter().map(|(pool, name)| (text(pool), text(name))).collect(),
            removed_vips: vips.iter().map(text).collect(),
        }
    }

    pub(super) fn whole(revision: &Revision) -> Self {
        let (removed_pools, removed_backends, removed_vips) = (Vec::new(), Vec::new(), Vec::new());
        let revision = Box::new(revision.clone());
        Self::Revision { revision, whole: true, removed_pools, removed_backends, removed_vips }
    }

    /// The payload of a frame.
    pub(super) fn payload(&self, services: Option<&Services>) -> Result<Vec<u8>, String> {
        let mut payload = serde_json::to_vec(self).map_err(|error| format!("cannot write a revision: {error}"))?;
        payload.push(b'\n');
        payload.extend(services.map(encode_services).unwrap_or_default().into_bytes());
        Ok(payload)
    }

    /// Reads the first line of a payload; the rest is returned as it is.
    pub(super) fn read(payload: &str) -> Result<(Self, &str), String> {
        let (line, rest) = payload.split_once('\n').ok_or("a record without a line")?;
        Ok((serde_json::from_str(line).map_err(|error| format!("unreadable record: {error}"))?, rest))
    }
}

/// The objects of a record.
pub(super) fn services(text: &str) -> Result<Services, String> {
    decode_services(Path::new("services.history"), text, &any_node()).map_err(|problems| problems.to_string())
}

/// Names that a record holds.
pub(super) fn removed(line: &Line) -> Result<Removed, String> {
    let Line::Revision { removed_pools, removed_backends, removed_vips, .. } = line else {
        return Ok(Removed::default());
    };
    let name = |text: &String| Name::parse(text).map_err(|error| error.to_string());
    Ok(Removed {
        pools: removed_pools.iter().map(name).collect::<Result<_, _>>()?,
        backends: removed_backends
            .iter()
            .map(|(pool, backend)| Ok((name(pool)?, name(backend)?)))
            .collect::<Result<_, String>>()?,
        vips: removed_vips.iter().map(name).collect::<Result<_, _>>()?,
    })
}

/// Rules that no services which were in use can break: a node whose limits were lowered reads its history all the same.
fn any_node() -> Rules {
    let outer = OuterSources {
        v4: Some(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::UNSPECIFIED, 32)),
        v6: Some(ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::UNSPECIFIED, 128)),
    };
    Rules { limits: Limits::default(), outer }
}
