//! ROUTE-REFRESH (RFC 2918): "send me all of a family again", and the marks around the answer (RFC 7313).

use super::prefix::{Family, UNICAST};
use super::reader::Reader;
use super::{Fault, Kind, Notification, finish, start};

/// Which of the three messages it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Boundary {
    /// A request.
    Request,
    /// The answer begins.
    Begin,
    /// The answer is complete.
    End,
}

/// A ROUTE-REFRESH for a family of ours, or for one we did not offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteRefresh {
    pub(crate) family: Option<Family>,
    /// `None`: an unknown subtype, to be ignored.
    pub(crate) boundary: Option<Boundary>,
}

impl RouteRefresh {
    /// A body of another length is an error of its own, whose data is the whole message (RFC 7313, section 5).
    pub(super) fn decode(mut body: Reader<'_>, message: &[u8]) -> Result<Self, Notification> {
        let mut fields = || Some((body.u16()?, body.u8()?, body.u8()?, body.is_empty()));
        match fields() {
            Some((afi, subtype, safi, true)) => {
                let boundary = match subtype {
                    0 => Some(Boundary::Request),
                    1 => Some(Boundary::Begin),
                    2 => Some(Boundary::End),
                    _ => None,
                };
                Ok(Self { family: Family::from_numbers(afi, safi), boundary })
            }
            _ => Err(Notification::with(Fault::BAD_REFRESH_LENGTH, message)),
        }
    }
}

/// Appends a ROUTE-REFRESH.
pub(crate) fn encode(out: &mut Vec<u8>, family: Family, boundary: Boundary) {
    let begin = start(out, Kind::RouteRefresh);
    out.extend(family.afi().to_be_bytes());
    out.extend([boundary as u8, UNICAST]);
    finish(out, begin);
}
