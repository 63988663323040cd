//! Values that one daemon leaves and another one reads, perhaps of another release: with the version of their format, the oldest
//! format whose readers understand them, and a checksum. It must not know where they are kept.
//!
//! ```text
//!  "maglev state 1 1\n"  │ length u32 │ checksum 8 bytes │ JSON, deflated
//!                ▲ ▲
//!           format readable from
//! ```
//!
//! A reader ignores keys that it does not know. A change that it must not ignore raises `readable from`.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::history::frame::{self, Bad};

/// The version that this release writes, and the oldest one whose readers understand it.
const FORMAT: u32 = 1;
const READABLE_FROM: u32 = 1;

/// The start of the first line.
const FAMILY: &[u8] = b"maglev state ";

/// Bytes that the first line has at most.
const LINE: usize = 64;

/// A value with its version and checksum.
///
/// # Errors
/// It has no JSON, or is larger than 4 GiB.
pub fn seal<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    let text = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    let mut sealed = [FAMILY, format!("{FORMAT} {READABLE_FROM}\n").as_bytes()].concat();
    sealed.extend(frame::encode(&text)?);
    Ok(sealed)
}

/// A value of a list, deflated: the bytes of one that does not change can be used again.
#[derive(Clone, Debug)]
pub struct Part(Vec<u8>);

impl Part {
    /// Deflates a value.
    ///
    /// # Errors
    /// It has no JSON.
    pub fn new<T: Serialize>(value: &T) -> Result<Self, String> {
        let text = serde_json::to_vec(value).map_err(|error| error.to_string())?;
        frame::deflate_part(&text).map(Self)
    }
}

/// The same as [`seal`] of a value that ends with a list, from the value with an empty list and the list's parts.
///
/// # Errors
/// It has no JSON, ends with no empty list, or is larger than 4 GiB.
pub fn seal_list<'a, T: Serialize>(value: &T, parts: impl Iterator<Item = &'a Part>) -> Result<Vec<u8>, String> {
    let text = serde_json::to_string(value).map_err(|error| error.to_string())?;
    let (head, tail) = text.rsplit_once("[]").ok_or("the value ends with no list")?;
    if !tail.bytes().all(|byte| byte == b'}') {
        return Err("the value does not end with an empty list".to_owned());
    }
    let comma = frame::deflate_part(b",")?;
    let mut deflated = frame::deflate_part(format!("{head}[").as_bytes())?;
    for (n, Part(part)) in parts.enumerate() {
        if n > 0 {
            deflated.extend(&comma);
        }
        deflated.extend(part);
    }
    deflated.extend(frame::deflate_end(format!("]{tail}").as_bytes())?);
    let mut sealed = [FAMILY, format!("{FORMAT} {READABLE_FROM}\n").as_bytes()].concat();
    sealed.extend(frame::from_deflated(&deflated)?);
    Ok(sealed)
}

/// The value that was sealed.
///
/// # Errors
/// It is damaged, of a newer release that this one cannot follow, or of another kind.
pub fn unseal<T: DeserializeOwned>(sealed: &[u8]) -> Result<T, String> {
    let end = sealed.iter().take(LINE).position(|byte| *byte == b'\n').ok_or("it has no first line")?;
    let versions = sealed[..end].strip_prefix(FAMILY).ok_or("its first line is another's")?;
    let versions = std::str::from_utf8(versions).map_err(|_| "its first line is no text")?;
    let (_, readable_from) = versions.split_once(' ').ok_or("its first line has no version")?;
    match readable_from.parse::<u32>() {
        Ok(readable_from) if readable_from <= FORMAT => {}
        Ok(newer) => return Err(format!("it needs a release that reads format {newer}; this one reads {FORMAT}")),
        Err(_) => return Err("its first line has no version".to_owned()),
    }
    let payload = frame::first(&sealed[end + 1..]).map_err(|bad| {
        match bad {
            Bad::End | Bad::Torn => "it is cut short",
            Bad::Corrupt => "its checksum does not match",
        }
        .to_owned()
    })?;
    serde_json::from_str(&frame::inflate(payload)?).map_err(|error| format!("it makes no sense: {error}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Value = BTreeMap<String, Vec<u32>>;

    fn value() -> Value {
        (0..50).map(|n| (format!("pool{n}"), (0..n * 7).collect())).collect()
    }

    #[test]
    fn a_value_is_read_as_it_was_sealed() {
        assert_eq!(unseal::<Value>(&seal(&value()).unwrap()).unwrap(), value());
        assert_eq!(unseal::<Value>(&seal(&Value::new()).unwrap()).unwrap(), Value::new());
    }

    #[test]
    fn a_value_is_sealed_from_parts_like_as_a_whole() {
        #[derive(Serialize, serde::Deserialize, Debug, PartialEq, Eq)]
        struct Outer {
            empty: Vec<u32>,
            inner: Inner,
        }
        #[derive(Serialize, serde::Deserialize, Debug, PartialEq, Eq)]
        struct Inner {
            name: String,
            list: Vec<Value>,
        }
        let of = |list: Vec<Value>| Outer { empty: Vec::new(), inner: Inner { name: "[]}}".into(), list } };
        for count in [0, 1, 2, 40] {
            let list: Vec<Value> = (0..count).map(|n| value().split_off(&format!("pool{n}"))).collect();
            let parts: Vec<Part> = list.iter().map(|value| Part::new(value).unwrap()).collect();
            let sealed = seal_list(&of(Vec::new()), parts.iter()).unwrap();
            assert_eq!(unseal::<Outer>(&sealed).unwrap(), of(list), "{count} parts");
        }
        assert!(seal_list(&"no list", [].iter()).is_err());
        assert!(seal_list(&([0_u32; 0], 1), [].iter()).is_err());
    }

    /// Text that can be deflated well, little or not at all.
    fn noise(random: &mut fastrand::Rng, length: usize) -> String {
        let (letters, run) = (random.u8(1..=64), random.usize(1..=12));
        let mut text = String::new();
        while text.len() < length {
            let letter = char::from(b'0' + random.u8(..letters));
            text.extend(std::iter::repeat_n(if letter == '\\' { 'x' } else { letter }, random.usize(1..=run)));
        }
        text
    }

    /// A part may deflate to more than the buffers on the way have room for: that of a pool in transition does.
    #[test]
    fn a_part_of_any_size_is_whole() {
        let mut random = fastrand::Rng::with_seed(27);
        for round in 0..600 {
            let most = if round % 10 == 0 { 400_000 } else { 90_000 };
            let length = random.usize(..most);
            let list = vec![noise(&mut random, length), "end".to_owned()];
            let parts: Vec<Part> = list.iter().map(|value| Part::new(value).unwrap()).collect();
            let sealed = seal_list(&BTreeMap::from([("list", [0_u32; 0])]), parts.iter()).unwrap();
            let read: BTreeMap<String, Vec<String>> = unseal(&sealed).unwrap();
            assert!(read["list"] == list, "round {round}: {} bytes", list[0].len());
        }
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let sealed = seal(&value()).unwrap();
        let header = FAMILY.len() + 4;
        for at in header..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(unseal::<Value>(&damaged).is_err(), "byte {at}");
        }
        for length in 0..sealed.len() {
            assert!(unseal::<Value>(&sealed[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_newer_format_is_read_as_long_as_it_says_that_it_can_be() {
        let sealed = seal(&value()).unwrap();
        let frame = &sealed[FAMILY.len() + 4..];
        let of = |versions: &str| [FAMILY, versions.as_bytes(), b"\n", frame].concat();
        assert_eq!(unseal::<Value>(&of("7 1")).unwrap(), value());
        let refused = unseal::<Value>(&of("7 2")).unwrap_err();
        assert_eq!(refused, "it needs a release that reads format 2; this one reads 1");
        for versions in ["", "1", "1 x", "1 -1", "1 99999999999"] {
            assert!(unseal::<Value>(&of(versions)).is_err(), "{versions:?}");
        }
    }
}
