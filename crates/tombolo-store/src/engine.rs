//! The one module that sees the storage engine (redb): snapshots, transactions, checkpoints, checksums of values, and the engine's errors and panics as ours.

mod answers;

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use redb::{
    Database, DatabaseError, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable,
    StorageBackend, StorageError, Table, TableDefinition, WriteTransaction,
};

pub(crate) use self::answers::{AnswerBounds, Held};
use self::answers::{Answers, KeptAnswers};
use crate::disk::{Disk, File};
use crate::{OpenError, StoreError};

type Pairs = TableDefinition<'static, &'static [u8], &'static [u8]>;

const KEY_VALUE: Pairs = TableDefinition::new("key_value");
/// Bytes of keys and values that each app has.
const USED: TableDefinition<'static, &'static [u8], u64> = TableDefinition::new("used");
/// What the last checkpoint knew, under the one key [`CHECKPOINT_KEY`].
const CHECKPOINT: Pairs = TableDefinition::new("checkpoint");
const CHECKPOINT_KEY: &[u8] = b"checkpoint";
const DATA_FILE: &str = "data.redb";
/// Memory for pages, those included that are not on the disk yet.
pub(crate) const CACHE_BYTES: usize = 32 << 20;
/// A data file up to this size is read in full and checked whenever it is opened (about a second
/// for each GiB). After a crash a larger one is too, by the engine itself.
const CHECK_BYTES_MAX: u64 = 256 << 20;
/// What a change of one key adds to the pages that are not on disk yet, roughly: a leaf and a part
/// of what is above it.
const DIRTY_BYTES: u64 = 8 << 10;
/// Length of the checksum behind each value.
const CHECKSUM_BYTES: usize = 4;

/// An open data file.
pub(crate) struct Engine {
    database: Database,
    kept_answers: KeptAnswers,
    /// Bytes of keys and values that each app may have.
    app_bytes_max: AtomicU64,
}

/// The state of one commit.
pub(crate) struct Snapshot {
    table: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

type PairsTable<'transaction> = Table<'transaction, &'static [u8], &'static [u8]>;

/// The one transaction that is under way; it reads what it wrote.
pub(crate) struct Transaction<'transaction> {
    transaction: &'transaction WriteTransaction,
    table: PairsTable<'transaction>,
    used_before: Table<'transaction, &'static [u8], u64>,
    /// Bytes of the apps whose keys the transaction has changed.
    used: HashMap<Vec<u8>, u64>,
    app_bytes_max: u64,
    answers: Option<Answers<'transaction>>,
    kept_answers: &'transaction KeptAnswers,
    /// Bytes that the transaction may make the file grow by, roughly.
    dirty_bytes: u64,
}

/// A file of ours as the engine sees it.
#[derive(Debug)]
struct Backend(Arc<dyn File>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.0.read_at(out, offset)? < out.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(data, offset)
    }
}

impl Engine {
    /// Opens the data file, or makes it when it is `new`. Recovery rolls back to the last
    /// checkpoint.
    pub(crate) fn open(
        disk: &dyn Disk,
        folder: &Path,
        new: bool,
        answers: AnswerBounds,
    ) -> Result<Self, OpenError> {
        let path = folder.join(DATA_FILE);
        let io = |source| OpenError::Io {
            path: path.clone(),
            source,
        };
        let damaged = |detail: String| OpenError::Damaged {
            folder: folder.into(),
            detail,
        };
        let file = match disk.open(&path) {
            // Of a folder that was never finished, whatever there is.
            Ok(_) if new => disk.create(&path).map_err(io)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && new => {
                disk.create(&path).map_err(io)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged(format!("its file {DATA_FILE} is missing")));
            }
            opened => opened.map_err(io)?,
        };
        let file_bytes = file.len().map_err(io)?;
        if file_bytes == 0 && !new {
            return Err(damaged(format!("its file {DATA_FILE} is empty")));
        }
        let opened = catch_unwind(AssertUnwindSafe(|| {
            Database::builder()
                .set_cache_size(CACHE_BYTES)
                .set_check_integrity_on_open((1..=CHECK_BYTES_MAX).contains(&file_bytes))
                .create_with_backend(Backend(file))
        }));
        let database = match opened {
            Ok(Ok(database)) => database,
            Ok(Err(DatabaseError::Storage(StorageError::Io(error)))) if !is_content(&error) => {
                return Err(io(error));
            }
            Ok(Err(error)) => return Err(damaged(error.to_string())),
            Err(_) => return Err(damaged("the engine cannot make sense of it".into())),
        };
        let engine = Self {
            database,
            kept_answers: KeptAnswers::new(answers),
            app_bytes_max: AtomicU64::new(u64::MAX),
        };
        if new {
            // A transaction makes the tables, so that every snapshot finds them.
            engine
                .checkpoint(&[])
                .map_err(|error| io(io::Error::other(error)))?;
            disk.sync_folder(folder).map_err(io)?;
        }
        guarded(|| engine.kept_answers.count(&engine.database))
            .map_err(|error| damaged(error.to_string()))?;
        Ok(engine)
    }

    pub(crate) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        guarded(|| {
            let transaction = self.database.begin_read().map_err(failed)?;
            let table = transaction.open_table(KEY_VALUE).map_err(failed)?;
            Ok(Snapshot { table })
        })
    }

    /// Runs `changes` in a transaction and commits it if they succeed. Readers then see it, but
    /// only the next checkpoint makes it durable: until then it is the log's to keep. Also says by
    /// how many bytes the file may have grown, roughly.
    pub(crate) fn transact<T>(
        &self,
        changes: impl FnOnce(&mut Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<(T, u64), StoreError> {
        guarded(|| {
            let mut transaction = self.database.begin_write().map_err(failed)?;
            let none = transaction.set_durability(Durability::None);
            none.map_err(|error| StoreError::Engine(Arc::new(error)))?;
            let mut open = Transaction {
                transaction: &transaction,
                table: transaction.open_table(KEY_VALUE).map_err(failed)?,
                used_before: transaction.open_table(USED).map_err(failed)?,
                used: HashMap::new(),
                app_bytes_max: self.app_bytes_max.load(Ordering::Relaxed),
                answers: None,
                kept_answers: &self.kept_answers,
                dirty_bytes: 0,
            };
            let done = changes(&mut open)?;
            open.keep_used()?;
            let dirty_bytes = open.dirty_bytes;
            let answers = open.answers.take().map(Answers::changed);
            drop(open);
            transaction.commit().map_err(failed)?;
            self.kept_answers.change(answers.unwrap_or_default());
            Ok((done, dirty_bytes))
        })
    }

    /// Bounds the bytes of keys and values of each app, from the next write on.
    pub(crate) fn bound_apps(&self, bytes_max: u64) {
        self.app_bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Bytes of keys and values of each app, as the last commit left them.
    pub(crate) fn used(&self) -> Result<Vec<(Vec<u8>, u64)>, StoreError> {
        guarded(|| {
            let transaction = self.database.begin_read().map_err(failed)?;
            let table = transaction.open_table(USED).map_err(failed)?;
            let entries = table.iter().map_err(failed)?.map(|entry| {
                let (app, bytes) = entry.map_err(failed)?;
                Ok((app.value().to_vec(), bytes.value()))
            });
            entries.collect()
        })
    }

    /// Makes all that was committed durable, together with what the store wants to know of this
    /// moment.
    pub(crate) fn checkpoint(&self, known: &[u8]) -> Result<(), StoreError> {
        guarded(|| {
            let transaction = self.database.begin_write().map_err(failed)?;
            drop(transaction.open_table(KEY_VALUE).map_err(failed)?);
            drop(Answers::open(&transaction)?);
            drop(transaction.open_table(USED).map_err(failed)?);
            let mut table = transaction.open_table(CHECKPOINT).map_err(failed)?;
            let sealed = [known, &checksum(CHECKPOINT_KEY, known)].concat();
            table
                .insert(CHECKPOINT_KEY, sealed.as_slice())
                .map_err(failed)?;
            drop(table);
            transaction.commit().map_err(failed)
        })
    }

    /// A stored answer that is not too old.
    pub(crate) fn answer(&self, key: &[u8], lived_ms: u64) -> Result<Option<Bytes>, StoreError> {
        guarded(|| answers::find(&self.database, key, lived_ms))
    }

    /// The answers that each function has, by the beginning of their keys.
    pub(crate) fn answers(&self) -> Vec<(Vec<u8>, Held)> {
        self.kept_answers.held()
    }

    /// What the last checkpoint knew.
    pub(crate) fn known(&self) -> Result<Bytes, StoreError> {
        guarded(|| {
            let transaction = self.database.begin_read().map_err(failed)?;
            let table = transaction.open_table(CHECKPOINT).map_err(failed)?;
            get(&table, CHECKPOINT_KEY)?
                .ok_or_else(|| StoreError::Damaged("there is no checkpoint".into()))
        })
    }
}

impl Snapshot {
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        guarded(|| get(&self.table, key))
    }

    pub(crate) fn contains(&self, key: &[u8]) -> Result<bool, StoreError> {
        guarded(|| Ok(self.table.get(key).map_err(failed)?.is_some()))
    }

    /// Keys that begin with `prefix`, without it, behind the whole key `after`.
    pub(crate) fn keys(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        // Behind a key comes the same key with a NUL more.
        let start = after.map_or_else(|| prefix.to_vec(), |after| [after, b"\0"].concat());
        guarded(|| {
            let mut keys = Vec::new();
            let entries = self.table.range(start.as_slice()..).map_err(failed)?;
            for entry in entries.take(limit) {
                let (key, _) = entry.map_err(failed)?;
                let Some(rest) = key.value().strip_prefix(prefix) else {
                    break;
                };
                let text = std::str::from_utf8(rest)
                    .map_err(|_| StoreError::Damaged("a key is not UTF-8".into()))?;
                keys.push(text.to_owned());
            }
            Ok(keys)
        })
    }
}

impl Transaction<'_> {
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        get(&self.table, key)
    }

    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.dirty_bytes += DIRTY_BYTES + value.len() as u64;
        let before = self.entry_bytes(key)?;
        put(&mut self.table, key, &[value])?;
        let used = self.used(key)?;
        *used = used.saturating_sub(before) + entry_bytes(key, value);
        Ok(())
    }

    pub(crate) fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.dirty_bytes += DIRTY_BYTES;
        let before = self.entry_bytes(key)?;
        self.table.remove(key).map(drop).map_err(failed)?;
        let used = self.used(key)?;
        *used = used.saturating_sub(before);
        Ok(())
    }

    /// Whether every app may have what these writes leave. An app that has too much already may
    /// write what makes it smaller.
    pub(crate) fn check_room(
        &mut self,
        writes: &[(Vec<u8>, Option<Bytes>)],
    ) -> Result<(), StoreError> {
        let mut entries: HashMap<&[u8], (u64, u64)> = HashMap::new();
        for (key, value) in writes {
            let after = value.as_ref().map_or(0, |value| entry_bytes(key, value));
            match entries.get_mut(key.as_slice()) {
                Some((_, last)) => *last = after,
                None => {
                    entries.insert(key, (self.entry_bytes(key)?, after));
                }
            }
        }
        let mut apps: HashMap<&[u8], (u64, u64)> = HashMap::new();
        for (key, (before, after)) in entries {
            let app = apps.entry(app_of(key)).or_default();
            *app = (app.0 + before, app.1 + after);
        }
        for (app, (before, after)) in apps {
            let used = self.used(app)?.saturating_sub(before) + after;
            if after > before && used > self.app_bytes_max {
                return Err(StoreError::KeysFull {
                    app: String::from_utf8_lossy(app).into_owned(),
                    bytes_max: self.app_bytes_max,
                });
            }
        }
        Ok(())
    }

    /// Bytes that a key and its value take; none without a value.
    fn entry_bytes(&self, key: &[u8]) -> Result<u64, StoreError> {
        let stored = self.table.get(key).map_err(failed)?;
        let value = stored.map(|stored| stored.value().len().saturating_sub(CHECKSUM_BYTES));
        Ok(value.map_or(0, |value| (key.len() + value) as u64))
    }

    /// Bytes of the app of a key, as the transaction leaves them.
    fn used(&mut self, key: &[u8]) -> Result<&mut u64, StoreError> {
        let app = app_of(key);
        if !self.used.contains_key(app) {
            let before = self.used_before.get(app).map_err(failed)?;
            let before = before.map_or(0, |before| before.value());
            self.used.insert(app.to_vec(), before);
        }
        Ok(self.used.entry(app.to_vec()).or_default())
    }

    /// Keeps the bytes of the apps that have changed.
    fn keep_used(&mut self) -> Result<(), StoreError> {
        for (app, bytes) in self.used.drain() {
            let kept = self.used_before.insert(app.as_slice(), bytes);
            kept.map_err(failed)?;
        }
        Ok(())
    }

    /// Stores an answer, and drops those that are too old, or too many of its function.
    pub(crate) fn answer(
        &mut self,
        key: &[u8],
        answer: &[u8],
        lived_ms: u64,
    ) -> Result<(), StoreError> {
        self.dirty_bytes += 3 * DIRTY_BYTES + answer.len() as u64;
        let answers = match &mut self.answers {
            Some(answers) => answers,
            none => none.insert(Answers::open(self.transaction)?),
        };
        answers.store(self.kept_answers, key, answer, lived_ms)
    }
}

/// The app whose key this is: what stands before the first NUL.
fn app_of(key: &[u8]) -> &[u8] {
    key.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn entry_bytes(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}

fn put(table: &mut PairsTable<'_>, key: &[u8], value: &[&[u8]]) -> Result<(), StoreError> {
    let value = value.concat();
    let bytes = value.len() + CHECKSUM_BYTES;
    let mut place = table.insert_reserve(key, bytes).map_err(failed)?;
    let checksum = checksum(key, &value);
    let (stored, behind) = place.as_mut().split_at_mut(value.len());
    stored.copy_from_slice(&value);
    behind.copy_from_slice(&checksum);
    Ok(())
}

fn get(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<Bytes>, StoreError> {
    let Some(stored) = table.get(key).map_err(failed)? else {
        return Ok(None);
    };
    match stored.value().split_last_chunk::<CHECKSUM_BYTES>() {
        Some((value, found)) if *found == checksum(key, value) => {
            Ok(Some(Bytes::copy_from_slice(value)))
        }
        _ => Err(StoreError::Damaged(
            "a value does not fit its checksum".into(),
        )),
    }
}

/// CRC-32 of key and value: the engine verifies its own checksums only when it opens the file.
fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_le_bytes()
}

/// A page that was changed behind the engine's back can make it panic; to us that is data.
fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(StoreError::Damaged(
            "the engine cannot make sense of a page".into(),
        ))
    })
}

fn failed(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Corrupted(detail) => StoreError::Damaged(detail),
        redb::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull => StoreError::Full,
        redb::Error::Io(error) if is_content(&error) => StoreError::Damaged(error.to_string()),
        error => StoreError::Engine(Arc::new(error)),
    }
}

/// Whether an I/O error is about what the file contains, and not about reading it.
fn is_content(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, UnexpectedEof};
    matches!(error.kind(), InvalidData | UnexpectedEof)
}
