//! Frames, keys and readings of a node that is not there.

use std::time::Duration;

use maglev_api::view::{self, Counters, Events, Vip};
use maglev_common::counters::Counter;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::draw::{self, Look};
use super::fixtures::{self, counters, node, now, reading, started, vip};
use super::model::Model;
use super::reading::{Needs, Reading};
use super::screen::{Key, Place, Screen, View};

fn look() -> Look {
    Look { host: "lb1".into(), colors: true, keys: true }
}

/// The lines of a frame.
fn lines(model: &Model, screen: &Screen, columns: u16, lines: u16) -> Vec<String> {
    let terminal = drawn(model, screen, &look(), columns, lines);
    draw::text(terminal.backend().buffer()).lines().map(str::to_owned).collect()
}

fn drawn(model: &Model, screen: &Screen, look: &Look, columns: u16, lines: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
    terminal.draw(|frame| draw::frame(model, screen, look, frame.area(), frame.buffer_mut())).unwrap();
    terminal
}

fn pressed(model: &Model, view: View, keys: &[Key]) -> Screen {
    let mut screen = Screen::new(view);
    for key in keys {
        assert!(screen.press(*key, model, 10), "{key:?} ended it");
    }
    screen
}

fn typed(text: &str) -> Vec<Key> {
    text.chars().map(Key::Char).collect()
}

#[test]
fn vips_are_shown_with_rates_in_80_columns() {
    let frame = lines(&node(), &Screen::new(View::Vips), 80, 24);
    let expected = [
        "maglev top  lb1  maglevd 0.1.0  up 3h 5m                                 serving",
        "forwarded 76.8k packets/s █████  dropped 3.0/s",
        " 1 VIPs  2 Pools  3 Drops  4 Sessions  5 Events",
        "VIP      PACKETS/S▾ BYTES/S  TREND              SERVING  ANNOUNCED",
        "www           51.2k    5.1M               █████ 2 of 3   to 2 of 2",
        "www6          25.6k    2.6M               █████ 2 of 3   to 1 of 2",
    ];
    for (line, (found, expected)) in frame.iter().zip(expected).enumerate() {
        assert_eq!(squeezed(found), squeezed(expected), "line {line} of\n{}", frame.join("\n"));
    }
    assert_eq!(frame[23], "q quit  Tab view  Enter open  Esc back  s sort  r reverse  / filter  p pause  ?…");
}

/// Without the widths of columns.
fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text of a frame of 80 columns, each run of blanks as one.
fn whole(model: &Model, screen: &Screen) -> String {
    lines(model, screen, 80, 24).iter().map(|line| squeezed(line) + "\n").collect()
}

fn assert_shows(model: &Model, screen: &Screen, texts: &[&str]) {
    let frame = whole(model, screen);
    for text in texts {
        assert!(frame.contains(text), "{text} is not in\n{frame}");
    }
}

#[test]
fn each_view_shows_what_was_read() {
    let node = node();
    for (view, texts) in [
        (
            View::Pools,
            &["POOL PACKETS/S▾ BYTES/S TREND USABLE HEALTHY LEARNING", "web 76.8k 7.7M", "2 of 3 3 of 3 0"][..],
        ),
        (View::Drops, &["COUNTER PACKETS/S▾", "no_such_vip 3.0", "█████ 55", "too_big 0 7"]),
        (View::Sessions, &["NEIGHBOR▾ STATE SINCE AS SENT LAST ERROR", "tor1 established 3h 65000 2 -"]),
        (
            View::Events,
            &[
                "TIME▾ LEVEL EVENT",
                "warning backend web3 of pool web is unhealthy: HTTP 503\n",
                "info maglevd 0.1.0 started",
            ],
        ),
    ] {
        assert_shows(&node, &Screen::new(view), texts);
    }
    // A counter of packets that are not lost is no drop.
    assert!(!whole(&node, &Screen::new(View::Drops)).contains(Counter::NotVip.name()));
}

#[test]
fn a_backend_is_reached_from_its_vip() {
    let node = node();
    let backends = pressed(&node, View::Vips, &[Key::Enter]);
    assert_eq!(backends.needs(&node).pool.as_deref(), Some("web"));
    assert_shows(
        &node,
        &backends,
        &[
            "VIP www: 203.0.113.10 port 443 tcp, affinity 5-tuple, when empty drop",
            "serving 2 of 3, announced: to 2 of 2 neighbors",
            "51.2k packets/s, 5.1M bytes/s █████",
            "Backends of pool web, with the traffic of all its VIPs:",
            "web1 46.0k",
            "web3 20",
            "draining",
        ],
    );
    let web2 = pressed(&node, View::Vips, &[Key::Enter, Key::Down, Key::Enter]);
    let place = Place::Backend { pool: "web".into(), name: "web2".into() };
    assert_eq!(web2.level().place, place);
    assert_shows(
        &node,
        &web2,
        &[
            "backend web2 of pool web",
            "packets/s 30.8k",
            "address 10.0.1.11",
            "slots 26214, 40.00 % of the table",
            "health healthy for 2h 1m",
            "last check ok in 0.4 ms",
            "next hop 02:00:00:00:00:09 on eth0, packets of up to 1580 bytes",
        ],
    );
    let back = pressed(&node, View::Vips, &[Key::Enter, Key::Down, Key::Enter, Key::Esc]);
    assert_eq!((&back.level().place, back.level().selected.as_deref()), (&Place::Vip("www".into()), Some("web2")));
    // Another view, and back: what was opened is still open.
    let back = pressed(&node, View::Vips, &[Key::Enter, Key::Tab, Key::Char('4'), Key::Char('1')]);
    assert_eq!(back.level().place, Place::Vip("www".into()));
}

#[test]
fn a_drop_reason_opens_its_remedy_and_an_event_its_text() {
    let node = node();
    let remedy = pressed(&node, View::Drops, &[Key::Enter]);
    assert_shows(
        &node,
        &remedy,
        &[
            "no_such_vip: 55 packets since the daemon started",
            "3.0 packets/s",
            "outcome dropped",
            "action Add the VIP that is missing.",
        ],
    );
    let event = pressed(&node, View::Events, &[Key::Enter]);
    assert_shows(&node, &event, &["event 2", "time 2026-11-24T20:41:28.123Z", "level warning"]);
    let neighbor = pressed(&node, View::Sessions, &[Key::Enter]);
    assert_shows(&node, &neighbor, &["neighbor tor1", "state established for 3h", "last error none"]);
}

#[test]
fn rows_are_sorted_by_any_column_in_both_directions() {
    let vips = ["b", "a", "c"].map(|name| vip(name, "203.0.113.10", 2));
    let node = fixtures::model(&vips, 3);
    let order = |keys: &str| {
        let frame = lines(&node, &pressed(&node, View::Vips, &typed(keys)), 80, 24);
        frame[4..7].iter().map(|line| line[..1].to_owned()).collect::<String>()
    };
    // By packets, bytes, serving (all alike), announced (all alike), name.
    for (keys, names) in [("", "bac"), ("r", "cab"), ("s", "bac"), ("sr", "cab"), ("ssss", "abc"), ("ssssr", "cba")] {
        assert_eq!(order(keys), names, "{keys}");
    }
}

#[test]
fn a_filter_holds_what_was_typed() {
    let node = node();
    let keys = [typed("/w6q"), vec![Key::Backspace, Key::Enter]].concat();
    let frame = whole(&node, &pressed(&node, View::Vips, &keys));
    assert!(
        frame.contains("filter: w6 (Esc removes it)") && frame.contains("www6") && !frame.contains("www "),
        "{frame}"
    );
    let none = pressed(&node, View::Vips, &typed("/nothing"));
    assert_shows(&node, &none, &["filter: nothing_", "none of 2 rows contains `nothing`", "Enter keep Esc remove"]);
    let long = pressed(&node, View::Vips, &typed(&format!("/{}", "x".repeat(500))));
    assert_eq!(long.level().filter.len(), 63);
    let removed = pressed(&node, View::Vips, &[typed("/nothing"), vec![Key::Esc]].concat());
    assert!(removed.level().filter.is_empty() && !removed.typing);
}

#[test]
fn a_pause_reads_nothing_and_q_ends() {
    let node = node();
    let mut screen = pressed(&node, View::Vips, &typed("p"));
    assert!(screen.needs(&node).paused);
    assert_shows(&node, &screen, &["PAUSED: nothing is read; p goes on"]);
    assert!(screen.press(Key::Char('p'), &node, 10) && !screen.needs(&node).paused);
    assert!(!screen.press(Key::Char('q'), &node, 10));
    let needs = Needs { vips: true, ..Needs::default() };
    assert_eq!(Screen::new(View::Vips).needs(&node), needs);
    let help = pressed(&node, View::Vips, &typed("?"));
    assert_shows(&node, &help, &["Tab, 1 to 5 the next view", "any key closes the help"]);
}

#[test]
fn no_size_and_no_name_breaks_a_frame() {
    let long = "x".repeat(63);
    let wide = "宽".repeat(63);
    let vips = [vip(&long, "203.0.113.10", 2), vip(&wide, "203.0.113.11", 0), vip("\u{1b}[2Jevil", "203.0.113.12", 1)];
    let node = fixtures::model(&vips, 3);
    let keys: [&[Key]; 5] =
        [&[], &[Key::Enter], &[Key::Enter, Key::Enter], &[Key::Char('?')], &[Key::Char('/'), Key::Char('宽')]];
    for view in View::ALL {
        for keys in keys {
            let screen = pressed(&node, view, keys);
            for columns in [1, 2, 3, 7, 19, 20, 21, 39, 40, 79, 80, 200] {
                for height in [1, 2, 3, 5, 8, 24] {
                    let frame = lines(&node, &screen, columns, height);
                    assert_eq!(frame.len(), usize::from(height));
                    assert!(!frame.concat().contains('\u{1b}'));
                }
            }
        }
    }
}

#[test]
fn twenty_columns_hold_name_and_rate() {
    let vips = [vip(&"x".repeat(63), "203.0.113.10", 2), vip(&"宽".repeat(63), "203.0.113.11", 0)];
    let frame = lines(&fixtures::model(&vips, 3), &Screen::new(View::Vips), 20, 8);
    let expected = [
        "maglev top  lb1  ma…",
        "forwarded 76.8k pac…",
        " 1 VIPs  2  3  4  5",
        "VIP       PACKETS/S▾",
        "xxxxxxxx…      51.2k",
        "宽宽宽宽…      25.6k",
        "",
        "q quit  Tab view  E…",
    ];
    assert_eq!(frame, expected);
}

#[test]
fn the_selected_row_of_512_vips_is_always_shown() {
    let vips: Vec<Vip> = (0..512).map(|n| vip(&format!("vip{n:03}"), "203.0.113.10", 2)).collect();
    let node = fixtures::model(&vips, 2);
    for (keys, selected) in [
        (vec![], "vip000"),
        (vec![Key::Down; 300], "vip300"),
        (vec![Key::End], "vip511"),
        (vec![Key::End, Key::PageUp], "vip501"),
        (vec![Key::End, Key::Home, Key::PageDown, Key::Up], "vip009"),
    ] {
        let screen = pressed(&node, View::Vips, &keys);
        let terminal = drawn(&node, &screen, &look(), 80, 24);
        let buffer = terminal.backend().buffer();
        let reversed = |y: &u16| buffer[(0, *y)].modifier.contains(ratatui::style::Modifier::REVERSED);
        let row = (3..23).find(reversed).unwrap();
        assert!(draw::text(buffer).lines().nth(row.into()).unwrap().starts_with(selected), "{keys:?}");
    }
}

#[test]
fn a_node_without_anything_says_so() {
    let mut empty = Model::default();
    let nothing = Reading {
        counters: Some((
            Duration::ZERO,
            Counters { counters: vec![fixtures::counter("transmitted", 0)], ..Counters::default() },
        )),
        vips: Some(vec![]),
        pools: Some(vec![]),
        neighbors: Some(view::BgpNeighbors::default()),
        events: Some(Events::default()),
        ..Reading::default()
    };
    let unread = Model::default();
    empty.read(nothing, now(0));
    for (view, said) in [
        (View::Vips, "no VIP: `maglev vip add` adds one"),
        (View::Pools, "no pool: `maglev pool add` adds one"),
        (View::Drops, "no drop reason"),
        (View::Sessions, "no neighbor: BGP is off"),
        (View::Events, "no event since the daemon started"),
    ] {
        assert_shows(&empty, &pressed(&empty, view, &[Key::Enter, Key::Down]), &[said, "forwarded - packets/s"]);
        assert_shows(&unread, &Screen::new(view), &["reading …"]);
    }
}

#[test]
fn colors_are_used_unless_they_are_turned_off_and_never_for_the_background() {
    let node = node();
    for colors in [true, false] {
        let terminal = drawn(&node, &Screen::new(View::Vips), &Look { colors, ..look() }, 80, 24);
        let cells = &terminal.backend().buffer().content;
        assert_eq!(cells.iter().any(|cell| cell.fg != Color::Reset), colors);
        assert!(cells.iter().all(|cell| cell.bg == Color::Reset));
    }
}

#[test]
fn a_lost_daemon_leaves_the_figures_and_says_how_old_they_are() {
    let mut node = node();
    node.lose("cannot reach maglevd at /run/maglev/maglev.sock: refused".into(), now(12));
    assert_shows(
        &node,
        &Screen::new(View::Vips),
        &["OLD: no answer for 7s, retrying: cannot reach maglevd", "www 51.2k"],
    );
    node.read(reading(&[vip("www", "203.0.113.10", 2)], 13), now(13));
    let frame = whole(&node, &Screen::new(View::Vips));
    assert!(!frame.contains("OLD") && frame.contains("www 51.2k"), "{frame}");
}

#[test]
fn a_daemon_that_is_silent_for_long_is_a_lost_one() {
    let (mut node, interval) = (node(), Duration::from_secs(1));
    node.pass(now(8), interval);
    assert!(!whole(&node, &Screen::new(View::Vips)).contains("OLD"));
    node.pass(now(12), interval);
    assert_shows(&node, &Screen::new(View::Vips), &["OLD: no answer for 7s, retrying: maglevd is silent", "www 51.2k"]);
    node.pass(now(13), interval);
    assert_shows(&node, &Screen::new(View::Vips), &["OLD: no answer for 8s"]);
}

/// The node's forwarded packets a second and the first VIP's, after these counters at the next second.
fn after(node: &mut Model, counters: Counters, events: Vec<view::Event>) -> [Option<f64>; 2] {
    let second = 6;
    let (counters, events) = (Some((now(second).since_start, counters)), Some(Events { missed: 0, events }));
    node.read(Reading { counters, events, ..Reading::default() }, now(second));
    [node.forwarded().0, node.vip("www").and_then(|vip| vip.rates).map(|rates| rates.packets)]
}

#[test]
fn a_restarted_daemon_has_no_rate_until_it_was_read_twice() {
    let vips = ["www", "www6"];
    assert_eq!(after(&mut node(), counters(&vips, 6), vec![]), [Some(76_800.0), Some(51_200.0)]);
    // Counters began anew.
    assert_eq!(after(&mut node(), counters(&vips, 0), vec![]), [None, None]);
    // They did, and are larger already.
    assert_eq!(after(&mut node(), counters(&vips, 9_999), vec![started(3)]), [None, None]);
    // Another event is no start.
    let stopping = fixtures::event(3, view::What::Stopping);
    assert_eq!(after(&mut node(), counters(&vips, 6), vec![stopping]), [Some(76_800.0), Some(51_200.0)]);
}

#[test]
fn what_was_removed_is_said() {
    let mut node = node();
    let (vip, backend) =
        (pressed(&node, View::Vips, &[Key::Enter]), pressed(&node, View::Pools, &[Key::Enter, Key::Enter]));
    let gone = Some(("web".into(), Err("unknown pool web; known: api".to_owned())));
    node.read(Reading { vips: Some(vec![]), pool: gone, ..Reading::default() }, now(7));
    assert_shows(&node, &vip, &["unknown VIP www: it was removed"]);
    assert_shows(&node, &backend, &["unknown pool web; known: api"]);
    let without = view::Pool { backends: vec![], ..fixtures::pool() };
    node.read(Reading { pool: Some(("web".into(), Ok(without))), ..Reading::default() }, now(8));
    assert_shows(&node, &backend, &["unknown backend web1 in pool web: it was removed"]);
}

#[test]
fn a_drained_node_and_a_lost_sync_are_in_the_first_lines() {
    let mut node = node();
    let drained = maglev_api::testing::draining(view::Stage::Waiting);
    node.read(Reading { node: Some(drained), ..Reading::default() }, now(7));
    assert!(lines(&node, &Screen::new(View::Vips), 80, 24)[0].ends_with("draining"));
    let unable = view::Node { unable: Some("eth0 has no program".into()), ..view::Node::default() };
    node.read(Reading { node: Some(unable), ..Reading::default() }, now(8));
    assert_shows(&node, &Screen::new(View::Vips), &["NOT FORWARDING: eth0"]);
}
