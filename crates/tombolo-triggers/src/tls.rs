//! What each TLS side is made of: chains, keys and authorities from PEM files, read again when they change.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem};

const CHECK_EVERY: Duration = Duration::from_secs(2);

/// Why certificates cannot be used.
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
    #[error("an authority in {} cannot be used", .path.display())]
    Authority {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("this build supports no version of TLS")]
    Version(#[source] rustls::Error),
}

impl TlsError {
    pub(crate) fn authority(
        path: &Path,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Authority {
            path: path.into(),
            source: source.into(),
        }
    }
}

type Make<T> = dyn Fn() -> Result<T, TlsError> + Send + Sync;

/// What is made of files, and made again when they change.
pub(crate) struct Followed<T> {
    files: Vec<PathBuf>,
    make: Box<Make<T>>,
    current: Mutex<Current<T>>,
}

struct Current<T> {
    made: T,
    seen: Stamp,
    checked: Instant,
}

/// What tells that files were changed: time of change and length of each.
type Stamp = Vec<Option<(SystemTime, u64)>>;

impl<T: Clone> Followed<T> {
    /// Makes it for the first time.
    pub(crate) fn new(
        files: impl IntoIterator<Item = PathBuf>,
        make: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let files: Vec<PathBuf> = files.into_iter().collect();
        // Before they are read, so that a change meanwhile is seen.
        let seen = stamp(&files);
        let current = Mutex::new(Current {
            made: make()?,
            seen,
            checked: Instant::now(),
        });
        Ok(Self {
            files,
            make: Box::new(make),
            current,
        })
    }

    /// What the files say; they are looked at every two seconds at most. Files that cannot be used leave the last good
    /// ones in place.
    pub(crate) fn current(&self) -> T {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.checked.elapsed() < CHECK_EVERY {
            return current.made.clone();
        }
        current.checked = Instant::now();
        let seen = stamp(&self.files);
        if seen != current.seen {
            current.seen = seen;
            match (self.make)() {
                Ok(made) => {
                    current.made = made;
                    tracing::info!(files = ?self.files, "certificates reloaded");
                }
                Err(error) => tracing::warn!(
                    files = ?self.files,
                    error = &error as &dyn std::error::Error,
                    "certificates not reloaded, the last good ones stay"
                ),
            }
        }
        current.made.clone()
    }
}

impl<T> fmt::Debug for Followed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Followed").field(&self.files).finish()
    }
}

fn stamp(files: &[PathBuf]) -> Stamp {
    let of = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(of).collect()
}

/// The certificates of a file, of which there is one at least.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(unusable(path, pem::Error::NoItemsFound)),
        Ok(chain) => Ok(chain),
        Err(source) => Err(unusable(path, source)),
    }
}

/// The private key of a file.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let key = PrivateKeyDer::from_pem_slice(&read(path)?);
    key.map_err(|source| unusable(path, source))
}

/// Has the authorities of a file trusted too.
pub(crate) fn trust(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    for authority in certificates(path)? {
        let added = roots.add(authority);
        added.map_err(|source| TlsError::authority(path, source))?;
    }
    Ok(())
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
