//! Captures of packets: the request, and the messages of its answer, which is a stream. Bytes of packets are hexadecimal.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// `POST /v1/capture`: the packets to capture. All conditions hold for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCapture {
    /// Of this VIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<String>,
    /// Of this pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// For this backend of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// From clients of this prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpNet>,
    /// From or to this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// TCP segments with these flags: [`maglev_model::capture::TcpFlags`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_flags: Option<String>,
    /// With one of these outcomes; any if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<String>,
    /// Counted by one of these counters; any if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// One in so many, by chance.
    #[serde(default = "every")]
    pub one_in: u32,
    /// The most bytes of a packet.
    #[serde(default = "whole")]
    pub bytes: u32,
    /// The most packets in a second on each CPU.
    #[serde(default = "rate")]
    pub rate: u32,
    /// After so many seconds the capture ends.
    #[serde(default = "seconds")]
    pub seconds: u64,
}

const fn every() -> u32 {
    1
}

const fn whole() -> u32 {
    NewCapture::MOST_BYTES
}

const fn rate() -> u32 {
    NewCapture::RATE
}

const fn seconds() -> u64 {
    NewCapture::SECONDS
}

impl NewCapture {
    /// Bytes of the longest packet: more than a jumbo frame has.
    pub const MOST_BYTES: u32 = 16_383;
    /// The fewest bytes of a packet: its headers.
    pub const LEAST_BYTES: u32 = 64;
    /// Packets in a second on each CPU, unless asked otherwise.
    pub const RATE: u32 = 10_000;
    /// The most that can be asked for.
    pub const MOST_RATE: u32 = 1_000_000;
    /// Seconds, unless asked otherwise.
    pub const SECONDS: u64 = 600;
    /// The most that can be asked for: a day.
    pub const MOST_SECONDS: u64 = 86_400;
}

impl Default for NewCapture {
    /// Every packet.
    fn default() -> Self {
        Self {
            vip: None,
            pool: None,
            backend: None,
            client: None,
            port: None,
            tcp_flags: None,
            outcomes: Vec::new(),
            reasons: Vec::new(),
            one_in: every(),
            bytes: whole(),
            rate: rate(),
            seconds: seconds(),
        }
    }
}

/// A packet of the stream: a message without a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedPacket {
    /// The time, in nanoseconds since 1970-01-01T00:00:00Z.
    pub unix_nanoseconds: u64,
    /// The interface it came in by.
    pub interface: String,
    /// `forwarded`, `passed`, `dropped` or `answered`.
    pub outcome: String,
    /// The counter that counted it.
    pub reason: String,
    /// The VIP, if that was decided.
    pub vip: Option<String>,
    /// Its pool.
    pub pool: Option<String>,
    /// The slot of its flow.
    pub slot: Option<u32>,
    /// The backend, if there is one.
    pub backend: Option<String>,
    /// Why that backend: `table`, `flow_table` or `previous`.
    pub choice: Option<String>,
    /// Bytes of the frame as it came in.
    pub length: u32,
    /// The first of them.
    pub frame: String,
    /// Bytes of the frame as it left, if it was encapsulated or answered.
    pub sent_length: Option<u32>,
    /// The first of them.
    pub sent: Option<String>,
}

impl fmt::Display for CapturedPacket {
    /// What became of it, and why, in a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outcome, reason, vip, pool, slot, backend, choice, .. } = self;
        write!(f, "{outcome}: {reason}")?;
        let slot = slot.map(|slot| slot.to_string());
        let parts = [("vip", vip), ("pool", pool), ("slot", &slot), ("backend", backend), ("choice", choice)];
        for (n, (what, value)) in parts.iter().filter_map(|(what, value)| Some((what, value.as_ref()?))).enumerate() {
            write!(f, "{} {what} {value}", if n == 0 { ";" } else { "," })?;
        }
        Ok(())
    }
}

/// How many packets a capture took so far: a message named `counts`, each second and at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureCounts {
    /// Packets that fulfil all conditions.
    pub matched: u64,
    /// Of them, those beyond the rate: not captured.
    pub limited: u64,
    /// Of them, those for which there was no room, here or at the reader: not captured.
    pub lost: u64,
}

/// Why a capture ended: the last message, named `ended`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureEnded {
    /// The reason, in words.
    pub reason: String,
}

/// Bytes as hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 0xf)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// The reverse of [`to_hex`]; `None` for other text.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| <&[u8; 2]>::try_from(pair).ok().and_then(|[a, b]| Some(digit(*a)? << 4 | digit(*b)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_as_text() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&to_hex(&all)), Some(all));
        assert_eq!((from_hex("0"), from_hex("0g"), from_hex("é"), from_hex("")), (None, None, None, Some(Vec::new())));
    }

    #[test]
    fn a_packet_is_told_in_a_line() {
        let (outcome, reason) = ("forwarded".to_owned(), "transmitted".to_owned());
        let name = |name: &str| Some(name.to_owned());
        let bare = CapturedPacket { outcome, reason, ..CapturedPacket::default() };
        assert_eq!(bare.to_string(), "forwarded: transmitted");
        let sent =
            CapturedPacket { vip: name("www"), slot: Some(7), backend: name("web1"), choice: name("table"), ..bare };
        assert_eq!(sent.to_string(), "forwarded: transmitted; vip www, slot 7, backend web1, choice table");
    }

    #[test]
    fn an_empty_request_asks_for_every_packet() {
        assert_eq!(serde_json::from_str::<NewCapture>("{}").unwrap(), NewCapture::default());
        assert!(serde_json::from_str::<NewCapture>(r#"{"vips": []}"#).is_err());
    }
}
