//! `maglev backend check`: one check, made now, and what came of it. It must not know how a check is made.

use std::time::Duration;

use super::interrupt::Interrupt;
use super::output::{Printer, Text, table};
use super::{Client, Failure, backend};
use crate::api::view::{CheckReport, CheckedTarget};
use crate::model::Name;

/// Longer than the longest timeout that a check may have, and a wait for a socket.
const LONGEST: Duration = Duration::from_secs(75);

pub(super) fn run(client: &Client, printer: &Printer, pool: &Name, name: &Name) -> Result<(), Failure> {
    let path = format!("{}/check", backend::path(pool, name));
    let _interrupt = Interrupt::says("nothing was changed; the check ends by itself")?;
    let report: CheckReport = client.post_within(&path, &(), LONGEST)?;
    printer.answer(&report)?;
    match (report.failed(), report.targets.len()) {
        (0, _) => Ok(()),
        (1, 1) => Err(Failure::Bad(format!("backend {name} of pool {pool} fails its check"))),
        (failed, all) => Err(Failure::Bad(format!("backend {name} of pool {pool} fails {failed} of {all} checks"))),
    }
}

/// A time that something took: `0.4 ms`, `12 ms`, `1.2 s`.
pub(super) fn latency(microseconds: u64) -> String {
    match microseconds {
        0..10_000 => format!("{:.1} ms", microseconds as f64 / 1_000.0),
        10_000..1_000_000 => format!("{} ms", microseconds / 1_000),
        _ => format!("{:.1} s", microseconds as f64 / 1_000_000.0),
    }
}

impl Text for CheckReport {
    fn text(&self) -> String {
        let row = |target: &CheckedTarget| {
            let CheckedTarget { destination, vip, kind, passed: _, microseconds, error } = target;
            let via = vip.as_ref().map_or_else(|| "direct".to_owned(), |vip| format!("encap, VIP {vip}"));
            let result = error.clone().unwrap_or_else(|| "ok".to_owned());
            [destination.to_string(), kind.clone(), via, latency(*microseconds), result]
        };
        table(["destination", "kind", "via", "took", "result"], &["took"], self.targets.iter().map(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_is_told_with_what_happened() {
        let target = |vip: Option<&str>, microseconds, error: Option<&str>| CheckedTarget {
            destination: "203.0.113.10:80".parse().unwrap(),
            vip: vip.map(str::to_owned),
            kind: "http".into(),
            passed: error.is_none(),
            microseconds,
            error: error.map(str::to_owned),
        };
        let targets =
            vec![target(None, 412, None), target(Some("www"), 1_000_400, Some("connect: timed out after 1 s"))];
        let report = CheckReport { pool: "web".into(), backend: "web1".into(), targets };
        let text = "\
DESTINATION      KIND  VIA               TOOK  RESULT
203.0.113.10:80  http  direct          0.4 ms  ok
203.0.113.10:80  http  encap, VIP www   1.0 s  connect: timed out after 1 s
";
        assert_eq!((report.text().as_str(), report.failed()), (text, 1));
    }

    #[test]
    fn times_keep_a_readable_unit() {
        let told = [0, 49, 9_949, 10_000, 999_999, 1_250_000].map(latency);
        assert_eq!(told, ["0.0 ms", "0.0 ms", "9.9 ms", "10 ms", "999 ms", "1.2 s"]);
    }
}
