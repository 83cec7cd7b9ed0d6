//! TLS of a listener, with client certificates; the files are read again when they change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem};

use super::config::MqttTls;

const CHECK_EVERY: Duration = Duration::from_secs(2);

/// Why a listener cannot have TLS.
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
    #[error("an authority of client certificates cannot be used")]
    Authority(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The TLS side of a listener.
pub struct Tls {
    files: MqttTls,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    seen: Stamp,
    checked: Instant,
}

/// What tells that files were changed: time of change and length of each.
type Stamp = Vec<Option<(SystemTime, u64)>>;

impl Tls {
    /// Reads the files.
    pub fn load(files: MqttTls) -> Result<Self, TlsError> {
        let seen = stamp(&files);
        let current = Mutex::new(Current {
            config: server_config(&files)?,
            seen,
            checked: Instant::now(),
        });
        Ok(Self { files, current })
    }

    /// The config for a new connection. Files that cannot be used leave the last good ones in place.
    pub fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.checked.elapsed() < CHECK_EVERY {
            return current.config.clone();
        }
        current.checked = Instant::now();
        let seen = stamp(&self.files);
        if seen != current.seen {
            current.seen = seen;
            let path = self.files.certificate.display();
            match server_config(&self.files) {
                Ok(config) => {
                    current.config = config;
                    tracing::info!(%path, "mqtt certificate reloaded");
                }
                Err(error) => tracing::warn!(
                    %path,
                    error = &error as &dyn std::error::Error,
                    "mqtt certificate not reloaded, the last good one stays"
                ),
            }
        }
        current.config.clone()
    }
}

/// The user that a verified client certificate stands for: its first DNS name.
pub fn user(certificates: Option<&[CertificateDer<'_>]>) -> Option<Arc<str>> {
    let first = certificates?.first()?;
    let certificate = webpki::EndEntityCert::try_from(first).ok()?;
    certificate.valid_dns_names().next().map(Arc::from)
}

fn stamp(files: &MqttTls) -> Stamp {
    let of = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    let files = [&files.certificate, &files.key]
        .into_iter()
        .chain(&files.client_authorities);
    files.map(of).collect()
}

fn server_config(files: &MqttTls) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Key)?;
    let builder = match &files.client_authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            builder.with_client_cert_verifier(verifier(path, files.client_certificate_required)?)
        }
    };
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?);
    let key = key.map_err(|source| unusable(&files.key, source))?;
    let config = builder
        .with_single_cert(chain, key)
        .map_err(TlsError::Key)?;
    Ok(Arc::new(config))
}

fn verifier(path: &Path, required: bool) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(path)? {
        let added = roots.add(authority);
        added.map_err(|error| TlsError::Authority(error.into()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if !required {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build();
    verifier.map_err(|error| TlsError::Authority(error.into()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(unusable(path, pem::Error::NoItemsFound)),
        Ok(chain) => Ok(chain),
        Err(source) => Err(unusable(path, source)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.into(),
        source,
    })
}

fn unusable(path: &Path, source: pem::Error) -> TlsError {
    TlsError::Pem {
        path: path.into(),
        source,
    }
}
