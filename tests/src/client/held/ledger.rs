//! The fate of the connections: where each lives, when it last spoke, which broke, and whether that was to be expected.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    ops::Add,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

/// How many breaks a report lists one by one.
const TOLD: usize = 5;

/// Which of the connections one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One of those that were held from the start.
    Held,
    /// A held one that took the place of one that broke or left.
    Successor,
    /// One of those that come, talk and go.
    Arrival,
}

/// A connection that did not come to its end.
#[derive(Clone, Debug)]
pub struct Break {
    /// Which it is.
    pub kind: Kind,
    /// The client's end, once there was one.
    pub source: Option<SocketAddr>,
    /// Where it was opened to.
    pub target: SocketAddr,
    /// The backend that took it, once one had.
    pub home: Option<Arc<str>>,
    /// When the client began to open it.
    pub born: Instant,
    /// When it was found broken.
    pub ended: Instant,
    /// How.
    pub reason: String,
}

/// A backend's server was ended and started again, or ended for good.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    pub(super) home: String,
    /// From just before its end to just after it serves again.
    pub(super) time: [Instant; 2],
}

/// The place of one held connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// The backend it lives on, while it is open.
    pub(super) home: Option<Arc<str>>,
    /// When its last exchange that was answered began.
    pub(super) spoke: Option<Instant>,
}

/// The record of all events.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) places: Vec<Place>,
    pub(super) breaks: Vec<Break>,
    pub(super) counts: Counts,
}

/// Plain sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Held connections that took another's place.
    pub successors: u64,
    /// Held connections that left when ordered to.
    pub left: u64,
    /// Connections that came, talked and went beside the held ones.
    pub arrivals: u64,
    /// Exchanges that were answered, held connections and arrivals together.
    pub exchanges: u64,
    /// Bytes that were answered rightly.
    pub bytes: u64,
    /// The longest delay that the client itself caused: an arrival that began late, or waited for its turn to open.
    pub late: Duration,
}

/// The connections at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Held connections that are open.
    pub open: usize,
    /// Connections that were begun beside the held ones.
    pub arrivals: u64,
    /// Connections that broke after a backend had taken them.
    pub broken: usize,
    /// Connections that no backend took.
    pub failed: usize,
    /// The longest delay that the client itself caused.
    pub late: Duration,
}

impl Add for Seen {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            open: self.open + other.open,
            arrivals: self.arrivals + other.arrivals,
            broken: self.broken + other.broken,
            failed: self.failed + other.failed,
            late: self.late.max(other.late),
        }
    }
}

/// The overall result. Its text is one line.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many connections were held at a time.
    pub held: usize,
    /// The sums.
    pub counts: Counts,
    /// Connections that broke although their backend lived.
    pub broken: Vec<Break>,
    /// Connections that ended with the server they lived on.
    pub cut: Vec<Break>,
}

impl Ledger {
    /// The report, once every connection has ended.
    pub(super) fn report(&mut self, cuts: &[Cut]) -> Report {
        let breaks = std::mem::take(&mut self.breaks);
        let (cut, broken) = breaks.into_iter().partition(|lost| cuts.iter().any(|cut| cut.explains(lost)));
        Report { held: self.places.len(), counts: self.counts, broken, cut }
    }

    /// The connections so far; those that ended with a server are among the broken ones.
    pub(super) fn so_far(&self) -> Seen {
        let failed = self.breaks.iter().filter(|lost| lost.home.is_none()).count();
        Seen {
            open: self.places.iter().filter(|place| place.home.is_some()).count(),
            arrivals: self.counts.arrivals,
            broken: self.breaks.len() - failed,
            failed,
            late: self.counts.late,
        }
    }

    /// How many live on each backend.
    pub(super) fn homes(&self) -> BTreeMap<String, usize> {
        let mut homes = BTreeMap::new();
        for home in self.places.iter().filter_map(|place| place.home.as_deref()) {
            *homes.entry(home.to_owned()).or_insert(0) += 1;
        }
        homes
    }
}

impl Cut {
    /// Whether the connection lived on the server that ended.
    fn explains(&self, lost: &Break) -> bool {
        let [from, to] = self.time;
        lost.home.as_deref() == Some(self.home.as_str()) && lost.born <= to && lost.ended >= from
    }
}

impl Report {
    /// How many of these kinds broke although their backend lived.
    pub fn broken(&self, kinds: &[Kind]) -> usize {
        self.broken.iter().filter(|lost| kinds.contains(&lost.kind)).count()
    }

    /// Fails if one of these kinds broke although its backend lived; says why for the first few.
    ///
    /// # Errors
    /// If one did.
    pub fn none_broken(&self, kinds: &[Kind]) -> Result<()> {
        ensure!(self.broken(kinds) == 0, "{self}: {}", self.summary(kinds));
        Ok(())
    }

    /// The first few of these kinds that broke.
    pub fn summary(&self, kinds: &[Kind]) -> String {
        let broken = self.broken.iter().filter(|lost| kinds.contains(&lost.kind));
        broken.take(TOLD).map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Held, Self::Successor, Self::Arrival];
    /// Those that are held.
    pub const HELD: [Self; 2] = [Self::Held, Self::Successor];
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { held, counts, broken, cut } = self;
        let Counts { successors, left, arrivals, exchanges, bytes, late: _ } = counts;
        write!(f, "broken and cut with their server:")?;
        let of = [(Kind::Held, *held as u64), (Kind::Successor, *successors), (Kind::Arrival, *arrivals)];
        for (kind, all) in of {
            let count = |lost: &[Break]| lost.iter().filter(|lost| lost.kind == kind).count();
            write!(f, " {} and {} of {all} {kind},", count(broken), count(cut))?;
        }
        write!(f, " {left} left; {exchanges} exchanges, {bytes} bytes as they should be")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held => "held",
            Self::Successor => "in their places",
            Self::Arrival => "arrivals",
        })
    }
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, source, target, home, born, ended, reason } = self;
        match source {
            Some(source) => write!(f, "{source} -> {target} ({kind})")?,
            None => write!(f, "-> {target} ({kind})")?,
        }
        let age: Duration = *ended - *born;
        write!(f, ", home {}, after {:.1} s: {reason}", home.as_deref().unwrap_or("unknown"), age.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_break_is_explained_only_by_the_end_of_its_own_server() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let lost = |home: &str, born, ended| Break {
            kind: Kind::Held,
            source: None,
            target: ([203, 0, 113, 10], 7_000).into(),
            home: Some(home.into()),
            born: at(born),
            ended: at(ended),
            reason: "reset".to_owned(),
        };
        let breaks = vec![
            lost("web1", 0, 10),
            lost("web1", 0, 30),
            lost("web2", 0, 10),
            lost("web1", 0, 8),
            lost("web1", 12, 30),
            Break { home: None, ..lost("web1", 0, 10) },
        ];
        let report =
            Ledger { breaks, ..Ledger::default() }.report(&[Cut { home: "web1".to_owned(), time: [at(9), at(11)] }]);
        assert_eq!(report.cut.len(), 2, "{:?}", report.cut);
        assert_eq!(report.broken(&Kind::HELD), 4);
        assert!(report.none_broken(&[Kind::Arrival]).is_ok());
        assert!(report.none_broken(&Kind::ALL).is_err_and(|error| error.to_string().contains("home web2")));
    }
}
