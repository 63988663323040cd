//! One HTTP request, and whether its answer is good. Redirects are answers, and not followed. It must not know the
//! transport.

mod status;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use maglev_model::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Doing, Fault};

/// The longest head of an answer whose body is read.
const LONGEST_HEAD: usize = 16 << 10;

/// The most fields of such a head.
const MOST_FIELDS: usize = 1_024;

/// A text is searched for in so much of a body; none of it is kept.
const LONGEST_BODY: usize = 1 << 20;

/// Sends a request over its own connection. `authority`: the default host of the request. If no body is expected, the status
/// decides, whatever follows it.
pub(super) async fn ask<S>(mut stream: S, authority: &str, asked: &Request, doing: &Doing) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    doing.answered("response");
    let request = request(authority, asked).map_err(|error| Fault::Unready(format!("request: {error}")))?;
    match asked.body.as_deref().filter(|body| !body.is_empty()) {
        None => is_good(status::ask(&mut stream, &request).await?, asked),
        Some(body) => ask_for_body(stream, request, asked, body, doing).await,
    }
}

fn is_good(status: u16, asked: &Request) -> Result<(), Fault> {
    if asked.status.contains(&status) { Ok(()) } else { Err(Fault::Unready(format!("HTTP {status}"))) }
}

async fn ask_for_body<S>(
    stream: S,
    request: hyper::Request<Empty<Bytes>>,
    asked: &Request,
    wanted: &str,
    doing: &Doing,
) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut client = http1::Builder::new();
    client.max_buf_size(LONGEST_HEAD).max_headers(MOST_FIELDS).ignore_invalid_headers_in_responses(true);
    let shaken = client.handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| from_hyper("response", &error))?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(|error| from_hyper("response", &error))?;
        is_good(response.status().as_u16(), asked)?;
        doing.answered("body");
        find(response.into_body(), wanted).await
    };
    // Both in this task: dropped, the connection ends with the check. It also ends once it has nothing more to do.
    tokio::pin!(answered);
    tokio::select! {
        outcome = &mut answered => outcome,
        _ = connection => answered.await,
    }
}

fn request(authority: &str, asked: &Request) -> hyper::http::Result<hyper::Request<Empty<Bytes>>> {
    hyper::Request::get(asked.path.as_str())
        .header(HOST, asked.host.as_deref().unwrap_or(authority))
        .header(USER_AGENT, concat!("maglevd/", env!("CARGO_PKG_VERSION"), " (health check)"))
        .header(CONNECTION, "close")
        .body(Empty::new())
}

/// Reads a body until it contains a text: the rest does not matter.
async fn find(mut body: Incoming, wanted: &str) -> Result<(), Fault> {
    let mut search = Search::new(wanted.as_bytes());
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| from_hyper("body", &error))?;
        let Some(data) = frame.data_ref() else { continue };
        length += data.len();
        search.go_on(data);
        if search.found {
            return Ok(());
        }
        if length > LONGEST_BODY {
            let mib = LONGEST_BODY >> 20;
            return Err(Fault::Unready(format!("body: does not hold {wanted:?} in its first {mib} MiB")));
        }
    }
    Err(Fault::Unready(format!("body: does not hold {wanted:?}")))
}

/// Searches for some bytes in parts that arrive one by one; keeps no more of them than the bytes are long.
struct Search<'a> {
    wanted: &'a [u8],
    /// The end of the parts so far, where the bytes may have begun.
    tail: Vec<u8>,
    found: bool,
}

impl<'a> Search<'a> {
    fn new(wanted: &'a [u8]) -> Self {
        Self { wanted, tail: Vec::new(), found: wanted.is_empty() }
    }

    fn go_on(&mut self, part: &[u8]) {
        if self.found {
            return;
        }
        let length = self.wanted.len();
        let holds = |bytes: &[u8]| bytes.windows(length).any(|window| window == self.wanted);
        self.tail.extend_from_slice(&part[..part.len().min(length)]);
        self.found = holds(&self.tail) || holds(part);
        self.tail.extend_from_slice(&part[part.len().min(length)..]);
        let old = self.tail.len().saturating_sub(length - 1);
        self.tail.drain(..old);
    }
}

fn from_hyper(doing: &str, error: &hyper::Error) -> Fault {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return Fault::from_io(doing, io, Fault::Unready);
        }
        source = inner.source();
    }
    Fault::Unready(match error {
        error if error.is_parse_too_large() => {
            format!("{doing}: head longer than {} KiB, or of more than {MOST_FIELDS} fields", LONGEST_HEAD >> 10)
        }
        error if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => {
            format!("{doing}: closed")
        }
        error => format!("{doing}: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_in_the_whole_is_found_in_its_parts(
            parts in prop::collection::vec("[ab]{0,6}", 0..8), wanted in "[ab]{0,5}",
        ) {
            let mut search = Search::new(wanted.as_bytes());
            for part in &parts {
                search.go_on(part.as_bytes());
                prop_assert!(search.tail.len() < wanted.len().max(1));
            }
            prop_assert_eq!(search.found, parts.concat().contains(&wanted));
        }
    }
}
