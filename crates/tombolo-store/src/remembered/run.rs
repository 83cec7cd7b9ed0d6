//! A run: an immutable file of sorted ids, with what of it is kept in memory to find one with one read.
//!
//! Blocks of 4 KiB: the header; the ids, 255 in a block; the first eight bytes of each of those
//! blocks' first id (the fences); the bloom filter. Numbers are little-endian.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tombolo_core::QueueId;

use super::Fingerprint;
use super::block::{self, Address, BLOCK_BYTES, Block, CONTENT_BYTES};
use super::bloom::{Bloom, Line};
use crate::disk::{Disk, File};

const MAGIC: [u8; 8] = *b"tomb-ids";
const VERSION: u64 = 1;
const ID_BYTES: usize = size_of::<Fingerprint>();
/// Ids of a block.
pub(super) const BLOCK_IDS: u64 = (CONTENT_BYTES / ID_BYTES) as u64;
const BLOCK_FENCES: u64 = (CONTENT_BYTES / 8) as u64;
const BLOCK_LINES: u64 = (CONTENT_BYTES / size_of::<Line>()) as u64;
/// How much is written at once.
const WRITE_BYTES: usize = 64 * BLOCK_BYTES;

/// What a run's header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Header {
    /// The first and the last flush that it has the ids of.
    pub(super) flushes: (u64, u64),
    pub(super) ids: u64,
    /// When the oldest and the newest of them came, in the life of the store.
    pub(super) oldest_lived_ms: u64,
    pub(super) newest_lived_ms: u64,
    /// The log position up to which everything was remembered when it was written.
    pub(super) through: u64,
    /// Lines of the bloom filter.
    pub(super) lines: u64,
}

/// Why a part of a run cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The operating system refused to read it.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// A block does not pass its check.
    #[error("block {0} is damaged")]
    Block(u64),
    /// The header is of another version, queue or file.
    #[error("it is no run of this queue in this version's format")]
    Foreign,
}

/// A run that is open for finding.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) header: Header,
    pub(super) path: PathBuf,
    file: Arc<dyn File>,
    fences: Vec<u64>,
    bloom: Bloom,
}

impl Header {
    fn id_blocks(&self) -> u64 {
        self.ids.div_ceil(BLOCK_IDS)
    }

    fn fence_blocks(&self) -> u64 {
        self.id_blocks().div_ceil(BLOCK_FENCES)
    }

    fn line_blocks(&self) -> u64 {
        self.lines.div_ceil(BLOCK_LINES)
    }

    fn file_bytes(&self) -> u64 {
        let blocks = 1 + self.id_blocks() + self.fence_blocks() + self.line_blocks();
        blocks.saturating_mul(BLOCK_BYTES as u64)
    }

    fn address(&self, number: u64) -> Address {
        Address {
            flushes: self.flushes,
            number,
        }
    }

    fn encode(&self, queue: &QueueId) -> Vec<u8> {
        let mut content = MAGIC.to_vec();
        for number in [
            VERSION,
            self.ids,
            self.oldest_lived_ms,
            self.newest_lived_ms,
            self.through,
            self.lines,
        ] {
            content.extend(number.to_le_bytes());
        }
        let queue = queue.to_string();
        content.extend((queue.len() as u64).to_le_bytes());
        content.extend(queue.as_bytes());
        content
    }

    fn decode(content: &[u8], queue: &QueueId, flushes: (u64, u64)) -> Option<Self> {
        let (magic, content) = content.split_first_chunk::<8>()?;
        let mut words = content
            .chunks_exact(8)
            .filter_map(|word| word.try_into().ok());
        let mut number = || words.next().map(u64::from_le_bytes);
        let version = number()?;
        let header = Self {
            flushes,
            ids: number()?,
            oldest_lived_ms: number()?,
            newest_lived_ms: number()?,
            through: number()?,
            lines: number()?,
        };
        let queue_bytes = usize::try_from(number()?).ok()?;
        let name = content.get(7 * 8..)?.get(..queue_bytes)?;
        let known = *magic == MAGIC && version == VERSION && name == queue.to_string().as_bytes();
        known.then_some(header)
    }
}

impl Run {
    /// Opens the run in that file, which has the ids of those flushes. A damaged fence or bloom
    /// filter is made again from the ids.
    pub(super) fn open(
        disk: &dyn Disk,
        path: &Path,
        queue: &QueueId,
        flushes: (u64, u64),
    ) -> Result<Self, RunError> {
        let file = disk.open(path).map_err(RunError::Read)?;
        let address = Address { flushes, number: 0 };
        let first = read(&*file, address)?;
        let content = block::open(&first, address).ok_or(RunError::Block(0))?;
        let header = Header::decode(content, queue, flushes).ok_or(RunError::Foreign)?;
        // The size bounds what a wrong number could make us allocate.
        if header.file_bytes() != file.len().map_err(RunError::Read)? {
            return Err(RunError::Foreign);
        }
        let mut run = Self {
            header,
            path: path.to_owned(),
            file,
            fences: Vec::new(),
            bloom: Bloom::of(Vec::new()),
        };
        if let Err(RunError::Block(_)) = run.read_index() {
            run.rebuild_index();
        }
        Ok(run)
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.header.file_bytes()
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        (self.fences.len() * 8 + size_of_val(self.bloom.lines())) as u64
    }

    /// Whether the run has the id. Reads one block if the bloom filter says "perhaps" (two where
    /// eight equal bytes begin both).
    pub(super) fn has(&self, id: Fingerprint) -> Result<bool, RunError> {
        if !self.bloom.may_have(id) {
            return Ok(false);
        }
        let fence = fence(id);
        let mut block = self.fences.partition_point(|first| *first <= fence);
        while let Some(index) = block.checked_sub(1) {
            if self.ids(index as u64)?.binary_search(&id).is_ok() {
                return Ok(true);
            }
            if self.fences.get(index) != Some(&fence) {
                return Ok(false);
            }
            block = index;
        }
        Ok(false)
    }

    /// The ids of one block; none behind the last.
    pub(super) fn ids(&self, index: u64) -> Result<Vec<Fingerprint>, RunError> {
        let left = self.header.ids.saturating_sub(index * BLOCK_IDS);
        let count = left.min(BLOCK_IDS) as usize;
        if count == 0 {
            return Ok(Vec::new());
        }
        let address = self.header.address(1 + index);
        let block = read(&*self.file, address)?;
        let content = block::open(&block, address).ok_or(RunError::Block(address.number))?;
        let (ids, _) = content.as_chunks::<ID_BYTES>();
        Ok(ids.iter().take(count).copied().collect())
    }

    pub(super) fn id_blocks(&self) -> u64 {
        self.header.id_blocks()
    }

    fn read_index(&mut self) -> Result<(), RunError> {
        let start = 1 + self.header.id_blocks();
        let words = self.words(start, self.header.fence_blocks(), BLOCK_FENCES)?;
        self.fences = words;
        self.fences.truncate(self.header.id_blocks() as usize);
        let start = start + self.header.fence_blocks();
        let words = self.words(start, self.header.line_blocks(), BLOCK_LINES * 8)?;
        let (lines, _) = words.as_chunks::<8>();
        let lines = lines.iter().take(self.header.lines as usize).copied();
        self.bloom = Bloom::of(lines.collect());
        Ok(())
    }

    /// The words of some blocks that have so many each.
    fn words(&self, start: u64, blocks: u64, each: u64) -> Result<Vec<u64>, RunError> {
        let mut words = Vec::with_capacity((blocks * each) as usize);
        for number in start..start + blocks {
            let address = self.header.address(number);
            let block = read(&*self.file, address)?;
            let content = block::open(&block, address).ok_or(RunError::Block(number))?;
            let (chunks, _) = content.as_chunks::<8>();
            let chunks = chunks.iter().take(each as usize);
            words.extend(chunks.map(|word| u64::from_le_bytes(*word)));
        }
        Ok(words)
    }

    /// Makes fences and bloom filter from the ids. A block that is damaged too gets the fence of
    /// the one before, so that a search finds the damage and not nothing.
    fn rebuild_index(&mut self) {
        self.fences.clear();
        self.bloom = Bloom::new(self.header.ids);
        for index in 0..self.header.id_blocks() {
            let ids = self.ids(index).unwrap_or_default();
            let before = self.fences.last().copied().unwrap_or(0);
            self.fences
                .push(ids.first().map_or(before, |id| fence(*id)));
            for id in ids {
                self.bloom.insert(id);
            }
        }
    }
}

fn fence(id: Fingerprint) -> u64 {
    (u128::from_be_bytes(id) >> 64) as u64
}

fn read(file: &dyn File, address: Address) -> Result<Block, RunError> {
    let mut block = [0; BLOCK_BYTES];
    let offset = address.number * BLOCK_BYTES as u64;
    let count = file.read_at(&mut block, offset).map_err(RunError::Read)?;
    if count < BLOCK_BYTES {
        return Err(RunError::Block(address.number));
    }
    Ok(block)
}

/// Writes a run, id by id.
pub(super) struct RunWriter<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    file: Arc<dyn File>,
    header: Header,
    fences: Vec<u64>,
    bloom: Bloom,
    /// The content of the next block.
    content: Vec<u8>,
    /// Blocks that are not written yet.
    pending: Vec<u8>,
    blocks: u64,
    written_bytes: u64,
}

impl<'a> RunWriter<'a> {
    /// Begins a file beside `path`. The header tells all but how many ids come, which is not more
    /// than `ids_max`.
    pub(super) fn create(
        disk: &'a dyn Disk,
        path: PathBuf,
        header: Header,
        ids_max: u64,
    ) -> io::Result<Self> {
        let bloom = Bloom::new(ids_max);
        let header = Header {
            ids: 0,
            lines: bloom.lines().len() as u64,
            ..header
        };
        let file = disk.create(&beside(&path))?;
        Ok(Self {
            disk,
            path,
            file,
            header,
            fences: Vec::new(),
            bloom,
            content: Vec::with_capacity(CONTENT_BYTES),
            pending: Vec::with_capacity(WRITE_BYTES),
            blocks: 1,
            written_bytes: BLOCK_BYTES as u64,
        })
    }

    /// Adds an id, which is above the one before.
    pub(super) fn push(&mut self, id: Fingerprint) -> io::Result<()> {
        if self.header.ids.is_multiple_of(BLOCK_IDS) {
            self.fences.push(fence(id));
        }
        self.header.ids += 1;
        self.bloom.insert(id);
        self.put(&id, BLOCK_IDS as usize * ID_BYTES)
    }

    /// Writes the rest, and makes the file durable under its name.
    pub(super) fn finish(mut self, queue: &QueueId) -> io::Result<Run> {
        self.seal()?;
        let fences = std::mem::take(&mut self.fences);
        for fence in &fences {
            self.put(&fence.to_le_bytes(), BLOCK_FENCES as usize * 8)?;
        }
        self.seal()?;
        let bloom = std::mem::replace(&mut self.bloom, Bloom::of(Vec::new()));
        for word in bloom.lines().iter().flatten() {
            self.put(
                &word.to_le_bytes(),
                BLOCK_LINES as usize * size_of::<Line>(),
            )?;
        }
        self.seal()?;
        self.write()?;
        let header = block::seal(&self.header.encode(queue), self.header.address(0));
        self.file.write_at(&header, 0)?;
        self.file.sync()?;
        self.disk.rename(&beside(&self.path), &self.path)?;
        let folder = self.path.parent().unwrap_or(&self.path);
        self.disk.sync_folder(folder)?;
        Ok(Run {
            header: self.header,
            path: self.path,
            file: self.file,
            fences,
            bloom,
        })
    }

    fn put(&mut self, bytes: &[u8], full: usize) -> io::Result<()> {
        self.content.extend_from_slice(bytes);
        if self.content.len() == full {
            self.seal()?;
        }
        Ok(())
    }

    fn seal(&mut self) -> io::Result<()> {
        if self.content.is_empty() {
            return Ok(());
        }
        let block = block::seal(&self.content, self.header.address(self.blocks));
        self.content.clear();
        self.blocks += 1;
        self.pending.extend_from_slice(&block);
        if self.pending.len() >= WRITE_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_at(&self.pending, self.written_bytes)?;
        self.written_bytes += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

/// Where a run is written before it has its name.
pub(super) fn beside(path: &Path) -> PathBuf {
    path.with_added_extension("new")
}
