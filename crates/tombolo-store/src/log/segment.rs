//! One file of the log: its name, its header and how it comes into being.
//!
//! ```text
//!  0  magic          8   "tombolog"
//!  8  version        4
//! 12  crc            4   CRC-32 of the bytes from 0 to 12 and from 16 to 56
//! 16  first          8   position of the header's first byte in the log
//! 24  salt          16   random
//! 40  chain         16   the chain of the last record before this segment
//! ```
//!
//! The header is there twice, at 0 and at [`COPY_OFFSET`], in different sectors: without its salt
//! no record of the segment could be told from noise.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{Chain, Salt, long_number, number};
use crate::disk::{Disk, File};

/// Length of what stands before the first record.
pub(super) const HEADER_BYTES: u64 = 1024;
const COPY_OFFSET: usize = 512;
const FIELDS_BYTES: usize = 56;
const MAGIC: [u8; 8] = *b"tombolog";
const VERSION: u32 = 1;
const EXTENSION: &str = ".log";

/// An open segment.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) first: u64,
    pub(super) salt: Salt,
    /// The chain before its first record.
    pub(super) chain: Chain,
    pub(super) file: Arc<dyn File>,
}

/// The path of the segment that begins at a position.
pub(super) fn path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:016x}{EXTENSION}"))
}

/// The position that a file's name tells, if it is the name of a segment.
pub(super) fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(EXTENSION)?;
    let plain = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| plain)
}

impl Segment {
    /// Makes a segment. It has its name only once its header is durable, so a named segment
    /// without a valid header is damaged and not new.
    pub(super) fn create(
        disk: &dyn Disk,
        folder: &Path,
        first: u64,
        chain: Chain,
    ) -> io::Result<Self> {
        let salt = salt(first, &chain);
        let path = path(folder, first);
        let beside = path.with_added_extension("new");
        let file = disk.create(&beside)?;
        file.write_at(&encode(first, &salt, &chain), 0)?;
        file.sync()?;
        disk.rename(&beside, &path)?;
        disk.sync_folder(folder)?;
        Ok(Self {
            first,
            salt,
            chain,
            file,
        })
    }

    /// Opens a segment by its name; `None` when both copies of its header are damaged.
    pub(super) fn open(disk: &dyn Disk, folder: &Path, first: u64) -> io::Result<Option<Self>> {
        let file = disk.open(&path(folder, first))?;
        let mut header = [0; HEADER_BYTES as usize];
        let read = file.read_at(&mut header, 0)?;
        let (one, two) = header.split_at(COPY_OFFSET);
        let found = decode(one, first).or_else(|| decode(two, first));
        Ok(found
            .filter(|_| read == header.len())
            .map(|(salt, chain)| Self {
                first,
                salt,
                chain,
                file,
            }))
    }
}

/// Random bytes from the hash map's keys, which the operating system's randomness seeds.
fn salt(first: u64, chain: &Chain) -> Salt {
    use std::hash::{BuildHasher as _, RandomState};
    let word = || RandomState::new().hash_one((first, chain)).to_le_bytes();
    let mut salt = [0; 16];
    for (place, byte) in salt.iter_mut().zip([word(), word()].into_iter().flatten()) {
        *place = byte;
    }
    salt
}

fn encode(first: u64, salt: &Salt, chain: &Chain) -> Vec<u8> {
    let mut fields = Vec::with_capacity(COPY_OFFSET);
    fields.extend_from_slice(&MAGIC);
    fields.extend_from_slice(&VERSION.to_le_bytes());
    let behind = [&first.to_le_bytes()[..], salt, chain].concat();
    let crc = crc(&fields, &behind);
    fields.extend_from_slice(&crc.to_le_bytes());
    fields.extend_from_slice(&behind);
    fields.resize(COPY_OFFSET, 0);
    fields.repeat(HEADER_BYTES as usize / COPY_OFFSET)
}

fn decode(header: &[u8], first: u64) -> Option<(Salt, Chain)> {
    let before = header.get(..12)?;
    let behind = header.get(16..FIELDS_BYTES)?;
    let valid = before.starts_with(&MAGIC)
        && number(header, 8)? == VERSION
        && number(header, 12)? == crc(before, behind)
        && long_number(header, 16)? == first;
    let salt = *header.get(24..)?.first_chunk()?;
    let chain = *header.get(40..)?.first_chunk()?;
    valid.then_some((salt, chain))
}

fn crc(before: &[u8], behind: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(before);
    hasher.update(behind);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::simulated::SimulatedDisk;

    #[test]
    fn one_damaged_header_of_two_does_not_matter() {
        let disk = SimulatedDisk::new();
        let folder = Path::new("/");
        let made = Segment::create(&disk, folder, 77, [9; 16]).unwrap();
        let path = path(folder, 77);
        assert_eq!(
            first_of(path.file_name().unwrap().to_str().unwrap()),
            Some(77)
        );
        for at in [0, 9, 20, 512, 550] {
            let damaged = disk.damaged(&path, |content| content[at] ^= 4);
            let opened = Segment::open(&damaged, folder, 77).unwrap().unwrap();
            assert_eq!((opened.salt, opened.chain), (made.salt, [9; 16]));
        }
        let damaged = disk.damaged(&path, |content| {
            content[30] ^= 4;
            content[530] ^= 4;
        });
        assert!(Segment::open(&damaged, folder, 77).unwrap().is_none());
    }
}
