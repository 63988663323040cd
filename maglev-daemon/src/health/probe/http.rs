//! One HTTP request, and whether its answer is good. Redirects are answers, and not followed. It must not know what lies
//! beneath.

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Doing, words};
use crate::model::Request;

/// The longest head of an answer.
const LONGEST_HEAD: usize = 16 << 10;

/// The longest body that is read; it is not kept.
const LONGEST_BODY: usize = 1 << 20;

/// Asks over a connection that is there for this alone. `authority`: whom the request names if it does not say.
pub(super) async fn ask<S>(stream: S, authority: &str, asked: &Request, doing: &Doing) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    doing.now("response");
    let request = request(authority, asked).map_err(|error| format!("request: {error}"))?;
    let shaken = http1::Builder::new().max_buf_size(LONGEST_HEAD).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| of_hyper(&error))?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(|error| of_hyper(&error))?;
        let status = response.status().as_u16();
        if !asked.status.contains(&status) {
            return Err(format!("HTTP {status}"));
        }
        doing.now("body");
        read(response.into_body(), asked.body.as_deref()).await
    };
    // Both in this task: dropped, the connection ends with the check. It ends by itself where it has nothing more to do.
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

/// Reads a body to its end, and looks for what it must hold.
async fn read(mut body: Incoming, wanted: Option<&str>) -> Result<(), String> {
    let mut search = Search::new(wanted.unwrap_or_default().as_bytes());
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| of_hyper(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        length += data.len();
        if length > LONGEST_BODY {
            return Err(format!("body: longer than {} MiB", LONGEST_BODY >> 20));
        }
        search.go_on(data);
    }
    if search.found { Ok(()) } else { Err(format!("body: does not hold {:?}", wanted.unwrap_or_default())) }
}

/// Looks for some bytes in what comes by parts; keeps no more of it than they are long.
struct Search<'a> {
    wanted: &'a [u8],
    /// The end of what came, where they may have begun.
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

fn of_hyper(error: &hyper::Error) -> String {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return words::of_error("response", io);
        }
        source = inner.source();
    }
    match error {
        error if error.is_parse_too_large() => format!("response: head longer than {} KiB", LONGEST_HEAD >> 10),
        error if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => {
            "response: closed".to_owned()
        }
        error => format!("response: {error}"),
    }
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
