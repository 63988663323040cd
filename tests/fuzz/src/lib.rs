//! A differential fuzzer of the loaded eBPF programs. The oracle predicts each packet's verdict, bytes and counters from the RFCs
//! and docs/packets.md; it shares no code with the packet path.
//!
//! ```text
//!  world ──▶ packets (valid, changed, random) ──▶ oracle ──▶ predicted ─┐
//!    └─────▶ the loaded program's maps ──▶ run ────────────▶ got ───────┴──▶ shrink ──▶ report
//! ```

pub mod oracle;
pub mod packets;
#[cfg(feature = "loaded")]
pub mod report;
#[cfg(feature = "loaded")]
pub mod run;
pub mod world;
