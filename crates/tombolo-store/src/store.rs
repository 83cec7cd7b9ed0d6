//! A store folder: its lock, its format version, the engine, the log and the writer thread.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tombolo_core::Name;

use crate::clock::{Clock, Life, SystemClock};
use crate::commit::{Known, Writer, Writing};
use crate::disk::{self, Disk, OperatingSystem};
use crate::engine::{AnswerBounds, Engine};
use crate::ids::Ids;
use crate::lock::Lock;
use crate::log::{Damage, Log, Segments};
use crate::queues::Queues;
use crate::replay::Replay;
use crate::{Journal, KeyValue, OpenError, StoreError, stored};

/// The version of the folder's format that this version reads and writes.
pub(crate) const FORMAT: &str = "tombolo-store 2";
const FORMAT_FILE: &str = "format";

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
    damages: Vec<Damage>,
}

/// An open folder. The engine is closed before the lock is released.
pub(crate) struct Open {
    pub(crate) engine: Engine,
    pub(crate) segments: Segments,
    pub(crate) life: Life,
    /// The key of fingerprints.
    pub(crate) key: [u8; 32],
    queues: Mutex<Queues>,
    _lock: Option<Lock>,
}

impl Open {
    pub(crate) fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the log is divided, condensed and shortened.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest segment.
    pub segment_bytes: u64,
    /// Bytes of log between checkpoints.
    pub checkpoint_bytes: u64,
    /// The log may be twice as long as what lives in it, and so much more.
    pub slack_bytes: u64,
    /// Bytes of the oldest segment that are looked through at once for what lives.
    pub step_bytes: u64,
    /// On a full disk a checkpoint is made early if it may free so many bytes.
    pub scrap_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            checkpoint_bytes: 16 << 20,
            slack_bytes: 128 << 20,
            step_bytes: 1 << 20,
            scrap_bytes: 1 << 20,
        }
    }
}

impl Store {
    /// Opens a store folder, and makes it when it does not exist. Blocks: recovery reads the whole
    /// log, and after a crash what the engine has to check.
    ///
    /// # Errors
    /// When another process has it, its format is unknown, it is damaged so that nothing of it can
    /// be served, or the disk refuses.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io {
            path: folder.into(),
            source,
        };
        OperatingSystem.create_folder(folder).map_err(io)?;
        let lock = Lock::take(folder)?;
        let disk = Arc::new(OperatingSystem);
        let clock = Box::new(SystemClock::start());
        Self::start(disk, folder, clock, Limits::default(), Some(lock))
    }

    /// Opens a store on a disk and with clocks of the caller's, without a lock: for tests.
    ///
    /// # Errors
    /// As [`Store::open`].
    #[doc(hidden)]
    pub fn open_on(
        disk: Arc<dyn Disk>,
        folder: &Path,
        clock: Box<dyn Clock>,
        limits: Limits,
    ) -> Result<Self, OpenError> {
        Self::start(disk, folder, clock, limits, None)
    }

    fn start(
        disk: Arc<dyn Disk>,
        folder: &Path,
        clock: Box<dyn Clock>,
        limits: Limits,
        lock: Option<Lock>,
    ) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io {
            path: folder.into(),
            source,
        };
        let failed = |error| open_error(folder, error);
        disk.create_folder(folder).map_err(io)?;
        let new = !has_format(&*disk, folder)?;
        if new {
            sync_above(&*disk, folder).map_err(io)?;
        }
        let log_folder = folder.join("log");
        if new && Log::is_used(&*disk, &log_folder).map_err(io)? {
            let detail = format!("its file {FORMAT_FILE} is missing");
            return Err(failed(StoreError::Damaged(detail)));
        }
        let engine = Engine::open(&*disk, folder, new, AnswerBounds::default())?;
        let known = known(&engine).map_err(failed)?;
        let ids = Ids::open(Arc::clone(&disk), &folder.join("ids")).map_err(io)?;
        let mut replay = Replay::new(&known, ids).map_err(failed)?;
        let ((log, damages), dirty_bytes) = engine
            .transact(|keys| {
                let disk = Arc::clone(&disk);
                Log::open(
                    disk,
                    &log_folder,
                    known.position,
                    limits.segment_bytes,
                    |record| replay.record(record, keys),
                )
            })
            .map_err(failed)?;
        for damage in &damages {
            tracing::error!(?damage, "the log was not whole");
        }
        let damaged = damages.iter().any(|one| matches!(one, Damage::Lost { .. }));
        let (mut queues, ids, before_ms) = replay.finish(damaged);
        queues.count_live(log.segments());
        let open = Arc::new(Open {
            engine,
            segments: log.segments(),
            life: Life { clock, before_ms },
            key: known.key,
            queues: Mutex::new(queues),
            _lock: lock,
        });
        if new {
            // Last, so that a folder with a format always has its data.
            let format = format!("{FORMAT}\n");
            disk::replace(&*disk, &folder.join(FORMAT_FILE), format.as_bytes()).map_err(io)?;
        }
        let writing = Writing::new(
            Arc::clone(&open),
            log,
            ids,
            known.position,
            limits,
            dirty_bytes,
        );
        let shared = Shared {
            open: RwLock::new(Some(open)),
            writer: Writer::start(writing).map_err(io)?,
            damages,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// A key-value store of an app. It is made by its first write.
    pub fn key_value(&self, app: &Name, store: &Name) -> KeyValue {
        KeyValue::new(Arc::clone(&self.shared), app, store)
    }

    /// Bounds the bytes of keys and values that each app may have, from the next write on. Beyond
    /// it, writes that make an app larger are refused ([`StoreError::KeysFull`]). A store that is
    /// closed refuses every write already.
    pub fn bound_keys(&self, app_bytes_max: u64) {
        if let Ok(open) = self.shared.open() {
            open.engine.bound_apps(app_bytes_max);
        }
    }

    /// Bytes of the keys and values that the stores of each app have together.
    ///
    /// # Errors
    /// The store is closed, or its data cannot be read.
    pub fn key_bytes(&self) -> Result<Vec<(Name, u64)>, StoreError> {
        let used = self.shared.open()?.engine.used()?.into_iter();
        let named = used.filter_map(|(app, bytes)| {
            let app = std::str::from_utf8(&app).ok()?.parse().ok()?;
            Some((app, bytes))
        });
        Ok(named.collect())
    }

    /// The queues of all apps.
    pub fn journal(&self) -> Journal {
        Journal::new(Arc::clone(&self.shared))
    }

    /// What was found wrong with the log when the store was opened.
    pub fn damages(&self) -> &[Damage] {
        &self.shared.damages
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

/// Makes a folder's name durable, and the names of those above it. Those that this process may not
/// read were there before.
fn sync_above(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    for above in folder.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() {
            Path::new(".")
        } else {
            above
        };
        match disk.sync_folder(above) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            synced => synced?,
        }
    }
    Ok(())
}

/// What the last checkpoint knew; of a new store, nothing but a key.
fn known(engine: &Engine) -> Result<Known, StoreError> {
    let bytes = engine.known()?;
    if !bytes.is_empty() {
        return postcard::from_bytes(&bytes)
            .map_err(|_| StoreError::Damaged("the checkpoint cannot be understood".into()));
    }
    let known = Known {
        key: random_key(),
        ..Known::default()
    };
    // Durable before the first fingerprint is made with it.
    engine.checkpoint(&stored::encode(&known))?;
    Ok(known)
}

/// Random bytes from the hash map's keys, which the operating system's randomness seeds.
fn random_key() -> [u8; 32] {
    use std::hash::{BuildHasher as _, RandomState};
    let mut key = [0; 32];
    for place in key.chunks_mut(8) {
        let word = RandomState::new().hash_one(place.len()).to_le_bytes();
        place.copy_from_slice(&word);
    }
    key
}

fn open_error(folder: &Path, error: StoreError) -> OpenError {
    match error {
        StoreError::Engine(source) => OpenError::Io {
            path: folder.into(),
            source: io::Error::other(source),
        },
        error => OpenError::Damaged {
            folder: folder.into(),
            detail: error.to_string(),
        },
    }
}

/// Whether the folder has a format file, which has to name the format of this version.
fn has_format(disk: &dyn Disk, folder: &Path) -> Result<bool, OpenError> {
    let path = folder.join(FORMAT_FILE);
    match disk::read(disk, &path) {
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
