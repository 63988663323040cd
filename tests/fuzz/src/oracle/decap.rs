//! The prediction for `maglevd decap`, from docs/packets.md ("On the backend") and the RFCs of its tunnels: RFC 2003, RFC 4213 and
//! RFC 2473 for IP in IP, draft-ietf-intarea-gue for GUE, RFC 6040 for ECN.
//!
//! ```text
//!  Ethernet │ outer IP │ (UDP, GUE) │ inner IP …
//!   kept    └─────── removed ───────┘  kept, with the ECN that RFC 6040 says
//! ```

use std::net::IpAddr;

use super::{Predicted, Verdict};
use crate::world::DecapWorld;

use inner::Inner;
use outer::{Fragment, Outer};

mod gue;
mod inner;
mod outer;
#[cfg(test)]
mod tests;

/// Protocol numbers of a packet inside another: IPv4 and IPv6.
const IPV4: u8 = 4;
const IPV6: u8 = 41;

/// The outcome of a frame on a backend.
pub fn decap(world: &DecapWorld, frame: &[u8]) -> Predicted {
    match unwrap(world, frame) {
        Ok(bytes) => Predicted { verdict: Verdict::Pass, bytes: Some(bytes), counted: vec!["decapsulated"] },
        Err(reason @ ("not_encapsulated" | "foreign_source")) => {
            Predicted { verdict: Verdict::Pass, bytes: Some(frame.to_vec()), counted: vec![reason] }
        }
        Err(reason) => Predicted { verdict: Verdict::Drop, bytes: None, counted: vec![reason] },
    }
}

/// The frame without its outer headers, or the counter that says why it is not unwrapped.
fn unwrap(world: &DecapWorld, frame: &[u8]) -> Result<Vec<u8>, &'static str> {
    let outer = Outer::parse(frame).ok_or("not_encapsulated")?;
    let is_gue = match outer.protocol {
        IPV4 | IPV6 => false,
        gue::UDP if gue::is_for_port(frame, &outer) => true,
        _ => return Err("not_encapsulated"),
    };
    if !is_in(&world.sources, outer.source) {
        return Err("foreign_source");
    }
    if outer.fragment != Fragment::Whole {
        return Err("fragment");
    }
    let payload = outer.payload.clone().ok_or("malformed")?;
    let (protocol, payload) = if is_gue { gue::open(frame, payload)? } else { (outer.protocol, payload) };
    let inner = Inner::parse(protocol, frame, payload)?;
    inner.admit(|address| is_in(&world.vips, address))?;
    let mut packet = frame.get(inner.start..).ok_or("malformed")?.to_vec();
    let ecn = combined(outer.ecn, inner.ecn).ok_or("congestion")?;
    inner.set_ecn(&mut packet, ecn);
    // Both MAC addresses.
    let mut unwrapped = frame.get(..12).ok_or("malformed")?.to_vec();
    unwrapped.extend(inner.ether_type().to_be_bytes());
    unwrapped.extend(packet);
    Ok(unwrapped)
}

/// The inner packet's ECN once the outer header is gone; `None` if the packet is to be dropped: RFC 6040, figure 4.
///
/// ```text
///            outer  Not-ECT   ECT(0)    ECT(1)    CE
///  inner Not-ECT    Not-ECT   Not-ECT   Not-ECT   drop
///        ECT(0)     ECT(0)    ECT(0)    ECT(1)    CE
///        ECT(1)     ECT(1)    ECT(1)    ECT(1)    CE
///        CE         CE        CE        CE        CE
/// ```
fn combined(outer: u8, inner: u8) -> Option<u8> {
    const NOT: u8 = 0b00;
    const ECT1: u8 = 0b01;
    const ECT0: u8 = 0b10;
    const CE: u8 = 0b11;
    match (inner, outer) {
        (NOT, CE) => None,
        (NOT, _) => Some(NOT),
        (_, CE) => Some(CE),
        (ECT0, ECT1) => Some(ECT1),
        (inner, _) => Some(inner),
    }
}

fn is_in(prefixes: &[ipnet::IpNet], address: IpAddr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(&address))
}
