//! What an object holds, as a file beside it says: nothing of the object has to be read to count it.
//!
//! Two kinds are known, both of NVIDIA DALI, both text:
//!
//! ```text
//! wds2idx, of a tar                            tfrecord2idx, of TFRecord
//! v1.2 2                                       0 1040
//! jpg 512 4000 a.jpg cls 5120 1 a.cls          1040 998
//! jpg 6144 3000 b.jpg cls 9728 1 b.cls         2038 1201
//! ```
//!
//! Of a tar: the version and how many samples there are; then a line for each, with the extension, the offset of the data, its size and
//! (since v1.2) the name of each member. A sample begins where the one before it ends, filled up to a block: the headers that say more of a
//! member (pax, GNU's long names) and what is passed over lie between. Of TFRecord: a line for each record, with its offset and its length,
//! framing included.
//!
//! Such a file may be of another version of the object, or be made by other rules than ours. It is taken only if it accounts for each byte of the
//! object, and names only what are samples to us. What it says is published before the object is read, and offsets never change: so an
//! extent of it has no checksum, and [`super::open`] takes one for damaged where the records are not those that were said. Readers are
//! then given null records in their place, or stop there, as of any other damage.
//!
//! **Invariant:** extents lie one after another without gaps, and from the object's first byte to its last.
//! **Invariant:** what is larger than a record may be is in no index made here: whoever reads the object says that it is damaged.

use robustmq_common::limits::dataset as limits;

use super::{ExtentIndex, ObjectIndex, Pace, Reading};
use crate::format::{Coding, Format, Parsed, split_sample_name};

/// A tar's block.
const BLOCK: u64 = 512;
/// Length and checksums of a TFRecord.
const FRAMING_BYTES: u64 = 16;

/// Why an index file is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Implausible {
    /// Not by these rules.
    #[error("it is no index file of that format")]
    Unknown,
    /// A line that cannot be read.
    #[error("line {line} cannot be read")]
    Line {
        /// From 1 on.
        line: u64,
    },
    /// Something is where it cannot be.
    #[error("line {line} says a place where nothing of that kind can be")]
    Place {
        /// From 1 on.
        line: u64,
    },
    /// The members are not those of one sample, or are of none.
    #[error("line {line} is not one sample")]
    Sample {
        /// From 1 on.
        line: u64,
    },
    /// The record would be damage.
    #[error("the record in line {line} is larger than a record may be")]
    TooLarge {
        /// From 1 on.
        line: u64,
    },
    /// Lines are missing, or there are too many.
    #[error("it has {found} samples of {said}")]
    Count {
        /// By its first line.
        said: u64,
        /// Lines.
        found: u64,
    },
    /// It is of an object of another size.
    #[error("its last record ends at byte {end} of {size}")]
    End {
        /// Where the last record ends.
        end: u64,
        /// The object's size.
        size: u64,
    },
}

/// Whether objects that are read like this may have an index file.
#[must_use]
pub fn may_have(reading: &Reading) -> bool {
    may_be(reading.format) && reading.coding == Coding::Plain
}

/// Whether there are index files of a format.
#[must_use]
pub fn may_be(format: Format) -> bool {
    matches!(format, Format::WebDataset | Format::Tar | Format::TfRecord)
}

/// The names that the index file of an object of that name may have.
#[must_use]
pub fn names(object: &str) -> Vec<String> {
    let endings = [".tar", ".tfrecord", ".tfrecords"];
    let stem = endings.iter().find_map(|ending| object.strip_suffix(ending));
    let stem = stem.filter(|stem| !stem.is_empty() && !stem.ends_with('/'));
    [Some(object), stem].into_iter().flatten().map(|name| format!("{name}.idx")).collect()
}

/// What an object of `size` bytes holds, by the `text` beside it, in extents as if it were read at that pace.
///
/// # Errors
/// [`Implausible`]: the object has to be read.
pub fn index(
    text: &[u8],
    reading: Reading,
    size: u64,
    pace: Pace,
) -> Result<ObjectIndex, Implausible> {
    if !may_have(&reading) {
        return Err(Implausible::Unknown);
    }
    let is_tar = reading.format != Format::TfRecord;
    let mut cuts = Cuts { index: ObjectIndex::new(reading), pace, start: 0, end: 0, records: 0 };
    match is_tar {
        true => tar(text, size, &mut cuts)?,
        false => tfrecord(text, size, &mut cuts)?,
    }
    // What ends the archive is of its last extent: a sample that the index leaves out is found there.
    cuts.end = size;
    cuts.close();
    Ok(cuts.index)
}

/// Whether an extent that was never read before is not what its index file says. Zeros may fill up the end of a tar.
pub(super) fn is_false(found: &Parsed, content: &[u8]) -> bool {
    let rest = content.get(found.consumed..).unwrap_or_default();
    !found.damage.is_empty() || found.skip > 0 || rest.iter().any(|byte| *byte != 0)
}

/// Makes extents of records that lie one after another.
struct Cuts {
    index: ObjectIndex,
    /// How long the next extent is to be.
    pace: Pace,
    /// Where the extent that is not closed begins.
    start: u64,
    /// Where its last record ends.
    end: u64,
    records: u32,
}

impl Cuts {
    /// The most that a record may have.
    fn record_bytes(&self) -> u64 {
        self.index.reading.large.bytes.into()
    }

    fn add(&mut self, end: u64) {
        let is_full = end - self.start > self.pace.first_bytes as u64
            || self.records as usize >= limits::EXTENT_RECORDS;
        if is_full && self.records > 0 {
            self.close();
        }
        self.records += 1;
        self.end = end;
    }

    fn close(&mut self) {
        let bytes = u32::try_from(self.end - self.start).expect("about a record's size at most");
        self.index.extents.push(ExtentIndex {
            start: self.start,
            bytes,
            first_record: self.index.records(),
            records: self.records,
            crc: None,
        });
        self.start = self.end;
        self.records = 0;
        self.pace.first_bytes = (self.pace.first_bytes * 2).min(self.pace.extent_bytes);
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let lines = text.split(|byte| *byte == b'\n');
    (1..).zip(lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)))
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b' ')
}

fn number(word: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(word?).ok()?.parse().ok()
}

fn tfrecord(text: &[u8], size: u64, cuts: &mut Cuts) -> Result<(), Implausible> {
    for (line, words_of) in lines(text) {
        let mut words = words(words_of);
        let (offset, length) = (number(words.next()), number(words.next()));
        let (Some(offset), Some(length), None) = (offset, length, words.next()) else {
            return Err(Implausible::Line { line });
        };
        let end = offset.checked_add(length).filter(|end| *end <= size);
        let Some(end) = end.filter(|_| offset == cuts.end && length >= FRAMING_BYTES) else {
            return Err(Implausible::Place { line });
        };
        if length - FRAMING_BYTES > cuts.record_bytes() {
            return Err(Implausible::TooLarge { line });
        }
        cuts.add(end);
    }
    match cuts.end == size {
        true => Ok(()),
        false => Err(Implausible::End { end: cuts.end, size }),
    }
}

fn tar(text: &[u8], size: u64, cuts: &mut Cuts) -> Result<(), Implausible> {
    let mut lines = lines(text);
    let mut head = lines.next().map(|(_, line)| words(line)).ok_or(Implausible::Unknown)?;
    let has_names = match head.next() {
        Some(b"v1.1") => false,
        Some(b"v1.2") => true,
        _ => return Err(Implausible::Unknown),
    };
    let said = number(head.next()).ok_or(Implausible::Line { line: 1 })?;
    let (mut found, mut key) = (0, Vec::new());
    for (line, members) in lines {
        sample(line, members, has_names, size, &mut key, cuts)?;
        found += 1;
    }
    // One without samples says nothing that could be wrong later on.
    if found != said || found == 0 {
        return Err(Implausible::Count { said, found });
    }
    match size - cuts.end <= limits::TAR_END_BYTES {
        true => Ok(()),
        false => Err(Implausible::End { end: cuts.end, size }),
    }
}

/// Takes one line. `key` is that of the sample before, where there are names.
fn sample(
    line: u64,
    members: &[u8],
    has_names: bool,
    size: u64,
    key: &mut Vec<u8>,
    cuts: &mut Cuts,
) -> Result<(), Implausible> {
    let is_sample = cuts.index.reading.format == Format::WebDataset;
    let (start, mut at, mut bytes, mut is_first) = (cuts.end, cuts.end, 0_u64, true);
    let mut words = words(members).peekable();
    while words.peek().is_some() {
        let extension = words.next().unwrap_or_default();
        let (offset, length) = (number(words.next()), number(words.next()));
        let name = has_names.then(|| words.next());
        let (Some(offset), Some(length)) = (offset, length) else {
            return Err(Implausible::Line { line });
        };
        match name {
            Some(None) => return Err(Implausible::Line { line }),
            Some(Some(name)) if is_sample => of_sample(line, name, is_first, key)?,
            _ if extension.contains(&b'/') => return Err(Implausible::Sample { line }),
            _ => {}
        }
        at =
            member_end((at, offset, length), size, is_sample).ok_or(Implausible::Place { line })?;
        bytes = bytes.saturating_add(length);
        is_first = false;
        let whole = if is_sample { bytes } else { length };
        let most = cuts.record_bytes();
        if whole > most || is_sample && at - start > most + limits::TAR_OVERHEAD_BYTES as u64 {
            return Err(Implausible::TooLarge { line });
        }
        // Each member of a tar is a record.
        if !is_sample {
            cuts.add(at);
        }
    }
    if is_sample {
        cuts.add(at);
    }
    Ok(())
}

/// Checks that a member is of the same sample as those before it in its line, and of another one than those of the line before.
fn of_sample(line: u64, name: &[u8], is_first: bool, key: &mut Vec<u8>) -> Result<(), Implausible> {
    let found = split_sample_name(name).and_then(|(end, _)| name.get(..end));
    let found = found.ok_or(Implausible::Sample { line })?;
    if is_first == (found == key.as_slice()) {
        return Err(Implausible::Sample { line });
    }
    key.clear();
    key.extend_from_slice(found);
    Ok(())
}

/// Where a member's last block ends whose headers begin at `at` or behind it; `None` if it cannot be there. What is passed over in a
/// WebDataset may lie before it, while each file in a tar is a record: there one header is all that is before its data.
fn member_end(
    (at, offset, length): (u64, u64, u64),
    size: u64,
    may_pass_over: bool,
) -> Option<u64> {
    let headers = offset.checked_sub(at)?;
    let most = if may_pass_over { limits::TAR_EXTENSION_BYTES as u64 } else { BLOCK };
    if headers < BLOCK || headers > most || !headers.is_multiple_of(BLOCK) {
        return None;
    }
    let end = offset.checked_add(length).filter(|end| *end <= size)?;
    Some(end.checked_next_multiple_of(BLOCK)?.min(size))
}

#[cfg(test)]
mod tests;
