//! The text of one counter's meaning and remedy.

use std::fmt::Write as _;

use maglev_model::runbook::{Entry, Remedy};

use crate::output::Text;

/// Of packets that are not lost.
const NOTHING: Remedy = Remedy { check: "-", action: "Nothing: these packets are not lost." };

impl Text for Entry {
    fn text(&self) -> String {
        let Self { name, outcome, meaning, remedy } = *self;
        let Remedy { check, action } = remedy.unwrap_or(NOTHING);
        let mut text = String::new();
        let rows =
            [("counter", name), ("outcome", outcome), ("packets", meaning), ("check", check), ("action", action)];
        for (key, value) in rows {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{key:<9}{value}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use maglev_model::runbook::parse_balancer;

    use super::*;

    #[test]
    fn each_part_has_a_line() {
        let text = parse_balancer("not_vip").unwrap().text();
        let expected = "counter  not_vip\noutcome  passed\npackets  For an address that no VIP has.\ncheck    -\naction   \
                        Nothing: these packets are not lost.\n";
        assert_eq!(text, expected);
        let json = serde_json::to_value(parse_balancer("not_vip").unwrap()).unwrap();
        assert_eq!((json["outcome"].as_str(), json.get("action")), (Some("passed"), None));
    }
}
