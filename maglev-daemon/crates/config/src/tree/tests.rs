//! The fast reader gives the full parser's tree; it leaves few of our own files to the full parser.

use proptest::prelude::*;

use super::*;

/// Both readers' trees; the fast one's only if it reads the text.
fn both(text: &str) -> (Option<Node>, Result<Node, Problem>) {
    (plain::parse(text, bounds::VALUES), parse_all(Path::new("services.yaml"), text))
}

fn is_short(text: &str) -> bool {
    let (short, full) = both(text);
    if let Some(short) = &short {
        assert_eq!(Ok(short), full.as_ref(), "{text:?}");
    }
    short.is_some()
}

#[test]
fn our_files_take_the_short_reader() {
    let texts = [
        "pools: []\nvips: []\n",
        "# revision 3\n# text: with {signs}\n\npools:\n  - name: web\n    backends:\n      - { name: web1, address: 10.0.1.11 }\n",
        "pools:\n  - name: web\n    transition: { learning: 90s, idle: 15m, udp: keep }\n    min_healthy: 2\n    check: { kind: http, \
         path: \"/a b?c=d#e\", interval: 2s, timeout: 500ms, fall: 2 }\n    backends: []\n  - name: \"1e5\"\n    tracking: always\n\
         vips:\n  - { name: www, address: \"2001:db8::1\", port: any, announce: false, communities: [\"1:2\", \"3:4\"] }\n",
        "pools:\n    -   name: a\n        backends:\n           - name: b\n             address: 10.0.0.1\n             check:\n               \
         path: /x\n\n  # between\n    -   name: c\nvips:\n - { name:  v ,  port: 0 }   \n",
        "a:\n  b:\n    c: 1\n  d: e\nf: g\n",
        "- a\n- b: c\n  d: e\n- [a, b]\n- { a: { b: c } }\n",
        "a: b\na: c\n",
    ];
    for text in texts {
        assert!(is_short(text), "{text}");
    }
}

#[test]
fn ambiguous_scalars_are_left_to_the_full_parser() {
    let texts = [
        "",
        "null",
        "a:\n",
        "a: null\n",
        "a: ~\n",
        "a: yes\n",
        "a: No\n",
        "a: 010\n",
        "a: 0x1f\n",
        "a: 1e5\n",
        "a: 1_000\n",
        "a: 1.5\n",
        "a: .inf\n",
        "a: NaN\n",
        "a: 12:30:45\n",
        "a: -1\n",
        "a: 2026-11-29\n",
        "a: 'b'\n",
        "a: \"b\\n\"\n",
        "a: |\n  b\n",
        "a: >\n  b: c\n",
        "a: &x b\nc: *x\n",
        "a: !!str b\n",
        "a: b c\n",
        "a: b # c\n",
        "a: b\n  c\n",
        "a: \"b\n  c\"\n",
        "a: {}\n",
        "a: { b: c,\n  d: e }\n",
        "a: { b: c, }\n",
        "a: { b }\n",
        "a: { b:c }\n",
        "a: [b\n]\n",
        "a: [b, ]\n",
        "? a\n: b\n",
        "a:\n- b\n",
        "a: b: c\n",
        "---\na: b\n",
        "a: b\n...\n",
        "%YAML 1.2\n---\na: b\n",
        "a:\n    b: c\n  d: e\n",
        "- a\n b: c\n",
        "\ta: b\n",
        "a:\tb\n",
        "a: b\r\n",
        "\u{feff}a: b\n",
        "a: \u{e9}\n",
        "true: a\n",
        "1: a\n",
        "\"a\": b\n",
        "a: 9999999999999999999999\n",
        "<<: a\n",
    ];
    for text in texts {
        assert!(!is_short(text), "{text:?}");
    }
}

#[test]
fn no_more_values_are_read_than_may_be() {
    let text = "a: [b, c, d]\n";
    assert!(plain::parse(text, 7).is_some());
    assert!(plain::parse(text, 5).is_none());
    let deep = format!("{}b{}\n", "[".repeat(100_000), "]".repeat(100_000));
    assert!(plain::parse(&deep, bounds::VALUES).is_none());
}

/// Lines that look like those of our files, some of them slightly wrong.
fn any_line() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("web1"),
        Just("10.0.1.11"),
        Just("100"),
        Just("\"a: b\""),
        Just("500ms"),
        Just("{ a: b }"),
        Just("{ name: x, port: 1 }"),
        Just("[a, \"b\"]"),
        Just("[]"),
        Just("yes"),
        Just("1.5"),
        Just("{ a: [b, { c: d }] }"),
        Just("a-b"),
        Just("-"),
        Just("0"),
        Just("a b"),
        Just("true"),
        Just("/x"),
        Just("x:"),
        Just("{ a: b"),
        Just("a#b"),
        Just("a #b"),
        Just("1-2"),
        Just("1.2.3"),
        Just("1d"),
        Just("n"),
    ];
    (0..4usize, 0..6usize, prop_oneof![Just("a"), Just("name"), Just("b_1")], value, 0..3usize).prop_map(
        |(depth, form, key, value, more)| {
            let indent = " ".repeat(2 * depth + usize::from(more == 2));
            match form {
                0 => format!("{indent}{key}: {value}"),
                1 => format!("{indent}{key}:"),
                2 => format!("{indent}- {value}"),
                3 => format!("{indent}- {key}: {value}"),
                4 => format!("{indent}- {key}:"),
                _ => format!("{indent}{}# {value}", if more == 1 { "a: b " } else { "" }),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn the_short_reader_reads_what_the_full_one_reads(lines in prop::collection::vec(any_line(), 1..7)) {
        is_short(&(lines.join("\n") + "\n"));
    }

    #[test]
    fn both_readers_agree_on_any_text(text in "[-a-e{}\\[\\]:, \n\"0-9&*<!|>#./]{0,40}") {
        is_short(&text);
    }
}
