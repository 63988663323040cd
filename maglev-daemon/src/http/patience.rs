//! A connection that is closed when its client takes too long to read. It must not know the content.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::places::Activity;

/// How long a client may leave an answer unread.
pub(super) const UNREAD: Duration = Duration::from_secs(10);

/// The lowest average rate in bytes a second: each second's worth that is read extends the time by a second.
const BYTES_PER_SECOND: u32 = 32 * 1024;

/// The connection.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    activity: Arc<Activity>,
    /// The time that the client may still leave an answer unread.
    left: Duration,
    blocked: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, left: UNREAD, blocked: None }
    }

    /// Returns the outcome of a write, or an error if the client has not read for too long.
    fn judge(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(outcome) = written {
            self.activity.set_blocked(false);
            if let Some((since, _)) = self.blocked.take() {
                self.left = self.left.saturating_sub(since.elapsed());
            }
            if let Ok(bytes) = outcome {
                self.activity.progress();
                let earned = Duration::from_secs(bytes as u64) / BYTES_PER_SECOND;
                self.left = (self.left + earned).min(UNREAD);
            }
            return Poll::Ready(outcome);
        }
        // A follower of events that reads nothing receives the number of lost events.
        if self.activity.follows() {
            return Poll::Pending;
        }
        self.activity.set_blocked(true);
        let left = self.left;
        let (_, end) = self.blocked.get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(left))));
        ready!(end.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.progress();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge(written, cx)
    }

    /// Else a large answer would be copied for each client.
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod faults {
    use super::*;
    use crate::http::Caller;
    use crate::http::places::Places;
    use maglev_testing::matrix::Row;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    /// How long it takes to write a megabyte to a client that reads like this, and whether it is written.
    async fn write(read: impl AsyncFnOnce(DuplexStream)) -> (Duration, io::Result<()>) {
        let (ours, theirs) = tokio::io::duplex(4_096);
        let place = Places::new().take_free(Caller::default()).unwrap();
        let mut stream = Patient::new(ours, Arc::clone(place.activity()));
        let began = Instant::now();
        let write = async {
            let written = stream.write_all(&[7; 1_000_000]).await;
            (began.elapsed(), written)
        };
        tokio::select! {
            written = write => written,
            () = async { read(theirs).await; std::future::pending().await } => unreachable!(),
        }
    }

    /// Reads so many bytes after each pause.
    async fn read(mut stream: DuplexStream, bytes: usize, pause: Duration) {
        let mut buffer = vec![0; bytes];
        loop {
            tokio::time::sleep(pause).await;
            stream.read_exact(&mut buffer).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_slowly_is_served_and_one_that_hardly_reads_is_closed() {
        let second = Duration::from_secs(1);
        for (case, bytes, pause, served) in [
            ("a client reads 40 kB a second: it gets all", 40_000, second, true),
            ("a client reads 4 kB every nine seconds: closed", 4_000, 9 * second, false),
            ("a client reads nothing: closed", 1, 1_000_000 * second, false),
        ] {
            let mut row = Row::fault("C4", case);
            let (took, written) = write(async move |stream| read(stream, bytes, pause).await).await;
            assert_eq!(written.is_ok(), served, "{case}: {written:?}");
            assert!(served || took <= 2 * UNREAD, "{case}: {took:?}");
            row.says(format!("after {} s", took.as_secs()));
        }
    }
}
