//! Why a store cannot be opened, and why a read or a write failed.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use tombolo_core::{Code, QueueId};

use crate::effects::{EFFECTS_BYTES_MAX, EFFECTS_MAX};
use crate::key_value::{KEY_BYTES_MAX, READ_BYTES_MAX, VALUE_BYTES_MAX, WRITE_BYTES_MAX};
use crate::log::LogError;
use crate::queue::Refusal;
use crate::transaction::{ANSWER_BYTES_MAX, EVENT_BYTES_MAX};

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
    /// A file does not pass its checks, and nothing can be served without it.
    #[error("the store {} is damaged: {detail}", folder.display())]
    Damaged {
        /// The store's folder.
        folder: PathBuf,
        /// What was found.
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
    /// The key-value stores of the app have as much as they may.
    #[error("the key-value stores of `{app}` are full: they may have {bytes_max} bytes together")]
    KeysFull {
        /// The app.
        app: String,
        /// The bound.
        bytes_max: u64,
    },
    /// A record or a page does not pass its checks; nothing of it was returned.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// There is no such queue, or no app that uses it.
    #[error("there is no queue `{0}`")]
    UnknownQueue(QueueId),
    /// The queue has no room now.
    #[error("the queue `{queue}` is full")]
    QueueFull {
        /// The queue.
        queue: QueueId,
    },
    /// The queue will never have room for this.
    #[error("the queue `{queue}` cannot take this")]
    Unfit {
        /// The queue.
        queue: QueueId,
        /// Why.
        source: Refusal,
    },
    /// An event is too long.
    #[error("the event has {bytes} bytes, at most {EVENT_BYTES_MAX} are allowed")]
    EventTooLong {
        /// Its length as it is stored.
        bytes: usize,
    },
    /// Events of one transaction are too long together.
    #[error("the events have {bytes} bytes together, which is too long for one transaction")]
    EventsTooLong {
        /// Their length together.
        bytes: usize,
    },
    /// The lease had ended: somebody else has the event or had it.
    #[error("the lease of the event has ended")]
    Stale,
    /// A value is not the one that the transaction has read.
    #[error("the value of `{key}` has been changed by somebody else")]
    Conflict {
        /// The key.
        key: String,
    },
    /// The invocation reads, writes and publishes too much to be committed at once.
    #[error(
        "an invocation commits at most {EFFECTS_MAX} keys and events, with at most {EFFECTS_BYTES_MAX} bytes"
    )]
    TransactionTooLong,
    /// The invocation was over: its events are settled, and what it changes now belongs to nothing.
    #[error("the invocation is over, and what it did is committed; it can do nothing more")]
    Ended,
    /// The answer is too long to be stored.
    #[error("the answer has {bytes} bytes, at most {ANSWER_BYTES_MAX} are stored")]
    AnswerTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The storage engine failed, or a file could not be read or written.
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
            | Self::AnswerTooLong { .. }
            | Self::NotANumber
            | Self::Unfit {
                source: Refusal::Grave | Refusal::TooLate { .. },
                ..
            } => Code::BadRequest,
            Self::EventTooLong { .. } | Self::EventsTooLong { .. } | Self::Unfit { .. } => {
                Code::EventTooLong
            }
            Self::TransactionTooLong => Code::TransactionTooLong,
            Self::UnknownQueue(_) => Code::QueueMissing,
            Self::QueueFull { .. } => Code::QueueFull,
            Self::Stale | Self::Conflict { .. } | Self::Ended => Code::Conflict,
            Self::Closed => Code::Draining,
            Self::Full => Code::StoreFull,
            Self::KeysFull { .. } => Code::KeysFull,
            Self::Damaged(_) => Code::StoreDamaged,
            Self::Engine(_) => Code::HostError,
        }
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull => Self::Full,
            _ => Self::Engine(Arc::new(error)),
        }
    }
}

impl From<LogError> for StoreError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Full => Self::Full,
            LogError::TooLong(bytes) => Self::EventsTooLong { bytes },
            LogError::Failed(error) => Self::Engine(error),
        }
    }
}
