//! The API: requests whose method, path, reason and body are any bytes.

use std::cell::RefCell;

use maglev_daemon::http::fuzzing::{Answered, Api};

use crate::fuzz::Target;

/// A request is answered with a status below 500, and one that is invalid asks for no change.
///
/// An input is a request's line, a line with its reason, and its body.
pub(super) const REQUESTS: Target = Target { name: "api", seeds, words: WORDS, run };

const WORDS: &[&[u8]] = &[
    b"GET /v1/",
    b"POST /v1/",
    b"PATCH /v1/",
    b"PUT /v1/",
    b"DELETE /v1/",
    b"?force=true",
    b"%2f",
    b"%00",
    b"%ff",
    b"\n",
    b"/web/backends/",
    b"web1",
    b"{\"name\":",
    b"\"\"",
    b"null",
    b"true",
    b"-1",
    b"1e400",
    b"18446744073709551616",
    b"{}",
    b"[]",
    b"\"address\":",
    b"\"10.0.0.1\"",
    b"\"2001:db8::1/64\"",
    b"\"pool\":",
    b"\"weight\":",
    b"\"tracking\":",
    b"\"health\":",
    b"\"check\":",
    b"\"1s\"",
    b"\\u0000",
    b"\\ud800",
    b"&limit=",
    b"..",
];

thread_local! {
    static API: RefCell<Option<Api>> = const { RefCell::new(None) };
}

fn seeds() -> Vec<Vec<u8>> {
    let reads = [
        "status",
        "vips",
        "vips/www",
        "pools",
        "pools/web",
        "pools/web/backends/web1",
        "backends",
        "plan/reload",
        "plan/rollback/1",
        "services",
        "services?revision=1",
        "history",
        "history?limit=5",
        "history/1",
        "history/diff?from=1&to=2",
        "counters",
        "flow?client=198.51.100.7:40000&service=203.0.113.10:443&protocol=tcp",
        "bgp/neighbors",
        "bgp/routes",
        "node",
        "events/recent",
        "events?after=0",
    ];
    let writes = [
        ("POST", "vips", r#"{"name":"www","address":"203.0.113.10","port":443,"protocol":"tcp","pool":"web"}"#),
        ("PATCH", "vips/www", r#"{"announce":"serving","communities":["64512:1"],"when_empty":"reset"}"#),
        ("DELETE", "vips/www", ""),
        ("POST", "pools", r#"{"name":"web","tracking":"always","transition":{"learning":120,"idle":900,"udp":"new"}}"#),
        ("PATCH", "pools/web", r#"{"encap":"gue","min_healthy":50,"health":{"check":{"kind":"tcp"}}}"#),
        ("DELETE", "pools/web?force=true", ""),
        ("POST", "pools/web/backends", r#"{"name":"web1","address":"10.0.1.11","weight":100}"#),
        ("PATCH", "pools/web/backends/web1?force=true", r#"{"weight":5}"#),
        ("DELETE", "pools/web/backends/web1", ""),
        ("POST", "pools/web/backends/web1/state", r#"{"order":"drain"}"#),
        ("POST", "pools/web/backends/web1/check", ""),
        ("POST", "plan", r#"{"add":{"pool":"web","name":"web1","address":"10.0.1.11","weight":100}}"#),
        ("POST", "plan/services", "pools: []\nvips: []\n"),
        ("PUT", "services?force=true", "pools: []\nvips: []\n"),
        ("POST", "rollback", r#"{"revision":1,"force":true}"#),
        ("POST", "bgp/neighbors/10.0.0.1/reset", "{}"),
        ("POST", "node/drain", r#"{"reason":"new disk","last_node":true}"#),
        ("POST", "node/undrain", ""),
        ("POST", "reload?force=true", ""),
    ];
    let reads = reads.into_iter().map(|path| format!("GET /v1/{path}\n\n"));
    let writes = writes.into_iter().map(|(method, path, body)| format!("{method} /v1/{path}\nby hand\n{body}"));
    reads.chain(writes).map(String::into_bytes).collect()
}

fn run(input: &[u8]) -> Result<(), String> {
    let mut parts = input.splitn(3, |byte| *byte == b'\n');
    let [line, reason, body] = [(); 3].map(|()| parts.next().unwrap_or_default());
    let mut words = line.splitn(2, |byte| *byte == b' ');
    let [method, path] = [(); 2].map(|()| words.next().unwrap_or_default());
    let answered = API.with_borrow_mut(|api| {
        let api = api.get_or_insert_with(Api::start);
        api.answer(method, path, reason, body)
    });
    match answered {
        // Not HTTP.
        None => Ok(()),
        Some(Answered { status: 500.., changes: _ }) => Err(format!("{answered:?}")),
        Some(Answered { status: 400, changes: 1.. }) => Err(format!("invalid, and asked for: {answered:?}")),
        Some(Answered { changes: 2.., status: _ }) => Err(format!("one request, two changes: {answered:?}")),
        Some(_) => Ok(()),
    }
}
