//! A parser of server-sent events (WHATWG HTML, section 9.2.6) that arrive in pieces. It must not know their source, nor their
//! meaning.

/// The largest event in bytes; one that names all VIPs of a node is far below.
const LARGEST: usize = 256 * 1024;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// Its name; empty if it has none.
    pub(super) name: String,
    /// Its data.
    pub(super) data: String,
}

/// The incomplete next event.
#[derive(Debug, Default)]
pub(super) struct Reader {
    line: Vec<u8>,
    name: String,
    data: Option<String>,
}

/// An event is larger than the limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

impl Reader {
    /// Reads the next piece. Each event that it completes is passed to `take`, until `take` breaks.
    pub(super) fn read<E>(&mut self, piece: &[u8], mut take: impl FnMut(Message) -> Result<(), E>) -> Result<(), E>
    where
        E: From<TooLarge>,
    {
        for byte in piece {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() + self.data.as_ref().map_or(0, String::len) > LARGEST {
                    return Err(TooLarge.into());
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            if let Some(message) = self.end_line(line.strip_suffix('\r').unwrap_or(&line)) {
                take(message)?;
            }
        }
        Ok(())
    }

    /// An empty line ends an event; one that begins with a colon is a comment.
    fn end_line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            return self.data.take().map(|data| Message { name, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // The id is in the data too.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All events of a text that comes in pieces of this size.
    fn read(text: &str, size: usize) -> Result<Vec<Message>, TooLarge> {
        let (mut reader, mut found) = (Reader::default(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            reader.read(piece, |message| {
                found.push(message);
                Ok::<_, TooLarge>(())
            })?;
        }
        Ok(found)
    }

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text = ": hello\n\nid: 7\ndata: {\"a\":1}\n\nevent: missed\r\ndata:one\r\ndata: two\r\n\r\nevent: none\n\n:\n\ndata: x";
        let message = |name: &str, data: &str| Message { name: name.into(), data: data.into() };
        let expected = [message("", r#"{"a":1}"#), message("missed", "one\ntwo")];
        for size in [1, 2, 7, 1_000] {
            assert_eq!(read(text, size).unwrap(), expected);
        }
    }

    #[test]
    fn an_event_without_end_is_not_read_for_ever() {
        assert_eq!(read(&"x".repeat(LARGEST + 1), 1_000), Err(TooLarge));
        assert_eq!(read(&"data: 0123456789\n".repeat(LARGEST / 10), 1_000), Err(TooLarge));
    }
}
