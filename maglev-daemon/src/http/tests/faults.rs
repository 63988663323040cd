//! Many readers, and readers that do not read: other clients are served all the same.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use maglev_testing::matrix::Row;
use tokio::net::TcpListener;

use super::*;
use crate::http::{Made, Page};

/// Most backends that a node can have; fewer where every test counts.
fn many() -> usize {
    if std::env::var_os("MAGLEV_FULL").is_some() { 32_767 } else { 4_000 }
}

/// A node with so many backends.
fn status(backends: usize) -> view::Status {
    let backends = (0..backends).map(|n| backend(&format!("web{n}"))).collect();
    view::Status { backends, pools: vec![testing::summary()], ..view::Status::default() }
}

/// Answers requests for counters, and counts them.
fn owner(mut requests: mpsc::Receiver<Request>) -> Arc<AtomicU64> {
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            if let Request::Counters { reply } = request {
                count.fetch_add(1, Ordering::Relaxed);
                let _ = reply.send(Ok(Made::by(view::Counters::default)));
            }
        }
    });
    asked
}

/// Sends a request without reading the answer.
async fn ask(path: &std::path::Path, what: &str) -> UnixStream {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(format!("GET {what} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scrapes_that_come_together_share_a_rendering_and_delay_no_deadline() {
    let mut row = Row::fault("C2", "64 scrapes at once share renderings, off the event loop");
    let mut server = Server::start(status(many()));
    let asked = owner(std::mem::replace(&mut server.requests, mpsc::channel(1).1));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(crate::metrics::serve(listener, server.handle.clone()));
    // A deadline: a timer on the same workers.
    let (late, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (most, end) = (Arc::clone(&late), Arc::clone(&over));
    let deadlines = tokio::spawn(async move {
        while !end.load(Ordering::Relaxed) {
            let began = Instant::now();
            tokio::time::sleep(Duration::from_millis(5)).await;
            most.fetch_max(began.elapsed().as_millis() as u64, Ordering::Relaxed);
        }
    });
    let scrape = move || async move {
        let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut page = Vec::new();
        stream.read_to_end(&mut page).await.unwrap();
        page.ends_with(b"# EOF\n")
    };
    let scrapes: Vec<_> = (0..64).map(|_| tokio::spawn(scrape())).collect();
    for scrape in scrapes {
        assert!(scrape.await.unwrap());
    }
    over.store(true, Ordering::Relaxed);
    deadlines.await.unwrap();
    let (renderings, late) = (asked.load(Ordering::Relaxed), late.load(Ordering::Relaxed));
    assert!(renderings <= 32, "{renderings} renderings for 64 scrapes");
    assert!(late < 2_000, "a deadline was {late} ms late");
    row.says(format!("{renderings} renderings, a timer at most {late} ms late, {} backends", many()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_do_not_read_lock_no_other_out() {
    for (case, what) in [("256 clients read no backends", "/v1/backends"), ("256 clients read no status", "/v1/status")]
    {
        let mut row = Row::fault("C4", case);
        let server = Server::start(status(many()));
        let path = server.directory.path().join("maglev.sock");
        let mut silent = Vec::new();
        for _ in 0..256 {
            silent.push(ask(&path, what).await);
        }
        let mut slowest = 0;
        for _ in 0..5 {
            let began = Instant::now();
            let shown = server.client(|client| client.get::<view::Status>("/v1/status")).await.unwrap();
            assert_eq!(shown.backends.len(), many());
            slowest = slowest.max(began.elapsed().as_millis());
        }
        let held = server.handle.pages.held() / 1024 / 1024;
        assert!(held < 100, "{held} MiB are held");
        row.says(format!("the command line waits {slowest} ms at most, {held} MiB of answers, {} backends", many()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_that_do_not_send_lock_no_other_out() {
    for (case, begin) in [
        ("256 clients send half a head", "GET /v1/status HTTP/1.1\r\nhost:"),
        ("256 clients send half a body", "POST /v1/pools HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{"),
        ("256 clients send nothing", ""),
    ] {
        let mut row = Row::fault("C4", case);
        let server = Server::start(status(3));
        let path = server.directory.path().join("maglev.sock");
        let mut silent = Vec::new();
        for _ in 0..256 {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(begin.as_bytes()).await.unwrap();
            silent.push(stream);
        }
        let began = Instant::now();
        server.client(|client| client.get::<view::Node>("/v1/node")).await.unwrap();
        row.says(format!("the command line waits {} ms", began.elapsed().as_millis()));
    }
}

#[tokio::test]
async fn a_page_is_never_older_than_the_published_generation() {
    let _row = Row::fault("C2", "a change that was answered is in every answer that follows");
    let pages = Pages::start().unwrap();
    let wanted = |generation| crate::http::Wanted { generation, privileged: false };
    let render = |text: &'static str| async move {
        // So long a rendering may be shared for a while.
        std::thread::sleep(Duration::from_millis(20));
        Ok(crate::http::Rendered::text("text/plain", || {
            std::thread::sleep(Duration::from_millis(300));
            text.to_owned()
        }))
    };
    let page = |generation, text| pages.page(crate::http::Subject::Status, wanted(generation), render(text));
    let shown = |page: Page| String::from_utf8(page.bytes().to_vec()).unwrap();
    assert_eq!(shown(page(1, "one").await.unwrap()), "one");
    assert_eq!(shown(page(1, "again").await.unwrap()), "one", "it is shared");
    assert_eq!(shown(page(2, "two").await.unwrap()), "two", "the owner published another");
    assert_eq!(shown(page(1, "late").await.unwrap()), "two", "a later one is as good");
}
