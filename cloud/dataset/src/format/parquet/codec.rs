//! Pages, decompressed into no more than they say that they are.

use std::io::Read;

use parquet::basic::Compression;

/// What compresses a column chunk; an error names what is not read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    None,
    Snappy,
    Gzip,
    Brotli,
    Zstd,
    Lz4Raw,
    /// As Hadoop frames it, or, of old writers, as LZ4's own frames or without any.
    Lz4,
}

impl TryFrom<Compression> for Codec {
    type Error = String;

    fn try_from(compression: Compression) -> Result<Self, String> {
        Ok(match compression {
            Compression::UNCOMPRESSED => Self::None,
            Compression::SNAPPY => Self::Snappy,
            Compression::GZIP(_) => Self::Gzip,
            Compression::BROTLI(_) => Self::Brotli,
            Compression::ZSTD(_) => Self::Zstd,
            Compression::LZ4 => Self::Lz4,
            Compression::LZ4_RAW => Self::Lz4Raw,
            Compression::LZO => return Err("it is compressed with LZO, which is not read".into()),
        })
    }
}

impl Codec {
    /// Appends what `from` becomes, which has to be `bytes` bytes. The caller has checked that so many may be had.
    pub fn decompress(self, from: &[u8], bytes: usize, into: &mut Vec<u8>) -> Result<(), String> {
        let start = into.len();
        if bytes > 0 {
            into.resize(start + bytes, 0);
            let room = into.get_mut(start..).unwrap_or_default();
            let found = self.fill(from, room)?;
            if found != bytes {
                return Err(format!("{bytes} bytes were to come, and {found} came"));
            }
        }
        Ok(())
    }

    /// Decompresses into `room`, and says how much of it was needed. What does not fit is an error.
    fn fill(self, from: &[u8], room: &mut [u8]) -> Result<usize, String> {
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        match self {
            Self::None => {
                let fits = room.get_mut(..from.len()).ok_or_else(too_much)?;
                fits.copy_from_slice(from);
                Ok(from.len())
            }
            Self::Snappy => {
                snap::raw::Decoder::new().decompress(from, room).map_err(|error| failed(&error))
            }
            Self::Gzip => read_into(flate2::read::MultiGzDecoder::new(from), room),
            Self::Brotli => read_into(brotli_decompressor::Decompressor::new(from, 4096), room),
            Self::Zstd => {
                zstd::bulk::decompress_to_buffer(from, room).map_err(|error| failed(&error))
            }
            Self::Lz4Raw => {
                lz4_flex::block::decompress_into(from, room).map_err(|error| failed(&error))
            }
            Self::Lz4 => hadoop(from, room)
                .or_else(|_| read_into(lz4_flex::frame::FrameDecoder::new(from), room))
                .or_else(|_| Self::Lz4Raw.fill(from, room)),
        }
    }
}

fn too_much() -> String {
    "it is larger than it says".into()
}

fn read_into(mut from: impl Read, room: &mut [u8]) -> Result<usize, String> {
    let mut filled = 0;
    loop {
        let rest = room.get_mut(filled..).unwrap_or_default();
        let read = match rest.is_empty() {
            true => from.read(&mut [0]),
            false => from.read(rest),
        };
        match read {
            Ok(0) => return Ok(filled),
            Ok(_) if filled == room.len() => return Err(too_much()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Hadoop's frames: the sizes of what follows, decompressed and compressed, as big-endian u32, and a block; any number of times.
fn hadoop(mut from: &[u8], room: &mut [u8]) -> Result<usize, String> {
    let mut filled = 0;
    while !from.is_empty() {
        let (bytes, rest) = from.split_first_chunk().ok_or("a frame is cut off")?;
        let (size, rest) = rest.split_first_chunk().ok_or("a frame is cut off")?;
        let (bytes, size) = (u32::from_be_bytes(*bytes), u32::from_be_bytes(*size));
        let (block, rest) = rest.split_at_checked(size as usize).ok_or("a frame is cut off")?;
        let space = room.get_mut(filled..).and_then(|room| room.get_mut(..bytes as usize));
        let found = Codec::Lz4Raw.fill(block, space.ok_or_else(too_much)?)?;
        if found != bytes as usize {
            return Err("a frame has another size than it says".into());
        }
        (filled, from) = (filled + found, rest);
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::Codec;

    fn compressed(codec: Codec, content: &[u8]) -> Vec<u8> {
        match codec {
            Codec::None => content.to_vec(),
            Codec::Snappy => snap::raw::Encoder::new().compress_vec(content).unwrap(),
            Codec::Gzip => {
                let fast = flate2::Compression::fast();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), fast);
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
            Codec::Zstd => zstd::encode_all(content, 1).unwrap(),
            Codec::Lz4Raw => lz4_flex::block::compress(content),
            Codec::Lz4 => {
                let mut frames = Vec::new();
                for part in content.chunks(1000) {
                    let block = lz4_flex::block::compress(part);
                    frames.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
                    frames.extend(u32::try_from(block.len()).unwrap().to_be_bytes());
                    frames.extend(block);
                }
                frames
            }
            Codec::Brotli => {
                let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 1, 20);
                encoder.write_all(content).unwrap();
                encoder.into_inner()
            }
        }
    }

    #[test]
    fn what_is_said_is_what_comes_or_it_is_an_error() {
        let content = vec![b'x'; 3000];
        let all = [
            Codec::None,
            Codec::Snappy,
            Codec::Gzip,
            Codec::Brotli,
            Codec::Zstd,
            Codec::Lz4Raw,
            Codec::Lz4,
        ];
        for codec in all {
            let from = compressed(codec, &content);
            let mut into = b"before".to_vec();
            assert_eq!(codec.decompress(&from, 3000, &mut into), Ok(()), "{codec:?}");
            assert!(into.starts_with(b"before") && into[6..] == content, "{codec:?}");
            for other in [1, 2999, 3001, 100_000] {
                assert!(
                    codec.decompress(&from, other, &mut Vec::new()).is_err(),
                    "{codec:?} {other}"
                );
            }
            for cut in 0..from.len().min(40) {
                let _ = codec.decompress(&from[..cut], 3000, &mut Vec::new());
            }
        }
        let mut frames = lz4_flex::frame::FrameEncoder::new(Vec::new());
        frames.write_all(&content).unwrap();
        for old in [frames.finish().unwrap(), lz4_flex::block::compress(&content)] {
            let mut into = Vec::new();
            assert_eq!(Codec::Lz4.decompress(&old, 3000, &mut into), Ok(()));
            assert_eq!(into, content);
        }
    }
}
