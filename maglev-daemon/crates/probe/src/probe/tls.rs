//! TLS of checks. It must not know the data on it.

use std::net::Ipv6Addr;
use std::sync::{Arc, OnceLock};

use maglev_model::Tls;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::Fault;
use super::authorities::{self, Authorities};

/// The port that need not be named (RFC 9110, section 4.2.2).
const USUAL_PORT: u16 = 443;

/// The default server name of a request without a host.
pub(super) fn authority(Tls { name, .. }: &Tls, port: u16) -> String {
    let host = if name.parse::<Ipv6Addr>().is_ok() { format!("[{name}]") } else { name.clone() };
    if port == USUAL_PORT { host } else { format!("{host}:{port}") }
}

/// Which certificates are good, for all checks.
#[derive(Clone)]
pub struct Trust {
    authorities: Authorities,
    believing: Arc<OnceLock<TlsConnector>>,
}

impl Trust {
    /// The authorities that the system trusts. If there are none, no certificate is good.
    pub fn from_system() -> Self {
        Self { authorities: Authorities::found_by(authorities::from_system, verifying), believing: Arc::default() }
    }

    /// The authorities that this finds.
    #[cfg(test)]
    pub(super) fn from_source(source: fn() -> Result<Vec<CertificateDer<'static>>, Fault>) -> Self {
        Self { authorities: Authorities::found_by(source, verifying), believing: Arc::default() }
    }

    /// These authorities alone.
    pub fn from_authorities(authorities: Vec<CertificateDer<'static>>) -> Self {
        Self { authorities: Authorities::given(verifying(authorities)), believing: Arc::default() }
    }

    /// The system's authorities may have changed: the next check that needs them reads them again.
    pub fn reload(&self) {
        self.authorities.reload();
    }

    /// Prepares TLS with this server, which takes some milliseconds the first time.
    pub(super) async fn prepare(&self, server: &Tls) -> Result<(), Fault> {
        self.connector(server).await.map(drop)
    }

    async fn connector(&self, server: &Tls) -> Result<TlsConnector, Fault> {
        match server.verify {
            true => self.authorities.connector().await,
            false => Ok(self.believing.get_or_init(believing).clone()),
        }
    }

    /// Speaks TLS on a connection from here on.
    pub(super) async fn shake_hands(&self, stream: TcpStream, server: &Tls) -> Result<TlsStream<TcpStream>, Fault> {
        let name = &server.name;
        let named = ServerName::try_from(name.clone());
        let named = named.map_err(|_| Fault::Unready(format!("TLS: {name} is not a server's name")))?;
        self.connector(server).await?.connect(named, stream).await.map_err(|error| {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            tls.map_or_else(
                || Fault::from_io("TLS handshake", &error, Fault::Unready),
                |error| Fault::Unready(format!("TLS: {error}")),
            )
        })
    }
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

fn verifying(authorities: Vec<CertificateDer<'static>>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities);
    connector(builder(&Arc::new(ring::default_provider())).with_root_certificates(roots).with_no_client_auth())
}

fn believing() -> TlsConnector {
    let provider = Arc::new(ring::default_provider());
    let anyone = Arc::new(Anyone(Arc::clone(&provider)));
    connector(builder(&provider).dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth())
}

fn builder(provider: &Arc<CryptoProvider>) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let versions = ClientConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions();
    // The provider has cipher suites for both versions.
    versions.unwrap_or_else(|error| unreachable!("ring has no cipher suites: {error}"))
}

/// Every check is a whole handshake: a session that is resumed says nothing of the certificate.
fn connector(mut config: ClientConfig) -> TlsConnector {
    config.resumption = Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

/// Accepts every certificate; but the server must prove that it holds the certificate's key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_with_its_port_unless_that_is_the_usual_one() {
        let named = |name: &str, port| authority(&Tls { name: name.to_owned(), of_host: false, verify: true }, port);
        assert_eq!(named("www.example.org", 443), "www.example.org");
        assert_eq!(named("www.example.org", 8_443), "www.example.org:8443");
        assert_eq!([443, 8_443].map(|port| named("2001:db8::1", port)), ["[2001:db8::1]", "[2001:db8::1]:8443"]);
        assert_eq!(named("192.0.2.1", 443), "192.0.2.1");
    }

    #[tokio::test]
    async fn authorities_are_read_only_when_a_certificate_is_to_be_verified() {
        let (trust, name) = (Trust::from_system(), "www.example.org".to_owned());
        let [believed, verified] = [false, true].map(|verify| Tls { name: name.clone(), of_host: false, verify });
        trust.prepare(&believed).await.unwrap();
        assert!(!trust.authorities.are_read());
        trust.clone().prepare(&verified).await.unwrap();
        assert!(trust.authorities.are_read(), "for all checks");
    }
}
