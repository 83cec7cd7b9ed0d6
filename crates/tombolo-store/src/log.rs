//! The log: one append-only sequence of checked records in segment files, the truth of the store.
//!
//! A position counts bytes from the first segment's first byte and never comes back: a segment's
//! file name is the position of its first byte, and the next segment begins where it ends.
//! Segments are dropped oldest first.

mod record;
mod recovery;
mod segment;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::{fmt, io};

use tombolo_core::Moment;

pub(crate) use self::record::BODY_BYTES_MAX;
use self::record::{Chain, HEAD_BYTES, Head};
use self::segment::{HEADER_BYTES, Segment};
use crate::disk::Disk;

/// Free space that writes leave alone, so that a full disk is told before anything is written, and
/// what makes room can still be.
pub(crate) const RESERVE_BYTES: u64 = 16 << 20;
/// Length of the checksum before content that is read by itself.
pub(crate) const SEAL_BYTES: usize = 4;

/// A record, as it is shown when the log is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    /// Of its head.
    pub(crate) position: u64,
    /// When it was written.
    pub(crate) moment: Moment,
    pub(crate) body: &'a [u8],
}

impl Record<'_> {
    /// The position of the body's first byte.
    pub(crate) fn body_position(&self) -> u64 {
        self.position + HEAD_BYTES as u64
    }
}

/// Where bytes are that can be read by themselves: a checksum, and the bytes behind it. 12 bytes,
/// since there is one for each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    position: [u32; 2],
    /// With the checksum.
    pub(crate) bytes: u32,
}

impl Place {
    pub(crate) fn new(position: u64, bytes: u32) -> Self {
        Self {
            position: [(position >> 32) as u32, position as u32],
            bytes,
        }
    }

    pub(crate) fn position(&self) -> u64 {
        let [high, low] = self.position;
        u64::from(high) << 32 | u64::from(low)
    }
}

/// The content of sealed bytes that were read at a position, if they pass their check.
pub(crate) fn unseal(position: u64, sealed: &[u8]) -> Option<&[u8]> {
    let (found, content) = sealed.split_first_chunk()?;
    (*found == seal(position, content)).then_some(content)
}

/// What stands before content that is written at a position: CRC-32 of both, so that what was
/// written for another place is not taken for it.
pub(crate) fn seal(position: u64, content: &[u8]) -> [u8; SEAL_BYTES] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&position.to_le_bytes());
    hasher.update(content);
    hasher.finalize().to_le_bytes()
}

/// A part of the log that was found wrong when the store was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The end of the log was not whole: the power went while it was written. Nobody was told that
    /// it had been written. It was cut off.
    Torn {
        /// What was cut.
        range: Range<u64>,
    },
    /// What was acknowledged cannot be read any more. It is left out; the rest is served.
    Lost {
        /// Positions in the log.
        range: Range<u64>,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Torn { range } | Self::Lost { range }) = self;
        let (first, bytes) = (range.start, range.end.saturating_sub(range.start));
        let what = match self {
            Self::Torn { .. } => {
                "were not whole and were cut off; nobody had been told that they were written"
            }
            Self::Lost { .. } => "cannot be read any more and are left out; what they held is lost",
        };
        write!(formatter, "{bytes} bytes of the log from {first} on {what}")
    }
}

/// Why a group was not written.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// Nothing was written; try again when there is space.
    #[error("the disk is full")]
    Full,
    /// Nothing was written: what reads the log would take a record of so many bytes for damage.
    #[error("a record of {0} bytes is too long")]
    TooLong(usize),
    /// What is on the disk is known only after the log was opened again; until then it refuses.
    #[error("the log cannot be written")]
    Failed(#[source] Arc<io::Error>),
}

/// What can be read of the log, by any thread. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Segments {
    by_first: Arc<RwLock<BTreeMap<u64, Option<Segment>>>>,
}

impl Segments {
    /// The content at a place; `None` when it does not pass its check or its segment is gone.
    pub(crate) fn read(&self, place: Place) -> io::Result<Option<Vec<u8>>> {
        let position = place.position();
        let Some(segment) = self.segment(position) else {
            return Ok(None);
        };
        let mut sealed = vec![0; place.bytes as usize];
        let read = segment
            .file
            .read_at(&mut sealed, position - segment.first)?;
        sealed.truncate(read);
        Ok(unseal(position, &sealed).map(<[u8]>::to_vec))
    }

    /// Shows the valid records of one segment from a position on, which is its beginning or that
    /// of a record, until so many bytes were passed by; the position behind them. `None` when the
    /// segment cannot be read at all.
    pub(crate) fn records(
        &self,
        from: u64,
        bytes: u64,
        mut visit: impl FnMut(Record<'_>),
    ) -> io::Result<Option<u64>> {
        match self.segment(from) {
            Some(segment) => recovery::read_some(&segment, from, bytes, &mut visit).map(Some),
            None => Ok(None),
        }
    }

    fn segment(&self, position: u64) -> Option<Segment> {
        let by_first = self.by_first.read().unwrap_or_else(PoisonError::into_inner);
        let before = by_first.range(..=position).next_back();
        before.and_then(|(_, segment)| segment.clone())
    }

    /// The first position of the segment that has a place.
    pub(crate) fn segment_of(&self, place: Place) -> u64 {
        let by_first = self.by_first.read().unwrap_or_else(PoisonError::into_inner);
        let before = by_first.range(..=place.position()).next_back();
        before.map_or(0, |(first, _)| *first)
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<u64, Option<Segment>>) -> T) -> T {
        change(
            &mut self
                .by_first
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

/// The writing end.
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    segments: Segments,
    current: Segment,
    end: u64,
    chain: Chain,
    failed: Option<Arc<io::Error>>,
    /// The longest segment; but a group is never split.
    segment_bytes_max: u64,
}

impl Log {
    /// Opens the log, or makes an empty one, and shows every valid record in order. `seen` is the
    /// position up to which the last checkpoint has seen it.
    pub(crate) fn open<E: From<io::Error>>(
        disk: Arc<dyn Disk>,
        folder: &Path,
        seen: u64,
        segment_bytes_max: u64,
        mut visit: impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(Self, Vec<Damage>), E> {
        disk.create_folder(folder)?;
        disk.sync_folder(folder.parent().unwrap_or(folder))?;
        let firsts = segments(&*disk, folder)?;
        let mut damages = Vec::new();
        let mut known = BTreeMap::new();
        let mut chain = [0; 16];
        // The position behind what was read, and whether the last file can be written on.
        let mut end = firsts.first().copied().unwrap_or(0);
        let mut current = None;
        for (index, &first) in firsts.iter().enumerate() {
            if first > end {
                damages.push(Damage::Lost { range: end..first });
            }
            let next = firsts.get(index + 1).copied();
            let read = read_segment(&*disk, folder, first, next, seen, &mut visit)?;
            end = read.end;
            chain = read.chain.unwrap_or(chain);
            damages.extend(read.damages);
            current = read.segment.clone().filter(|_| read.writable);
            known.insert(first, read.segment);
        }
        if end < seen {
            damages.push(Damage::Lost { range: end..seen });
            (end, current) = (seen, None);
        }
        let current = match current {
            Some(segment) => segment,
            None => Segment::create(&*disk, folder, end, chain)?,
        };
        if known.insert(current.first, Some(current.clone())).is_none() {
            end = current.first + HEADER_BYTES;
        }
        let segments = Segments::default();
        segments.change(|by_first| *by_first = known);
        let log = Self {
            disk,
            folder: folder.to_owned(),
            segments,
            current,
            end,
            chain,
            failed: None,
            segment_bytes_max,
        };
        Ok((log, damages))
    }

    /// Whether there is a log with anything in it.
    pub(crate) fn is_used(disk: &dyn Disk, folder: &Path) -> io::Result<bool> {
        let firsts = match segments(disk, folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            firsts => firsts?,
        };
        for first in firsts {
            if disk.open(&segment::path(folder, first))?.len()? > HEADER_BYTES {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The position behind the last record.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The position of the first byte that there is.
    pub(crate) fn start(&self) -> u64 {
        self.segments
            .change(|by_first| by_first.keys().next().copied().unwrap_or_default())
    }

    /// The end of the oldest segment, unless it is the one that is being written.
    pub(crate) fn oldest_end(&self) -> Option<u64> {
        self.segments
            .change(|by_first| by_first.keys().nth(1).copied())
    }

    /// The reading end.
    pub(crate) fn segments(&self) -> Segments {
        self.segments.clone()
    }

    /// Whether the log can still be written.
    pub(crate) fn ready(&self) -> Result<(), LogError> {
        match &self.failed {
            Some(error) => Err(LogError::Failed(Arc::clone(error))),
            None => Ok(()),
        }
    }

    /// Lets nothing more be written, because of an error elsewhere.
    pub(crate) fn stop(&mut self, error: &(dyn Error + Send + Sync)) {
        self.fail(io::Error::other(error.to_string()));
    }

    /// Bytes that can still be written on the disk.
    pub(crate) fn free_bytes(&self) -> Result<u64, LogError> {
        let free = self.disk.free_bytes(&self.folder);
        free.map_err(|error| LogError::Failed(Arc::new(error)))
    }

    /// Begins a group of about so many bytes, in a new segment when the current one is long. It
    /// leaves `kept` bytes of the disk free.
    pub(crate) fn begin(&mut self, bytes: u64, kept: u64) -> Result<Group, LogError> {
        self.ready()?;
        if self.free_bytes()? < bytes.saturating_add(kept) {
            return Err(LogError::Full);
        }
        let len = self.end - self.current.first;
        if len > HEADER_BYTES && len.saturating_add(bytes) > self.segment_bytes_max {
            self.roll()?;
        }
        self.begin_in_reserve()
    }

    /// Begins a group that may use the space that others leave alone.
    pub(crate) fn begin_in_reserve(&mut self) -> Result<Group, LogError> {
        self.ready()?;
        Ok(Group {
            start: self.end,
            buffer: Vec::new(),
            salt: self.current.salt,
            chain: self.chain,
        })
    }

    /// Begins a new segment, so that the current one can be dropped once nothing in it lives.
    pub(crate) fn roll(&mut self) -> Result<(), LogError> {
        let made = Segment::create(&*self.disk, &self.folder, self.end, self.chain);
        let segment = made.map_err(|error| match error.kind() {
            // What is there of it will be written over.
            io::ErrorKind::StorageFull => LogError::Full,
            _ => self.fail(error),
        })?;
        self.segments
            .change(|by_first| by_first.insert(segment.first, Some(segment.clone())));
        self.end += HEADER_BYTES;
        self.current = segment;
        Ok(())
    }

    /// Writes a group and syncs it. After an error nothing more is written: a sync that failed has
    /// let go of what it could not write, and the next one would succeed without it.
    pub(crate) fn commit(&mut self, group: Group) -> Result<(), LogError> {
        let offset = group.start - self.current.first;
        let written = self.current.file.write_at(&group.buffer, offset);
        if let Err(error) = written {
            return Err(self.take_back(offset, error));
        }
        self.current.file.sync().map_err(|error| self.fail(error))?;
        self.end = group.end();
        self.chain = group.chain;
        Ok(())
    }

    /// After a write for which the disk had no room, the log is as it was if it can be cut back.
    fn take_back(&mut self, offset: u64, error: io::Error) -> LogError {
        let full = error.kind() == io::ErrorKind::StorageFull;
        let file = &self.current.file;
        if full && file.truncate(offset).and_then(|()| file.sync()).is_ok() {
            return LogError::Full;
        }
        self.fail(error)
    }

    fn fail(&mut self, error: io::Error) -> LogError {
        let error = Arc::new(error);
        self.failed = Some(Arc::clone(&error));
        LogError::Failed(error)
    }

    /// Drops the oldest segment. Nothing in it may be needed any more.
    pub(crate) fn drop_oldest(&mut self) -> Result<(), LogError> {
        if self.oldest_end().is_none() {
            return Ok(());
        }
        let first = self.start();
        let removed = self.disk.remove(&segment::path(&self.folder, first));
        removed.map_err(|error| LogError::Failed(Arc::new(error)))?;
        self.segments.change(|by_first| by_first.remove(&first));
        // Were it to come back after the next one is gone, it would look like a gap.
        let synced = self.disk.sync_folder(&self.folder);
        synced.map_err(|error| self.fail(error))
    }
}

/// Records that will be written together.
pub(crate) struct Group {
    start: u64,
    buffer: Vec<u8>,
    salt: record::Salt,
    chain: Chain,
}

impl Group {
    /// The position behind the last record.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    /// Where the body of the next record begins.
    pub(crate) fn next_body_position(&self) -> u64 {
        self.end() + HEAD_BYTES as u64
    }

    /// Adds a record. Its body was made for [`Group::next_body_position`].
    pub(crate) fn push(&mut self, moment: Moment, body: &[u8]) -> Result<(), LogError> {
        if body.len() > BODY_BYTES_MAX {
            return Err(LogError::TooLong(body.len()));
        }
        let group_offset = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
        let head = Head::new(group_offset, moment, &self.chain, body);
        let bytes = head.encode(&self.salt, self.end());
        self.buffer.extend_from_slice(&bytes);
        self.buffer.extend_from_slice(body);
        self.chain = head.chain;
        Ok(())
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// The segments that there are. Files of segments that were never finished are removed.
fn segments(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for name in disk.list(folder)? {
        if let Some(first) = segment::first_of(&name) {
            firsts.push(first);
        } else if name.ends_with(".new") {
            disk.remove(&folder.join(name))?;
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}

struct ReadSegment {
    segment: Option<Segment>,
    end: u64,
    chain: Option<Chain>,
    damages: Vec<Damage>,
    writable: bool,
}

/// Reads one segment, and cuts its end if it is the last one and its end was never acknowledged.
fn read_segment<E: From<io::Error>>(
    disk: &dyn Disk,
    folder: &Path,
    first: u64,
    next: Option<u64>,
    seen: u64,
    visit: &mut impl FnMut(Record<'_>) -> Result<(), E>,
) -> Result<ReadSegment, E> {
    let Some(segment) = Segment::open(disk, folder, first)? else {
        let len = disk.open(&segment::path(folder, first))?.len()?;
        let end = next.unwrap_or(first + len.max(HEADER_BYTES));
        return Ok(ReadSegment {
            segment: None,
            end,
            chain: None,
            damages: vec![Damage::Lost { range: first..end }],
            writable: false,
        });
    };
    let synced = if next.is_some() {
        u64::MAX
    } else {
        seen.saturating_sub(first)
    };
    let outcome = recovery::read(&segment, synced, visit)?;
    let lost = |range: &Range<u64>| Damage::Lost {
        range: first + range.start..first + range.end,
    };
    let mut damages: Vec<Damage> = outcome.damaged.iter().map(lost).collect();
    let damaged_to = outcome.damaged.last().map_or(0, |range| range.end);
    let mut end = first + outcome.end.max(damaged_to);
    if let Some(cut) = outcome.cut {
        // Durable before anything is written there, so that no rest of it comes to light again.
        segment.file.truncate(cut)?;
        segment.file.sync()?;
        let range = first + cut..first + outcome.len;
        damages.push(Damage::Torn { range });
    }
    if let Some(next) = next.filter(|&next| next > end) {
        damages.push(Damage::Lost { range: end..next });
        end = next;
    }
    Ok(ReadSegment {
        writable: next.is_none() && damaged_to <= outcome.end,
        end,
        chain: Some(outcome.chain),
        damages,
        segment: Some(segment),
    })
}
