//! The one module that sees the storage engine (redb): snapshots, transactions, checksums of values, and the engine's errors and panics as ours.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use redb::{
    Database, DatabaseError, ReadOnlyTable, ReadableDatabase, ReadableTable, StorageError, Table,
    TableDefinition,
};

use crate::{OpenError, StoreError};

type Pairs = TableDefinition<'static, &'static [u8], &'static [u8]>;

const KEY_VALUE: Pairs = TableDefinition::new("key_value");
const DATA_FILE: &str = "data.redb";
/// Memory for pages.
const CACHE_BYTES: usize = 32 << 20;
/// A data file up to this size is read in full and checked whenever it is opened (about a second
/// for each GiB). After a crash a larger one is too, by the engine itself.
const CHECK_BYTES_MAX: u64 = 256 << 20;
/// Free space that writes leave alone: a disk that is full to the last byte would fail the engine
/// in the midst of a commit, after which it refuses reads too.
const RESERVE_BYTES: u64 = 16 << 20;
/// Length of the checksum behind each value.
const CHECKSUM_BYTES: usize = 4;

/// An open data file.
pub(crate) struct Engine {
    database: Database,
    folder: fs::File,
}

/// The state of one commit.
pub(crate) struct Snapshot {
    table: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

/// The one transaction that is under way; it reads what it wrote.
pub(crate) struct Transaction<'transaction> {
    table: Table<'transaction, &'static [u8], &'static [u8]>,
}

impl Engine {
    /// Opens the data file; makes it when it is `new`. Recovery rolls back to the last commit that
    /// is whole.
    pub(crate) fn open(folder: &Path, new: bool) -> Result<Self, OpenError> {
        let path = folder.join(DATA_FILE);
        let io = |source| OpenError::Io {
            path: path.clone(),
            source,
        };
        let damaged = |detail: String| OpenError::Damaged {
            folder: folder.into(),
            detail,
        };
        let file_bytes = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(io(error)),
        };
        if file_bytes == 0 && !new {
            return Err(damaged(format!("its file {DATA_FILE} is missing or empty")));
        }
        let opened = catch_unwind(AssertUnwindSafe(|| {
            Database::builder()
                .set_cache_size(CACHE_BYTES)
                .set_check_integrity_on_open((1..=CHECK_BYTES_MAX).contains(&file_bytes))
                .create(&path)
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
            folder: fs::File::open(folder).map_err(io)?,
        };
        if new {
            // A transaction makes the table, so that every snapshot finds it.
            engine
                .transact(0, |_| Ok(()))
                .map_err(|error| io(io::Error::other(error)))?;
        }
        Ok(engine)
    }

    pub(crate) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        guarded(|| {
            let transaction = self.database.begin_read().map_err(failed)?;
            let table = transaction.open_table(KEY_VALUE).map_err(failed)?;
            Ok(Snapshot { table })
        })
    }

    /// Runs `changes`, which write about `bytes`, in a transaction and commits it durably if they
    /// succeed. With one fsync: the engine tells a commit that was torn by its checksums.
    pub(crate) fn transact(
        &self,
        bytes: usize,
        changes: impl FnOnce(&mut Transaction<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.check_room(bytes)?;
        guarded(|| {
            let transaction = self.database.begin_write().map_err(failed)?;
            let mut open = Transaction {
                table: transaction.open_table(KEY_VALUE).map_err(failed)?,
            };
            changes(&mut open)?;
            drop(open);
            transaction.commit().map_err(failed)
        })
    }

    fn check_room(&self, bytes: usize) -> Result<(), StoreError> {
        let disk = rustix::fs::fstatvfs(&self.folder)
            .map_err(|error| StoreError::Engine(Arc::new(io::Error::from(error))))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < RESERVE_BYTES.saturating_add(bytes as u64) {
            return Err(StoreError::Full);
        }
        Ok(())
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
        let bytes = value.len() + CHECKSUM_BYTES;
        let mut place = self.table.insert_reserve(key, bytes).map_err(failed)?;
        let checksum = checksum(key, value);
        let (stored, behind) = place.as_mut().split_at_mut(value.len());
        stored.copy_from_slice(value);
        behind.copy_from_slice(&checksum);
        Ok(())
    }

    pub(crate) fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.table.remove(key).map(drop).map_err(failed)
    }
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
