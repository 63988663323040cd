//! One BGP speaker for each identity: a name in the network's own namespace, held for as long as the process lives. It must
//! not know the speaker's messages.
//!
//! Two speakers with one identity take each other's sessions, for ever if routers keep prefixes over restarts. The name is
//! an abstract Unix socket: there is one such namespace for each network namespace, so nodes that share a machine and not
//! its network do not meet, and nothing is left to clean up.

use std::io;
use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use nix::sys::socket::{getsockopt, sockopt};

/// The identity, held by this process.
#[derive(Debug)]
pub struct Identity(#[expect(dead_code, reason = "the name is free once it is dropped")] UnixListener);

/// Why the identity is not held.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another process has it.
    #[error(
        "{holder} speaks BGP as router id {router_id} in AS {local_as} already: two with one identity would take each \
         other's sessions; stop it, or give this node a `bgp.router_id` of its own"
    )]
    Taken {
        /// That process, if the kernel reports it.
        holder: String,
        /// The router id.
        router_id: Ipv4Addr,
        /// The AS.
        local_as: u32,
    },
    /// It cannot be held.
    #[error("cannot hold the BGP identity {0}: {1}")]
    Io(Ipv4Addr, #[source] io::Error),
}

impl Identity {
    /// Takes the identity.
    ///
    /// # Errors
    /// Another process in this network namespace holds it.
    pub fn hold(router_id: Ipv4Addr, local_as: u32) -> Result<Self, IdentityError> {
        let failed = |error| IdentityError::Io(router_id, error);
        let name = format!("maglevd-bgp-{router_id}-{local_as}");
        let address = SocketAddr::from_abstract_name(&name).map_err(failed)?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => Ok(Self(listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(IdentityError::Taken { holder: holder(&address), router_id, local_as })
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// The process that listens there.
fn holder(address: &SocketAddr) -> String {
    let peer = UnixStream::connect_addr(address).and_then(|stream| {
        let peer = getsockopt(&stream, sockopt::PeerCredentials)?;
        Ok(peer.pid())
    });
    match peer {
        // The kernel gives the number 0 to a process that is in another namespace of processes.
        Ok(pid) if pid > 0 => format!("another maglevd (process {pid})"),
        _ => "another maglevd".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_held_once_and_free_again() {
        // Of the documentation's addresses, and another one for each process.
        let router_id = Ipv4Addr::from(0xcb00_7100_u32.wrapping_add(std::process::id()));
        let first = Identity::hold(router_id, 65_010).unwrap();
        let refused = Identity::hold(router_id, 65_010).unwrap_err().to_string();
        let expected = format!("another maglevd (process {}) speaks BGP as router id {router_id}", std::process::id());
        assert!(refused.starts_with(&expected), "{refused}");
        let _other = Identity::hold(router_id, 65_011).unwrap();
        drop(first);
        Identity::hold(router_id, 65_010).unwrap();
    }
}
