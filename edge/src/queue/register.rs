//! A small value that survives any crash: one file with two slots, written in turn.
//!
//! ```text
//! slot 0 at byte 0, slot 1 at byte 4096, each:
//!  0  8  magic "RMQSLOT1"
//!  8  4  CRC32C of the bytes from 12 to the value's end
//! 12  4  length of the value
//! 16  8  generation; the larger one of two good slots counts
//! 24     the value
//! ```
//!
//! Both slots are written when the file is made and then only overwritten in place, so a full disk takes no space away
//! from them (on file systems that overwrite in place).

use std::io::{self, ErrorKind};
use std::path::Path;

use bytes::BufMut;

use super::disk::{self, Disk, DiskFile};

const SLOT_BYTES: usize = 4096;
const HEAD_BYTES: usize = 24;
const MAGIC: &[u8; 8] = b"RMQSLOT1";

/// The longest value.
pub(super) const VALUE_BYTES: usize = SLOT_BYTES - HEAD_BYTES;

/// An open register.
pub(super) struct Register {
    file: Box<dyn DiskFile>,
    generation: u64,
}

/// What a register held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Held {
    /// The last value stored whole; `None` if there is none.
    pub value: Option<Vec<u8>>,
    /// A slot that had been written could not be read back: the value may be the one before the last.
    pub damaged: bool,
}

impl Register {
    /// Opens the file, made if need be, and reads it. The caller makes its name durable.
    pub fn open(disk: &dyn Disk, path: &Path) -> io::Result<(Self, Held)> {
        let file = disk.open(path, true)?;
        let len = usize::try_from(file.byte_len()?).unwrap_or(usize::MAX);
        if len < 2 * SLOT_BYTES {
            disk::write_all(file.as_ref(), &vec![0u8; 2 * SLOT_BYTES - len], len as u64)?;
            file.sync()?;
        }
        let (generation, held) = read(file.as_ref())?;
        Ok((Self { file, generation }, held))
    }

    /// Reads a register without changing it.
    pub fn peek(disk: &dyn Disk, path: &Path) -> io::Result<Held> {
        match disk.open(path, false) {
            Ok(file) => Ok(read(file.as_ref())?.1),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Ok(Held { value: None, damaged: false })
            }
            Err(error) => Err(error),
        }
    }

    /// Replaces the value; durable when it returns. `value` has at most `VALUE_BYTES`.
    pub fn store(&mut self, value: &[u8]) -> io::Result<()> {
        let length = u32::try_from(value.len()).map_err(|_| ErrorKind::InvalidInput)?;
        if value.len() > VALUE_BYTES {
            return Err(ErrorKind::InvalidInput.into());
        }
        let generation = self.generation + 1;
        let mut slot = Vec::with_capacity(SLOT_BYTES);
        slot.put_slice(MAGIC);
        slot.put_u32_le(0);
        slot.put_u32_le(length);
        slot.put_u64_le(generation);
        slot.put_slice(value);
        let crc = crc32c::crc32c(&slot[12..]);
        slot[8..12].copy_from_slice(&crc.to_le_bytes());
        slot.resize(SLOT_BYTES, 0);
        disk::write_all(self.file.as_ref(), &slot, (generation % 2) * SLOT_BYTES as u64)?;
        self.file.sync()?;
        self.generation = generation;
        Ok(())
    }
}

fn read(file: &dyn DiskFile) -> io::Result<(u64, Held)> {
    let mut best: Option<(u64, Vec<u8>)> = None;
    let mut damaged = false;
    for index in 0..2u64 {
        let mut slot = vec![0u8; SLOT_BYTES];
        let filled = disk::read_up_to(file, &mut slot, index * SLOT_BYTES as u64)?;
        slot.truncate(filled);
        match decode(&slot) {
            Some((generation, value)) => {
                if best.as_ref().is_none_or(|(newest, _)| generation > *newest) {
                    best = Some((generation, value.to_vec()));
                }
            }
            None => damaged |= slot.iter().any(|byte| *byte != 0),
        }
    }
    let generation = best.as_ref().map_or(0, |(generation, _)| *generation);
    Ok((generation, Held { value: best.map(|(_, value)| value), damaged }))
}

fn decode(slot: &[u8]) -> Option<(u64, &[u8])> {
    let head = slot.first_chunk::<HEAD_BYTES>()?;
    let number = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk::<4>()?));
    let length = usize::try_from(number(12)?).ok()?;
    let covered = slot.get(12..HEAD_BYTES.checked_add(length)?)?;
    let sound = &head[..8] == MAGIC && crc32c::crc32c(covered) == number(8)?;
    let generation = u64::from_le_bytes(*head.get(16..)?.first_chunk::<8>()?);
    sound.then(|| (generation, &covered[12..]))
}
