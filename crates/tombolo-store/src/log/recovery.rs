//! Reading a segment after a start: which records are whole, where a torn tail is cut and where damage is left out.
//!
//! # What tells a torn tail from damage
//!
//! The log is written in groups, one at a time: a group is one write and one sync, and the next
//! group's write begins only after that sync has succeeded. So when power is lost, at most one
//! group is not synced: the last. And each record says where its group began. Therefore, when a
//! record at `p` is not valid:
//!
//! * Is there a valid record behind it **whose group began behind `p`**, then a later group was
//!   begun, so the sync of whatever was at `p` had succeeded: this is damage to acknowledged data.
//!   It is left out and reported, and reading goes on at the next valid record.
//! * The same holds when `p` is in a segment that has a successor, since a segment is begun only
//!   after the last group of the one before was synced; and when `p` is before the position that
//!   the last checkpoint has seen.
//! * Else whatever is at `p` and behind it belongs to the group that was under way: valid records
//!   behind `p` are of the same group. Nobody was told that it was written, so the log is cut at
//!   `p`, on the disk too, before anything is written there again.
//!
//! One case cannot be told apart: damage inside the very last group of a node that lost power and
//! that no checkpoint has seen looks like a group that was torn, and is cut (and reported) as one.

use std::io;
use std::ops::Range;

use super::Record;
use super::record::{Chain, HEAD_BYTES, Head, MAGIC};
use super::segment::{HEADER_BYTES, Segment};
use crate::disk::File;

const CHUNK_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 4096;

/// What reading a segment found. Offsets are within the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Where the last valid record ends.
    pub(super) end: u64,
    /// The file's length.
    pub(super) len: u64,
    /// The chain of the last valid record.
    pub(super) chain: Chain,
    /// Ranges that were synced and are not valid.
    pub(super) damaged: Vec<Range<u64>>,
    /// From here on nothing was acknowledged.
    pub(super) cut: Option<u64>,
}

/// Reads a segment and shows each valid record. Everything before the offset `synced` was synced.
pub(super) fn read<E: From<io::Error>>(
    segment: &Segment,
    synced: u64,
    visit: &mut impl FnMut(Record<'_>) -> Result<(), E>,
) -> Result<Outcome, E> {
    let mut scanner = Scanner::new(segment)?;
    let mut outcome = Outcome {
        end: HEADER_BYTES,
        len: scanner.len,
        chain: segment.chain,
        ..Outcome::default()
    };
    // Behind damage the chain begins anew with what the next record says.
    let mut linked = true;
    let mut at = HEADER_BYTES;
    while at < scanner.len {
        let Some(head) = scanner.record(at)? else {
            if at >= synced && !scanner.later_group_than(at)? {
                outcome.cut = Some(at);
                break;
            }
            let next = scanner.next_record(at + 1)?;
            let to = next.map_or(scanner.len, |(offset, _)| offset);
            outcome.damaged.push(at..to);
            linked = false;
            at = to;
            continue;
        };
        let to = at + head.record_bytes();
        let body = scanner.body(at, &head)?;
        if linked && head.link(&outcome.chain, body) != head.chain {
            outcome.damaged.push(at..to);
        } else {
            visit(Record {
                position: segment.first + at,
                moment: head.moment,
                body,
            })?;
        }
        linked = true;
        outcome.chain = head.chain;
        outcome.end = to;
        at = to;
    }
    Ok(outcome)
}

/// Shows the valid records of a segment that is part of an open log, from a position on, until so
/// many bytes were passed by; the position behind them.
pub(super) fn read_some(
    segment: &Segment,
    from: u64,
    bytes: u64,
    visit: &mut impl FnMut(Record<'_>),
) -> io::Result<u64> {
    let mut scanner = Scanner::new(segment)?;
    let start = from.saturating_sub(segment.first).max(HEADER_BYTES);
    let mut at = start;
    while at < scanner.len && at - start < bytes {
        let Some(head) = scanner.record(at)? else {
            let next = scanner.next_record(at + 1)?;
            at = next.map_or(scanner.len, |(offset, _)| offset);
            continue;
        };
        let body = scanner.body(at, &head)?;
        visit(Record {
            position: segment.first + at,
            moment: head.moment,
            body,
        });
        at += head.record_bytes();
    }
    Ok(segment.first + at)
}

/// A window over a segment.
struct Scanner<'segment> {
    segment: &'segment Segment,
    len: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'segment> Scanner<'segment> {
    fn new(segment: &'segment Segment) -> io::Result<Self> {
        Ok(Self {
            segment,
            len: segment.file.len()?,
            window: Vec::new(),
            window_at: 0,
        })
    }

    /// So many bytes at an offset, fewer at the end.
    fn bytes(&mut self, offset: u64, count: u64) -> io::Result<&[u8]> {
        let count = count.min(self.len.saturating_sub(offset));
        let inside =
            offset >= self.window_at && offset + count <= self.window_at + self.window.len() as u64;
        if !inside {
            let wanted = index(count).max(CHUNK_BYTES);
            let there = index(self.len.saturating_sub(offset));
            self.window.resize(wanted.min(there), 0);
            self.window_at = offset;
            read_what_can_be(&*self.segment.file, &mut self.window, offset);
        }
        let start = index(offset - self.window_at);
        let end = (start + index(count)).min(self.window.len());
        Ok(self.window.get(start..end).unwrap_or_default())
    }

    fn body(&mut self, offset: u64, head: &Head) -> io::Result<&[u8]> {
        self.bytes(offset + HEAD_BYTES as u64, u64::from(head.body_bytes))
    }

    /// The head of the record at an offset, if head and body are valid.
    fn record(&mut self, offset: u64) -> io::Result<Option<Head>> {
        let (salt, position) = (self.segment.salt, self.segment.first + offset);
        let bytes = self.bytes(offset, HEAD_BYTES as u64)?;
        let Some(head) = Head::decode(bytes, &salt, position) else {
            return Ok(None);
        };
        let body = self.body(offset, &head)?;
        let valid =
            body.len() == index(head.body_bytes.into()) && crc32fast::hash(body) == head.body_crc;
        Ok(valid.then_some(head))
    }

    /// The first valid record at an offset or behind it.
    fn next_record(&mut self, from: u64) -> io::Result<Option<(u64, Head)>> {
        let mut at = from;
        while at < self.len {
            let window = self.bytes(at, CHUNK_BYTES as u64)?;
            let found = window.windows(MAGIC.len()).position(|four| four == MAGIC);
            let searched = window.len().saturating_sub(MAGIC.len() - 1).max(1);
            let Some(found) = found else {
                at += searched as u64;
                continue;
            };
            at += found as u64;
            if let Some(head) = self.record(at)? {
                return Ok(Some((at, head)));
            }
            at += 1;
        }
        Ok(None)
    }

    /// Whether behind an offset there is a record of a group that began behind it.
    fn later_group_than(&mut self, offset: u64) -> io::Result<bool> {
        let mut from = offset + 1;
        while let Some((at, head)) = self.next_record(from)? {
            if at.saturating_sub(head.group_offset.into()) > offset {
                return Ok(true);
            }
            from = at + head.record_bytes();
        }
        Ok(false)
    }
}

/// Fills a buffer. What the disk cannot read is zeros, which are no record.
fn read_what_can_be(file: &dyn File, buffer: &mut [u8], offset: u64) {
    if file.read_at(buffer, offset).is_ok() {
        return;
    }
    let pages = buffer
        .chunks_mut(PAGE_BYTES)
        .zip((offset..).step_by(PAGE_BYTES));
    for (page, at) in pages {
        if let Err(error) = file.read_at(page, at) {
            tracing::error!(%error, offset = at, "a part of the log cannot be read");
            page.fill(0);
        }
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
