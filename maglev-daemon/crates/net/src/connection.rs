//! Netlink sockets, the tasks that serve them, and how long to wait before new ones. It must not know the requests, nor
//! the meaning of a notice.

use std::pin::pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt, TryStreamExt};
use rtnetlink::packet_core::ErrorMessage;
use rtnetlink::{Handle, MulticastGroup};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::error::NetError;
use super::notices::Notices;

/// How long the kernel may take to send the next part of an answer, which it normally sends at once: after that the answer is lost.
const ANSWER: Duration = Duration::from_secs(5);

/// The next part of an answer; `None` at its end.
pub(super) async fn part<T>(
    what: &'static str,
    answer: &mut (impl Stream<Item = Result<T, rtnetlink::Error>> + Unpin),
) -> Result<Option<T>, NetError> {
    match tokio::time::timeout(ANSWER, answer.try_next()).await {
        Ok(part) => part.map_err(|source| NetError::Request { what, source }),
        Err(_) => Err(NetError::Silent { what }),
    }
}

/// The first part of an answer that carries no error of its own type.
pub(super) async fn first<T>(
    what: &'static str,
    mut answer: impl Stream<Item = T> + Unpin,
) -> Result<Option<T>, NetError> {
    tokio::time::timeout(ANSWER, answer.next()).await.map_err(|_| NetError::Silent { what })
}

/// The success of a request, or the kernel's refusal.
pub(super) async fn done(
    what: &'static str,
    answer: impl Future<Output = Result<(), rtnetlink::Error>>,
) -> Result<Result<(), ErrorMessage>, NetError> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(Ok(())) => Ok(Ok(())),
        Ok(Err(rtnetlink::Error::NetlinkError(refusal))) => Ok(Err(refusal)),
        Ok(Err(source)) => Err(NetError::Request { what, source }),
        Err(_) => Err(NetError::Silent { what }),
    }
}

/// All parts of an answer.
pub(super) async fn all<T>(
    what: &'static str,
    answer: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, NetError> {
    let mut answer = pin!(answer);
    let mut parts = Vec::new();
    while let Some(next) = part(what, &mut answer).await? {
        parts.push(next);
    }
    Ok(parts)
}

/// A socket for requests. Its task ends with it.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) handle: Handle,
    task: JoinHandle<()>,
}

impl Requests {
    /// Opens the socket in the calling thread's network namespace; needs a tokio runtime.
    pub(super) fn open() -> Result<Self, NetError> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, task: tokio::spawn(connection) })
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How long to wait before new sockets are opened: this at first, twice as long each time …
const PAUSE: Duration = Duration::from_millis(250);
/// … up to this time.
const PAUSE_AT_MOST: Duration = Duration::from_secs(16);

/// Both sockets, opened anew as often as it takes.
pub(super) struct Sockets {
    pub(super) notices: Notices,
    pub(super) requests: Requests,
    what: &'static str,
    groups: &'static [MulticastGroup],
    /// While netlink fails.
    outage: Option<Outage>,
}

struct Outage {
    /// When new sockets are opened.
    at: Instant,
    /// How long to wait after that.
    pause: Duration,
}

impl Sockets {
    /// Opens them in the calling thread's network namespace; needs a tokio runtime. `what` names what they are for.
    pub(super) fn open(what: &'static str, groups: &'static [MulticastGroup]) -> Result<Self, NetError> {
        Ok(Self { notices: Notices::open(groups)?, requests: Requests::open()?, what, groups, outage: None })
    }

    /// Handles a failure: waits, and opens new sockets. Everything has to be read anew after that. A cancelled wait continues
    /// with the next call.
    pub(super) async fn renew(&mut self, failure: NetError) {
        loop {
            let Self { outage, what, .. } = self;
            let Outage { at, pause } = outage.get_or_insert_with(|| {
                tracing::warn!(error = %failure, "lost the netlink subscription for {what}; retrying");
                Outage { at: Instant::now() + PAUSE, pause: PAUSE }
            });
            tokio::time::sleep_until(*at).await;
            *pause = (*pause * 2).min(PAUSE_AT_MOST);
            *at = Instant::now() + *pause;
            if let (Ok(notices), Ok(requests)) = (Notices::open(self.groups), Requests::open()) {
                (self.notices, self.requests) = (notices, requests);
                return;
            }
        }
    }

    /// Everything was read: an outage, if there was one, is over.
    pub(super) fn works(&mut self) {
        if self.outage.take().is_some() {
            tracing::info!("the netlink subscription for {} works again", self.what);
        }
    }

    /// Ends the tasks behind both sockets, as an error of the sockets does.
    #[cfg(test)]
    pub(super) fn breaker(&self) -> impl Fn() + use<> {
        let tasks = [self.notices.task(), &self.requests.task].map(JoinHandle::abort_handle);
        move || tasks.iter().for_each(tokio::task::AbortHandle::abort)
    }
}
