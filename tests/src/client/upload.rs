//! An upload that continues until it is ordered to end; its longest pause is known.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures_util::{Stream, StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    Method,
    body::{Bytes, Frame},
};

use super::{
    Client,
    http::{accepted, connect, handshake, request},
};
use crate::{bytes, server::Receipt};

/// Time between two chunks of 64 KiB.
const PACE: Duration = Duration::from_millis(5);
/// Far more than an upload comes to.
const MOST: u64 = 1 << 40;
/// How long progress may take at most.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often progress is looked for.
const LOOK: Duration = Duration::from_millis(5);

/// An upload under way.
#[derive(Debug)]
pub struct Upload {
    progress: Arc<Progress>,
    thread: thread::JoinHandle<Result<Receipt>>,
}

/// An upload at its end: the backend has every byte.
#[derive(Clone, Copy, Debug)]
pub struct Uploaded {
    /// Bytes in all.
    pub length: u64,
    /// The longest time for which the connection took no further chunk, or the backend received nothing.
    pub pause: Duration,
}

#[derive(Debug, Default)]
struct Progress {
    end: AtomicBool,
    sent: AtomicU64,
    pause_microseconds: AtomicU64,
}

impl Upload {
    pub(super) fn start(client: &Client, target: SocketAddr) -> Self {
        let progress = Arc::new(Progress::default());
        let (client, shared) = (client.clone(), Arc::clone(&progress));
        let thread = thread::spawn(move || {
            client.block_on(async {
                let body =
                    StreamBody::new(chunks(shared).map(|chunk| Ok::<_, std::convert::Infallible>(Frame::data(chunk))));
                let mut sender = handshake(connect(&client.sources, target).await?).await?;
                let request = request(Method::PUT, target, "/upload").body(body)?;
                let answer = accepted(sender.send_request(request).await?)?.into_body().collect().await?.to_bytes();
                serde_json::from_slice(&answer).context("the answer to an upload")
            })
        });
        Self { progress, thread }
    }

    /// Waits until so many more bytes are sent.
    ///
    /// # Errors
    /// If that takes half a minute, or the upload has ended.
    pub fn pass(&self, more: u64) -> Result<()> {
        let (began, until) = (Instant::now(), self.progress.sent.load(Ordering::Relaxed) + more);
        while self.progress.sent.load(Ordering::Relaxed) < until {
            ensure!(!self.thread.is_finished(), "the upload ended early");
            ensure!(began.elapsed() < PATIENCE, "the upload stands still");
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Ends the upload.
    ///
    /// # Errors
    /// If the connection broke, or the backend has other bytes.
    pub fn finish(self) -> Result<Uploaded> {
        let Self { progress, thread } = self;
        progress.end.store(true, Ordering::Relaxed);
        let receipt = match thread.join() {
            Ok(ended) => ended?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let sent = progress.sent.load(Ordering::Relaxed);
        ensure!(receipt.length == sent, "{sent} bytes sent, {} received", receipt.length);
        ensure!(receipt.sha256 == bytes::digest(sent), "other bytes than were sent");
        let pause = progress.pause_microseconds.load(Ordering::Relaxed).max(receipt.pause_microseconds);
        Ok(Uploaded { length: sent, pause: Duration::from_micros(pause) })
    }
}

/// Chunks at a steady pace until the end is ordered. A chunk is asked for once the connection has room for it.
fn chunks(progress: Arc<Progress>) -> impl Stream<Item = Bytes> + Send {
    stream::unfold((bytes::chunks(MOST), Instant::now(), progress), async |(mut chunks, taken, progress)| {
        let pause = u64::try_from(taken.elapsed().as_micros()).unwrap_or(u64::MAX);
        progress.pause_microseconds.fetch_max(pause, Ordering::Relaxed);
        if progress.end.load(Ordering::Relaxed) {
            return None;
        }
        tokio::time::sleep(PACE).await;
        let chunk = chunks.next()?;
        progress.sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        Some((chunk, (chunks, Instant::now(), progress)))
    })
}
