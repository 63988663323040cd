//! The talk service, for connections that are held: it greets with the backend's name, then answers every byte with that
//! byte under the backend's own pad. A byte that is lost, repeated, out of order, or answered by another backend shows.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::bytes::Pad;

/// Most bytes that are answered at once.
const BUFFER: usize = 512;

/// Answers every connection, each in a task of its own.
///
/// # Errors
/// If no connection can be accepted any more.
pub(super) async fn serve(name: Arc<str>, listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let name = name.clone();
        // A connection that breaks is the client's to report: it knows whether that was to be expected.
        tokio::spawn(async move { talk(&name, stream).await });
    }
}

/// One connection, until the client has nothing more to say.
async fn talk(name: &str, mut stream: TcpStream) -> io::Result<()> {
    let mut pad = Pad::named(name);
    let mut buffer = [0; BUFFER];
    stream.set_nodelay(true)?;
    stream.write_all(format!("{name}\n").as_bytes()).await?;
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        pad.lay_over(&mut buffer[..length]);
        stream.write_all(&buffer[..length]).await?;
    }
}
