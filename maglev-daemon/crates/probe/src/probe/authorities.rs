//! The authorities whose certificates are good: read when they are first needed and again after a reload, by a thread of
//! their own. It must not know their use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls_native_certs::ErrorKind;
use tokio::sync::{Mutex, oneshot};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::Fault;
use super::fault::is_shortage;

/// The certificate verifier, shared by all checks. A daemon without such checks holds none in memory.
#[derive(Clone)]
pub(super) struct Authorities(Arc<Shared>);

struct Shared {
    /// How often a reload has asked for them.
    wanted: AtomicU64,
    /// The verifier, and for which of these reloads it was read.
    read: Mutex<Option<(u64, TlsConnector)>>,
    /// Where they come from; `None`: they are given once and for all.
    source: Option<(Source, Verifying)>,
}

/// Reads authorities.
type Source = fn() -> Result<Vec<CertificateDer<'static>>, Fault>;

/// Builds the certificate verifier from them.
type Verifying = fn(Vec<CertificateDer<'static>>) -> TlsConnector;

impl Authorities {
    /// Those that `source` finds. If there are none, no certificate is good.
    pub(super) fn found_by(source: Source, verifying: Verifying) -> Self {
        let (wanted, read) = (AtomicU64::new(0), Mutex::new(None));
        Self(Arc::new(Shared { wanted, read, source: Some((source, verifying)) }))
    }

    /// These alone.
    pub(super) fn given(connector: TlsConnector) -> Self {
        let (wanted, read) = (AtomicU64::new(0), Mutex::new(Some((0, connector))));
        Self(Arc::new(Shared { wanted, read, source: None }))
    }

    /// The next check that needs them reads them again.
    pub(super) fn reload(&self) {
        self.0.wanted.fetch_add(1, Ordering::Relaxed);
    }

    /// The verifier, read again if a reload asked for that. The earlier one stays if nothing can be read.
    pub(super) async fn connector(&self) -> Result<TlsConnector, Fault> {
        let Shared { wanted, read, source } = &*self.0;
        let mut read = read.lock().await;
        let wanted = wanted.load(Ordering::Relaxed);
        let (source, verifying) = match (&*read, source) {
            (Some((generation, connector)), Some(_)) if *generation == wanted => return Ok(connector.clone()),
            (Some((_, connector)), None) => return Ok(connector.clone()),
            (_, Some(source)) => *source,
            (None, None) => return Err(Fault::Shortage("no authorities are given".to_owned())),
        };
        let found = on_a_thread(source, verifying).await;
        let connector = match (found, &*read) {
            (Ok((0, _)), Some((_, before))) => {
                tracing::warn!("certificate authorities: the system has none now; keeping the earlier ones");
                before.clone()
            }
            (Ok((_, connector)), _) => connector,
            // The next check tries again.
            (Err(_), Some((_, before))) => return Ok(before.clone()),
            (Err(fault), None) => return Err(fault),
        };
        *read = Some((wanted, connector.clone()));
        Ok(connector)
    }

    /// Whether they are held in memory.
    #[cfg(test)]
    pub(super) fn are_read(&self) -> bool {
        self.0.read.try_lock().is_ok_and(|read| read.is_some())
    }
}

/// Their number, and the verifier. Reading takes milliseconds, and far longer from a slow disk.
async fn on_a_thread(source: Source, verifying: Verifying) -> Result<(usize, TlsConnector), Fault> {
    let (reply, answer) = oneshot::channel();
    let read = move || {
        // The check that asked may be gone.
        let _ = reply.send(source().map(|found| (found.len(), verifying(found))));
    };
    let started = std::thread::Builder::new().name("authorities".to_owned()).spawn(read);
    started.map_err(|error| Fault::from_io("certificate authorities", &error, Fault::Shortage))?;
    answer.await.map_err(|_| Fault::Shortage("certificate authorities: reading them was given up".to_owned()))?
}

/// The authorities that the system trusts.
pub(super) fn from_system() -> Result<Vec<CertificateDer<'static>>, Fault> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        if let ErrorKind::Io { inner, .. } = &error.kind
            && is_shortage(inner)
        {
            return Err(Fault::from_io("certificate authorities", inner, Fault::Shortage));
        }
        tracing::warn!(%error, "a certificate of the system's authorities cannot be read");
    }
    Ok(found.certs)
}
