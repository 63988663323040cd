//! Makes the router spread flows by their 5-tuple alone. A veth hands over the hash that the sender's socket put on a packet,
//! and the kernel's multipath routes go by that hash where there is one: two sockets with one 5-tuple would take two ways.
//! A program of three instructions on the router's link to the client takes the hash off.
//!
//! `tc` loads it from an object file, written here byte by byte: no compiler is at hand where the lab runs.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::netns::Netns;

/// `bpf_set_hash_invalid(context); return TC_ACT_UNSPEC;`
const PROGRAM: [[u8; 8]; 3] = [
    // call 41: `bpf_set_hash_invalid`, whose argument, the context, is in r1 already
    [0x85, 0, 0, 0, 41, 0, 0, 0],
    // r0 = -1
    [0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
    // exit
    [0x95, 0, 0, 0, 0, 0, 0, 0],
];

/// The sections of the object beside the empty first one. Their names lie in the last of them.
const SECTIONS: [Section; 4] = [
    // PROGBITS, allocated and executable.
    Section { name: "classifier", kind: 1, flags: 6, link: 0, info: 0, entry: 0 },
    // PROGBITS.
    Section { name: "license", kind: 1, flags: 0, link: 0, info: 0, entry: 0 },
    // SYMTAB; its names are in section 4, and symbols from 1 on are global.
    Section { name: ".symtab", kind: 2, flags: 0, link: 4, info: 1, entry: 24 },
    // STRTAB.
    Section { name: ".strtab", kind: 3, flags: 0, link: 0, info: 0, entry: 0 },
];

struct Section {
    name: &'static str,
    kind: u32,
    flags: u64,
    link: u32,
    info: u32,
    entry: u64,
}

/// Takes the hash off every packet that comes in by this device; the object file is left in `directory`.
///
/// # Errors
/// If `tc` or the kernel refuses it.
pub(super) fn attach(netns: &Netns, device: &str, directory: &Path) -> Result<()> {
    let file = directory.join("unhash.o");
    fs::write(&file, object()).with_context(|| format!("cannot write {}", file.display()))?;
    netns.output(Command::new("tc").args(["qdisc", "add", "dev", device, "clsact"]))?;
    let mut filter = Command::new("tc");
    filter.args(["filter", "add", "dev", device, "ingress", "bpf", "direct-action", "object-file"]).arg(&file);
    netns.output(filter.args(["section", SECTIONS[0].name]))?;
    Ok(())
}

/// An ELF file: its header, the sections' contents, and the table of sections.
fn object() -> Vec<u8> {
    const HEADER: usize = 64;
    let (names, offsets) = names();
    let contents = [PROGRAM.concat(), b"GPL\0".to_vec(), symbols(offsets[0]), names];
    let mut body = Vec::new();
    // The first section is unused.
    let mut table = vec![0; 64];
    for ((section, name), content) in SECTIONS.iter().zip(offsets).zip(&contents) {
        body.resize(body.len().next_multiple_of(8), 0);
        let place = [HEADER + body.len(), content.len()].map(|number| number as u64);
        table.extend(entry(section, name, place));
        body.extend(content);
    }
    body.resize(body.len().next_multiple_of(8), 0);
    [header(HEADER + body.len()), body, table].concat()
}

/// A program for BPF that is still to be linked, whose table of sections starts at `table`.
fn header(table: usize) -> Vec<u8> {
    const RELOCATABLE: u16 = 1;
    const BPF: u16 = 247;
    // 64 bits, little endian, version 1.
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(16, 0);
    header.extend([RELOCATABLE, BPF].map(u16::to_le_bytes).as_flattened());
    header.extend(1_u32.to_le_bytes());
    // No entry point, no segments.
    header.extend([0, 0, table as u64].map(u64::to_le_bytes).as_flattened());
    header.extend(0_u32.to_le_bytes());
    let sections = SECTIONS.len() as u16 + 1;
    header.extend([64, 0, 0, 64, sections, sections - 1].map(u16::to_le_bytes).as_flattened());
    header
}

/// An entry of the table of sections: `place` is its offset and its length.
fn entry(section: &Section, name: u32, place: [u64; 2]) -> Vec<u8> {
    let Section { name: _, kind, flags, link, info, entry } = section;
    let mut out = [name, *kind].map(u32::to_le_bytes).concat();
    out.extend([*flags, 0, place[0], place[1]].map(u64::to_le_bytes).as_flattened());
    out.extend([*link, *info].map(u32::to_le_bytes).as_flattened());
    out.extend([8, *entry].map(u64::to_le_bytes).as_flattened());
    out
}

/// The empty symbol and the program, which has the name of its section.
fn symbols(name: u32) -> Vec<u8> {
    const GLOBAL_FUNCTION: u8 = 0x12;
    let mut out = vec![0; 24];
    out.extend(name.to_le_bytes());
    out.extend([GLOBAL_FUNCTION, 0, 1, 0]);
    out.extend([0, PROGRAM.as_flattened().len() as u64].map(u64::to_le_bytes).as_flattened());
    out
}

/// The names, each ended by a zero, and where each begins.
fn names() -> (Vec<u8>, [u32; SECTIONS.len()]) {
    let mut text = vec![0];
    let offsets = SECTIONS.each_ref().map(|section| {
        let at = text.len() as u32;
        text.extend(section.name.as_bytes());
        text.push(0);
        at
    });
    (text, offsets)
}
