//! Receives the bodies of requests: how large they may be, how many large ones at once, and how long they may take. It must not
//! know the content of a body.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use http_body_util::LengthLimitError;
use hyper::body::Body as _;
use maglev_api::{Answer, LARGEST_FILE, view};
use maglev_config::bounds;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The largest body in bytes that is no file: a request has a name, an address and a number at most.
const SMALL: u64 = 16 * 1024;

/// Requests with a file that one listener serves at once, from the first byte of the file to the answer: each may hold the file and
/// its services.
const FILES: usize = 2;

/// How long a request with a file waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a file may take to arrive: a client on the same machine has it ready.
const ARRIVAL: Duration = Duration::from_secs(5);

/// The bodies of one listener's requests.
#[derive(Clone, Debug)]
pub(crate) struct Bodies {
    /// Whether a request carries a file.
    is_file: fn(&Request) -> bool,
    turns: Arc<Semaphore>,
}

/// The right to serve a request with a file, until it is dropped.
pub(super) type Turn = Option<OwnedSemaphorePermit>;

impl Bodies {
    /// Files are the bodies of the requests for which `is_file` holds; they may be as large as a services file.
    pub(crate) fn new(is_file: fn(&Request) -> bool) -> Self {
        Self { is_file, turns: Arc::new(Semaphore::new(FILES)) }
    }

    /// Receives the whole body. The request is to be answered before the turn is dropped.
    ///
    /// # Errors
    /// It is too large, too slow, or waits too long for its turn.
    pub(super) async fn receive(&self, request: Request) -> Answer<(Request, Turn)> {
        let is_file = (self.is_file)(&request);
        let most = if is_file { LARGEST_FILE } else { SMALL };
        let (head, body) = request.into_parts();
        if body.size_hint().lower() > most {
            return Err(too_large(body.size_hint().lower(), is_file));
        }
        let turn = if is_file { Some(self.turn().await?) } else { None };
        let received = axum::body::to_bytes(body, usize::try_from(most).unwrap_or(usize::MAX));
        let received = match is_file {
            false => received.await,
            true => tokio::time::timeout(ARRIVAL, received).await.map_err(|_| late())?,
        };
        let received = received.map_err(|error| {
            let error = error.into_inner();
            if error.is::<LengthLimitError>() {
                return too_large(most + 1, is_file);
            }
            view::Error::invalid(format!("request body: {error}"))
        })?;
        Ok((Request::from_parts(head, Body::from(received)), turn))
    }

    async fn turn(&self) -> Answer<OwnedSemaphorePermit> {
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| {
            view::Error::failed(format!("maglevd reads {FILES} files at once, and all are busy: try again later"))
        })
    }
}

fn late() -> view::Error {
    view::Error::invalid(format!("request body: the file took more than {} s to arrive", ARRIVAL.as_secs()))
}

/// `bytes` is its size, in words if unknown.
fn too_large(bytes: u64, is_file: bool) -> view::Error {
    view::Error::invalid(match is_file {
        true => format!("request body: {}", bounds::too_large_to_read(bytes)),
        false => format!("request body: {bytes} bytes; allowed: at most {SMALL}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, bytes: usize) -> Request {
        Request::builder().uri(path).body(Body::from(vec![b'#'; bytes])).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_are_bounded_in_size_number_and_time() {
        assert_eq!(LARGEST_FILE, bounds::LARGEST, "the command line refuses what the daemon would");
        let bodies = Bodies::new(|request| request.uri().path() == "/file");
        let refused = async |path: &str, bytes| bodies.receive(request(path, bytes)).await.unwrap_err().error;
        assert!(bodies.receive(request("/", 16_384)).await.unwrap().1.is_none());
        assert_eq!(refused("/", 16_385).await, "request body: 16385 bytes; allowed: at most 16384");
        assert!(
            refused("/file", 20_000_000).await.starts_with("request body: 20000000 bytes; allowed: at most 16777216")
        );

        let turns = [bodies.receive(request("/file", 1 << 24)).await, bodies.receive(request("/file", 1)).await];
        assert!(turns.iter().all(Result::is_ok));
        let began = tokio::time::Instant::now();
        let full = refused("/file", 1).await;
        assert!(full.contains("reads 2 files at once") && began.elapsed() == PATIENCE, "{full}");
        assert!(bodies.receive(request("/", 1)).await.is_ok(), "others are served");
        drop(turns);
        let silent = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        let slow = bodies.receive(Request::builder().uri("/file").body(silent).unwrap()).await.unwrap_err().error;
        assert_eq!(slow, "request body: the file took more than 5 s to arrive");
        let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'#'; 1 << 20]));
        let endless = Request::builder().uri("/file").body(Body::from_stream(endless)).unwrap();
        let endless = bodies.receive(endless).await.unwrap_err().error;
        assert!(endless.starts_with("request body: 16777217 bytes; allowed"), "{endless}");
        assert!(bodies.receive(request("/file", 1)).await.is_ok(), "every turn came back");
    }
}
