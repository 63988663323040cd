//! NOTIFICATION messages: the reason for which one side ends a session.
//!
//! ```text
//!    0                   1                   2                   3
//!    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!    | Error code    | Error subcode |   Data (variable)             |
//!    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+    (RFC 4271, section 4.5)
//! ```

use std::fmt;

use super::reader::Reader;
use super::{Kind, finish, start};

/// An error code and its subcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fault(pub(crate) u8, pub(crate) u8);

impl Fault {
    pub(crate) const NOT_SYNCHRONIZED: Self = Self(1, 1);
    pub(crate) const BAD_LENGTH: Self = Self(1, 2);
    pub(crate) const BAD_TYPE: Self = Self(1, 3);
    pub(crate) const MALFORMED_OPEN: Self = Self(2, 0);
    pub(crate) const UNSUPPORTED_VERSION: Self = Self(2, 1);
    pub(crate) const BAD_PEER_AS: Self = Self(2, 2);
    pub(crate) const BAD_IDENTIFIER: Self = Self(2, 3);
    pub(crate) const UNSUPPORTED_PARAMETER: Self = Self(2, 4);
    pub(crate) const UNACCEPTABLE_HOLD_TIME: Self = Self(2, 6);
    pub(crate) const UNSUPPORTED_CAPABILITY: Self = Self(2, 7);
    pub(crate) const ROLE_MISMATCH: Self = Self(2, 11);
    pub(crate) const MALFORMED_ATTRIBUTES: Self = Self(3, 1);
    pub(crate) const UNRECOGNIZED_WELL_KNOWN: Self = Self(3, 2);
    pub(crate) const OPTIONAL_ATTRIBUTE: Self = Self(3, 9);
    pub(crate) const INVALID_NETWORK: Self = Self(3, 10);
    pub(crate) const HOLD_TIMER_EXPIRED: Self = Self(4, 0);
    pub(crate) const UNEXPECTED_IN_OPEN_SENT: Self = Self(5, 1);
    pub(crate) const UNEXPECTED_IN_OPEN_CONFIRM: Self = Self(5, 2);
    pub(crate) const UNEXPECTED_IN_ESTABLISHED: Self = Self(5, 3);
    pub(crate) const SHUTDOWN: Self = Self(6, 2);
    pub(crate) const DE_CONFIGURED: Self = Self(6, 3);
    pub(crate) const RESET: Self = Self(6, 4);
    pub(crate) const REJECTED: Self = Self(6, 5);
    pub(crate) const CONFIGURATION: Self = Self(6, 6);
    pub(crate) const COLLISION: Self = Self(6, 7);
    pub(crate) const BAD_REFRESH_LENGTH: Self = Self(7, 1);
    pub(crate) const SEND_HOLD_TIMER_EXPIRED: Self = Self(8, 0);
}

/// An error code, its name, and its subcodes with theirs.
type Named = (u8, &'static str, &'static [(u8, &'static str)]);

/// The names of the registry, in its words: RFC 4271, 4486, 6608, 7313, 8538, 9234, 9384 and 9687.
const NAMES: [Named; 8] = [
    (
        1,
        "message header error",
        &[(1, "connection not synchronized"), (2, "bad message length"), (3, "bad message type")],
    ),
    (
        2,
        "OPEN message error",
        &[
            (1, "unsupported version number"),
            (2, "bad peer AS"),
            (3, "bad BGP identifier"),
            (4, "unsupported optional parameter"),
            (5, "authentication failure"),
            (6, "unacceptable hold time"),
            (7, "unsupported capability"),
            (11, "role mismatch"),
        ],
    ),
    (
        3,
        "UPDATE message error",
        &[
            (1, "malformed attribute list"),
            (2, "unrecognized well-known attribute"),
            (3, "missing well-known attribute"),
            (4, "attribute flags error"),
            (5, "attribute length error"),
            (6, "invalid ORIGIN attribute"),
            (8, "invalid NEXT_HOP attribute"),
            (9, "optional attribute error"),
            (10, "invalid network field"),
            (11, "malformed AS_PATH"),
        ],
    ),
    (4, "hold timer expired", &[]),
    (
        5,
        "finite state machine error",
        &[
            (1, "unexpected message in OpenSent state"),
            (2, "unexpected message in OpenConfirm state"),
            (3, "unexpected message in Established state"),
        ],
    ),
    (
        6,
        "cease",
        &[
            (1, "maximum number of prefixes reached"),
            (2, "administrative shutdown"),
            (3, "peer de-configured"),
            (4, "administrative reset"),
            (5, "connection rejected"),
            (6, "other configuration change"),
            (7, "connection collision resolution"),
            (8, "out of resources"),
            (9, "hard reset"),
            (10, "BFD down"),
        ],
    ),
    (7, "ROUTE-REFRESH message error", &[(1, "invalid message length")]),
    (8, "send hold timer expired", &[]),
];

/// A NOTIFICATION.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notification {
    pub(crate) fault: Fault,
    /// The data of the fault, as the RFC of the subcode defines it.
    pub(crate) data: Vec<u8>,
}

/// The longest shutdown text (RFC 9003).
pub(crate) const MAX_TEXT: usize = 255;

impl Notification {
    pub(crate) const fn new(fault: Fault) -> Self {
        Self { fault, data: Vec::new() }
    }

    pub(crate) fn with(fault: Fault, data: &[u8]) -> Self {
        Self { fault, data: data.to_owned() }
    }

    /// Adds the reason for the operator at the other end (RFC 9003): a length octet and UTF-8, cut at a character if it is too long.
    pub(crate) fn with_text(fault: Fault, text: &str) -> Self {
        let text = &text[..text.floor_char_boundary(MAX_TEXT)];
        let length = u8::try_from(text.len()).unwrap_or(0);
        let data = if text.is_empty() { Vec::new() } else { [&[length], text.as_bytes()].concat() };
        Self { fault, data }
    }

    pub(super) fn decode(mut body: Reader<'_>) -> Option<Self> {
        Some(Self { fault: Fault(body.u8()?, body.u8()?), data: body.rest().to_owned() })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let begin = start(out, Kind::Notification);
        let Self { fault: Fault(code, subcode), data } = self;
        out.extend([*code, *subcode]);
        let room = super::MAX_MESSAGE - (out.len() - begin);
        out.extend(data.iter().take(room));
        finish(out, begin);
    }

    /// The text of a shutdown or reset, if there is one.
    fn text(&self) -> Option<String> {
        if !matches!(self.fault, Fault::SHUTDOWN | Fault::RESET) {
            return None;
        }
        let mut data = Reader::new(&self.data);
        let length = data.u8()?;
        let text = data.take(length.into()).filter(|text| !text.is_empty())?;
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(code, subcode) = *self;
        match NAMES.iter().find(|(known, ..)| *known == code) {
            None => write!(f, "error {code}/{subcode}"),
            Some((_, name, subcodes)) => match subcodes.iter().find(|(known, _)| *known == subcode) {
                Some((_, subname)) => write!(f, "{name}, {subname} ({code}/{subcode})"),
                None => write!(f, "{name} ({code}/{subcode})"),
            },
        }
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            // Quoted and escaped: the text is the other side's, and ends in our log and on our operator's screen.
            Some(text) => write!(f, "{}: {text:?}", self.fault),
            None => self.fault.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_are_shown_in_the_registrys_words() {
        let shown = |fault| Notification::new(fault).to_string();
        assert_eq!(shown(Fault::BAD_PEER_AS), "OPEN message error, bad peer AS (2/2)");
        assert_eq!(shown(Fault::HOLD_TIMER_EXPIRED), "hold timer expired (4/0)");
        assert_eq!(shown(Fault(3, 99)), "UPDATE message error (3/99)");
        assert_eq!(shown(Fault(99, 1)), "error 99/1");
        let text = Notification::with_text(Fault::SHUTDOWN, "maintenance\n");
        assert_eq!(text.to_string(), "cease, administrative shutdown (6/2): \"maintenance\\n\"");
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let text = Notification::with_text(Fault::SHUTDOWN, &"ä".repeat(200));
        assert_eq!((text.data[0], text.data.len()), (254, 255));
        assert_eq!(text.text(), Some("ä".repeat(127)));
        assert_eq!(Notification::with_text(Fault::SHUTDOWN, ""), Notification::new(Fault::SHUTDOWN));
    }

    #[test]
    fn a_text_that_lies_about_its_length_is_no_text() {
        assert_eq!(Notification::with(Fault::SHUTDOWN, &[9, b'x']).text(), None);
        assert_eq!(Notification::with(Fault::SHUTDOWN, &[0]).text(), None);
        assert_eq!(Notification::with(Fault::BAD_PEER_AS, &[1, b'x']).text(), None);
    }
}
