//! Numbers and times of `maglev.yaml`: values that a message allows and documented defaults are accepted.

mod faults {
    use std::path::Path;

    use crate::node;
    use maglev_testing::matrix::Row;

    const EXAMPLE: &str = include_str!("../../../../deploy/examples/maglev.yaml");

    /// There are no files with passwords.
    fn no_secret(_: &Path) -> Result<String, String> {
        Err("there is none".to_owned())
    }

    /// The errors of the example with this part of it replaced. It may do without graceful restart.
    fn problems(part: &str, other: &str) -> Vec<String> {
        let example = EXAMPLE.replace("\n  on_stop: keep\n", "\n  on_stop: withdraw\n");
        assert!(example.contains(part), "{part}");
        let found = node::decode(Path::new("maglev.yaml"), &example.replacen(part, other, 1), no_secret).problems;
        found.iter().map(|problem| problem.message.clone()).collect()
    }

    /// The least and the most value that a message allows.
    fn bounds(message: &str) -> Option<[String; 2]> {
        let (least, most) = message.split_once("allowed: ")?.1.split_once(" to ")?;
        let least = least.split(' ').rfind(|word| !word.starts_with('('))?;
        Some([least, most.split([' ', ',']).next()?].map(str::to_owned))
    }

    /// A part of the example, the same with a value at `@`, and the values documented as defaults or examples.
    const FIELDS: [(&str, &str, &[&str]); 21] = [
        ("local_as: 65010", "local_as: @", &["65010"]),
        ("remote_as: 65000", "remote_as: @", &["65000"]),
        ("hold_time: 9s ", "hold_time: @ ", &["9s", "0s"]),
        ("hold_time: 9s ", "hold_time: 65535s\n      keepalive: @ ", &["3s"]),
        ("hold_time: 9s ", "prepend: @ ", &["0", "1"]),
        ("hold_time: 9s ", "port: @ ", &["179"]),
        ("hold_time: 9s ", "multihop: @ ", &["2"]),
        ("hold_time: 9s ", "med: @ ", &["50"]),
        ("remote_as: 65000", "remote_as: 65010\n      local_pref: @", &["100"]),
        ("on_stop: withdraw", "on_drain: { prepend: @ }", &["0", "3"]),
        ("on_stop: withdraw", "on_drain: { med: @ }", &["1000"]),
        ("graceful_restart: 120s", "graceful_restart: @", &["120s", "off"]),
        ("lead: 10s", "lead: @", &["10s"]),
        ("quiet: 10s", "quiet: @", &["10s"]),
        ("vips: 512", "vips: @", &["512"]),
        ("pools: 512", "pools: @", &["512"]),
        ("backends: 32767", "backends: @", &["32767"]),
        ("flows: 458752", "flows: @", &["458752"]),
        ("common_failure: 3", "common_failure: @", &["3", "0"]),
        ("hold_down: 10s", "hold_down: @", &["10s"]),
        ("on_stop: withdraw", "link_bandwidth: @G", &["10"]),
    ];

    #[test]
    fn every_documented_default_and_every_bound_that_a_message_names_is_accepted() {
        let mut row = Row::fault("R5", "defaults and the bounds in messages are accepted, of every number and time");
        for (part, field, documented) in FIELDS {
            let refused = problems(part, &field.replace('@', "x"));
            let [message] = &refused[..] else { panic!("{field}: {refused:?}") };
            let bounds = bounds(message).unwrap_or_else(|| panic!("{field}: {message}"));
            let allowed = documented.iter().map(|text| (*text).to_owned()).chain(bounds);
            for value in allowed {
                assert_eq!(problems(part, &field.replace('@', &value)), [""; 0], "{field}: {value}");
            }
        }
        row.says(format!("{} fields", FIELDS.len()));
    }

    #[test]
    fn as_numbers_that_no_speaker_has_are_refused_with_those_that_are_allowed() {
        let _row = Row::fault("R5", "AS 0, 23456 and 4294967295 are refused, and the message and the hint agree");
        for (part, field) in [("local_as: 65010", "local_as"), ("remote_as: 65000", "remote_as")] {
            for value in ["0", "23456", "4294967295", "4294967296", "-1"] {
                let expected = format!("{value} is not an AS number; allowed: 1 to 4294967294, but not 23456");
                assert_eq!(problems(part, &format!("{field}: {value}")), [expected], "{field}");
            }
        }
        let missing = problems("local_as: 65010", "");
        assert_eq!(missing, ["missing; expected 1 to 4294967294, but not 23456"]);
    }
}
