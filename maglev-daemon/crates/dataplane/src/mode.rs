//! Where an XDP program runs.

use std::fmt;

use maglev_net::links::XdpAt;

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// In the driver, before the kernel makes a socket buffer.
    Native,
    /// In the network stack: any interface, slower.
    Generic,
}

impl Mode {
    /// Whether a program that is attached there runs in this mode.
    pub(super) fn is(self, at: XdpAt) -> bool {
        matches!((self, at), (Self::Native, XdpAt::Native) | (Self::Generic, XdpAt::Generic))
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}
