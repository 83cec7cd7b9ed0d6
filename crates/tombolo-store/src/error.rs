//! Why a store cannot be opened, and why a read or a write failed.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use tombolo_core::Code;

use crate::key_value::{KEY_BYTES_MAX, READ_BYTES_MAX, VALUE_BYTES_MAX, WRITE_BYTES_MAX};

/// Why a store folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the folder open.
    #[error("the store {} is in use by {}", folder.display(), holder(*pid))]
    Locked {
        /// The store's folder.
        folder: PathBuf,
        /// The process that has it, when it has already written its id.
        pid: Option<u32>,
    },
    /// The folder was written by another version of the format.
    #[error(
        "the store {} has format `{found}`, this version reads format {}",
        folder.display(),
        crate::store::FORMAT
    )]
    Format {
        /// The store's folder.
        folder: PathBuf,
        /// What its format file says.
        found: String,
    },
    /// The data file does not pass the engine's checks.
    #[error("the store {} is damaged: {detail}", folder.display())]
    Damaged {
        /// The store's folder.
        folder: PathBuf,
        /// What the engine found.
        detail: String,
    },
    /// The operating system refused to read or write a file.
    #[error("cannot open {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}

impl OpenError {
    /// The error's place in the one table of codes.
    pub fn code(&self) -> Code {
        match self {
            Self::Locked { .. } => Code::StoreLocked,
            Self::Format { .. } => Code::StoreFormat,
            Self::Damaged { .. } => Code::StoreDamaged,
            Self::Io { .. } => Code::Io,
        }
    }
}

/// Why a read or a write failed. A failed write changed nothing; after [`StoreError::Engine`] and
/// [`StoreError::Damaged`] that is known for certain only once the store was opened again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The key is too long.
    #[error("the key has {bytes} bytes, at most {KEY_BYTES_MAX} are allowed")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The value is too long.
    #[error("the value has {bytes} bytes, at most {VALUE_BYTES_MAX} are allowed")]
    ValueTooLong {
        /// Its length.
        bytes: usize,
    },
    /// Keys and values of one atomic write are too long together.
    #[error("the write has {bytes} bytes, at most {WRITE_BYTES_MAX} are allowed")]
    WriteTooLong {
        /// Their length together.
        bytes: usize,
    },
    /// The values of one read are too long together.
    #[error("the values have more than {READ_BYTES_MAX} bytes together; read fewer keys at once")]
    ReadTooLong,
    /// The value to increment is not a decimal number of 64 bits, or would leave that range.
    #[error("the value is not a decimal number, or leaves the range of 64 bits")]
    NotANumber,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The disk is full.
    #[error("the disk of the store is full")]
    Full,
    /// A record or a page does not pass its checks; nothing of it was returned.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The storage engine failed.
    #[error("the storage engine failed")]
    Engine(#[source] Arc<dyn Error + Send + Sync>),
}

impl StoreError {
    /// The error's place in the one table of codes.
    pub fn code(&self) -> Code {
        match self {
            Self::KeyTooLong { .. }
            | Self::ValueTooLong { .. }
            | Self::WriteTooLong { .. }
            | Self::ReadTooLong
            | Self::NotANumber => Code::BadRequest,
            Self::Closed => Code::Draining,
            Self::Full => Code::StoreFull,
            Self::Damaged(_) => Code::StoreDamaged,
            Self::Engine(_) => Code::HostError,
        }
    }
}
