//! The five ways in which a batch's records may be compressed.

use std::fmt;
use std::io::{Read, Write};

use bytes::Bytes;

use super::BatchError;

/// What snappy-java's stream begins with: magic, then version and lowest compatible version, each a big-endian 1.
const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// The part of [`XERIAL_HEADER`] that tells the framing from raw snappy.
const XERIAL_MAGIC_BYTES: usize = 8;
/// Uncompressed bytes of one block, as snappy-java has it.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// What an LZ4 frame begins with. The decoder would also take the legacy format, which Apache Kafka refuses and whose blocks
/// of 8 MiB are allocated before a byte of them is read.
const LZ4_FRAME_MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
/// The window that every zstd decoder should accept (RFC 8878, section 3.1.1.1.2): 8 MiB.
const ZSTD_WINDOW_LOG_MIN: u32 = 23;
/// The largest window of zstd's own default limit: 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// How a batch's records are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy, written in snappy-java's framing, read with or without it.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// RFC 8878 (KIP-110).
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

impl Compression {
    /// The code in a batch's attributes.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The compression with this code.
    ///
    /// # Errors
    /// [`BatchError::UnknownCompression`].
    pub fn from_code(code: u8) -> Result<Self, BatchError> {
        match code {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            code => Err(BatchError::UnknownCompression { code }),
        }
    }

    /// `records` compressed, behind `reserve` zero bytes in which the caller puts a header.
    pub(super) fn compress(self, reserve: usize, records: &[u8]) -> Result<Vec<u8>, BatchError> {
        let mut out = Vec::with_capacity(
            reserve + if self == Self::None { records.len() } else { records.len() / 2 },
        );
        out.resize(reserve, 0);
        let done = match self {
            Self::None => {
                out.extend_from_slice(records);
                Ok(out)
            }
            Self::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(out, flate2::Compression::default());
                encoder.write_all(records).and_then(|()| encoder.finish())
            }
            Self::Snappy => compress_xerial(out, records),
            Self::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(out);
                encoder
                    .write_all(records)
                    .and_then(|()| encoder.finish().map_err(std::io::Error::from))
            }
            Self::Zstd => zstd::stream::write::Encoder::new(out, zstd::DEFAULT_COMPRESSION_LEVEL)
                .and_then(|mut encoder| {
                    encoder.write_all(records)?;
                    encoder.finish()
                }),
        };
        done.map_err(|_| BatchError::Invalid { reason: "its records cannot be compressed" })
    }

    /// The records in `data`, at most `max_bytes` of them. Uncompressed data is returned as it is.
    pub(super) fn decompress(self, data: Bytes, max_bytes: usize) -> Result<Bytes, BatchError> {
        let failed = |error: std::io::Error| BatchError::Decompress {
            codec: self,
            reason: error.to_string(),
        };
        match self {
            Self::None => Ok(data),
            Self::Gzip => {
                self.read_bounded(flate2::read::MultiGzDecoder::new(&data[..]), max_bytes)
            }
            Self::Snappy => self.decompress_snappy(&data, max_bytes),
            Self::Lz4 if !data.starts_with(&LZ4_FRAME_MAGIC) => {
                let reason = "it does not begin as an LZ4 frame".to_owned();
                Err(BatchError::Decompress { codec: self, reason })
            }
            Self::Lz4 => {
                self.read_bounded(lz4_flex::frame::FrameDecoder::new(&data[..]), max_bytes)
            }
            Self::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(&data[..]).map_err(failed)?;
                let window = max_bytes.max(1).ilog2() + 1;
                decoder
                    .window_log_max(window.clamp(ZSTD_WINDOW_LOG_MIN, ZSTD_WINDOW_LOG_MAX))
                    .map_err(failed)?;
                self.read_bounded(decoder, max_bytes)
            }
        }
    }

    fn read_bounded(self, reader: impl Read, max_bytes: usize) -> Result<Bytes, BatchError> {
        let mut out = Vec::new();
        let one_more = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
        reader
            .take(one_more)
            .read_to_end(&mut out)
            .map_err(|error| BatchError::Decompress { codec: self, reason: error.to_string() })?;
        if out.len() > max_bytes {
            return Err(BatchError::DecompressedTooLarge { limit: max_bytes });
        }
        Ok(out.into())
    }

    fn decompress_snappy(self, data: &[u8], max_bytes: usize) -> Result<Bytes, BatchError> {
        let corrupt =
            |reason: &str| BatchError::Decompress { codec: self, reason: reason.to_owned() };
        let mut out = Vec::new();
        if !data.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_BYTES]) {
            append_snappy_block(&mut out, data, max_bytes)?;
            return Ok(out.into());
        }
        let mut rest =
            data.get(XERIAL_HEADER.len()..).ok_or_else(|| corrupt("the stream's header is cut"))?;
        while !rest.is_empty() {
            let (length, behind) =
                rest.split_first_chunk::<4>().ok_or_else(|| corrupt("a block's length is cut"))?;
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            let block = behind.get(..length).ok_or_else(|| corrupt("a block is cut"))?;
            append_snappy_block(&mut out, block, max_bytes)?;
            rest = behind.get(length..).unwrap_or_default();
        }
        Ok(out.into())
    }
}

fn append_snappy_block(
    out: &mut Vec<u8>,
    block: &[u8],
    max_bytes: usize,
) -> Result<(), BatchError> {
    let failed = |error: snap::Error| BatchError::Decompress {
        codec: Compression::Snappy,
        reason: error.to_string(),
    };
    let length = snap::raw::decompress_len(block).map_err(failed)?;
    let before = out.len();
    let after = before.saturating_add(length);
    if after > max_bytes {
        return Err(BatchError::DecompressedTooLarge { limit: max_bytes });
    }
    out.resize(after, 0);
    snap::raw::Decoder::new().decompress(block, &mut out[before..]).map_err(failed)?;
    Ok(())
}

fn compress_xerial(mut out: Vec<u8>, records: &[u8]) -> std::io::Result<Vec<u8>> {
    out.extend_from_slice(&XERIAL_HEADER);
    let mut encoder = snap::raw::Encoder::new();
    for block in records.chunks(XERIAL_BLOCK_BYTES) {
        let compressed = encoder.compress_vec(block).map_err(std::io::Error::from)?;
        let length = u32::try_from(compressed.len()).map_err(std::io::Error::other)?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&compressed);
    }
    Ok(out)
}
