//! A download whose longest pause is known. A slow one lives on a chosen backend, and continues until it is ordered to hurry.

use std::{
    net::SocketAddr,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sha2::{Digest, Sha256};
use tokio::{sync::watch, time::timeout_at};

use super::{Client, http::Connection, sources::Sources};
use crate::bytes;

/// Bytes in a second, until it is ordered to hurry.
const RATE: f64 = 1_000_000.0;
/// How many connections are tried for one that lives where it should.
const TRIES: usize = 1_000;
/// How long the next bytes may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A download under way.
#[derive(Debug)]
pub struct Download {
    hurry: watch::Sender<bool>,
    thread: thread::JoinHandle<Result<Downloaded>>,
}

/// A download at its end: every byte was what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Downloaded {
    /// Bytes in all.
    pub length: u64,
    /// From the request to the last byte.
    pub took: Duration,
    /// The longest time for which the next bytes were awaited.
    pub pause: Duration,
}

impl Download {
    /// Opens connections until one lives on `home`, if that is named, and begins to download on it.
    pub(super) fn start(client: &Client, target: SocketAddr, home: Option<&str>, length: u64) -> Result<Self> {
        let (hurry, hurried) = watch::channel(home.is_none());
        let (begun, beginning) = mpsc::channel();
        let (client, home) = (client.clone(), home.map(str::to_owned));
        let thread = thread::spawn(move || {
            client.block_on(async {
                let mut connection = match home {
                    Some(home) => living_on(&client.sources, target, &home).await?,
                    None => Connection::open(&client.sources, target).await?,
                };
                let asked = Instant::now();
                let body = connection.get(&format!("/bytes/{length}")).await?;
                // The receiver is gone if the test has failed meanwhile.
                let _ = begun.send(());
                read(body, length, hurried, asked).await
            })
        });
        match beginning.recv() {
            Ok(()) => Ok(Self { hurry, thread }),
            Err(_) => Err(ended(thread).err().context("the download ended before it began")?),
        }
    }

    /// Reads the rest as fast as it comes.
    ///
    /// # Errors
    /// If the connection breaks or a byte is not what it should be.
    pub fn finish(self) -> Result<Downloaded> {
        self.hurry.send_replace(true);
        ended(self.thread)
    }
}

fn ended(thread: thread::JoinHandle<Result<Downloaded>>) -> Result<Downloaded> {
    match thread.join() {
        Ok(ended) => ended,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

async fn living_on(sources: &Sources, target: SocketAddr, home: &str) -> Result<Connection> {
    for _ in 0..TRIES {
        let mut connection = Connection::open(sources, target).await?;
        if connection.name(false).await? == home {
            return Ok(connection);
        }
    }
    anyhow::bail!("none of {TRIES} connections came to {home}")
}

async fn read(
    mut body: Incoming,
    length: u64,
    mut hurried: watch::Receiver<bool>,
    began: Instant,
) -> Result<Downloaded> {
    let (mut received, mut hash, mut pause) = (0, Sha256::new(), began.elapsed());
    loop {
        let asked = Instant::now();
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await.context("the download stands still")?;
        pause = pause.max(asked.elapsed());
        let Some(frame) = frame else { break };
        if let Ok(data) = frame.context("the download broke off")?.into_data() {
            received += data.len() as u64;
            hash.update(&data);
        }
        let due = began + Duration::from_secs_f64(received as f64 / RATE);
        // Whichever comes first; without a sender for the order to hurry, at once.
        let _ = timeout_at(due.into(), hurried.wait_for(|hurry| *hurry)).await;
    }
    ensure!(received == length, "{received} of {length} bytes");
    ensure!(bytes::hex(&hash.finalize()) == bytes::digest(length), "other bytes than the backend was asked for");
    Ok(Downloaded { length, took: began.elapsed(), pause })
}
