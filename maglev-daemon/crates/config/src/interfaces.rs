//! `interfaces` of both files: which interfaces balance or decapsulate, how the program is attached, and which MAC addresses are this node's. It
//! must not know whether they exist.

use std::collections::BTreeSet;

use maglev_common::backend::MAX_ALSO;
use maglev_common::maps;
use maglev_model::shown;

use super::decode::Field;

/// How a program is attached to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// In the driver. The default; a driver without support is an error, never a silent fallback.
    #[default]
    Native,
    /// In the network stack: any interface, slowly.
    Generic,
}

/// An interface that balances, or decapsulates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// How the program is attached.
    pub mode: Mode,
    /// MAC addresses beside its own whose frames are balanced.
    pub also: Vec<[u8; 6]>,
}

/// Decodes `interfaces` of `maglev.yaml` and reports every error.
pub(super) fn decode_interfaces(field: &Field<'_>) -> Option<Vec<Interface>> {
    decode_with(field, &["name", "mode", "also"])
}

/// Decodes `interfaces` of `decap.yaml`, where no other MAC addresses count.
pub(super) fn decode_decap_interfaces(field: &Field<'_>) -> Option<Vec<Interface>> {
    decode_with(field, &["name", "mode"])
}

fn decode_with(field: &Field<'_>, keys: &[&str]) -> Option<Vec<Interface>> {
    let items = field.items()?;
    if items.is_empty() {
        field.report("no interface; name at least one, such as [{ name: eth0 }]");
        return None;
    }
    if items.len() > maps::MAX_INTERFACES as usize {
        field.report(format_args!("{} interfaces; at most {} are supported", items.len(), maps::MAX_INTERFACES));
    }
    let mut seen = BTreeSet::new();
    let decoded = items.iter().map(|item| {
        let section = item.section(keys, &[])?;
        let name = section.need("name", "the interface's name").and_then(|name| {
            let text = name.parse(parse_interface_name)?;
            if !seen.insert(text.clone()) {
                name.report(format_args!("{text} is named twice"));
            }
            Some(text)
        });
        let mode = section.get("mode").map_or(Some(Mode::default()), |mode| mode.parse(parse_mode));
        let also = section.get("also").map_or(Some(Vec::new()), |also| decode_macs(&also));
        Some(Interface { name: name?, mode: mode?, also: also? })
    });
    // Each is decoded before any missing one is noticed, so that all errors are reported.
    decoded.collect::<Vec<_>>().into_iter().collect()
}

fn decode_macs(field: &Field<'_>) -> Option<Vec<[u8; 6]>> {
    let items = field.items()?;
    if items.len() > MAX_ALSO {
        field.report(format_args!("{} MAC addresses; at most {MAX_ALSO} are supported", items.len()));
    }
    let mut seen = BTreeSet::new();
    let decoded = items.iter().map(|item| {
        let mac = item.parse(parse_mac)?;
        if !seen.insert(mac) {
            item.report("a MAC address that is in the list twice");
        }
        Some(mac)
    });
    decoded.collect::<Vec<_>>().into_iter().collect()
}

/// A unicast MAC address: a group's frames reach every node of the segment, and each would balance them.
fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let is_byte = |part: &&str| part.len() == 2 && part.chars().all(|digit| digit.is_ascii_hexdigit());
    let byte = |part: &str| u8::from_str_radix(Some(part).filter(is_byte)?, 16).ok();
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    match bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok()) {
        Some(mac) if mac[0] & 1 != 0 => {
            Err(format!("{} is a multicast or broadcast address; allowed: unicast addresses", shown(text)))
        }
        Some([0, 0, 0, 0, 0, 0]) => {
            Err(format!("{} is not an interface's address; allowed: unicast addresses", shown(text)))
        }
        Some(mac) => Ok(mac),
        None => Err(format!("{} is not a MAC address; write it like 00:00:5e:00:01:0a", shown(text))),
    }
}

fn parse_interface_name(text: &str) -> Result<String, String> {
    let fits = (1..=15).contains(&text.len()) && !matches!(text, "." | "..");
    if fits && text.chars().all(|c| c.is_ascii_graphic() && c != '/' && c != ':') {
        return Ok(text.to_owned());
    }
    Err(format!("{} is not an interface's name; allowed: 1 to 15 characters without space, / and :", shown(text)))
}

fn parse_mode(text: &str) -> Result<Mode, String> {
    match text {
        "native" => Ok(Mode::Native),
        "generic" => Ok(Mode::Generic),
        _ => Err(format!("{} is not a mode; allowed: native, generic", shown(text))),
    }
}
