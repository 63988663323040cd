//! The API over a real socket, with an owner task that answers as the test requires.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use maglev_api::client::{Client, ClientError, Received};
use maglev_api::testing::{self, backend};
use maglev_api::{VERSION, view};
use maglev_model::{
    Change, HealthChange, Name, Override, Percent, PoolSettings, SettingsChange, StateChange, Tracking,
    TransitionSettings, UdpPolicy,
};
use maglev_store::Stored;
use maglev_testing::TempDir;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use super::server::{self, Role, Socket};
use super::{Handle, Journal, Pages, Request, Snapshots};

mod faults;
mod services;

/// An API server and the receiving end of its requests.
struct Server {
    directory: TempDir,
    handle: Handle,
    journal: Journal,
    requests: mpsc::Receiver<Request>,
    _socket: Socket,
}

impl Server {
    fn start(status: view::Status) -> Self {
        Self::start_with(status, |handle| handle)
    }

    fn start_with(status: view::Status, change: impl FnOnce(Handle) -> Handle) -> Self {
        let directory = TempDir::new();
        let socket = Socket::bind(&directory.path().join("maglev.sock"), Role::Changes).unwrap();
        let (sender, requests) = mpsc::channel(8);
        let (_, flow_table) = watch::channel(status.flow_table);
        let journal = Journal::start();
        let handle = Handle {
            requests: sender,
            snapshots: Snapshots::fixed(status),
            flow_table,
            shortages: maglev_probe::shortages::Shortages::default(),
            state_file: watch::channel(None).1,
            started: std::time::Instant::now(),
            bgp: super::Bgp::default(),
            journal: journal.clone(),
            stored: watch::channel(Stored::default()).1,
            rules: watch::channel(maglev_model::Rules::default()).1,
            pages: Pages::start().unwrap(),
            config: None,
        };
        let handle = change(handle);
        tokio::spawn(server::serve(socket.listener().unwrap(), handle.clone()));
        Self { directory, handle, journal, requests, _socket: socket }
    }

    /// Runs the blocking client on a thread of its own.
    async fn client<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Client) -> Result<T, ClientError> + Send + 'static,
    ) -> Result<T, ClientError> {
        let path = self.directory.path().join("maglev.sock");
        tokio::task::spawn_blocking(move || ask(&Client::new(&path).unwrap())).await.unwrap()
    }

    /// Sends bytes and returns all that comes back until the server closes the connection.
    async fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.directory.path().join("maglev.sock")).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }
}

fn vip() -> view::NewVip {
    serde_json::from_str(r#"{"name":"www","address":"203.0.113.10","port":443,"protocol":"tcp","pool":"web"}"#).unwrap()
}

#[tokio::test]
async fn a_change_reaches_the_owner_and_its_answer_the_client() {
    let mut server = Server::start(view::Status::default());
    let mut requests = std::mem::replace(&mut server.requests, mpsc::channel(1).1);
    let owner = tokio::spawn(async move {
        let Some(Request::Change { change: Change::AddVip(vip), force: false, by, reply }) = requests.recv().await
        else {
            panic!()
        };
        assert_eq!(by.caller.uid, Some(nix::unistd::getuid().as_raw()), "the kernel tells who asks");
        reply.send(Ok(())).unwrap();
        let Some(Request::Change { change: Change::RemoveVip(_), force: false, by: _, reply }) = requests.recv().await
        else {
            panic!()
        };
        reply.send(Err(view::Error::conflict("there is no VIP www"))).unwrap();
        vip
    });
    server.client(|client| client.post::<view::Done>("/v1/vips", &vip())).await.unwrap();
    let refused = server.client(|client| client.delete("/v1/vips/www")).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(error) if error.kind == view::ErrorKind::Conflict), "{refused}");
    assert_eq!(refused.to_string(), "there is no VIP www");
    assert_eq!(owner.await.unwrap().name, Name::parse("www").unwrap());
}

/// Sends a request and returns the change that reaches the owner.
async fn change_of<T: Send + 'static>(ask: impl FnOnce(&Client) -> Result<T, ClientError> + Send + 'static) -> Change {
    let mut server = Server::start(view::Status::default());
    let mut requests = std::mem::replace(&mut server.requests, mpsc::channel(1).1);
    let owner = tokio::spawn(async move {
        let Some(Request::Change { change, force: _, by: _, reply }) = requests.recv().await else { panic!() };
        reply.send(Ok(())).unwrap();
        change
    });
    server.client(ask).await.unwrap();
    owner.await.unwrap()
}

#[tokio::test]
async fn an_order_to_drain_the_node_carries_its_reason_and_the_setting_of_the_file() {
    for last_node in [false, true] {
        let node = view::Node { last_node, ..view::Node::default() };
        let mut server = Server::start(view::Status { node, ..view::Status::default() });
        let mut requests = std::mem::replace(&mut server.requests, mpsc::channel(1).1);
        let owner = tokio::spawn(async move {
            let Some(Request::DrainNode { order, caller: _, reply }) = requests.recv().await else { panic!() };
            reply.send(Ok(())).unwrap();
            let Some(Request::UndrainNode { caller: _, reply }) = requests.recv().await else { panic!() };
            reply.send(Err(view::Error::conflict("the node is not draining: it serves"))).unwrap();
            order
        });
        let body = view::NewDrain { reason: Some("new disk".into()), last_node: false };
        server.client(move |client| client.post::<view::Node>("/v1/node/drain", &body)).await.unwrap();
        let refused = server.client(|client| client.post::<view::Done>("/v1/node/undrain", &())).await.unwrap_err();
        assert_eq!(refused.to_string(), "the node is not draining: it serves");
        let order = owner.await.unwrap();
        assert_eq!((order.reason.as_deref(), order.last_node), (Some("new disk"), last_node));
        for reason in ["", " ", "two\nlines", &"x".repeat(161)] {
            let body = view::NewDrain { reason: Some(reason.into()), last_node: false };
            let refused = server.client(move |client| client.post::<view::Node>("/v1/node/drain", &body)).await;
            let error = refused.unwrap_err().to_string();
            assert!(error.starts_with("reason: ") && error.ends_with("one line of 1 to 160 bytes"), "{error}");
        }
    }
}

#[tokio::test]
async fn orders_about_a_state_carry_the_time() {
    use view::StateOrder;
    for (order, timed) in [
        (StateOrder::Drain, true),
        (StateOrder::Undrain, false),
        (StateOrder::Disable, true),
        (StateOrder::Enable, false),
    ] {
        let before = maglev_api::now();
        let body = view::NewState { order };
        let change =
            change_of(move |client| client.post::<view::Done>("/v1/pools/web/backends/web1/state", &body)).await;
        let Change::SetState { pool, backend, change } = change else { panic!("{change}") };
        assert_eq!((pool.as_str(), backend.as_str()), ("web", "web1"));
        match change {
            StateChange::Drain { now } | StateChange::Disable { now } => {
                assert!(timed && (before..=maglev_api::now()).contains(&now));
            }
            StateChange::Undrain | StateChange::Enable => assert!(!timed),
        }
        assert_eq!(serde_json::to_value(order).unwrap(), change.to_string(), "the word in JSON is that in the log");
    }
}

#[tokio::test]
async fn settings_of_a_pool_are_set_in_whole_or_in_part() {
    let change = change_of(|client| client.post::<view::Done>("/v1/pools", &json!({ "name": "web" }))).await;
    assert!(matches!(change, Change::AddPool(pool) if pool.settings == PoolSettings::default()));

    let body = json!({ "name": "web", "tracking": "always", "transition": { "learning_seconds": 30, "udp": "keep" } });
    let change = change_of(move |client| client.post::<view::Done>("/v1/pools", &body)).await;
    let learning = Duration::from_secs(30);
    let transition = TransitionSettings { learning, udp: UdpPolicy::Keep, ..TransitionSettings::default() };
    let expected = PoolSettings { tracking: Tracking::Always, transition, ..PoolSettings::default() };
    assert!(matches!(change, Change::AddPool(pool) if pool.settings == expected));

    let wanted = SettingsChange { idle: Some(Duration::from_secs(60)), ..SettingsChange::default() };
    let body = view::NewSettings::from(wanted);
    let change = change_of(move |client| client.patch::<view::Done>("/v1/pools/web", &body)).await;
    assert_eq!(
        change,
        Change::SetPool { pool: Name::parse("web").unwrap(), change: wanted, health: HealthChange::default() }
    );
}

#[tokio::test]
async fn checks_of_a_pool_are_set_in_the_words_of_the_file() {
    let text = "kind: http, path: /healthz, via: direct, port: 80, interval: 2s";
    let check = || Some(Some(Arc::new(maglev_config::parse_check(text).unwrap())));
    let health = json!({ "check": text, "panic_percent": 30, "slow_start_milliseconds": 1_500 });
    let body = json!({ "name": "web", "health": health });
    let change = change_of(move |client| client.post::<view::Done>("/v1/pools", &body)).await;
    let Change::AddPool(pool) = change else { panic!("{change}") };
    assert_eq!(Some(pool.health.check), check());
    assert_eq!((pool.health.panic, pool.health.slow_start), (Percent(30), Duration::from_millis(1_500)));

    let of_pool = |health: serde_json::Value| async move {
        let body = json!({ "health": health });
        let change = change_of(move |client| client.patch::<view::Done>("/v1/pools/web", &body)).await;
        let Change::SetPool { pool: _, change, health } = change else { panic!("{change}") };
        assert!(change.is_empty());
        health
    };
    let panic = Some(Percent(0));
    assert_eq!(of_pool(json!({ "panic_percent": 0 })).await, HealthChange { panic, ..HealthChange::default() });
    let none = HealthChange { check: Some(None), ..HealthChange::default() };
    assert_eq!(of_pool(json!({ "check": null })).await, none);
    let braces = of_pool(json!({ "check": format!(" {{ {text} }}") })).await;
    assert_eq!(braces, HealthChange { check: check(), ..HealthChange::default() });

    for (body, own) in [(json!({ "check": "port: 8080" }), Some(8_080)), (json!({ "check": null }), None)] {
        let change = change_of(move |client| client.patch::<view::Done>("/v1/pools/web/backends/web1", &body)).await;
        let port = own.map(|port| Override { port: NonZeroU16::new(port), ..Override::default() });
        assert!(matches!(&change, Change::SetCheck { own, .. } if *own == port), "{change:?}");
    }
}

#[tokio::test]
async fn a_check_with_mistakes_is_refused_with_each_of_them() {
    let server = Server::start(view::Status::default());
    for (path, body, line, details) in [
        (
            "",
            json!({ "health": { "check": "kind: icmp, via: direct" } }),
            "check.kind: icmp is not a kind of check; allowed: ",
            0,
        ),
        ("", json!({ "health": { "check": "kind: tcp, via: direct, path: /, fall: 0" } }), "check: ", 2),
        ("", json!({ "health": { "check": "kind: tcp # }" } }), "check: not valid YAML", 0),
        ("", json!({ "health": { "check": "kind: tcp }\n- {" } }), "check: not valid YAML", 0),
        (
            "",
            json!({ "health": { "panic_percent": 101 } }),
            "panic_percent: 101 is not a share in percent; allowed: ",
            0,
        ),
        ("", json!({ "health": { "slow_start_milliseconds": 3_600_001 } }), "slow_start_milliseconds: ", 0),
        ("", json!({ "health": { "colour": "red" } }), "request body: ", 0),
        ("/backends/web1", json!({ "check": "prt: 80" }), "check.prt: unknown key; allowed: port, path, host", 0),
        ("/backends/web1", json!({ "check": "" }), "check: nothing to set; allowed: port, path, host", 0),
    ] {
        let path = format!("/v1/pools/web{path}");
        let refused = server.client(move |client| client.patch::<view::Done>(&path, &body)).await.unwrap_err();
        let ClientError::Refused(error) = refused else { panic!("{refused}") };
        assert_eq!((error.kind, error.details.len() >= details), (view::ErrorKind::Invalid, true), "{error:?}");
        assert!(error.error.starts_with(line) && error.details.is_empty() == (details == 0), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_report_of_a_check_may_take_longer_than_another_answer() {
    let mut server = Server::start(view::Status::default());
    let mut requests = std::mem::replace(&mut server.requests, mpsc::channel(1).1);
    let report = view::CheckReport { pool: "web".into(), backend: "web1".into(), targets: Vec::new() };
    let expected = report.clone();
    let owner = tokio::spawn(async move {
        let Some(Request::Check { pool, backend, reply }) = requests.recv().await else { panic!() };
        assert_eq!((pool.as_str(), backend.as_str()), ("web", "web1"));
        let (sender, receiver) = oneshot::channel();
        reply.send(Ok(receiver)).unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        sender.send(report).unwrap();
        let Some(Request::Check { pool: _, backend: _, reply }) = requests.recv().await else { panic!() };
        reply.send(Err(view::Error::conflict("pool web has no check"))).unwrap();
    });
    let ask = "POST /v1/pools/web/backends/web1/check HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = server.raw(ask).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(&serde_json::to_string(&expected).unwrap()), "{answer}");
    let refused = server.raw(ask).await;
    assert!(refused.starts_with("HTTP/1.1 409") && refused.contains("pool web has no check"), "{refused}");
    owner.await.unwrap();
}

/// Begins to follow events with a raw request, and reads until it has received `until`.
async fn follow(server: &Server, header: &str, until: &str) -> String {
    let mut stream = UnixStream::connect(server.directory.path().join("maglev.sock")).await.unwrap();
    let request = format!("GET /v1/events HTTP/1.1\r\nhost: x\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut received = String::new();
    while !received.contains(until) {
        let mut piece = [0; 4_096];
        let length = stream.read(&mut piece).await.unwrap();
        assert!(length > 0, "{received}");
        received += std::str::from_utf8(&piece[..length]).unwrap();
    }
    received
}

#[tokio::test]
async fn a_follower_continues_after_its_last_received_event() {
    let server = Server::start(view::Status::default());
    let change = |what: &str| view::What::Changed { change: what.into(), uid: None, pid: None };
    ["alpha", "beta", "gamma"].iter().for_each(|what| server.journal.record(change(what)));
    let all = follow(&server, "", "gamma").await;
    assert!(all.contains("content-type: text/event-stream") && all.contains("alpha"), "{all}");
    let sequence = server.journal.recent(None).events[1].sequence;
    assert!(all.contains(&format!("id: {sequence}\n")), "{all}");
    let rest = follow(&server, &format!("Last-Event-ID: {sequence}\r\n"), "gamma").await;
    assert!(!rest.contains("beta") && rest.contains(&format!("id: {}\n", sequence + 1)), "{rest}");
    (0..1_030).for_each(|_| server.journal.record(change("more")));
    let after = format!("Last-Event-ID: {}\r\n", sequence + 1);
    let missed = follow(&server, &after, "more").await;
    assert!(missed.contains("event: missed\ndata: {\"missed\":6}\n\n"), "{missed}");
    let empty = follow(&server, "Last-Event-ID:\r\n", "more").await;
    assert!(empty.contains("HTTP/1.1 200") && !empty.contains("missed"), "{empty}");
}

#[tokio::test]
async fn a_last_event_id_that_is_no_number_is_refused() {
    let server = Server::start(view::Status::default());
    for garbage in ["x", "-1", "1.5", "99999999999999999999", "1 2", "\u{7f}"] {
        let request =
            format!("GET /v1/events HTTP/1.1\r\nhost: x\r\nLast-Event-ID: {garbage}\r\nconnection: close\r\n\r\n");
        let answer = server.raw(&request).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{garbage}: {answer}");
    }
    for query in ["?after=x", "?after=-1", "?since=1"] {
        let path = format!("/v1/events/recent{query}");
        let refused = server.client(move |client| client.get::<view::Events>(&path)).await.unwrap_err();
        assert!(matches!(&refused, ClientError::Refused(error) if error.kind == view::ErrorKind::Invalid), "{refused}");
    }
}

#[tokio::test]
async fn the_client_receives_events_until_it_stops_and_one_follower_too_many_is_refused() {
    let server = Server::start(view::Status::default());
    server.journal.record(view::What::Stopping);
    let received = |client: &Client| {
        let mut all = Vec::new();
        client
            .follow("/v1/events", |received| {
                all.push(received);
                std::ops::ControlFlow::Break(())
            })
            .map(|()| all)
    };
    let seats = || (0..).map_while(|_| server.journal.follow(None).ok()).collect::<Vec<_>>();
    let all_seats = seats();
    let refused = server.client(received).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(error) if error.kind == view::ErrorKind::Conflict), "{refused}");
    let recent = server.client(|client| client.get::<view::Events>("/v1/events/recent")).await.unwrap();
    assert_eq!((recent.missed, recent.events.len()), (0, 1), "recent events are served all the same");
    let most = all_seats.len();
    drop(all_seats);
    let all = server.client(received).await.unwrap();
    assert!(matches!(&all[..], [Received::Event(event)] if event.what == view::What::Stopping), "{all:?}");
    // A follower that disconnected frees its place, at the next keep-alive at the latest.
    let left = async {
        while seats().len() < most {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), left).await.unwrap();
}

#[tokio::test]
async fn a_removal_says_whether_it_is_forced() {
    for (query, expected) in [("", false), ("?force=true", true), ("?force=false", false)] {
        let path = format!("/v1/pools/web/backends/web1{query}");
        let change = change_of(move |client| client.delete(&path)).await;
        assert!(matches!(change, Change::RemoveBackend { force, .. } if force == expected), "{query}");
    }
}

#[tokio::test]
async fn a_plan_is_requested_in_the_form_of_the_change() {
    let names = |name: &str| json!({ "pool": "web", "name": name });
    let with = |name: &str, more: serde_json::Value| {
        let mut body = names(name);
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let backend = json!({ "name": "web4", "address": "10.0.1.14", "weight": 5 });
    for (body, words) in [
        (
            json!({ "change": "add", "pool": "web", "backend": backend }),
            "add backend web4 (10.0.1.14) weight 5 to pool web",
        ),
        (with("web1", json!({ "change": "remove" })), "remove backend web1 from pool web"),
        (with("web1", json!({ "change": "remove", "force": true })), "remove backend web1 from pool web, forced"),
        (with("web1", json!({ "change": "weight", "weight": 0 })), "set weight of backend web1 of pool web to 0"),
        (with("web1", json!({ "change": "state", "order": "drain" })), "drain backend web1 of pool web"),
    ] {
        let mut server = Server::start(view::Status::default());
        let mut requests = std::mem::replace(&mut server.requests, mpsc::channel(1).1);
        let owner = tokio::spawn(async move {
            let Some(Request::Plan { change, force, reply }) = requests.recv().await else { panic!() };
            assert_eq!((change.to_string().as_str(), force), (words, words.ends_with("forced")));
            reply.send(Err(view::Error::conflict("as the change itself"))).unwrap();
        });
        let refused = server.client(move |client| client.post::<view::Plan>("/v1/plan", &body)).await.unwrap_err();
        assert_eq!(refused.to_string(), "as the change itself");
        owner.await.unwrap();
    }
}

#[tokio::test]
async fn slots_in_transition_are_shown_with_the_time_left() {
    let in_transition = view::InTransition {
        learning_slots: 7,
        learning_until: Some(Duration::from_secs(1_000)),
        ..view::InTransition::default()
    };
    let pool = view::PoolSummary { in_transition, ..testing::summary() };
    let server = Server::start(view::Status { pools: vec![pool], ..view::Status::default() });
    let shown = server.client(|client| client.get::<serde_json::Value>("/v1/pools/web")).await.unwrap();
    let listed = server.client(|client| client.get::<serde_json::Value>("/v1/pools")).await.unwrap();
    let status = server.client(|client| client.get::<serde_json::Value>("/v1/status")).await.unwrap();
    for answer in [&shown, &listed[0], &status["pools"][0]] {
        let shown = answer["in_transition"].as_object().unwrap();
        let left = shown["learning_seconds_left"].as_u64().unwrap();
        assert!((900..=1_000).contains(&left), "{answer}");
        assert!(shown["pinned_flows"].is_null() || shown["pinned_flows"] == 0, "{answer}");
        assert!(!shown.contains_key("learning_until"), "{answer}");
    }
}

#[tokio::test]
async fn reads_are_answered_from_a_snapshot() {
    let view::NewVip { name, address, port, protocol, pool, announce: _, communities: _, when_empty: _, affinity: _ } =
        vip();
    let health = view::VipHealth { serving: 1, backends: 2, ..view::VipHealth::default() };
    let (when_empty, affinity) = (view::Unserved::Drop, "source/24".to_owned());
    let vip = view::Vip { name, address, port, protocol, pool, when_empty, affinity, error: None, health };
    let server = Server::start(view::Status { vips: vec![vip.clone()], ..view::Status::default() });
    let found = server.client(|client| client.get::<view::Vip>("/v1/vips/www")).await.unwrap();
    assert_eq!(found, vip);
    let unknown = server.client(|client| client.get::<view::Vip>("/v1/vips/mail")).await.unwrap_err();
    assert!(matches!(unknown, ClientError::Refused(error) if error.kind == view::ErrorKind::Conflict));
}

#[tokio::test]
async fn invalid_input_never_reaches_the_owner() {
    let server = Server::start(view::Status::default());
    for (path, body) in [
        ("/v1/vips", r#"{"name":"www","address":"203.0.113.10","port":0,"protocol":"tcp","pool":"web"}"#),
        ("/v1/vips", r#"{"name":"../x","address":"203.0.113.10","port":1,"protocol":"tcp","pool":"web"}"#),
        ("/v1/pools/web/backends", r#"{"name":"web1","address":"10.0.1.11","weight":70000}"#),
        ("/v1/pools/web/backends", r#"{"name":"web1","address":"10.0.1.11","weight":1,"colour":"red"}"#),
        ("/v1/pools/web/backends/web1/state", r#"{"order":"drained"}"#),
        ("/v1/pools/web/backends/web1/state", "{}"),
        ("/v1/pools", r#"{"name":"web","tracking":"sometimes"}"#),
        ("/v1/pools", r#"{"name":"web","transition":{"learning":"120s"}}"#),
        ("/v1/pools", r#"{"name":"web","transition":{"learning_seconds":-1}}"#),
        ("/v1/plan", r#"{"change":"remove","pool":"web","name":"../x"}"#),
        ("/v1/plan", r#"{"change":"weight","pool":"web","name":"web1","weight":70000}"#),
        ("/v1/plan", r#"{"change":"explode","pool":"web","name":"web1"}"#),
        ("/v1/plan", r#"{"change":"remove","pool":"web","name":"web1","colour":"red"}"#),
        ("/v1/plan", r#"{"pool":"web","name":"web1"}"#),
        ("/v1/pools", "\"not an object\""),
        ("/v1/elsewhere", "{}"),
    ] {
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let refused = server.client(move |client| client.post::<view::Done>(path, &body)).await.unwrap_err();
        assert!(matches!(&refused, ClientError::Refused(error) if error.kind == view::ErrorKind::Invalid), "{refused}");
    }
}

#[tokio::test]
async fn another_version_is_refused_with_both_versions() {
    let server = Server::start(view::Status::default());
    let request =
        "GET /v1/status HTTP/1.1\r\nhost: x\r\nmaglev-api: 99\r\nmaglev-release: 9.9.9\r\nconnection: close\r\n\r\n";
    let answer = server.raw(request).await;
    assert!(answer.starts_with("HTTP/1.1 409"), "{answer}");
    assert!(answer.contains("maglev 9.9.9 has API version 99"), "{answer}");
    assert!(answer.contains(&format!("has version {VERSION}")), "{answer}");
}

#[tokio::test]
async fn a_client_without_a_version_is_served() {
    let server = Server::start(view::Status::default());
    let answer = server.raw("GET /v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(&format!("maglev-api: {VERSION}\r\n")), "{answer}");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let server = Server::start(view::Status::default());
    let name = "x".repeat(1 << 20);
    let refused = server.client(move |client| client.post::<view::Done>("/v1/pools", &json!({ "name": name }))).await;
    assert!(refused.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_ends_is_cut_off() {
    let server = Server::start(view::Status::default());
    let answer = server.raw("GET /v1/status HTTP/1.1\r\nhost:").await;
    assert!(!answer.contains("200"), "{answer}");
    let answer =
        server.raw("POST /v1/pools HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\nconnection: close\r\n\r\n{").await;
    assert!(answer.contains("no answer within"), "{answer}");
}

#[tokio::test]
async fn a_request_the_owner_drops_fails() {
    let mut server = Server::start(view::Status::default());
    server.requests.close();
    let failed = server.client(|client| client.get::<view::Counters>("/v1/counters")).await.unwrap_err();
    assert!(failed.to_string().contains("stopping"), "{failed}");
}

#[test]
fn a_socket_without_listener_is_unreachable() {
    let path = TempDir::new().path().join("maglev.sock");
    let unreachable = Client::new(&path).unwrap().get::<view::Status>("/v1/status").unwrap_err();
    let line = unreachable.to_string();
    assert!(matches!(unreachable, ClientError::Unreachable { .. }));
    for part in [path.to_str().unwrap(), "No such file or directory", "systemctl status maglevd"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn views_survive_the_wire() {
    for json in [
        r#"{"name":"www","address":"203.0.113.10","port":"any","protocol":"udp","pool":"web"}"#,
        r#"{"name":"www","address":"2001:db8::10","port":443,"protocol":"tcp","pool":"web"}"#,
    ] {
        let vip: view::NewVip = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&vip).unwrap(), json);
    }
    let next_hop = view::NextHop::Unresolved { reason: "no route".into() };
    for state in view::BackendState::ALL {
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
    assert_eq!(serde_json::to_string(&next_hop).unwrap(), r#"{"state":"unresolved","reason":"no route"}"#);
}
