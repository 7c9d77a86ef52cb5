//! The bytes of an archived object.
//!
//! ```text
//! blocks     record batches end to end, as they were stored; a block is the batches of about a megabyte
//! footer     for each block: position(8) bytes(4) base_offset(8) last_offset(8) crc32c(4)
//! trailer    magic "RMQTIER1" blocks(4) base_offset(8) last_offset(8) data_bytes(8) crc32c of footer and trailer up to here(4)
//! ```
//!
//! Numbers are big-endian. The trailer says all that is needed to read the object without the store.

use bytes::{BufMut, Bytes, BytesMut};
use robustmq_common::ids::Offset;
use robustmq_common::limits;
use robustmq_common::record::{BatchError, BatchHeader};

const MAGIC: &[u8; 8] = b"RMQTIER1";
const BLOCK_BYTES: usize = 32;
const TRAILER_BYTES: usize = 40;

/// Where a block lies and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub position: u64,
    pub bytes: u32,
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub crc32c: u32,
}

/// What is wrong with an object's bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The footer is not one.
    #[error("its footer is damaged: {0}")]
    Footer(&'static str),
    /// A block has other bytes than were put.
    #[error("block {0} has another checksum than was put")]
    Checksum(usize),
    /// A batch in a block is none.
    #[error("a batch in it is damaged: {0}")]
    Batch(#[from] BatchError),
}

/// Gathers batches into an object.
#[derive(Debug, Default)]
pub struct ObjectBuilder {
    parts: Vec<Bytes>,
    blocks: Vec<Block>,
    /// Of the block that is being filled.
    open: Option<Block>,
    data_bytes: u64,
}

/// An object that can be put.
#[derive(Debug)]
pub struct SealedObject {
    /// Its bytes, in pieces.
    pub parts: Vec<Bytes>,
    /// The first offset of its first batch.
    pub base_offset: Offset,
    /// The last offset of its last batch.
    pub last_offset: Offset,
    /// Bytes of batches.
    pub data_bytes: u64,
    /// Bytes of the footer with its trailer.
    pub footer_bytes: u32,
}

impl ObjectBuilder {
    /// Adds a batch as it was stored; batches come in the order of offsets.
    ///
    /// # Errors
    /// [`BatchError`]: it has no header.
    pub fn push(&mut self, batch: Bytes) -> Result<(), BatchError> {
        let header = BatchHeader::parse(&batch)?;
        let bytes = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        let last_offset = Offset(header.base_offset.0 + i64::from(header.last_offset_delta));
        let mut block = self.open.take().unwrap_or(Block {
            position: self.data_bytes,
            bytes: 0,
            base_offset: header.base_offset,
            last_offset,
            crc32c: 0,
        });
        block.bytes = block.bytes.saturating_add(bytes);
        block.last_offset = last_offset;
        block.crc32c = crc32c::crc32c_append(block.crc32c, &batch);
        self.data_bytes += u64::from(bytes);
        self.parts.push(batch);
        match block.bytes as usize >= limits::tier::BLOCK_BYTES {
            true => self.blocks.push(block),
            false => self.open = Some(block),
        }
        Ok(())
    }

    /// Bytes of batches so far.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Adds the footer; `None` if there is no batch.
    #[must_use]
    pub fn seal(mut self) -> Option<SealedObject> {
        self.blocks.extend(self.open.take());
        let (first, last) = (*self.blocks.first()?, *self.blocks.last()?);
        let mut footer = BytesMut::with_capacity(self.blocks.len() * BLOCK_BYTES + TRAILER_BYTES);
        for block in &self.blocks {
            footer.put_u64(block.position);
            footer.put_u32(block.bytes);
            footer.put_i64(block.base_offset.0);
            footer.put_i64(block.last_offset.0);
            footer.put_u32(block.crc32c);
        }
        footer.put_slice(MAGIC);
        footer.put_u32(u32::try_from(self.blocks.len()).unwrap_or(u32::MAX));
        footer.put_i64(first.base_offset.0);
        footer.put_i64(last.last_offset.0);
        footer.put_u64(self.data_bytes);
        footer.put_u32(crc32c::crc32c(&footer));
        let footer_bytes = u32::try_from(footer.len()).unwrap_or(u32::MAX);
        self.parts.push(footer.freeze());
        Some(SealedObject {
            parts: self.parts,
            base_offset: first.base_offset,
            last_offset: last.last_offset,
            data_bytes: self.data_bytes,
            footer_bytes,
        })
    }
}

/// Reads an object's footer, with its trailer.
pub(super) fn parse_footer(footer: &[u8]) -> Result<Vec<Block>, FormatError> {
    let damaged = FormatError::Footer;
    let blocks_bytes = footer.len().checked_sub(TRAILER_BYTES).ok_or(damaged("it is too short"))?;
    let (blocks, trailer) = footer.split_at(blocks_bytes);
    let (magic, trailer) = trailer.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(damaged("its magic bytes are others"));
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let (summed, crc) = footer.split_at(footer.len() - 4);
    if number(crc) != u64::from(crc32c::crc32c(summed)) {
        return Err(damaged("its checksum is another"));
    }
    if number(&trailer[..4]) * BLOCK_BYTES as u64 != blocks_bytes as u64 {
        return Err(damaged("it has another number of blocks than it says"));
    }
    let offset = |bytes: &[u8]| Offset(number(bytes).cast_signed());
    let small = |bytes: &[u8]| u32::try_from(number(bytes)).unwrap_or(u32::MAX);
    let blocks = blocks.chunks_exact(BLOCK_BYTES).map(|block| Block {
        position: number(&block[..8]),
        bytes: small(&block[8..12]),
        base_offset: offset(&block[12..20]),
        last_offset: offset(&block[20..28]),
        crc32c: small(&block[28..]),
    });
    Ok(blocks.collect())
}

/// The batches of a block from the one that holds `from` on: at most `max_bytes`, and with `at_least_one` one if there is one. And
/// whether that is all that the block has.
pub(super) fn batches(
    block: &Bytes,
    from: Offset,
    max_bytes: usize,
    at_least_one: bool,
) -> Result<(Vec<Bytes>, bool), FormatError> {
    let mut found = Vec::new();
    let (mut at, mut bytes) = (0, 0);
    while at < block.len() {
        let header = BatchHeader::parse(&block[at..])?;
        let size = header.batch_bytes();
        let end = at.checked_add(size).filter(|end| *end <= block.len());
        let end = end.ok_or(FormatError::Footer("a batch goes beyond its block"))?;
        if header.base_offset.0 + i64::from(header.last_offset_delta) >= from.0 {
            bytes += size;
            if bytes > max_bytes && !(at_least_one && found.is_empty()) {
                return Ok((found, false));
            }
            found.push(block.slice(at..end));
        }
        at = end;
    }
    Ok((found, true))
}
