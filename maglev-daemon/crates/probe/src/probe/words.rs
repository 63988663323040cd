//! Errors in an operator's words. It must not know the kind of check.

use std::io::{self, ErrorKind};

/// The system's error, in short.
pub(super) fn from_io(doing: &str, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "no route".to_owned(),
        ErrorKind::ConnectionRefused => format!("{doing}: refused"),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => format!("{doing}: reset"),
        ErrorKind::UnexpectedEof => format!("{doing}: closed"),
        ErrorKind::AddrNotAvailable => format!("{doing}: no local address or port is free"),
        ErrorKind::TimedOut => format!("{doing}: no answer"),
        _ => format!("{doing}: {}", without_number(error)),
    }
}

/// Without the error's number.
fn without_number(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// An unexpected answer; of both answers not more than fits on a line.
pub(super) fn unexpected(expected: &[u8], found: &[u8]) -> String {
    format!("the answer begins with {}, not {}", shown(found), shown(expected))
}

pub(super) fn shown(bytes: &[u8]) -> String {
    const LONGEST: usize = 32;
    let (start, more) = (&bytes[..bytes.len().min(LONGEST)], if bytes.len() > LONGEST { "…" } else { "" });
    format!("\"{}{more}\"", start.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_short_and_without_numbers() {
        let said = |number| from_io("connect", &io::Error::from_raw_os_error(number));
        let shown =
            [nix::libc::ECONNREFUSED, nix::libc::EHOSTUNREACH, nix::libc::ENETUNREACH, nix::libc::EMFILE].map(said);
        assert_eq!(shown, ["connect: refused", "no route", "no route", "connect: too many open files"]);
    }

    #[test]
    fn answers_are_shown_on_one_line() {
        assert_eq!(unexpected(b"pong", b"ni\n\xff"), r#"the answer begins with "ni\n\xff", not "pong""#);
        assert!(unexpected(b"", &[b'x'; 65_000]).len() < 100);
    }
}
