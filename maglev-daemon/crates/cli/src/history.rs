//! `maglev history`: the revisions of the services, each with author, time and reason. It must not know how they are kept.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use clap::error::ErrorKind;
use maglev_api::view::{History, RevisionContent, RevisionDiff};
use maglev_model::{Name, parse_duration};

use super::output::Printer;
use super::{Client, Failure};

/// The filters of the list.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only changes to this pool, its backends and VIPs
    #[arg(long)]
    pool: Option<Name>,
    /// Only changes to this backend of the pool
    #[arg(long, requires = "pool")]
    backend: Option<Name>,
    /// Only changes since a time (2026-11-29T10:00:00Z), or so long ago (2h)
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<Since>,
    #[command(subcommand)]
    command: Option<HistoryCommand>,
}

#[derive(Debug, Subcommand)]
enum HistoryCommand {
    /// All services as they were at a revision
    Show {
        /// Its number
        revision: u64,
    },
    /// The difference between two revisions
    Diff {
        /// The number of the first
        from: u64,
        /// The number of the second
        to: u64,
    },
}

impl Args {
    /// Refuses filters beside a subcommand. clap's own rule for that would refuse `--output` and `-m` there too.
    pub(super) fn check(&self) -> Result<(), clap::Error> {
        let Self { pool, backend, since, command } = self;
        let filters = [("--pool", pool.is_some()), ("--backend", backend.is_some()), ("--since", since.is_some())];
        let given = filters.into_iter().find(|(_, given)| *given && command.is_some());
        given.map_or(Ok(()), |(filter, _)| {
            let message =
                format!("{filter} cannot be used with `show` or `diff`: it selects what `maglev history` lists");
            Err(clap::Error::raw(ErrorKind::ArgumentConflict, message))
        })
    }
}

/// The begin of a list of revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    Time(u64),
    Ago(Duration),
}

impl Since {
    fn unix_milliseconds(self) -> u64 {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match self {
            Self::Time(at) => at,
            Self::Ago(time) => {
                milliseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(time))
            }
        }
    }
}

fn parse_since(text: &str) -> Result<Since, String> {
    if let Some(at) = maglev_model::parse_utc(text) {
        return Ok(Since::Time(at));
    }
    let bad = "not a time; allowed: RFC 3339 in UTC (2026-11-29T10:00:00Z), or a duration (90s, 30m, 2h)";
    parse_duration(text).map(Since::Ago).ok_or_else(|| bad.to_owned())
}

pub(super) fn run(args: Args, client: &Client, printer: &Printer) -> Result<(), Failure> {
    let Args { pool, backend, since, command } = args;
    match command {
        None => {
            let since = since.map(|since| since.unix_milliseconds().to_string());
            let keys = [
                ("pool", pool.map(|pool| pool.to_string())),
                ("backend", backend.map(|name| name.to_string())),
                ("since", since),
            ];
            let query: Vec<_> = keys.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value?))).collect();
            printer.answer(&client.get::<History>(&format!("/v1/history?{}", query.join("&")))?)
        }
        Some(HistoryCommand::Show { revision }) => {
            printer.answer(&client.get::<RevisionContent>(&format!("/v1/history/{revision}"))?)
        }
        Some(HistoryCommand::Diff { from, to }) => {
            printer.answer(&client.get::<RevisionDiff>(&format!("/v1/history/diff?from={from}&to={to}"))?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_so_long_ago() {
        assert_eq!(parse_since("2026-11-29T10:00:00Z"), Ok(Since::Time(1_795_946_400_000)));
        assert_eq!(parse_since("2h"), Ok(Since::Ago(Duration::from_secs(7_200))));
        assert!(parse_since("yesterday").unwrap_err().contains("RFC 3339"));
        let hour = 3_600_000;
        let ago = Since::Ago(Duration::from_millis(hour)).unix_milliseconds();
        let now = Since::Ago(Duration::ZERO).unix_milliseconds();
        assert!((hour..hour + 60_000).contains(&(now - ago)));
    }
}
