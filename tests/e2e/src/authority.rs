//! A certificate authority of a test's own, as a plant has one.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// An authority whose certificate is in a file, and which writes those that it issues beside it.
pub struct Authority {
    pub file: PathBuf,
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one; its certificate is `NAME.pem`.
    pub fn new(folder: &Path, name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes a certificate for self-signed whose authority has the same name.
        let subject = &mut params.distinguished_name;
        subject.push(DnType::CommonName, format!("the authority {name}"));
        let key = KeyPair::generate()?;
        let file = folder.join(format!("{name}.pem"));
        std::fs::write(&file, params.self_signed(&key)?.pem())?;
        Ok(Self {
            file,
            folder: folder.into(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The files of a new certificate for a host or a user, and of its key.
    pub fn issue(&self, name: &str) -> Result<[PathBuf; 2]> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new([name.to_owned()])?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let files = ["pem", "key"].map(|end| self.folder.join(format!("{name}.{end}")));
        let [pem_file, key_file] = &files;
        std::fs::write(pem_file, certificate.pem())?;
        std::fs::write(key_file, key.serialize_pem())?;
        Ok(files)
    }
}
