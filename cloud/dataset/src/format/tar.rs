//! Members of a tar: POSIX ustar and pax, GNU's long names and large sizes, and what was before them (v7).
//!
//! A tar is a row of blocks of 512 bytes: a header, then as many as its member's data takes. Headers of type `x`, `L` and `K` say more of the
//! member whose header comes next. Two blocks of zeros are the end, and so is the content's end.
//!
//! Only regular files are of interest. Directories, links, devices, sparse files (whose data is not there as it is) and what is unknown are
//! passed over. A name is text and nothing else: it is never a path of ours.
//!
//! **Invariant:** whatever a header says, an entry ends behind where it begins, and at most [`TAR_EXTENSION_BYTES`] and a few blocks have to
//! be in sight to know it.

use memchr::memchr;
use robustmq_common::limits::dataset::TAR_EXTENSION_BYTES;

use super::{Given, Input, LargeRecord, Limits, Parsed, Parser, shown};
use crate::layout::{RecordLayout, Span, Text};

pub(super) const BLOCK: usize = 512;

/// [`super::Format::Tar`].
pub(super) struct Tar;

/// A member: its headers and its data.
#[derive(Debug)]
pub(super) struct Entry {
    /// Where the first of its headers begins.
    pub start: usize,
    /// Where its data begins.
    pub data: usize,
    /// Bytes of its data.
    pub size: u64,
    /// Where the next one begins.
    pub end: u64,
    pub name: Text,
    /// It is a regular file.
    pub is_file: bool,
}

impl Entry {
    /// Its data, if it is all there. The blocks' filling may be missing at the content's end.
    pub fn data(&self, given: Given<'_>) -> Option<Span> {
        let there = given.bytes.len() as u64;
        let data_end = self.data as u64 + self.size;
        let is_there = self.end <= there || given.is_last && data_end <= there;
        let size = usize::try_from(self.size).ok().filter(|_| is_there)?;
        Some(Span::new(self.data, size))
    }

    /// Where the next one begins, if that is in sight.
    pub fn end(&self, given: Given<'_>) -> Option<usize> {
        usize::try_from(self.end).ok().filter(|end| *end <= given.bytes.len())
    }
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Next {
    Entry(Entry),
    /// Not enough is in sight to know.
    More,
    /// Nothing: here the archive ends, or the content does.
    End(usize),
    /// The content ends within a header.
    Cut,
    /// There is no header where one has to be, `at`.
    Bad {
        at: usize,
        reason: String,
    },
}

/// What headers before the member's own have said of it.
#[derive(Default)]
struct Said {
    name: Option<Text>,
    size: Option<u64>,
    is_sparse: bool,
}

/// The entry that begins at `start`.
pub(super) fn next(given: Given<'_>, start: usize) -> Next {
    let missing = || if given.is_last { Next::Cut } else { Next::More };
    let mut said = Said::default();
    let mut at = start;
    loop {
        let bad = |reason: &str| Next::Bad { at, reason: reason.into() };
        if at - start > TAR_EXTENSION_BYTES {
            return bad("the headers of a member do not end");
        }
        let rest = given.bytes.get(at..).unwrap_or_default();
        if at == start && given.is_last && rest.len() < BLOCK && is_zero(rest) {
            return Next::End(given.bytes.len());
        }
        let Some(header) = rest.first_chunk::<BLOCK>() else {
            return missing();
        };
        if at == start && is_zero(header) {
            return end(given, at);
        }
        let size = match size_in(header) {
            Ok(size) => size,
            Err(reason) => return bad(reason),
        };
        let kind = header[156];
        if !matches!(kind, b'x' | b'X' | b'g' | b'L' | b'K') {
            return match entry(given, start, at, size, said) {
                Ok(Some(entry)) => Next::Entry(entry),
                Ok(None) => missing(),
                Err(reason) => bad(reason),
            };
        }
        let Some(size) = usize::try_from(size).ok().filter(|size| *size <= TAR_EXTENSION_BYTES)
        else {
            return bad("the extended header of a member is too large");
        };
        let Some(body) = rest.get(BLOCK..BLOCK + size) else {
            return missing();
        };
        match kind {
            b'x' | b'X' => {
                if let Err(reason) = said.pax(body, at + BLOCK) {
                    return bad(reason);
                }
            }
            b'L' => said.name = Some(Text::Span(Span::new(at + BLOCK, text_bytes(body)))),
            // Defaults for all members are of no use here (a path or a size cannot be one), and where links lead to is not followed.
            _ => {}
        }
        at += BLOCK + size.next_multiple_of(BLOCK);
    }
}

/// What a block of zeros means.
fn end(given: Given<'_>, at: usize) -> Next {
    let after = &given.bytes[at + BLOCK..];
    let second = &after[..after.len().min(BLOCK)];
    if !is_zero(second) {
        return Next::Bad { at, reason: "a block of zeros is not followed by another".into() };
    }
    if second.len() == BLOCK || given.is_last {
        Next::End(at + BLOCK + second.len())
    } else {
        Next::More
    }
}

/// The entry whose own header is at `at`; `None` if not all of its headers are in sight.
fn entry(
    given: Given<'_>,
    start: usize,
    at: usize,
    size: u64,
    said: Said,
) -> Result<Option<Entry>, &'static str> {
    let header = &given.bytes[at..at + BLOCK];
    let name = said.name.unwrap_or_else(|| name_in(header, at));
    let kind = header[156];
    // Before there was a type for them, directories were files whose names end with a slash.
    let is_directory = kind == 0 && name.of(given.bytes).ends_with(b"/");
    let is_file = matches!(kind, 0 | b'0' | b'7') && !is_directory && !said.is_sparse;
    let has_data = !is_directory && !matches!(kind, b'1'..=b'6');
    let size = if has_data { said.size.unwrap_or(size) } else { 0 };
    let mut data = at + BLOCK;
    // GNU's sparse files: more blocks of where data lies, each of which says whether another one follows.
    let mut has_more = kind == b'S' && header[482] != 0;
    while has_more {
        if data - start > TAR_EXTENSION_BYTES {
            return Err("the headers of a sparse member do not end");
        }
        let Some(block) = given.bytes.get(data..data + BLOCK) else {
            return Ok(None);
        };
        has_more = block[504] != 0;
        data += BLOCK;
    }
    let end = size
        .checked_next_multiple_of(BLOCK as u64)
        .and_then(|bytes| bytes.checked_add(data as u64))
        .ok_or("the size of a member is not possible")?;
    Ok(Some(Entry { start, data, size, end, name, is_file }))
}

/// Checks a header and says the size in it.
fn size_in(header: &[u8; BLOCK]) -> Result<u64, &'static str> {
    if !has_checksum(header) {
        return Err("the checksum of a header does not match");
    }
    number(&header[124..136]).ok_or("the size in a header is no number")
}

/// The header's checksum is that of its bytes, with the checksum's own eight taken as spaces. Some took bytes as signed.
fn has_checksum(header: &[u8; BLOCK]) -> bool {
    let Some(expected) = number(&header[148..156]) else {
        return false;
    };
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    let unsigned = sum(&header[..148]) + 8 * u64::from(b' ') + sum(&header[156..]);
    let negative = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(byte >> 7)).sum::<u64>();
    let signed = unsigned.checked_sub(256 * (negative(&header[..148]) + negative(&header[156..])));
    unsigned == expected || signed == Some(expected)
}

/// A number: octal digits, with spaces before and a space or a zero after them; or, if its first bit is set, big-endian binary.
fn number(field: &[u8]) -> Option<u64> {
    match field.split_first()? {
        (0x80, binary) => binary
            .iter()
            .try_fold(0_u64, |number, byte| Some(number.checked_mul(256)? | u64::from(*byte))),
        // The only other one that is binary says a negative number.
        (0x81.., _) => None,
        _ => {
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            field[..end].trim_ascii().iter().try_fold(0_u64, |number, digit| {
                let digit = matches!(digit, b'0'..=b'7').then(|| u64::from(digit - b'0'))?;
                number.checked_mul(8)?.checked_add(digit)
            })
        }
    }
}

/// The name in a header: `ustar` has a second field for what comes before it.
fn name_in(header: &[u8], at: usize) -> Text {
    let name_bytes = text_bytes(&header[..100]);
    let prefix = &header[345..500];
    let prefix = &prefix[..text_bytes(prefix)];
    // GNU's own headers, whose magic ends with spaces, have other things in its place.
    if prefix.is_empty() || !header[257..].starts_with(b"ustar\0") {
        return Text::Span(Span::new(at, name_bytes));
    }
    Text::Owned([prefix, b"/", &header[..name_bytes]].concat().into())
}

fn text_bytes(field: &[u8]) -> usize {
    memchr(0, field).unwrap_or(field.len())
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |all, byte| all | byte) == 0
}

impl Said {
    /// Lines of "length key=value", of which the length counts all of the line.
    fn pax(&mut self, body: &[u8], body_at: usize) -> Result<(), &'static str> {
        const WRONG: &str = "the pax header of a member is not readable";
        let mut at = 0;
        // Some fill it up with zeros.
        while body.get(at).is_some_and(|byte| *byte != 0) {
            let rest = &body[at..];
            let space = memchr(b' ', &rest[..rest.len().min(20)]).ok_or(WRONG)?;
            let digits = std::str::from_utf8(&rest[..space]).ok().ok_or(WRONG)?;
            let bytes: usize = digits.parse().ok().ok_or(WRONG)?;
            let line = rest.get(space + 1..bytes).ok_or(WRONG)?;
            let line = line.strip_suffix(b"\n").ok_or(WRONG)?;
            let equals = memchr(b'=', line).ok_or(WRONG)?;
            let (key, value) = (&line[..equals], &line[equals + 1..]);
            match key {
                // An empty value takes back what was said before.
                b"path" => {
                    let start = body_at + at + space + 1 + equals + 1;
                    self.name = (!value.is_empty())
                        .then(|| Text::Span(Span::new(start, text_bytes(value))));
                }
                b"size" => {
                    let digits = std::str::from_utf8(value).ok().ok_or(WRONG)?;
                    self.size = match digits {
                        "" => None,
                        digits => Some(digits.parse().ok().ok_or(WRONG)?),
                    };
                }
                key if key.starts_with(b"GNU.sparse.") => self.is_sparse = true,
                _ => {}
            }
            at += bytes;
        }
        Ok(())
    }
}

/// Where reading can go on after what is at `bad`: the next block that is a header of POSIX's or GNU's, at most `within` bytes away.
/// `Err` if more has to be in sight to know, `Ok(None)` if there is none.
pub(super) fn resync(given: Given<'_>, bad: usize, within: usize) -> Result<Option<usize>, ()> {
    let end = bad.saturating_add(within).saturating_add(BLOCK).min(given.bytes.len());
    let found = given.bytes[bad..end].as_chunks::<BLOCK>().0.iter().skip(1).position(|block| {
        block[257..].starts_with(b"ustar") && has_checksum(block) && size_in(block).is_ok()
    });
    let is_all = given.is_last || given.bytes.len() - bad >= within.saturating_add(BLOCK);
    match found {
        Some(blocks) => Ok(Some(bad + (blocks + 1) * BLOCK)),
        None if is_all => Ok(None),
        None => Err(()),
    }
}

impl Parsed {
    /// Damage from `start` on, up to where reading can go on after `bad`. False if more has to be in sight.
    pub(super) fn resynced(
        &mut self,
        given: Given<'_>,
        (start, bad): (usize, usize),
        reason: String,
        limits: Limits,
    ) -> bool {
        match resync(given, bad, limits.record_bytes) {
            Err(()) => {
                self.consumed = start;
                return false;
            }
            Ok(Some(next)) => {
                self.damaged(start, reason);
                self.skipped(start, next as u64, given);
            }
            Ok(None) => {
                self.damaged(start, format!("{reason}, and no other one is found after it"));
                self.consumed = start;
                self.is_end = true;
            }
        }
        true
    }

    /// The archive is cut off within what begins at `start`.
    pub(super) fn archive_cut(&mut self, start: usize) {
        self.damaged(start, "the archive is cut off here".into());
        self.consumed = start;
        self.is_end = true;
    }
}

impl Parser for Tar {
    fn parse(&self, input: Input<'_>, limits: Limits) -> Parsed {
        let given = input.given();
        let mut parsed = Parsed::default();
        let mut at = 0;
        while parsed.layout.records.len() < limits.records {
            let entry = match next(given, at) {
                Next::Entry(entry) => entry,
                Next::More => break,
                Next::End(end) => {
                    // A content that ends without an end of the archive may be the beginning of one that goes on.
                    parsed.is_end = end > at;
                    at = end;
                    break;
                }
                Next::Cut => {
                    parsed.archive_cut(at);
                    return parsed;
                }
                Next::Bad { at: bad, reason } => {
                    parsed.resynced(given, (at, bad), reason, limits);
                    return parsed;
                }
            };
            if entry.is_file && entry.size > limits.record_bytes as u64 {
                let name = entry.name.of(given.bytes);
                match limits.has_chunks {
                    true => {
                        let (key, lead) = (name.to_vec(), (entry.data - at) as u64);
                        parsed.large = Some(LargeRecord { key, lead, bytes: entry.size });
                    }
                    false => {
                        let most = limits.record_bytes;
                        parsed.damaged(at, format!("{} is larger than {most} bytes", shown(name)));
                    }
                }
                parsed.skipped(at, entry.end, given);
                return parsed;
            }
            if !entry.is_file && entry.end(given).is_none() {
                parsed.skipped(at, entry.end, given);
                return parsed;
            }
            if entry.is_file {
                match entry.data(given) {
                    Some(data) => parsed
                        .layout
                        .records
                        .push(RecordLayout::plain(Some(entry.name.clone()), data)),
                    None if given.is_last => {
                        parsed.archive_cut(at);
                        return parsed;
                    }
                    None => break,
                }
            }
            at = entry.end(given).unwrap_or(given.bytes.len());
        }
        parsed.consumed = at;
        parsed
    }
}

#[cfg(test)]
mod tests;
