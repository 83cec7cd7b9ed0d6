//! The file by which commands in an app's folder find the node that runs there.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The file's name, in the node's store folder. The node writes it with mode 0600 when its admin
/// listener is up, and removes it when it ends.
pub const FILE: &str = "node.json";

/// Where a node's API is, and the token that opens it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// `http://127.0.0.1:PORT`
    pub admin: String,
    pub token: String,
    pub pid: u32,
}

/// Why there is no address to be had.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error("no node runs in {0}")]
    Missing(PathBuf),
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not the address of a node")]
    Syntax {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

impl Address {
    /// The address that the node of this store folder left.
    pub fn read(store: &Path) -> Result<Self, AddressError> {
        let path = store.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(AddressError::Missing(store.into()));
            }
            Err(source) => return Err(AddressError::Read { path, source }),
        };
        serde_json::from_slice(&text).map_err(|source| AddressError::Syntax { path, source })
    }
}
