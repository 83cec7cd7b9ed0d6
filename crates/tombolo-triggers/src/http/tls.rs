//! TLS of the HTTP listeners: one certificate for all of them, which follows its files.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tombolo_manifest::TlsConfig;

use crate::tls::{Followed, TlsError, certificates, private_key};

#[derive(Debug)]
struct Certificate(Followed<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }
}

/// What connections are accepted with.
pub fn server_config(files: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    let paths = [files.certificate.clone(), files.key.clone()];
    let files = files.clone();
    let certificate = Certificate(Followed::new(paths, move || certified_key(&files))?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Version)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificate));
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(server))
}

fn certified_key(files: &TlsConfig) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = private_key(&files.key)?;
    let provider = rustls::crypto::ring::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider).map_err(TlsError::Key)?;
    Ok(Arc::new(key))
}
