//! Tests of checks against the tests' own servers on loopback, well-behaved and not.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use maglev_model::{Check, Hysteresis, Probe, Request, Tls, Via};
use maglev_testing::matrix::Row;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{CheckPath, Ended, Trust, probe};

pub(super) const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// Enough time for checks that end without a timeout.
pub(super) const LONG: Duration = Duration::from_secs(30);
/// For checks that run into their timeout.
pub(super) const SHORT: Duration = Duration::from_millis(300);

pub(super) fn check(probe: Probe, timeout: Duration) -> Check {
    let (interval, jitter, hysteresis) = (timeout * 2, Duration::ZERO, Hysteresis::default());
    Check { probe, interval, timeout, jitter, hysteresis, port: None, via: Via::Direct }
}

/// The same ids in each run.
pub(super) fn rng() -> fastrand::Rng {
    fastrand::Rng::with_seed(1)
}

pub(super) fn no_authorities() -> Trust {
    Trust::from_authorities(Vec::new())
}

/// The result of such a check.
pub(super) async fn ends(at: SocketAddr, what: Probe, timeout: Duration) -> Result<(), String> {
    probe(at, &CheckPath::default(), &check(what, timeout), &no_authorities(), &mut rng())
        .await
        .outcome
        .map_err(|fault| fault.to_string())
}

pub(super) fn request(body: Option<&str>) -> Request {
    let status: RangeInclusive<u16> = 200..=299;
    Request { path: "/healthz?deep=no".to_owned(), host: None, status, body: body.map(str::to_owned) }
}

pub(super) fn failed(reason: &str) -> Result<(), String> {
    Err(reason.to_owned())
}

/// A server's answer to a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Says {
    /// This, and closes.
    Once(&'static str),
    /// This, and closes without `close_notify`.
    Cut(&'static str),
    /// The first, and then the second again and again, as fast as it can.
    Endlessly(&'static str, &'static str),
    /// The first at once, the second byte by byte, without end, with pauses.
    Slowly(&'static str, &'static str),
    /// Nothing.
    Nothing,
}

impl Says {
    async fn say(self, stream: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        match self {
            Self::Once(text) => {
                stream.write_all(text.as_bytes()).await?;
                stream.shutdown().await
            }
            Self::Cut(text) => {
                stream.write_all(text.as_bytes()).await?;
                stream.flush().await
            }
            Self::Endlessly(first, then) => {
                stream.write_all(first.as_bytes()).await?;
                loop {
                    stream.write_all(then.as_bytes()).await?;
                }
            }
            Self::Slowly(first, then) => {
                stream.write_all(first.as_bytes()).await?;
                for byte in then.bytes().cycle() {
                    stream.write_u8(byte).await?;
                    tokio::time::sleep(SHORT / 10).await;
                }
                Ok(())
            }
            Self::Nothing => std::future::pending().await,
        }
    }
}

/// Reads a request up to the empty line, and sends the answer.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, says: Says) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => break,
        }
    }
    // The client may have closed the connection.
    let _ = says.say(&mut stream).await;
    String::from_utf8(request).unwrap()
}

/// A server for one connection; returns the request.
pub(super) async fn server(says: Says) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let at = listener.local_addr().unwrap();
    let task = tokio::spawn(async move { answer(listener.accept().await.unwrap().0, says).await });
    (at, task)
}

#[tokio::test]
async fn a_connection_is_accepted_or_refused() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let at = listener.local_addr().unwrap();
    let Ended { outcome, latency } =
        probe(at, &CheckPath::default(), &check(Probe::Tcp, LONG), &no_authorities(), &mut rng()).await;
    assert_eq!(outcome, Ok(()));
    assert!(!latency.is_zero() && latency < LONG);
    let (mut stream, _) = listener.accept().await.unwrap();
    let reset = stream.read_u8().await.unwrap_err();
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset, "no port is left to rest");
    drop(listener);
    assert_eq!(ends(at, Probe::Tcp, LONG).await, failed("connect: refused"));
}

#[tokio::test]
async fn a_connection_that_is_not_accepted_times_out() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(LOOPBACK.into()).unwrap();
    let at = socket.local_addr().unwrap();
    let _full = socket.listen(1).unwrap();
    let mut held = Vec::new();
    // Until the queue of those to be accepted is full.
    while let Ok(stream) = tokio::time::timeout(SHORT, TcpStream::connect(at)).await {
        held.push(stream.unwrap());
    }
    assert_eq!(ends(at, Probe::Tcp, SHORT).await, failed("connect: timed out after 300 ms"));
}

#[tokio::test]
async fn a_request_names_path_and_host_and_closes() {
    for (host, named) in [(None, None), (Some("www.example.org"), Some("www.example.org"))] {
        let (at, asked) = server(Says::Once("HTTP/1.1 204 No Content\r\n\r\n")).await;
        let what = Probe::Http(Request { host: host.map(str::to_owned), ..request(None) });
        assert_eq!(ends(at, what, LONG).await, Ok(()));
        let asked = asked.await.unwrap().to_lowercase();
        assert!(asked.starts_with("get /healthz?deep=no http/1.1\r\n"), "{asked}");
        let host = named.map_or_else(|| at.to_string(), str::to_owned);
        assert!(
            asked.contains(&format!("\r\nhost: {host}\r\n")) && asked.contains("\r\nconnection: close\r\n"),
            "{asked}"
        );
    }
}

#[tokio::test]
async fn an_answer_is_good_by_status_and_body() {
    let rows = [
        (Says::Once("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"), None, Ok(())),
        (Says::Once("HTTP/1.0 200 OK\r\n\r\nall is well"), Some("is well"), Ok(())),
        (
            Says::Once("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
            Some("fine"),
            failed("body: does not hold \"fine\""),
        ),
        (Says::Once("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"), None, failed("HTTP 503")),
        (Says::Once("HTTP/1.1 302 Found\r\nlocation: /healthz\r\ncontent-length: 0\r\n\r\n"), None, failed("HTTP 302")),
    ];
    for (says, body, expected) in rows {
        let (at, _) = server(says).await;
        assert_eq!(ends(at, Probe::Http(request(body)), LONG).await, expected, "{says:?}");
    }
}

#[tokio::test]
async fn a_server_that_misbehaves_fails_with_its_reason() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\n";
    const BODY: &str = "HTTP/1.1 200 OK\r\n\r\n";
    const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    const CUT_OFF: &str = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort";
    const CHUNKS: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    const REDIRECT: &str = "HTTP/1.1 302 Found\r\nlocation: /healthz?deep=no\r\ncontent-length: 0\r\n\r\n";
    const TOO_LONG: &str = "response: head longer than 16 KiB, or of more than 1024 fields";
    const NO_HTTP: &str = "response: the answer begins with \"SSH-2.0-OpenSSH_9.9\\r\\n\", not \"HTTP/1.\"";
    let (no, ok) = (None, Some("ok"));
    let rows = [
        ("endless headers", Says::Endlessly(HEAD, "x-more: and more\r\n"), ok, LONG, TOO_LONG),
        ("one header without end", Says::Endlessly(HEAD, "x"), ok, LONG, TOO_LONG),
        ("100 Continue for ever", Says::Endlessly("", CONTINUE), no, SHORT, "response: timed out after 300 ms"),
        (
            "a body without end",
            Says::Endlessly(BODY, "and more "),
            ok,
            LONG,
            "body: does not hold \"ok\" in its first 1 MiB",
        ),
        ("a byte now and then, from the start", Says::Slowly("", HEAD), no, SHORT, "response: timed out after 300 ms"),
        (
            "a byte now and then, in the head",
            Says::Slowly(HEAD, "a: b\r\n"),
            ok,
            SHORT,
            "response: timed out after 300 ms",
        ),
        ("a byte now and then, in the body", Says::Slowly(BODY, "drip "), ok, SHORT, "body: timed out after 300 ms"),
        ("nothing", Says::Nothing, no, SHORT, "response: timed out after 300 ms"),
        ("an end at once", Says::Once(""), no, LONG, "response: closed"),
        ("an end in the body", Says::Once(CUT_OFF), ok, LONG, "body: closed"),
        ("another protocol", Says::Once("SSH-2.0-OpenSSH_9.9\r\n"), no, LONG, NO_HTTP),
        ("broken chunks", Says::Once(CHUNKS), ok, LONG, "body: invalid chunk size line: missing size digit"),
        ("a redirect to itself: not followed", Says::Once(REDIRECT), no, LONG, "HTTP 302"),
    ];
    for (what, says, body, timeout, expected) in rows {
        let mut row = Row::health("http", what);
        let (at, _) = server(says).await;
        assert_eq!(ends(at, Probe::Http(request(body)), timeout).await, failed(expected), "{says:?}");
        row.says(expected);
    }
}

pub(super) fn tls(name: &str, verify: bool) -> Tls {
    Tls { name: name.to_owned(), of_host: false, verify }
}

/// A server's certificate for `www.example.org`, its key, and its issuer.
pub(super) struct Identity {
    pub(super) authority: CertificateDer<'static>,
    pub(super) acceptor: TlsAcceptor,
}

impl Identity {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["www.example.org".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Self { authority: authority.der().clone(), acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    /// A server for one connection; returns the requested server name, and the request.
    pub(super) async fn server(&self, says: Says) -> (SocketAddr, tokio::task::JoinHandle<Option<(String, String)>>) {
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let at = listener.local_addr().unwrap();
        let acceptor = self.acceptor.clone();
        let task = tokio::spawn(async move {
            let stream = acceptor.accept(listener.accept().await.unwrap().0).await.ok()?;
            let name = stream.get_ref().1.server_name().map(str::to_owned)?;
            Some((name, answer(stream, says).await))
        });
        (at, task)
    }
}

#[tokio::test]
async fn a_certificate_is_verified_unless_that_is_off() {
    const GOOD: Says = Says::Once("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let identity = Identity::new();
    let ours = Trust::from_authorities(vec![identity.authority.clone()]);
    let rows = [
        (&ours, "www.example.org", true, Ok(())),
        (&no_authorities(), "www.example.org", true, failed("TLS: invalid peer certificate: UnknownIssuer")),
        (&no_authorities(), "www.example.org", false, Ok(())),
        (&ours, "api.example.org", false, Ok(())),
    ];
    for (trust, name, verify, expected) in rows {
        let (at, asked) = identity.server(GOOD).await;
        let what = Probe::Https(request(Some("ok")), tls(name, verify));
        let ended = probe(at, &CheckPath::default(), &check(what, LONG), trust, &mut rng()).await.outcome;
        assert_eq!(ended.map_err(|fault| fault.to_string()), expected, "{name} {verify}");
        if expected.is_ok() {
            let (asked_for, request) = asked.await.unwrap().unwrap();
            assert_eq!(asked_for, name);
            let host = format!("\r\nhost: {name}:{}\r\n", at.port());
            assert!(request.to_lowercase().contains(&host), "the host is the server: {request}");
        }
    }
    let (at, _) = identity.server(GOOD).await;
    let what = Probe::Https(request(None), tls("api.example.org", true));
    let reason =
        probe(at, &CheckPath::default(), &check(what, LONG), &ours, &mut rng()).await.outcome.unwrap_err().to_string();
    assert!(
        reason.starts_with("TLS: invalid peer certificate: certificate not valid for name \"api.example.org\""),
        "{reason}"
    );
}

#[tokio::test]
async fn an_answer_without_tls_fails_with_its_reason() {
    const PLAIN: &str = "HTTP/1.1 400 Bad Request\r\n\r\n";
    const TIMED_OUT: &str = "TLS handshake: timed out after 300 ms";
    let rows = [
        ("plain HTTP", Says::Once(PLAIN), LONG, "TLS: received corrupt message of type InvalidContentType"),
        ("TLS garbage", Says::Endlessly("\x16\x03\x03\x00\x04", "\0"), LONG, "TLS: "),
        ("a byte now and then", Says::Slowly("\x16\x03\x03\x40\x00", "x"), SHORT, TIMED_OUT),
        ("nothing", Says::Nothing, SHORT, TIMED_OUT),
        ("an end at once", Says::Once(""), LONG, "TLS handshake: closed"),
    ];
    for (what, says, timeout, expected) in rows {
        let mut row = Row::health("https", what);
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let at = listener.local_addr().unwrap();
        let talk = tokio::spawn(async move {
            let mut stream = listener.accept().await.unwrap().0;
            // The TLS hello: unread bytes would reset the connection.
            let _ = stream.read(&mut [0; 2_048]).await;
            let _ = says.say(&mut stream).await;
        });
        let asked = Probe::Https(request(None), tls("www.example.org", true));
        let reason = ends(at, asked, timeout).await.unwrap_err();
        assert!(reason.starts_with(expected), "{says:?}: {reason}");
        talk.abort();
        row.says(reason);
    }
}

/// Answers datagrams by what `answer` makes of each, from where it was sent to or from another port.
async fn datagrams(from_elsewhere: bool, answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> SocketAddr {
    let asked = UdpSocket::bind(LOOPBACK).await.unwrap();
    let elsewhere = UdpSocket::bind(LOOPBACK).await.unwrap();
    let at = asked.local_addr().unwrap();
    tokio::spawn(async move {
        let mut datagram = [0; 2_048];
        while let Ok((length, client)) = asked.recv_from(&mut datagram).await {
            let answering = if from_elsewhere { &elsewhere } else { &asked };
            if let Some(answer) = answer(&datagram[..length]) {
                answering.send_to(&answer, client).await.unwrap();
            }
        }
    });
    at
}

pub(super) fn udp(payload: &str, expect: &str) -> Probe {
    Probe::Udp { payload: payload.into(), expect: expect.into() }
}

#[tokio::test]
async fn only_an_answer_from_the_target_counts() {
    let pong = |asked: &[u8]| (asked == b"ping").then(|| b"pong 7".to_vec());
    let at = datagrams(false, pong).await;
    assert_eq!(ends(at, udp("ping", "pong"), LONG).await, Ok(()));
    assert_eq!(ends(at, udp("ping", ""), LONG).await, Ok(()), "any answer");
    assert_eq!(ends(at, udp("ping", "ok"), LONG).await, failed("the answer begins with \"pong 7\", not \"ok\""));
    assert_eq!(ends(at, udp("hello", "pong"), SHORT).await, failed("answer: timed out after 300 ms"));
    let closed = UdpSocket::bind(LOOPBACK).await.unwrap().local_addr().unwrap();
    assert_eq!(ends(closed, udp("ping", "pong"), LONG).await, failed("answer: refused"));
}

#[tokio::test]
async fn a_datagram_from_elsewhere_is_no_answer() {
    const REASON: &str = "answer: timed out after 300 ms";
    let mut row = Row::health("udp", "a reply from another address or port");
    let elsewhere = datagrams(true, |_| Some(b"pong".to_vec())).await;
    assert_eq!(ends(elsewhere, udp("ping", "pong"), SHORT).await, failed(REASON));
    row.says(REASON);
}

#[tokio::test]
async fn a_query_is_answered_with_a_response_code() {
    let refuses_others = |query: &[u8]| {
        let mut answer = query.to_vec();
        answer[2] |= 0x80;
        answer[3] = if query[12..].starts_with(b"\x07example\x03org\0") { 0 } else { 3 };
        Some(answer)
    };
    let query = |name: &str, rcode| Probe::Dns { query: name.to_owned(), rcode };
    let at = datagrams(false, refuses_others).await;
    assert_eq!(ends(at, query("example.org", 0), LONG).await, Ok(()));
    assert_eq!(ends(at, query("example.com", 0), LONG).await, failed("DNS NXDOMAIN"));
    assert_eq!(ends(at, query("example.com", 3), LONG).await, Ok(()));
    assert_eq!(
        ends(at, query("example..org", 0), LONG).await,
        failed("example..org is not a name that can be queried")
    );
    let echo = datagrams(false, |query| Some(query.to_vec())).await;
    assert_eq!(ends(echo, query("example.org", 0), SHORT).await, failed("answer: timed out after 300 ms"));
}

#[tokio::test]
async fn hundreds_at_once_do_not_disturb_each_other() {
    const CHECKS: u32 = 300;
    // Room for all of them: a server with the usual 128 would itself drop some, or reset them after a SYN cookie.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(LOOPBACK.into()).unwrap();
    let at = socket.local_addr().unwrap();
    let listener = socket.listen(CHECKS).unwrap();
    tokio::spawn(async move {
        loop {
            let stream = listener.accept().await.unwrap().0;
            tokio::spawn(answer(stream, Says::Once("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")));
        }
    });
    let check = Arc::new(check(Probe::Http(request(Some("ok"))), LONG));
    let trust = no_authorities();
    let asked: Vec<_> = (0..CHECKS)
        .map(|_| {
            let (check, trust) = (Arc::clone(&check), trust.clone());
            tokio::spawn(async move { probe(at, &CheckPath::default(), &check, &trust, &mut rng()).await.outcome })
        })
        .collect();
    for outcome in asked {
        assert_eq!(outcome.await.unwrap(), Ok(()));
    }
}
