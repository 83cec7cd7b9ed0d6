//! The engines under one interface: one transaction = journal records and key-value puts, one fsync.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};
use redb::{ReadableDatabase as _, TableDefinition};
use rusqlite::{Connection, OptionalExtension as _};

/// Page cache of each engine, as the store would set it.
const CACHE_BYTES: usize = 32 << 20;

/// What the commit rounds compare: the candidates; `redb-quick`, which is redb with quick repair;
/// `log`, one file without an index, which is the ceiling; and `log+redb`, where a log is synced
/// for each commit and redb once in a while.
pub const CONTENDERS: [&str; 6] = ["log", "fjall", "redb", "redb-quick", "log+redb", "sqlite"];
/// The candidates as they would be used alone.
pub const ENGINES: [&str; 4] = ["fjall", "redb", "redb-quick", "sqlite"];

/// A journal append and a key-value put that belong together.
#[derive(Clone)]
pub struct Record {
    pub sequence: u64,
    pub event: Vec<u8>,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

impl Record {
    pub fn bytes(&self) -> usize {
        8 + self.event.len() + self.key.len() + self.value.len()
    }
}

pub trait Engine: Send + Sync {
    /// One durable transaction.
    fn commit(&self, records: &[Record]) -> Result<()>;
    /// Moves what was committed to where the engine keeps it for good (SST, main file).
    fn settle(&self) -> Result<()>;
    fn reader(&self) -> Result<Box<dyn Reader + '_>>;
}

pub trait Reader {
    fn value(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>>;
    fn event(&mut self, sequence: u64) -> Result<Option<Vec<u8>>>;
}

pub fn open(name: &str, folder: &Path) -> Result<Box<dyn Engine>> {
    fs::create_dir_all(folder)?;
    Ok(match name {
        "log" => Box::new(Log::open(folder)?),
        "fjall" => Box::new(Fjall::open(folder)?),
        "redb" => Box::new(Redb::open(folder, false)?),
        "redb-quick" => Box::new(Redb::open(folder, true)?),
        "log+redb" => Box::new(LogRedb {
            log: Log::open(folder)?,
            redb: Redb::open(folder, false)?,
        }),
        "sqlite" => Box::new(Sqlite::open(folder)?),
        other => bail!("no engine {other}"),
    })
}

struct Log {
    file: File,
    end: AtomicU64,
}

impl Log {
    fn open(folder: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(folder.join("log"))?;
        let end = AtomicU64::new(file.metadata()?.len());
        Ok(Self { file, end })
    }
}

impl Engine for Log {
    fn commit(&self, records: &[Record]) -> Result<()> {
        let mut batch = Vec::new();
        for record in records {
            batch.write_all(&record.sequence.to_le_bytes())?;
            batch.write_all(&record.event)?;
            batch.write_all(&record.key)?;
            batch.write_all(&record.value)?;
        }
        let end = self.end.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.file.write_all_at(&batch, end)?;
        Ok(self.file.sync_data()?)
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        bail!("the log is the ceiling of commits and cannot be read")
    }
}

struct Fjall {
    database: fjall::Database,
    journal: fjall::Keyspace,
    key_value: fjall::Keyspace,
}

impl Fjall {
    fn open(folder: &Path) -> Result<Self> {
        let database = fjall::Database::builder(folder.join("fjall"))
            .cache_size(CACHE_BYTES as u64)
            .worker_threads(1)
            .open()?;
        let options = || fjall::KeyspaceCreateOptions::default().max_memtable_size(16 << 20);
        Ok(Self {
            journal: database.keyspace("journal", options)?,
            key_value: database.keyspace("key_value", options)?,
            database,
        })
    }
}

impl Engine for Fjall {
    fn commit(&self, records: &[Record]) -> Result<()> {
        let mut batch = self
            .database
            .batch()
            .durability(Some(fjall::PersistMode::SyncData));
        for record in records {
            batch.insert(
                &self.journal,
                record.sequence.to_be_bytes(),
                record.event.as_slice(),
            );
            batch.insert(
                &self.key_value,
                record.key.as_slice(),
                record.value.as_slice(),
            );
        }
        Ok(batch.commit()?)
    }

    fn settle(&self) -> Result<()> {
        self.journal.rotate_memtable_and_wait()?;
        Ok(self.key_value.rotate_memtable_and_wait()?)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(self))
    }
}

impl Reader for &Fjall {
    fn value(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.key_value.get(key)?.map(|value| value.to_vec()))
    }

    fn event(&mut self, sequence: u64) -> Result<Option<Vec<u8>>> {
        let event = self.journal.get(sequence.to_be_bytes())?;
        Ok(event.map(|event| event.to_vec()))
    }
}

struct Redb {
    database: redb::Database,
    quick_repair: bool,
}

const JOURNAL: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("journal");
const KEY_VALUE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("key_value");

impl Redb {
    fn open(folder: &Path, quick_repair: bool) -> Result<Self> {
        let database = redb::Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(folder.join("data.redb"))?;
        let engine = Self {
            database,
            quick_repair,
        };
        let tables_missing = engine.database.begin_read()?.list_tables()?.count() == 0;
        if tables_missing {
            engine.commit(&[])?;
        }
        Ok(engine)
    }
}

impl Redb {
    fn apply(&self, records: &[Record], durability: redb::Durability) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        transaction.set_quick_repair(self.quick_repair);
        {
            let mut journal = transaction.open_table(JOURNAL)?;
            let mut key_value = transaction.open_table(KEY_VALUE)?;
            for record in records {
                journal.insert(record.sequence, record.event.as_slice())?;
                key_value.insert(record.key.as_slice(), record.value.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Engine for Redb {
    fn commit(&self, records: &[Record]) -> Result<()> {
        self.apply(records, redb::Durability::Immediate)
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(self))
    }
}

/// The log is what makes a commit durable; redb follows and is synced each 16 MiB of log, from
/// where a restart would apply the log again.
struct LogRedb {
    log: Log,
    redb: Redb,
}

const CHECKPOINT_BYTES: u64 = 16 << 20;

impl Engine for LogRedb {
    fn commit(&self, records: &[Record]) -> Result<()> {
        self.log.commit(records)?;
        if self.log.end.load(Ordering::Relaxed) < CHECKPOINT_BYTES {
            return self.redb.apply(records, redb::Durability::None);
        }
        self.redb.apply(records, redb::Durability::Immediate)?;
        self.log.file.set_len(0)?;
        self.log.end.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        self.redb.reader()
    }
}

impl Reader for &Redb {
    fn value(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        // A transaction for each read, as independent callers need it.
        let table = self.database.begin_read()?.open_table(KEY_VALUE)?;
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }

    fn event(&mut self, sequence: u64) -> Result<Option<Vec<u8>>> {
        let table = self.database.begin_read()?.open_table(JOURNAL)?;
        Ok(table.get(sequence)?.map(|event| event.value().to_vec()))
    }
}

struct Sqlite {
    path: PathBuf,
    writer: Mutex<Connection>,
}

impl Sqlite {
    fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("data.sqlite");
        let writer = connect(&path)?;
        writer.execute_batch(
            "CREATE TABLE IF NOT EXISTS journal (sequence INTEGER PRIMARY KEY, event BLOB NOT NULL);
             CREATE TABLE IF NOT EXISTS key_value (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;",
        )?;
        Ok(Self {
            path,
            writer: Mutex::new(writer),
        })
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    let _: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;")?;
    connection.pragma_update(None, "cache_size", -(CACHE_BYTES as i64 / 1024))?;
    Ok(connection)
}

impl Engine for Sqlite {
    fn commit(&self, records: &[Record]) -> Result<()> {
        let mut writer = self.writer.lock().ok().context("poisoned")?;
        let transaction = writer.transaction()?;
        {
            let mut journal = transaction
                .prepare_cached("INSERT INTO journal (sequence, event) VALUES (?1, ?2)")?;
            let mut key_value = transaction
                .prepare_cached("INSERT OR REPLACE INTO key_value (key, value) VALUES (?1, ?2)")?;
            for record in records {
                journal.execute((record.sequence as i64, &record.event))?;
                key_value.execute((&record.key, &record.value))?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn settle(&self) -> Result<()> {
        let writer = self.writer.lock().ok().context("poisoned")?;
        writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(connect(&self.path)?))
    }
}

impl Reader for Connection {
    fn value(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self
            .prepare_cached("SELECT value FROM key_value WHERE key = ?1")?
            .query_row([key], |row| row.get(0))
            .optional()?)
    }

    fn event(&mut self, sequence: u64) -> Result<Option<Vec<u8>>> {
        Ok(self
            .prepare_cached("SELECT event FROM journal WHERE sequence = ?1")?
            .query_row([sequence as i64], |row| row.get(0))
            .optional()?)
    }
}
