//! OPEN messages: the speaker's identity, hold time and capabilities.
//!
//! ```text
//!    +-+-+-+-+-+-+-+-+
//!    |    Version    |
//!    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!    |     My Autonomous System      |
//!    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!    |           Hold Time           |
//!    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!    |                         BGP Identifier                        |
//!    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!    | Opt Parm Len  | Optional Parameters (variable)                |    (RFC 4271, section 4.2)
//!    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use std::net::Ipv4Addr;

use super::capability::Capabilities;
use super::reader::Reader;
use super::{Fault, Kind, Notification, finish, start};

const VERSION: u8 = 4;

/// The placeholder for an AS number that has more than 16 bits (RFC 6793).
pub(super) const AS_TRANS: u16 = 23_456;

/// The parameter that holds capabilities.
const CAPABILITIES: u8 = 2;

/// The length and the reserved parameter type that announce extended lengths (RFC 9072).
const EXTENDED: u8 = 255;

/// An OPEN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    /// The AS number: the capability's, if there is one.
    pub(crate) asn: u32,
    /// In seconds: 0, or at least 3.
    pub(crate) hold_time: u16,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) capabilities: Capabilities,
}

impl Open {
    /// Checks the rules of every OPEN (RFC 4271, section 6.2), not the speaker's identity.
    pub(super) fn decode(mut body: Reader<'_>) -> Result<Self, Notification> {
        let malformed = || Notification::new(Fault::MALFORMED_OPEN);
        let version = body.u8().ok_or_else(malformed)?;
        if version != VERSION {
            return Err(Notification::with(Fault::UNSUPPORTED_VERSION, &[0, VERSION]));
        }
        let asn = body.u16().ok_or_else(malformed)?;
        let hold_time = body.u16().ok_or_else(malformed)?;
        let router_id = Ipv4Addr::from(body.u32().ok_or_else(malformed)?);
        if matches!(hold_time, 1 | 2) {
            return Err(Notification::with(Fault::UNACCEPTABLE_HOLD_TIME, &hold_time.to_be_bytes()));
        }
        // RFC 6286: any number but zero.
        if router_id.is_unspecified() {
            return Err(Notification::with(Fault::BAD_IDENTIFIER, &router_id.octets()));
        }
        let capabilities = parameters(body)?;
        let asn = match capabilities.four_octet_as {
            Some(asn) => asn,
            None => asn.into(),
        };
        if asn == 0 {
            return Err(Notification::with(Fault::BAD_PEER_AS, &[0, 0]));
        }
        Ok(Self { asn, hold_time, router_id, capabilities })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let Self { asn, hold_time, router_id, capabilities } = self;
        let begin = start(out, Kind::Open);
        out.push(VERSION);
        out.extend(u16::try_from(*asn).unwrap_or(AS_TRANS).to_be_bytes());
        out.extend(hold_time.to_be_bytes());
        out.extend(router_id.octets());
        let mut value = Vec::new();
        capabilities.encode(&mut value);
        put_parameter(out, &value);
        finish(out, begin);
    }
}

/// One parameter with all capabilities. Ours are short; extended lengths are for those that are not (RFC 9072).
fn put_parameter(out: &mut Vec<u8>, value: &[u8]) {
    match u8::try_from(value.len() + 2) {
        Ok(total) if total < EXTENDED => out.extend([total, CAPABILITIES, total - 2]),
        _ => {
            let length = value.len() as u16;
            out.extend([EXTENDED, EXTENDED]);
            out.extend((length + 3).to_be_bytes());
            out.push(CAPABILITIES);
            out.extend(length.to_be_bytes());
        }
    }
    out.extend(value);
}

fn parameters(mut body: Reader<'_>) -> Result<Capabilities, Notification> {
    let malformed = || Notification::new(Fault::MALFORMED_OPEN);
    let mut total = usize::from(body.u8().ok_or_else(malformed)?);
    let extended = total != 0 && body.rest().first() == Some(&EXTENDED);
    if extended {
        body.u8().ok_or_else(malformed)?;
        total = body.u16().ok_or_else(malformed)?.into();
    }
    let mut fields = Reader::new(body.take(total).ok_or_else(malformed)?);
    if !body.is_empty() {
        return Err(malformed());
    }
    let mut capabilities = Capabilities::default();
    while !fields.is_empty() {
        let kind = fields.u8().ok_or_else(malformed)?;
        let length = if extended { fields.u16() } else { fields.u8().map(u16::from) };
        let value = length.and_then(|length| fields.take(length.into())).ok_or_else(malformed)?;
        if kind != CAPABILITIES {
            return Err(Notification::new(Fault::UNSUPPORTED_PARAMETER));
        }
        capabilities.decode(Reader::new(value))?;
    }
    Ok(capabilities)
}
