//! A blocking client of the API, for the command line. It must not know the commands.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::stream::{self, Message, TooLarge};
use super::{FILE_HEADER, MISSED, RELEASE, RELEASE_HEADER, SIGN_OF_LIFE, VERSION, VERSION_HEADER, WHY_HEADER, view};

/// Longer than the daemon's own timeout for a request, so that its answer arrives.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a stream of events may be silent; the daemon sends a keep-alive much more often.
const SILENCE: Duration = SIGN_OF_LIFE.saturating_mul(3);

/// The largest answer in bytes; that of a node with the most backends is far below.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// A client of one daemon.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    /// The remedy if no service answers on the socket.
    remedy: &'static str,
    runtime: Runtime,
    /// The reason sent with changes.
    reason: Option<HeaderValue>,
}

/// The body of a request.
#[derive(Debug, Default)]
struct Body {
    bytes: Bytes,
    /// The file's name; none for a body in JSON.
    file: Option<HeaderValue>,
}

/// A message of the stream of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// An event.
    Event(Box<view::Event>),
    /// The number of events lost because this client reads too slowly.
    Missed(u64),
}

/// A message of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caught {
    /// A packet.
    Packet(Box<view::CapturedPacket>),
    /// How many packets there were so far.
    Counts(view::CaptureCounts),
    /// The last message: the capture ended for this reason.
    Ended(String),
}

/// The reason why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon answers on the socket (exit code 3).
    #[error("cannot reach maglevd at {}: {reason}; {remedy}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// The system's error.
        reason: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// The daemon answered with an error.
    #[error(transparent)]
    Refused(#[from] view::Error),
    /// The answer is not one of this release's daemon.
    #[error("{0}")]
    Foreign(String),
}

impl Client {
    /// A client of the daemon on this socket. It connects with each request.
    ///
    /// # Errors
    /// The system gives no event loop: out of file descriptors.
    pub fn new(socket: &Path) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let remedy = "is maglevd running? systemctl status maglevd";
        Ok(Self { socket: socket.to_owned(), remedy, runtime, reason: None })
    }

    /// With another remedy if no service answers on the socket: it is not that of a node's daemon.
    #[must_use]
    pub fn with_remedy(self, remedy: &'static str) -> Self {
        Self { remedy, ..self }
    }

    /// Adds the reason of changes, one that [`maglev_model::parse_reason`] accepted.
    #[must_use]
    pub fn with_reason(self, reason: Option<String>) -> Self {
        Self { reason: reason.and_then(|reason| HeaderValue::from_bytes(reason.as_bytes()).ok()), ..self }
    }

    /// Sends a GET request.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, Body::default())
    }

    /// Sends a DELETE request.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn delete(&self, path: &str) -> Result<view::Done, ClientError> {
        self.send(Method::DELETE, path, Body::default())
    }

    /// Sends a POST request.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.send(Method::POST, path, encode(body)?)
    }

    /// Sends a POST request whose answer may take so long.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn post_within<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        time: Duration,
    ) -> Result<T, ClientError> {
        self.send_within(Method::POST, path, encode(body)?, time)
    }

    /// Sends a file's text in a POST request, with the file's name for messages.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn post_file<T: DeserializeOwned>(&self, path: &str, name: &str, text: String) -> Result<T, ClientError> {
        self.send(Method::POST, path, Body::from_file(name, text))
    }

    /// Sends a file's text in a PUT request, with the file's name for messages.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn put_file<T: DeserializeOwned>(&self, path: &str, name: &str, text: String) -> Result<T, ClientError> {
        self.send(Method::PUT, path, Body::from_file(name, text))
    }

    /// Receives a stream of events until `receive` breaks.
    ///
    /// # Errors
    /// See [`ClientError`]; the end of the stream is one too.
    pub fn follow(&self, path: &str, receive: impl FnMut(Received) -> ControlFlow<()>) -> Result<(), ClientError> {
        self.runtime.block_on(self.listen(Method::GET, path, Body::default(), received, receive))
    }

    /// Captures packets until `receive` breaks, which it must after the last message.
    ///
    /// # Errors
    /// See [`ClientError`]; the end of the stream is one too.
    pub fn capture(
        &self,
        wanted: &view::NewCapture,
        receive: impl FnMut(Caught) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        self.runtime.block_on(self.listen(Method::POST, "/v1/capture", encode(wanted)?, caught, receive))
    }

    /// Sends a PATCH request.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn patch<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.send(Method::PATCH, path, encode(body)?)
    }

    fn send<T: DeserializeOwned>(&self, method: Method, path: &str, body: Body) -> Result<T, ClientError> {
        self.send_within(method, path, body, TIMEOUT)
    }

    fn send_within<T>(&self, method: Method, path: &str, body: Body, time: Duration) -> Result<T, ClientError>
    where
        T: DeserializeOwned,
    {
        self.runtime.block_on(async {
            match tokio::time::timeout(time, self.exchange(method, path, body)).await {
                Ok(answer) => answer,
                Err(_) => Err(self.unreachable(format!("no answer within {} s", time.as_secs()))),
            }
        })
    }

    async fn exchange<T: DeserializeOwned>(&self, method: Method, path: &str, body: Body) -> Result<T, ClientError> {
        let (response, connection) = self.open(method, path, body).await?;
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| self.unreachable(format!("the answer is incomplete: {error}")))?.to_bytes();
        connection.abort();
        decode(&body)
    }

    async fn listen<T>(
        &self,
        method: Method,
        path: &str,
        body: Body,
        read: impl Fn(&Message) -> Result<T, ClientError>,
        mut receive: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        let opened = tokio::time::timeout(TIMEOUT, self.open(method, path, body)).await;
        let (response, connection) =
            opened.map_err(|_| self.unreachable(format!("no answer within {} s", TIMEOUT.as_secs())))??;
        let (mut body, mut reader) = (response.into_body(), stream::Reader::default());
        let ended = loop {
            let piece = match tokio::time::timeout(SILENCE, body.frame()).await {
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Ok(Some(Err(_)) | None) => {
                    break Enough::Failed(self.unreachable("it ended the stream of events".into()));
                }
                Err(_) => {
                    break Enough::Failed(self.unreachable(format!("no message for {} s", SILENCE.as_secs())));
                }
            };
            let taken = reader.read(&piece, |message| match receive(read(&message)?) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(Enough::Stopped),
            });
            if let Err(ended) = taken {
                break ended;
            }
        };
        connection.abort();
        match ended {
            Enough::Stopped => Ok(()),
            Enough::Failed(error) => Err(error),
        }
    }

    /// Sends a request, and returns the head of a successful answer, with the task that reads the rest.
    async fn open(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<(Response<Incoming>, JoinHandle<hyper::Result<()>>), ClientError> {
        let unreachable = |error: &dyn std::error::Error| self.unreachable(error.to_string());
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => self.not_permitted(&error),
            _ => unreachable(&error),
        })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
        let connection = tokio::spawn(connection);

        let reason = self.reason.clone().filter(|_| method != Method::GET);
        let Body { bytes, file } = body;
        let content = if file.is_some() { "application/yaml" } else { "application/json" };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "maglevd")
            .header(CONTENT_TYPE, content)
            .header(VERSION_HEADER, VERSION)
            .header(RELEASE_HEADER, RELEASE)
            .body(Full::new(bytes))
            .map_err(|error| ClientError::Foreign(format!("cannot build the request for {path}: {error}")))?;
        for (name, value) in [(WHY_HEADER, reason), (FILE_HEADER, file)] {
            value.into_iter().for_each(|value| drop(request.headers_mut().insert(name, value)));
        }
        let response = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
        check_version(&response)?;
        if response.status().is_success() {
            return Ok((response, connection));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| self.unreachable(format!("the answer is incomplete: {error}")))?.to_bytes();
        connection.abort();
        Err(ClientError::Refused(decode(&body)?))
    }

    fn unreachable(&self, reason: String) -> ClientError {
        ClientError::Unreachable { socket: self.socket.clone(), reason, remedy: self.remedy }
    }

    fn not_permitted(&self, error: &io::Error) -> ClientError {
        let remedy = "run as root, or as a member of the socket's group";
        ClientError::Unreachable { socket: self.socket.clone(), reason: error.to_string(), remedy }
    }
}

/// The end of a stream of events.
enum Enough {
    /// The receiver broke.
    Stopped,
    Failed(ClientError),
}

impl From<ClientError> for Enough {
    fn from(error: ClientError) -> Self {
        Self::Failed(error)
    }
}

impl From<TooLarge> for Enough {
    fn from(TooLarge: TooLarge) -> Self {
        Self::Failed(ClientError::Foreign("maglevd sent an event larger than the limit".into()))
    }
}

fn received(message: &Message) -> Result<Received, ClientError> {
    #[derive(serde::Deserialize)]
    struct Missed {
        missed: u64,
    }
    let Message { name, data } = message;
    if name == MISSED {
        return decode(data.as_bytes()).map(|Missed { missed }| Received::Missed(missed));
    }
    decode(data.as_bytes()).map(|event| Received::Event(Box::new(event)))
}

fn caught(message: &Message) -> Result<Caught, ClientError> {
    let Message { name, data } = message;
    match name.as_str() {
        "" => decode(data.as_bytes()).map(|packet| Caught::Packet(Box::new(packet))),
        "counts" => decode(data.as_bytes()).map(Caught::Counts),
        "ended" => decode(data.as_bytes()).map(|view::CaptureEnded { reason }| Caught::Ended(reason)),
        other => Err(ClientError::Foreign(format!("maglevd sent a message named {other}, which is unknown here"))),
    }
}

/// Rejects an answer of another API version. A daemon's own refusal of this client's version names both versions too.
fn check_version(response: &Response<Incoming>) -> Result<(), ClientError> {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let Some(theirs) = header(VERSION_HEADER) else {
        return Err(ClientError::Foreign(
            "the server on the socket is not maglevd: its answer has no API version".into(),
        ));
    };
    if theirs == VERSION.to_string() {
        return Ok(());
    }
    let release = header(RELEASE_HEADER).unwrap_or("of unknown release");
    Err(ClientError::Foreign(format!(
        "maglevd {release} has API version {theirs}, maglev {RELEASE} has version {VERSION}: use the same release of both"
    )))
}

impl Body {
    /// A file's text. A name that is not valid in a header is replaced by `file`.
    fn from_file(name: &str, text: String) -> Self {
        let file = HeaderValue::from_bytes(name.as_bytes()).unwrap_or(HeaderValue::from_static("file"));
        Self { bytes: text.into(), file: Some(file) }
    }
}

fn encode(body: &impl Serialize) -> Result<Body, ClientError> {
    let encoded = serde_json::to_vec(body).map(|bytes| Body { bytes: bytes.into(), file: None });
    encoded.map_err(|error| ClientError::Foreign(format!("cannot write the request: {error}")))
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body)
        .map_err(|error| ClientError::Foreign(format!("maglevd's answer is unreadable: {error}")))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use maglev_testing::TempDir;

    use super::*;

    /// The reason in the heads of as many requests as `ask` makes, each answered with success.
    fn reasons(requests: usize, ask: impl FnOnce(&Path)) -> Vec<Option<String>> {
        let folder = TempDir::new();
        let socket = folder.path().join("maglev.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || (0..requests).map(|_| answer(&listener)).collect());
        ask(&socket);
        server.join().unwrap()
    }

    fn answer(listener: &UnixListener) -> Option<String> {
        let (mut stream, _) = listener.accept().unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
        let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
        let answer = format!("HTTP/1.1 200 OK\r\n{VERSION_HEADER}: {VERSION}\r\ncontent-length: 2\r\n\r\n{{}}");
        stream.write_all(answer.as_bytes()).unwrap();
        head.iter().find_map(|line| line.strip_prefix(&format!("{WHY_HEADER}: "))).map(str::to_owned)
    }

    #[test]
    fn changes_carry_their_reason_as_utf_8_and_reads_carry_none() {
        let why = "größer als web2 → langsam";
        let sent = reasons(4, |socket| {
            let client = Client::new(socket).unwrap().with_reason(Some(why.to_owned()));
            client.post::<view::Done>("/", &()).unwrap();
            client.patch::<view::Done>("/", &()).unwrap();
            client.delete("/").unwrap();
            client.get::<view::Done>("/").unwrap();
        });
        let given = Some(why.to_owned());
        assert_eq!(sent, [given.clone(), given.clone(), given, None]);
        let sent = reasons(1, |socket| {
            Client::new(socket).unwrap().post::<view::Done>("/", &()).unwrap();
        });
        assert_eq!(sent, [None], "a change without a reason");
    }
}
