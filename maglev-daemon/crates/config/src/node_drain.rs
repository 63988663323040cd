//! The `drain` section of `maglev.yaml`: the settings of a node drain. It must not know how a drain is carried out.

use std::time::Duration;

use maglev_model::node_drain::Settings;
use maglev_model::{parse_duration, shown};

use super::decode::Field;

/// The upper bound of the times.
const LONGEST: Duration = Duration::from_secs(3_600);

/// The shortest time without packets that is proof.
const SHORTEST_QUIET: Duration = Duration::from_secs(1);

pub(super) fn decode(field: &Field<'_>) -> Option<Settings> {
    let section = field.section(&["lead", "quiet", "last_node"], &[])?;
    let default = Settings::default();
    let time = |key, least, usual| {
        section.get(key).map_or(Some(usual), |field| field.parse(|text| parse_time(text, least, LONGEST)))
    };
    let (lead, quiet) = (time("lead", Duration::ZERO, default.lead), time("quiet", SHORTEST_QUIET, default.quiet));
    let last_node = section.get("last_node").map_or(Some(default.last_node), |field| field.boolean());
    Some(Settings { lead: lead?, quiet: quiet?, last_node: last_node? })
}

fn parse_time(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    parse_duration(text).filter(|time| (least..=most).contains(time)).ok_or_else(|| {
        format!("{} is not a drain time; allowed: {}s to {}s", shown(text), least.as_secs(), most.as_secs())
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::decode::Collector;
    use crate::tree;

    fn decoded(text: &str) -> Result<Settings, Vec<String>> {
        let file = Path::new("maglev.yaml");
        let root = tree::parse(file, text).unwrap();
        let out = Collector::new(file);
        let found = decode(&Field::root(&root, &out));
        let problems: Vec<String> =
            out.finish().iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect();
        if problems.is_empty() { Ok(found.unwrap()) } else { Err(problems) }
    }

    #[test]
    fn times_are_within_bounds_and_ten_seconds_each_by_default() {
        let ten = Duration::from_secs(10);
        assert_eq!(decoded("{ }"), Ok(Settings { lead: ten, quiet: ten, last_node: false }));
        let second = Duration::from_secs(1);
        let text = "{ lead: 0s, quiet: 1s, last_node: true }";
        assert_eq!(decoded(text), Ok(Settings { lead: Duration::ZERO, quiet: second, last_node: true }));
        let problems = decoded("{ lead: 2h, quiet: 0s, last_node: perhaps, pace: 1s }").unwrap_err();
        for start in [
            "lead: 2h is not a drain time; allowed: 0s to 3600s",
            "quiet: 0s is not a drain time; allowed: 1s to 3600s",
            "last_node: ",
            "pace: unknown key; allowed: lead, quiet, last_node",
        ] {
            assert!(problems.iter().any(|problem| problem.starts_with(start)), "{start}: {problems:?}");
        }
    }
}
