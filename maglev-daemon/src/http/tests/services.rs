//! All services as a file: exported, compared, replaced; and the socket on which only reads are served.

use maglev_model::Services;
use maglev_store::Stored;

use super::*;
use crate::http::server::Sockets;

const FILE: &str = "# revision 3
pools:
  - name: web
    backends: [{ name: a, address: 10.9.2.11 }]
vips: []
";

/// Rules that allow backends over IPv4.
fn rules() -> maglev_model::Rules {
    let outer = maglev_model::OuterSources { v4: Some("10.64.0.0/24".parse().unwrap()), v6: None };
    maglev_model::Rules { outer, ..maglev_model::Rules::default() }
}

/// A server that holds these services as revision 7, and answers as the owner would.
fn server(text: &str) -> (Server, mpsc::Receiver<Request>) {
    let services: Services = maglev_config::decode_services(std::path::Path::new("s"), text, &rules()).unwrap();
    let stored = Stored { services: Arc::new(services), revision: 7, ..Stored::default() };
    let mut server = Server::start_with(view::Status::default(), |handle| Handle {
        stored: watch::channel(stored).1,
        rules: watch::channel(rules()).1,
        ..handle
    });
    let requests = std::mem::replace(&mut server.requests, mpsc::channel(1).1);
    (server, requests)
}

#[tokio::test]
async fn an_exported_file_is_applied_without_a_difference() {
    let (server, mut requests) = server(FILE);
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            match request {
                Request::ReviewFile { file, force, reply } => {
                    assert!(file.base == Some(7) || force);
                    reply.send(Ok(force.then(|| view::Error::conflict("no")))).unwrap();
                }
                Request::Apply { file, force: false, by, reply } => {
                    assert_eq!(
                        (file.name.as_str(), file.base, by.why.as_deref()),
                        ("größe.yaml", Some(7), Some("why"))
                    );
                    assert_eq!(file.services.backend_count(), 1);
                    reply.send(Ok(view::Applied { revision: None, changes: view::Changes::default() })).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    });
    let exported = server.client(|client| client.get::<view::ServicesFile>("/v1/services")).await.unwrap();
    assert!(exported.services.starts_with("# revision 7\n# Services: "), "{}", exported.services);
    assert_eq!((exported.revision, exported.digest.len()), (7, 64));
    let text = exported.services.clone();
    let planned = server.client(move |client| client.post_file("/v1/plan/services", "größe.yaml", text)).await;
    let planned: view::PlannedServices = planned.unwrap();
    assert_eq!((planned.file.as_str(), planned.base, planned.revision), ("größe.yaml", Some(7), 7));
    assert_eq!((planned.changes, planned.lines.len(), planned.refused), (view::Changes::default(), 0, None));
    let text = exported.services.replace("weight: 100", "weight: 7").replace("# revision 7", "# by hand");
    let planned = server.client(move |client| client.post_file("/v1/plan/services?force=true", "-", text)).await;
    let planned: view::PlannedServices = planned.unwrap();
    assert_eq!(
        (planned.base, planned.changes.backends.changed, planned.refused),
        (None, 1, Some(view::Error::conflict("no")))
    );
    let lines: Vec<_> = planned.lines.iter().map(|line| (line.added, line.object.as_str())).collect();
    let object = |weight: u8| format!("backend web/a: {{ name: a, address: 10.9.2.11, weight: {weight} }}");
    assert_eq!(lines, [(false, object(100).as_str()), (true, object(7).as_str())]);
    let path = server.directory.path().join("maglev.sock");
    let apply = move || {
        let client = Client::new(&path).unwrap().with_reason(Some("why".to_owned()));
        client.put_file::<view::Applied>("/v1/services", "größe.yaml", exported.services)
    };
    assert_eq!(tokio::task::spawn_blocking(apply).await.unwrap().unwrap().revision, None);
}

#[tokio::test]
async fn a_bad_file_is_refused_with_every_mistake_and_never_reaches_the_owner() {
    let (server, mut requests) = server("pools: []\nvips: []\n");
    let several =
        "pools:\n  - name: web\n    color: red\n    backends: [{ name: a, address: 10.9.2 }]\nvips: [{ name: x }]\n";
    let many = format!("pools: [{}]\nvips: []\n", "1, ".repeat(1_500));
    for (text, line, details) in [
        ("", "nothing changed: f.yaml: empty; a file without services says", 0),
        ("pools: [\nvips: []\n", "nothing changed: f.yaml:", 0),
        ("pools: []\n", "nothing changed: f.yaml:1: vips: missing", 0),
        (several, "nothing changed: 6 errors in f.yaml:", 6),
        (&many, "nothing changed: 1500 errors in f.yaml:", 1_001),
    ] {
        for plan in [true, false] {
            let text = text.to_owned();
            let refused = server.client(move |client| match plan {
                true => client.post_file::<view::Done>("/v1/plan/services", "f.yaml", text),
                false => client.put_file::<view::Done>("/v1/services", "f.yaml", text),
            });
            let error = match refused.await.unwrap_err() {
                ClientError::Refused(error) => error,
                other => panic!("not an answer: {other:?}"),
            };
            assert!(error.kind == view::ErrorKind::Invalid && error.error.starts_with(line), "{error:?}");
            assert_eq!(error.details.len(), details, "{error:?}");
        }
    }
    let body = b"pools: []\n\xff";
    let mut stream = UnixStream::connect(server.directory.path().join("maglev.sock")).await.unwrap();
    let head =
        format!("PUT /v1/services HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("file: not text: expected YAML in UTF-8"),
        "{answer}"
    );
    let large = "PUT /v1/services HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 20000000\r\n\r\n";
    let answer = server.raw(large).await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("20000000 bytes; allowed: at most 16777216"),
        "{answer}"
    );
    assert!(requests.try_recv().is_err(), "nothing reached the owner");
}

#[tokio::test]
async fn a_file_may_be_as_large_as_one_that_the_daemon_reads() {
    let (server, mut requests) = server("pools: []\nvips: []\n");
    tokio::spawn(async move {
        let Some(Request::Apply { reply, .. }) = requests.recv().await else { panic!() };
        reply.send(Ok(view::Applied { revision: None, changes: view::Changes::default() })).unwrap();
    });
    let mut text = "pools: []\nvips: []\n".to_owned();
    text += &"# ".repeat((16 << 20) / 2 - text.len());
    server.client(move |client| client.put_file::<view::Applied>("/v1/services", "large", text)).await.unwrap();
}

#[tokio::test]
async fn the_socket_for_reads_serves_reads_and_plans_and_names_the_other_for_changes() {
    let (server, mut requests) = server(FILE);
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            match request {
                Request::ReviewFile { reply, .. } => drop(reply.send(Ok(None))),
                Request::Plan { reply, .. } => drop(reply.send(Err(view::Error::conflict("planned")))),
                other => panic!("a change came through: {other:?}"),
            }
        }
    });
    let path = server.directory.path().join("read.sock");
    let socket = Socket::bind(&path, Role::Reads).unwrap();
    let sockets = Sockets { reads: path.clone(), changes: "/run/maglev/maglev.sock".into() };
    tokio::spawn(server::serve_reads(socket.listener().unwrap(), server.handle.clone(), sockets));
    let served = path.clone();
    let reads = move || {
        let client = Client::new(&served).unwrap();
        client.get::<view::Status>("/v1/status").unwrap();
        client.get::<view::ServicesFile>("/v1/services").unwrap();
        client.get::<view::History>("/v1/history").unwrap();
        client.post_file::<view::PlannedServices>("/v1/plan/services", "f", FILE.to_owned()).unwrap();
        let plan = json!({ "change": "remove", "pool": "web", "name": "a" });
        assert_eq!(client.post::<view::Plan>("/v1/plan", &plan).unwrap_err().to_string(), "planned");
        for (method, refused) in [
            ("PUT /v1/services", client.put_file::<view::Done>("/v1/services", "f", FILE.to_owned()).unwrap_err()),
            ("POST /v1/node/drain", client.post::<view::Node>("/v1/node/drain", &json!({})).unwrap_err()),
            ("POST /v1/reload", client.post::<view::Done>("/v1/reload?force=true", &()).unwrap_err()),
            ("POST /v1/rollback", client.post::<view::Done>("/v1/rollback", &json!({ "revision": 1 })).unwrap_err()),
            ("DELETE /v1/vips/www", client.delete("/v1/vips/www").unwrap_err()),
            ("PATCH /v1/pools/web", client.patch::<view::Done>("/v1/pools/web", &json!({})).unwrap_err()),
            (
                "POST /v1/pools/web/backends/a/check",
                client.post::<view::Done>("/v1/pools/web/backends/a/check", &()).unwrap_err(),
            ),
            ("POST /v1/plan/", client.post::<view::Done>("/v1/plan/", &()).unwrap_err()),
        ] {
            let ClientError::Refused(error) = refused else { panic!("{refused}") };
            let line = format!(
                "{method} is neither; send it to /run/maglev/maglev.sock (maglev --socket /run/maglev/maglev.sock)"
            );
            assert!(error.kind == view::ErrorKind::Forbidden && error.error.ends_with(&line), "{error:?}");
            assert!(
                error.error.starts_with("nothing changed: ") && error.error.contains("read.sock serves reads"),
                "{error:?}"
            );
        }
    };
    tokio::task::spawn_blocking(reads).await.unwrap();
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"POST /v1/reload HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}
