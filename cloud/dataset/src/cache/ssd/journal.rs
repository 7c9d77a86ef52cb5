//! Which extents the slab holds, and where: a file that is only appended to.
//!
//! ```text
//! header:  "RMQDSJ01"  block size u32  CRC32C of what is before u32
//! record:  length of the body u32  CRC32C of the body u32  body
//! body:    1 u8  object u128  start u64  bytes u32  user u128  CRC32C of the content u32  (first block u32  blocks u32)...
//!          2 u8  object u128  start u64  bytes u32
//! ```
//!
//! All numbers are little-endian. 1 says that the extent is there from now on, 2 that it is not any more. What follows the first record
//! that is not whole is not read. Nothing is synced as it is written: after a power cut records may be missing, and blocks may hold something else
//! than a record says; the content's CRC32C, which is also over the extent's id, tells.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use robustmq_common::disk::{Disk, DiskFile, read_range, write_all};
use robustmq_common::limits;

use super::index::{Run, Slot};
use crate::cache::{ExtentId, UserId};

const MAGIC: &[u8; 8] = b"RMQDSJ01";
const HEADER_BYTES: usize = 16;
const PREFIX_BYTES: usize = 8;
const PUT: u8 = 1;
const REMOVE: u8 = 2;
/// The most stretches of blocks that one extent may lie in; what finds no room in so many is not written.
pub(super) const RUNS: usize = 4096;
const BODY_BYTES_MOST: usize = 64 * 1024;
const READ_BYTES: usize = 1024 * 1024;

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Put(ExtentId, Slot),
    Remove(ExtentId),
}

/// The open journal.
pub(super) struct Journal {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    bytes: u64,
    /// What the records of the extents that are there took when it was written anew.
    needed_bytes: u64,
}

fn header() -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    let block = u32::try_from(limits::dataset::SSD_BLOCK_BYTES).unwrap_or(u32::MAX);
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&block.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..12]);
    bytes[12..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn encode_id(id: ExtentId, to: &mut Vec<u8>) {
    to.extend_from_slice(&id.object.to_le_bytes());
    to.extend_from_slice(&id.start.to_le_bytes());
    to.extend_from_slice(&id.bytes.to_le_bytes());
}

/// The CRC32C by which an extent's content is known again: another extent's has another one, even if its bytes are the same.
pub(super) fn content_crc(id: ExtentId, content: &[u8]) -> u32 {
    let mut named = Vec::with_capacity(28);
    encode_id(id, &mut named);
    crc32c::crc32c_append(crc32c::crc32c(&named), content)
}

pub(super) fn encode(record: &Record, to: &mut Vec<u8>) {
    let mut body = Vec::with_capacity(64);
    match record {
        Record::Put(id, slot) => {
            body.push(PUT);
            encode_id(*id, &mut body);
            body.extend_from_slice(&slot.user.0.to_le_bytes());
            body.extend_from_slice(&slot.crc.to_le_bytes());
            for run in &slot.runs {
                body.extend_from_slice(&run.first.to_le_bytes());
                body.extend_from_slice(&run.count.to_le_bytes());
            }
        }
        Record::Remove(id) => {
            body.push(REMOVE);
            encode_id(*id, &mut body);
        }
    }
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    to.extend_from_slice(&length.to_le_bytes());
    to.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    to.extend_from_slice(&body);
}

/// Takes the next `N` bytes off the front.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (front, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*front)
}

fn decode_body(mut body: &[u8]) -> Option<Record> {
    let [kind] = take(&mut body)?;
    let id = ExtentId {
        object: u128::from_le_bytes(take(&mut body)?),
        start: u64::from_le_bytes(take(&mut body)?),
        bytes: u32::from_le_bytes(take(&mut body)?),
    };
    match kind {
        PUT => {
            let user = UserId(u128::from_le_bytes(take(&mut body)?));
            let crc = u32::from_le_bytes(take(&mut body)?);
            let mut runs = Vec::with_capacity(body.len() / 8);
            while !body.is_empty() {
                let first = u32::from_le_bytes(take(&mut body)?);
                let count = u32::from_le_bytes(take(&mut body)?);
                runs.push(Run { first, count });
            }
            Some(Record::Put(id, Slot { user, crc, runs }))
        }
        REMOVE if body.is_empty() => Some(Record::Remove(id)),
        _ => None,
    }
}

/// The record at the front, and how many bytes it takes; `None` if it is not whole.
pub(super) fn decode(bytes: &[u8]) -> Option<(Record, usize)> {
    let mut rest = bytes;
    let length = usize::try_from(u32::from_le_bytes(take(&mut rest)?)).ok()?;
    let crc = u32::from_le_bytes(take(&mut rest)?);
    let body = rest.get(..length).filter(|body| body.len() <= BODY_BYTES_MOST)?;
    let record = (crc32c::crc32c(body) == crc).then(|| decode_body(body)).flatten()?;
    Some((record, PREFIX_BYTES + length))
}

/// Reads a journal up to the first record that is not whole. One that is not there, or of another kind, has none.
pub(super) fn replay(
    disk: &dyn Disk,
    path: &Path,
    mut take_record: impl FnMut(Record),
) -> io::Result<()> {
    let file = match disk.open(path, false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if read_range(&*file, 0, HEADER_BYTES)? != header() {
        return Ok(());
    }
    let mut at = HEADER_BYTES as u64;
    loop {
        let window = read_range(&*file, at, READ_BYTES)?;
        let mut used = 0;
        while let Some((record, bytes)) = decode(window.get(used..).unwrap_or_default()) {
            take_record(record);
            used += bytes;
        }
        if used == 0 {
            return Ok(());
        }
        at += used as u64;
    }
}

impl Journal {
    /// Writes a journal of these records in the place of the one that is there, if any.
    pub(super) fn rewrite(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        records: impl Iterator<Item = Record>,
    ) -> io::Result<Self> {
        let fresh = path.with_extension("new");
        let file = disk.open(&fresh, true)?;
        file.set_len(0)?;
        let (mut buffer, mut bytes) = (header().to_vec(), 0);
        for record in records {
            encode(&record, &mut buffer);
            if buffer.len() >= READ_BYTES {
                write_all(&*file, &buffer, bytes)?;
                bytes += buffer.len() as u64;
                buffer.clear();
            }
        }
        write_all(&*file, &buffer, bytes)?;
        bytes += buffer.len() as u64;
        // A name that outlives a power cut has to have its content.
        file.sync()?;
        disk.rename(&fresh, &path)?;
        Ok(Self { disk, path, file, bytes, needed_bytes: bytes })
    }

    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let mut buffer = Vec::new();
        records.iter().for_each(|record| encode(record, &mut buffer));
        write_all(&*self.file, &buffer, self.bytes)?;
        self.bytes += buffer.len() as u64;
        Ok(())
    }

    /// Whether it should be written anew.
    pub(super) fn is_long(&self) -> bool {
        self.bytes > limits::dataset::SSD_JOURNAL_BYTES.saturating_add(self.needed_bytes)
            && self.bytes > self.needed_bytes.saturating_mul(4)
    }

    /// Writes it anew with these records alone.
    pub(super) fn compact(&mut self, records: impl Iterator<Item = Record>) -> io::Result<()> {
        *self = Self::rewrite(Arc::clone(&self.disk), self.path.clone(), records)?;
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}
