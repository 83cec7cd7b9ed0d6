//! One record of the log: its head, its checksums and its link in the chain.
//!
//! ```text
//!  0  magic          4   "TmbR"
//!  4  head_crc       4   CRC-32 of salt, position and the bytes from 8 to 52
//!  8  body_bytes     4
//! 12  group_offset   4   from the start of the group's write to this record
//! 16  body_crc       4   CRC-32 of the body
//! 20  lived_ms       8
//! 28  wall_ms        8
//! 36  chain         16   BLAKE3 of the chain before, the bytes from 8 to 36 and the body
//! 52  body
//! ```
//!
//! Numbers are little-endian. The salt is the segment's own random number: bytes that a caller
//! stored, made to look like a record, are never taken for one, and neither is a record that
//! stands at another place than the one it was written for.

use tombolo_core::Moment;

/// Length of a record without its body.
pub(crate) const HEAD_BYTES: usize = 52;
/// The longest body: a transaction's longest writes twice, once with the change events of each.
pub(crate) const BODY_BYTES_MAX: usize = 48 << 20;

pub(super) const MAGIC: [u8; 4] = *b"TmbR";
const COVERED: usize = 8;
const CHAINED_END: usize = 36;

/// A segment's random number.
pub(super) type Salt = [u8; 16];
/// A link of the chain.
pub(super) type Chain = [u8; 16];

/// What the head of a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) body_bytes: u32,
    pub(super) group_offset: u32,
    pub(super) body_crc: u32,
    pub(super) moment: Moment,
    pub(super) chain: Chain,
}

impl Head {
    /// The head of a record with this body, behind a record with the chain `before`.
    pub(super) fn new(group_offset: u32, moment: Moment, before: &Chain, body: &[u8]) -> Self {
        let mut head = Self {
            body_bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
            group_offset,
            body_crc: crc32fast::hash(body),
            moment,
            chain: [0; 16],
        };
        head.chain = head.link(before, body);
        head
    }

    /// The link that a record with this head and body has, behind `before`.
    pub(super) fn link(&self, before: &Chain, body: &[u8]) -> Chain {
        let bytes = self.encode(&[0; 16], 0);
        let mut hasher = blake3::Hasher::new();
        hasher.update(before);
        hasher.update(bytes.get(COVERED..CHAINED_END).unwrap_or_default());
        hasher.update(body);
        let mut chain = [0; 16];
        hasher.finalize_xof().fill(&mut chain);
        chain
    }

    pub(super) fn encode(&self, salt: &Salt, position: u64) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        let fields: [&[u8]; 8] = [
            &MAGIC,
            &[0; 4],
            &self.body_bytes.to_le_bytes(),
            &self.group_offset.to_le_bytes(),
            &self.body_crc.to_le_bytes(),
            &self.moment.lived_ms.to_le_bytes(),
            &self.moment.wall_ms.to_le_bytes(),
            &self.chain,
        ];
        let all = fields.into_iter().flatten();
        for (place, byte) in bytes.iter_mut().zip(all) {
            *place = *byte;
        }
        let crc = head_crc(salt, position, &bytes);
        if let Some(place) = bytes.get_mut(4..COVERED) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
        bytes
    }

    /// The head in these bytes, when they are one that was written for this place.
    pub(super) fn decode(bytes: &[u8], salt: &Salt, position: u64) -> Option<Self> {
        let bytes: &[u8; HEAD_BYTES] = bytes.first_chunk()?;
        if !bytes.starts_with(&MAGIC) || number(bytes, 4)? != head_crc(salt, position, bytes) {
            return None;
        }
        let head = Self {
            body_bytes: number(bytes, 8)?,
            group_offset: number(bytes, 12)?,
            body_crc: number(bytes, 16)?,
            moment: Moment {
                lived_ms: long_number(bytes, 20)?,
                wall_ms: long_number(bytes, 28)?,
            },
            chain: *bytes.get(CHAINED_END..)?.first_chunk()?,
        };
        (head.body_bytes as usize <= BODY_BYTES_MAX).then_some(head)
    }

    /// Length of the record with its body.
    pub(super) fn record_bytes(&self) -> u64 {
        HEAD_BYTES as u64 + u64::from(self.body_bytes)
    }
}

fn head_crc(salt: &Salt, position: u64, head: &[u8; HEAD_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(salt);
    hasher.update(&position.to_le_bytes());
    hasher.update(head.get(COVERED..).unwrap_or_default());
    hasher.finalize()
}

pub(super) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn long_number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_valid_at_its_place_only_and_every_bit_counts() {
        let moment = Moment {
            lived_ms: 7,
            wall_ms: 1 << 40,
        };
        let head = Head::new(96, moment, &[3; 16], b"body");
        let bytes = head.encode(&[5; 16], 4096);
        assert_eq!(Head::decode(&bytes, &[5; 16], 4096), Some(head));
        assert_eq!(Head::decode(&bytes, &[5; 16], 4097), None);
        assert_eq!(Head::decode(&bytes, &[6; 16], 4096), None);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::decode(&damaged, &[5; 16], 4096), None, "{bit}");
        }
    }
}
