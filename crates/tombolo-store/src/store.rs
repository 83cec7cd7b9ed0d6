//! A store folder: its lock, its format version, the engine and the writer thread.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::{Arc, RwLock};

use tombolo_core::Name;

use crate::commit::Writer;
use crate::engine::Engine;
use crate::lock::Lock;
use crate::{KeyValue, OpenError, StoreError};

/// The version of the folder's format that this version reads and writes.
pub(crate) const FORMAT: &str = "tombolo-store 1";

/// The durable state of one node. Clones share the folder, which one process at a time can open.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

/// What handles share. Dropping the last one ends the writer thread and releases the folder.
pub(crate) struct Shared {
    // Dropped before `writer`, which waits for the thread and so for its handle of the engine.
    open: RwLock<Option<Arc<Open>>>,
    writer: Writer,
}

/// An open folder. The engine is closed before the lock is released.
pub(crate) struct Open {
    pub(crate) engine: Engine,
    _lock: Lock,
}

impl Store {
    /// Opens a store folder, and makes it when it does not exist. Blocks: recovery after a crash
    /// reads what the engine has to check.
    ///
    /// # Errors
    /// When another process has it, its format is unknown, it is damaged, or the disk refuses.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io {
            path: folder.into(),
            source,
        };
        // What functions keep is nobody else's to read.
        let private = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder);
        private.map_err(io)?;
        let lock = Lock::take(folder)?;
        let new = !has_format(folder)?;
        let engine = Engine::open(folder, new)?;
        if new {
            // Last, so that a folder with a format always has its data.
            write_format(folder).map_err(io)?;
        }
        let open = Arc::new(Open {
            engine,
            _lock: lock,
        });
        let writer = Writer::start(Arc::clone(&open)).map_err(io)?;
        let shared = Shared {
            open: RwLock::new(Some(open)),
            writer,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// A key-value store of an app. It is made by its first write.
    pub fn key_value(&self, app: &Name, store: &Name) -> KeyValue {
        KeyValue::new(Arc::clone(&self.shared), app, store)
    }

    /// Waits for the writes that were queued, closes the engine and releases the folder. What
    /// other handles ask afterwards is answered [`StoreError::Closed`].
    pub async fn close(self) {
        self.shared.writer.close().await;
        // The engine closes here, or when the last read that is under way ends.
        let open = self
            .shared
            .open
            .write()
            .map_or(None, |mut open| open.take());
        drop(open);
    }
}

impl Shared {
    pub(crate) fn open(&self) -> Result<Arc<Open>, StoreError> {
        self.open
            .read()
            .ok()
            .and_then(|open| open.clone())
            .ok_or(StoreError::Closed)
    }

    pub(crate) fn writer(&self) -> &Writer {
        &self.writer
    }
}

/// Whether the folder has a format file, which has to name the format of this version.
fn has_format(folder: &Path) -> Result<bool, OpenError> {
    let path = folder.join("format");
    match fs::read(&path) {
        Ok(found) if found.trim_ascii_end() == FORMAT.as_bytes() => Ok(true),
        Ok(found) => Err(OpenError::Format {
            folder: folder.into(),
            found: String::from_utf8_lossy(&found)
                .trim_end()
                .chars()
                .take(64)
                .collect(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(OpenError::Io { path, source }),
    }
}

/// Written beside and renamed, so that a power cut leaves the whole file or none.
fn write_format(folder: &Path) -> io::Result<()> {
    let beside = folder.join("format.new");
    let mut file = fs::File::create(&beside)?;
    file.write_all(format!("{FORMAT}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(beside, folder.join("format"))?;
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}
