//! HTTPS: the same routes, under a certificate of the lab's own.

use std::{io, path::Path, sync::Arc};

use anyhow::{Context, Result};
use axum::Router;
use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

/// A server's certificate and key, and whose word it is.
pub struct Identity {
    acceptor: TlsAcceptor,
    authority: Vec<u8>,
}

impl Identity {
    /// The name that the certificate is for.
    pub const NAME: &str = "lab.example";

    /// A new one, of a new authority.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([Self::NAME.to_owned()])?.signed_by(&key, &authority)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        // No session is ever resumed.
        config.send_tls13_tickets = 0;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), authority: authority.der().to_vec() })
    }

    /// Writes the authority's certificate, for daemons that are to trust it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_authority(&self, path: &Path) -> Result<()> {
        let text = BASE64_STANDARD.encode(&self.authority);
        let text = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// Answers every connection, each in a task of its own; nothing to do is done for ever.
///
/// # Errors
/// If no connection can be accepted any more.
pub(super) async fn serve(routes: Router, at: Option<(TcpListener, Identity)>) -> io::Result<()> {
    let Some((listener, Identity { acceptor, .. })) = at else { return std::future::pending().await };
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(answer(acceptor.clone(), stream, routes.clone()));
    }
}

/// One connection. If it breaks, that is the client's to report.
async fn answer(acceptor: TlsAcceptor, stream: TcpStream, routes: Router) {
    if let Ok(stream) = acceptor.accept(stream).await {
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)).await;
    }
}
