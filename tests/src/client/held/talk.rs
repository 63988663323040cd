//! One connection to the talk service (see [`crate::server`]): its first line names the backend, and every byte
//! that comes back is checked against that backend's pad.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::super::{http::connect, sources::Sources};
use crate::bytes::Pad;

/// How long an answer may take before the connection counts as broken: TCP sends what was lost again six or seven times
/// in it.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Longest name of a backend.
const LONGEST_NAME: usize = 64;

/// An open connection.
pub(super) struct Talk {
    stream: TcpStream,
    /// The backend that took it.
    pub(super) home: Arc<str>,
    /// What the client says: this sequence.
    text: Pad,
    /// What the backend lays over it.
    pad: Pad,
}

impl Talk {
    /// Connects from the next source, which is noted in `local`, and reads the backend's name.
    pub(super) async fn open(sources: &Sources, target: SocketAddr, local: &mut Option<SocketAddr>) -> Result<Self> {
        let opened = async {
            let mut stream = connect(sources, target).await.context("connect")?;
            let source = stream.local_addr()?;
            *local = Some(source);
            stream.set_nodelay(true)?;
            let home = greeting(&mut stream).await?;
            let pad = Pad::named(&home);
            Ok(Self { stream, home: home.into(), text: Pad::named(&source.to_string()), pad })
        };
        patiently("opening", opened).await
    }

    /// Sends the next `length` bytes and receives the answers.
    pub(super) async fn exchange(&mut self, length: usize) -> Result<()> {
        let mut said = vec![0; length];
        self.text.lay_over(&mut said);
        let mut expected = said.clone();
        self.pad.lay_over(&mut expected);
        let mut received = vec![0; length];
        let answered = async {
            self.stream.write_all(&said).await.context("send")?;
            self.stream.read_exact(&mut received).await.context("receive")?;
            Ok(())
        };
        patiently("an exchange", answered).await?;
        ensure!(received == expected, "{} answered with other bytes than it should", self.home);
        Ok(())
    }

    /// Waits for what must not come while nothing is said: the end of the connection, or bytes.
    pub(super) async fn disturbance(&mut self) -> Error {
        match self.stream.read(&mut [0; 1]).await {
            Ok(0) => anyhow!("closed by the other end"),
            Ok(_) => anyhow!("unexpected bytes"),
            Err(error) => Error::new(error).context("while silent"),
        }
    }

    /// Says the last bytes, and that they are the last; the backend has nothing left to say either.
    pub(super) async fn close(mut self, length: usize) -> Result<()> {
        self.exchange(length).await.context("the last exchange")?;
        let closed = async {
            self.stream.shutdown().await.context("close")?;
            let rest = self.stream.read(&mut [0; 1]).await.context("close")?;
            ensure!(rest == 0, "bytes after the last");
            Ok(())
        };
        patiently("closing", closed).await
    }
}

/// The backend's name: the line it greets with.
async fn greeting(stream: &mut TcpStream) -> Result<String> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await.context("greeting")? {
            b'\n' => break,
            byte if line.len() < LONGEST_NAME => line.push(byte),
            _ => bail!("the greeting is no name"),
        }
    }
    String::from_utf8(line).context("the greeting is no name")
}

async fn patiently<T>(what: &str, step: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(PATIENCE, step).await {
        Ok(done) => done,
        Err(_) => bail!("{what} took longer than {} s", PATIENCE.as_secs()),
    }
}
