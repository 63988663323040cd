//! The status of an HTTP answer, read from the beginning of its first line: the rest is ignored. It must not know which status
//! is good.

use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::probe::{Fault, words};

/// The longest head of an interim answer (1xx).
const LONGEST_INTERIM: usize = 16 << 10;

/// The start of every status line, before a digit and a space (RFC 9112, section 4).
const VERSION: &[u8] = b"HTTP/1.";
const STATUS: std::ops::Range<usize> = 9..12;

/// Sends a request and reads the status of its final answer.
pub(super) async fn ask<S>(stream: &mut S, request: &Request<Empty<Bytes>>) -> Result<u16, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |error| Fault::from_io("response", &error, Fault::Unready);
    let mut sent = stream.write_all(&bytes(request)).await;
    if sent.is_ok() {
        sent = stream.flush().await;
    }
    let mut answer = Vec::new();
    loop {
        // A server may answer before it has read all.
        let length = stream.read_buf(&mut answer).await.map_err(failed)?;
        if length == 0 {
            sent.map_err(failed)?;
            return Err(Fault::Unready("response: closed".to_owned()));
        }
        if let Some(status) = take_status(&mut answer).map_err(Fault::Unready)? {
            return Ok(status);
        }
    }
}

fn bytes(request: &Request<Empty<Bytes>>) -> Vec<u8> {
    let mut bytes = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri()).into_bytes();
    for (name, value) in request.headers() {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend(b"\r\n");
    bytes
}

/// The final status, once enough has arrived. The heads of interim answers are removed.
fn take_status(answer: &mut Vec<u8>) -> Result<Option<u16>, String> {
    loop {
        // RFC 9112, section 2.2: an empty line before a message is ignored.
        let empty = answer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        answer.drain(..empty);
        let known = answer.len().min(VERSION.len());
        if answer[..known] != VERSION[..known] {
            return Err(format!("response: {}", words::unexpected(VERSION, answer)));
        }
        // One byte more, which ends the number.
        if answer.len() <= STATUS.end {
            return Ok(None);
        }
        let number = std::str::from_utf8(&answer[STATUS]).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        let apart = answer[STATUS.start - 1] == b' ' && matches!(answer[STATUS.end], b' ' | b'\r' | b'\n');
        let status: Option<u16> = number.filter(|_| apart).and_then(|text| text.parse().ok());
        let status = status.ok_or_else(|| format!("response: {} is not a status line", words::shown(answer)))?;
        if !matches!(status, 100 | 102..=199) {
            return Ok(Some(status));
        }
        let Some(end) = end_of_head(answer) else {
            let long = answer.len() > LONGEST_INTERIM;
            let line = || format!("response: interim head longer than {} KiB", LONGEST_INTERIM >> 10);
            return if long { Err(line()) } else { Ok(None) };
        };
        answer.drain(..end);
    }
}

/// The start of the text after the first empty line.
fn end_of_head(answer: &[u8]) -> Option<usize> {
    let ends: [&[u8]; 2] = [b"\r\n\r\n", b"\n\n"];
    let end = |mark: &[u8]| answer.windows(mark.len()).position(|found| found == mark).map(|at| at + mark.len());
    ends.into_iter().filter_map(end).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(answer: &str) -> Result<Option<u16>, String> {
        take_status(&mut answer.as_bytes().to_vec())
    }

    #[test]
    fn the_beginning_of_a_status_line_decides() {
        for (answer, status) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 503\r", Some(503)),
            ("\r\nHTTP/1.1 204 ", Some(204)),
            ("HTTP/1.1 101 Switching", Some(101)),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 302 F", Some(302)),
            ("HTTP/1.1 103 Early Hints\nlink: x\n\nHTTP/1.1 200 OK", Some(200)),
            ("HTTP/1.1 200", None),
            ("HTTP/1.1 100 Continue\r\nx: y\r\n", None),
            ("", None),
        ] {
            assert_eq!(whole(answer), Ok(status), "{answer:?}");
        }
        for answer in ["SSH-2.0-OpenSSH_9.9\r\n", "HTTP/2 200 OK\r\n", "HTTP/1.1 20x OK\r\n", "HTTP/1.1 2000 OK\r\n"] {
            assert!(whole(answer).is_err(), "{answer:?}");
        }
        assert!(whole(&format!("HTTP/1.1 100 {}", "x".repeat(LONGEST_INTERIM))).is_err());
    }

    proptest! {
        #[test]
        fn parts_say_the_same_as_the_whole(
            interim in 0_usize..3, status in 200_u16..600, cuts in prop::collection::vec(0_usize..100, 0..6),
        ) {
            let answer = format!("{}HTTP/1.1 {status} x\r\n", "HTTP/1.1 100 Go\r\na: b\r\n\r\n".repeat(interim));
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(answer.len())).collect();
            cuts.extend([0, answer.len()]);
            cuts.sort_unstable();
            let (mut came, mut found) = (Vec::new(), None);
            for part in cuts.windows(2) {
                came.extend(answer.as_bytes()[part[0]..part[1]].iter());
                found = found.or(take_status(&mut came).unwrap());
            }
            prop_assert_eq!(found, Some(status));
        }
    }
}
