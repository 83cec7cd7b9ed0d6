//! What a run of remembered ids is made of on disk: blocks of 4 KiB, each with its own checksum.

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 4096;
/// Bytes of a block that carry content; the checksum follows.
pub(super) const CONTENT_BYTES: usize = BLOCK_BYTES - 4;

/// One block.
pub(super) type Block = [u8; BLOCK_BYTES];

/// Where a block belongs. It is part of the checksum, so that a block of another run, or from
/// another place, is not taken for this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Address {
    /// The first and the last flush that the run has the ids of.
    pub(super) flushes: (u64, u64),
    /// The block's number in its file.
    pub(super) number: u64,
}

/// A block with this content (of which there is no more than [`CONTENT_BYTES`]), zeros behind it,
/// and the checksum.
pub(super) fn seal(content: &[u8], address: Address) -> Block {
    let mut block = [0; BLOCK_BYTES];
    for (place, byte) in block.iter_mut().zip(content.iter().take(CONTENT_BYTES)) {
        *place = *byte;
    }
    if let Some((content, crc)) = block.split_last_chunk_mut::<4>() {
        *crc = checksum(content, address).to_le_bytes();
    }
    block
}

/// The content of a block, if it is whole and belongs here.
pub(super) fn open(block: &Block, address: Address) -> Option<&[u8]> {
    let (content, crc) = block.split_last_chunk::<4>()?;
    (u32::from_le_bytes(*crc) == checksum(content, address)).then_some(content)
}

fn checksum(content: &[u8], address: Address) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for number in [address.flushes.0, address.flushes.1, address.number] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(content);
    hasher.finalize()
}
