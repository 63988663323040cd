//! The text of requested checks.

use maglev_api::view::{CheckReport, CheckedTarget};
use maglev_model::ShownDuration;

use crate::output::{Text, table};

impl Text for CheckReport {
    fn text(&self) -> String {
        let row = |target: &CheckedTarget| {
            let CheckedTarget { destination, vip, kind, passed: _, microseconds, error } = target;
            let via = vip.as_ref().map_or_else(|| "direct".to_owned(), |vip| format!("encap, VIP {vip}"));
            let result = error.clone().unwrap_or_else(|| "ok".to_owned());
            [destination.to_string(), kind.clone(), via, ShownDuration::from_micros(*microseconds).to_string(), result]
        };
        table(["destination", "kind", "via", "took", "result"], &["took"], self.targets.iter().map(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_is_shown_with_its_result() {
        let target = |vip: Option<&str>, microseconds, error: Option<&str>| CheckedTarget {
            destination: "203.0.113.10:80".parse().unwrap(),
            vip: vip.map(str::to_owned),
            kind: "http".into(),
            passed: error.is_none(),
            microseconds,
            error: error.map(str::to_owned),
        };
        let targets =
            vec![target(None, 412, None), target(Some("www"), 1_000_400, Some("connect: timed out after 1s"))];
        let report = CheckReport { pool: "web".into(), backend: "web1".into(), targets };
        let text = "\
DESTINATION      KIND  VIA               TOOK  RESULT
203.0.113.10:80  http  direct          0.4 ms  ok
203.0.113.10:80  http  encap, VIP www      1s  connect: timed out after 1s
";
        assert_eq!((report.text().as_str(), report.failed()), (text, 1));
    }
}
