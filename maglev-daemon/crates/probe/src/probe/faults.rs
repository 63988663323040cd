//! Faults found by running the product: checks that were stricter than documented, the node's own shortages, and certificate
//! authorities that were read once and for all.

use std::io;
use std::sync::Mutex;

use maglev_testing::matrix::Row;
use nix::libc;

use super::fault::{Fault, is_shortage};
use super::tests::{Identity, LONG, SHORT, Says, check, ends, failed, no_authorities, request, rng, server, tls, udp};
use super::*;
use tokio_rustls::rustls::pki_types::CertificateDer;

const OK: &str = "HTTP/1.1 200 OK\r\n";

/// A text that lives as long as the tests.
fn forever(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn fields(count: usize) -> &'static str {
    forever(format!("{OK}{}\r\n", "a: b\r\n".repeat(count)))
}

#[tokio::test]
async fn without_a_body_the_status_line_decides_whatever_follows() {
    let large = forever(format!("{OK}content-length: 1572864\r\n\r\n{}", "x".repeat(1_572_864)));
    let rows = [
        ("a body of 1.5 MB", Says::Once(large)),
        ("a body without end", Says::Endlessly("HTTP/1.1 200 OK\r\n\r\n", "and more ")),
        ("a body that is shorter than its length", Says::Once("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort")),
        ("a length that is no number", Says::Once("HTTP/1.1 200 OK\r\ncontent-length: much\r\n\r\n")),
        ("150 short headers", Says::Once(fields(150))),
        ("5,000 headers", Says::Once(fields(5_000))),
        ("headers without end", Says::Endlessly(OK, "x: y\r\n")),
        ("a status without a reason", Says::Once("HTTP/1.0 204\r\n\r\n")),
    ];
    for (case, says) in rows {
        let _row = Row::fault("C7", case);
        let (at, _) = server(says).await;
        assert_eq!(ends(at, Probe::Http(request(None)), LONG).await, Ok(()), "{case}");
    }
    let (at, _) = server(Says::Once("HTTP/1.1 503 Busy\r\ncontent-length: much\r\n\r\n")).await;
    assert_eq!(ends(at, Probe::Http(request(None)), LONG).await, failed("HTTP 503"));
}

#[tokio::test]
async fn with_a_body_it_is_good_once_the_text_is_found() {
    let early = forever(format!("{OK}content-length: 1572864\r\n\r\nall is ok{}", "x".repeat(1_572_864)));
    let rows = [
        ("the text, then 1.5 MB", Says::Once(early), Ok(())),
        ("the text, then no end", Says::Endlessly("HTTP/1.1 200 OK\r\n\r\nok", "and more "), Ok(())),
        ("the text, and less than the length", Says::Once("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok"), Ok(())),
        ("the text, after 1,000 headers", Says::Once(forever(format!("{}ok", fields(1_000)))), Ok(())),
        (
            "2,000 headers before a body",
            Says::Once(fields(2_000)),
            failed("response: head longer than 16 KiB, or of more than 1024 fields"),
        ),
    ];
    for (case, says, expected) in rows {
        let _row = Row::fault("C7", case);
        let (at, _) = server(says).await;
        assert_eq!(ends(at, Probe::Http(request(Some("ok"))), LONG).await, expected, "{case}");
    }
}

#[tokio::test]
async fn a_server_that_ends_tls_without_a_word_is_good() {
    let identity = Identity::new();
    for body in [None, Some("well")] {
        let _row = Row::fault("C7", &format!("https without close_notify, body: {body:?}"));
        let (at, _) = identity.server(Says::Cut("HTTP/1.1 200 OK\r\n\r\nall is well")).await;
        let what = Probe::Https(request(body), tls("www.example.org", false));
        assert_eq!(ends(at, what, LONG).await, Ok(()));
    }
}

#[test]
fn only_what_this_node_lacks_is_its_own_shortage() {
    let mut row = Row::fault("C8", "which errors of the system say nothing of the backend");
    let own = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EADDRNOTAVAIL, libc::EAGAIN];
    let its = [libc::ECONNREFUSED, libc::ECONNRESET, libc::EHOSTUNREACH, libc::ENETUNREACH, libc::ETIMEDOUT];
    let of = |number: &i32| {
        let error = io::Error::from_raw_os_error(*number);
        assert_eq!(is_shortage(&error), matches!(Fault::from_io("connect", &error, Fault::Dead), Fault::Shortage(_)));
        is_shortage(&error)
    };
    assert!(own.iter().all(of) && !its.iter().any(of));
    row.says("EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL, EAGAIN");
}

#[tokio::test]
async fn a_backend_that_answers_is_unready_and_one_that_does_not_is_dead() {
    let mut row = Row::fault("C11", "what counts as an answer");
    let closed = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let silent = tokio::net::UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    let (busy, _) = server(Says::Once("HTTP/1.1 503 Busy\r\n\r\n")).await;
    let (hangs, _) = server(Says::Nothing).await;
    let (plain, _) = server(Says::Once("HTTP/1.1 400 Bad\r\n\r\n")).await;
    let rows = [
        (closed, Probe::Http(request(None)), LONG, false),
        (silent.local_addr().unwrap(), udp("ping", "pong"), SHORT, false),
        (busy, Probe::Http(request(None)), LONG, true),
        (hangs, Probe::Http(request(None)), SHORT, true),
        (plain, Probe::Https(request(None), tls("www.example.org", false)), SHORT, true),
    ];
    for (at, what, timeout, answers) in rows {
        let outcome = probe(at, &CheckPath::default(), &check(what.clone(), timeout), &no_authorities(), &mut rng())
            .await
            .outcome;
        assert_eq!(matches!(outcome, Err(Fault::Unready(_))), answers, "{what:?}: {outcome:?}");
        assert_eq!(matches!(outcome, Err(Fault::Dead(_))), !answers, "{what:?}: {outcome:?}");
    }
    row.says("HTTP 503, a request that hangs, plain text for TLS; not: refused, no datagram");
}

/// The authorities that the system trusts, for the one test that changes them.
static SYSTEM: Mutex<Result<Vec<CertificateDer<'static>>, ()>> = Mutex::new(Ok(Vec::new()));

fn system() -> Result<Vec<CertificateDer<'static>>, Fault> {
    assert_eq!(std::thread::current().name(), Some("authorities"), "never on a worker of the runtime");
    SYSTEM.lock().unwrap().clone().map_err(|()| Fault::Shortage("too many open files".to_owned()))
}

#[tokio::test]
async fn authorities_are_read_again_after_a_reload() {
    let identity = Identity::new();
    let trust = Trust::from_source(system);
    let asked = async || {
        let (at, _) = identity.server(Says::Once("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
        let what = Probe::Https(request(None), tls("www.example.org", true));
        probe(at, &CheckPath::default(), &check(what, LONG), &trust, &mut rng())
            .await
            .outcome
            .map_err(|fault| fault.to_string())
    };
    let set = |found| *SYSTEM.lock().unwrap() = found;
    let unknown = || failed("TLS: invalid peer certificate: UnknownIssuer");
    let row = Row::fault("C10", "a shortage while authorities are read: no result, and they are read again");
    set(Err(()));
    assert_eq!(asked().await, failed("not checked, by this node's own shortage: too many open files"));
    set(Ok(Vec::new()));
    assert_eq!(asked().await, unknown());
    drop(row);
    let row = Row::fault("C10", "an authority is added, reload");
    set(Ok(vec![identity.authority.clone()]));
    assert_eq!(asked().await, unknown(), "no reload was requested");
    trust.reload();
    assert_eq!(asked().await, Ok(()));
    drop(row);
    let row = Row::fault("C10", "reload while none can be read: those read before stay");
    set(Err(()));
    trust.reload();
    assert_eq!(asked().await, Ok(()));
    set(Ok(Vec::new()));
    assert_eq!(asked().await, Ok(()), "none at all is a mistake");
    drop(row);
    let _row = Row::fault("C10", "an authority is taken away, reload");
    set(Ok(vec![Identity::new().authority]));
    trust.reload();
    assert!(asked().await.unwrap_err().starts_with("TLS: invalid peer certificate: "));
}
