//! A bloom filter in which all bits of one id lie in one cache line (Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient Bloom Filters", 2007).

use super::Fingerprint;

/// Bits for each id.
const BITS: u64 = 10;
/// Bits that an id sets; the best number for ten bits an id is 6.9.
const PROBES: u32 = 7;
const LINE_BITS: u64 = 512;

/// A cache line.
pub(super) type Line = [u64; 8];

/// A set that answers "perhaps" or "no": "perhaps" to about one in a hundred of what is not in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bloom {
    lines: Vec<Line>,
}

impl Bloom {
    /// An empty one for that many ids.
    pub(super) fn new(ids: u64) -> Self {
        let lines = usize::try_from(Self::lines_for(ids)).unwrap_or(usize::MAX);
        Self {
            lines: vec![[0; 8]; lines],
        }
    }

    /// One of these lines.
    pub(super) fn of(lines: Vec<Line>) -> Self {
        Self { lines }
    }

    pub(super) fn lines(&self) -> &[Line] {
        &self.lines
    }

    pub(super) fn lines_for(ids: u64) -> u64 {
        (ids * BITS).div_ceil(LINE_BITS).max(1)
    }

    pub(super) fn insert(&mut self, id: Fingerprint) {
        let (line, bits) = self.place(id);
        if let Some(line) = self.lines.get_mut(line) {
            for (word, bits) in line.iter_mut().zip(bits) {
                *word |= bits;
            }
        }
    }

    /// Whether the id may have been put in.
    pub(super) fn may_have(&self, id: Fingerprint) -> bool {
        let (line, bits) = self.place(id);
        self.lines.get(line).is_some_and(|line| {
            let mut words = line.iter().zip(bits);
            words.all(|(word, bits)| word & bits == bits)
        })
    }

    /// The line of an id, and its bits there. The id is a keyed hash, so its own bits serve.
    fn place(&self, id: Fingerprint) -> (usize, Line) {
        let id = u128::from_be_bytes(id);
        let (high, low) = ((id >> 64) as u64, id as u64);
        // Multiplying maps the hash onto the lines evenly, without division.
        let line = (u128::from(high.rotate_left(32)) * self.lines.len() as u128) >> 64;
        let mut bits = [0; 8];
        for probe in 0..PROBES {
            let bit = low >> (9 * probe) & (LINE_BITS - 1);
            if let Some(word) = bits.get_mut((bit / 64) as usize) {
                *word |= 1 << (bit % 64);
            }
        }
        (line as usize, bits)
    }
}
