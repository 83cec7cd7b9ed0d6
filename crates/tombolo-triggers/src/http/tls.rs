//! TLS of the listeners: one certificate from files, read again when they change.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem};
use tombolo_manifest::TlsConfig;

const CHECK_EVERY: Duration = Duration::from_secs(2);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} has no usable PEM section", .path.display())]
    Pem {
        path: PathBuf,
        #[source]
        source: pem::Error,
    },
    #[error("the key does not fit the certificate, or is of a kind that is not supported")]
    Key(#[source] rustls::Error),
    #[error("this build supports no version of TLS")]
    Version(#[source] rustls::Error),
}

/// The TLS side of the listeners.
#[derive(Debug)]
pub struct Tls {
    files: TlsConfig,
    current: Arc<Current>,
    server: Arc<ServerConfig>,
    seen: Stamp,
}

/// What tells that files were changed: time of change and length of both.
type Stamp = [Option<(SystemTime, u64)>; 2];

#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(
            self.0
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        )
    }
}

impl Tls {
    /// Reads certificate and key.
    pub fn load(files: TlsConfig) -> Result<Self, TlsError> {
        let seen = stamp(&files);
        let current = Arc::new(Current(RwLock::new(Arc::new(certified_key(&files)?))));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Version)?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            files,
            current,
            server: Arc::new(server),
            seen,
        })
    }

    /// The config that connections are accepted with; it follows the files.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// Looks at the files every few seconds, for ever. Files that cannot be used leave the last good certificate in place.
    pub async fn follow_files(mut self) {
        let mut ticks = tokio::time::interval(CHECK_EVERY);
        loop {
            ticks.tick().await;
            let now = stamp(&self.files);
            if now == self.seen {
                continue;
            }
            self.seen = now;
            match certified_key(&self.files) {
                Ok(key) => {
                    *self
                        .current
                        .0
                        .write()
                        .unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                    tracing::info!(path = %self.files.certificate.display(), "certificate reloaded");
                }
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "certificate not reloaded, the last good one stays"
                ),
            }
        }
    }
}

fn stamp(files: &TlsConfig) -> Stamp {
    let of = |path: &Path| {
        let metadata: Metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    [of(&files.certificate), of(&files.key)]
}

fn certified_key(files: &TlsConfig) -> Result<CertifiedKey, TlsError> {
    let unreadable = |path: &Path, source| TlsError::Read {
        path: path.into(),
        source,
    };
    let unusable = |path: &Path, source| TlsError::Pem {
        path: path.into(),
        source,
    };
    let pem = std::fs::read(&files.certificate)
        .map_err(|source| unreadable(&files.certificate, source))?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|source| unusable(&files.certificate, source))?;
    if chain.is_empty() {
        return Err(unusable(&files.certificate, pem::Error::NoItemsFound));
    }
    let pem = std::fs::read(&files.key).map_err(|source| unreadable(&files.key, source))?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|source| unusable(&files.key, source))?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(TlsError::Key)
}
