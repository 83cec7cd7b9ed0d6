//! TLS of an MQTT listener, with client certificates.

use std::path::Path;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;

use super::config::MqttTls;
use crate::tls::{Followed, certificates, private_key, trust};

pub use crate::tls::TlsError;

/// The TLS side of a listener.
pub struct Tls(Followed<Arc<ServerConfig>>);

impl Tls {
    /// Reads the files.
    pub fn load(files: MqttTls) -> Result<Self, TlsError> {
        let paths = [files.certificate.clone(), files.key.clone()];
        let paths = paths.into_iter().chain(files.client_authorities.clone());
        Ok(Self(Followed::new(paths, move || server_config(&files))?))
    }

    /// The config for a new connection; it follows the files.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.current()
    }
}

/// The user that a verified client certificate stands for: its first DNS name.
pub fn user(certificates: Option<&[CertificateDer<'_>]>) -> Option<Arc<str>> {
    let first = certificates?.first()?;
    let certificate = webpki::EndEntityCert::try_from(first).ok()?;
    certificate.valid_dns_names().next().map(Arc::from)
}

fn server_config(files: &MqttTls) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Version)?;
    let builder = match &files.client_authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            builder.with_client_cert_verifier(verifier(path, files.client_certificate_required)?)
        }
    };
    let chain = certificates(&files.certificate)?;
    let config = builder
        .with_single_cert(chain, private_key(&files.key)?)
        .map_err(TlsError::Key)?;
    Ok(Arc::new(config))
}

fn verifier(path: &Path, required: bool) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    trust(&mut roots, path)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if !required {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build();
    verifier.map_err(|source| TlsError::authority(path, source))
}
