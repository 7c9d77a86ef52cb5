//! WebDataset: members of a tar with the same name up to the first dot of its last part are one sample, if they come one after another.
//!
//! As the library `webdataset` does it (its `tariterators`): the key is the name up to that dot, with the directory; the extension is what comes
//! after, in lower case; members without an extension, and those whose first part is like `__this__`, are passed over, and do not end a
//! sample. Otherwise than there: hidden files (`dir/._a.jpg`, which macOS adds) are passed over in directories too; an extension that comes twice
//! in a sample, at which the library fails, stays there twice; and a member that is passed over and that is so large that a sample would have
//! to be kept while it goes by ends the sample.
//!
//! The largest member is the value (of equals the first), the others are the record's members.
//!
//! **Invariant:** a sample is given when the next one begins or the archive ends, not before, and only if nothing before or within it was damaged:
//! what shares a key with something damaged, or may do so because a header is not readable, is left out with it.

use robustmq_common::limits::dataset::TAR_OVERHEAD_BYTES;

use super::tar::{Entry, Next, next};
use super::{Given, Input, Limits, Parsed, Parser, shown};
use crate::layout::{Member, RecordLayout, Span, Text};

/// [`super::Format::WebDataset`].
pub(super) struct WebDataset;

/// Carried: members of this key are left out, up to the first one of another.
const LEFT_OUT: u8 = 1;
/// Carried: whatever key comes next is left out.
const NEXT_LEFT_OUT: u8 = 2;

/// A sample that may go on.
struct Sample {
    start: usize,
    key: Text,
    members: Vec<Member>,
    bytes: u64,
}

/// The key and the extension in a member's name; `None` if it is of no sample.
pub(crate) fn split(name: &[u8]) -> Option<(usize, usize)> {
    let first = name.split(|byte| *byte == b'/').next().unwrap_or_default();
    if first.len() >= 4 && first.starts_with(b"__") && first.ends_with(b"__") {
        return None;
    }
    let last = name.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let dot = name[last..].iter().position(|byte| *byte == b'.')?;
    (dot > 0).then_some((last + dot, last + dot + 1))
}

/// A part of a name.
fn part(name: &Text, from: usize, to: usize) -> Text {
    match name {
        Text::Span(span) => Text::Span(Span::new(span.start as usize + from, to - from)),
        Text::Owned(bytes) => Text::Owned(bytes[from..to].into()),
    }
}

/// The key and the extension of an entry that is of a sample.
fn names(entry: &Entry, bytes: &[u8]) -> Option<(Text, Text)> {
    let name = entry.name.of(bytes);
    let (key_end, extension_start) = split(name).filter(|_| entry.is_file)?;
    let extension = &name[extension_start..];
    let extension = if extension.iter().any(u8::is_ascii_uppercase) {
        Text::Owned(extension.to_ascii_lowercase().into())
    } else {
        part(&entry.name, extension_start, name.len())
    };
    Some((part(&entry.name, 0, key_end), extension))
}

impl Parser for WebDataset {
    fn parse(&self, input: Input<'_>, limits: Limits) -> Parsed {
        let given = input.given();
        if let Some(parsed) = leave_out(given, input.carry) {
            return parsed;
        }
        let mut reading = Reading { given, limits, at: 0, sample: None, parsed: Parsed::default() };
        while reading.step() {}
        reading.parsed
    }
}

struct Reading<'a> {
    given: Given<'a>,
    limits: Limits,
    at: usize,
    sample: Option<Sample>,
    parsed: Parsed,
}

impl Reading<'_> {
    /// Where what is not finished begins.
    fn start(&self) -> usize {
        self.sample.as_ref().map_or(self.at, |sample| sample.start)
    }

    /// Reads one entry. False if no other one is to be read.
    fn step(&mut self) -> bool {
        let start = self.start();
        match next(self.given, self.at) {
            Next::Entry(entry) => match names(&entry, self.given.bytes) {
                Some((key, extension)) => self.member(&entry, key, extension),
                None => self.pass_over(&entry),
            },
            Next::More => {
                self.parsed.consumed = start;
                false
            }
            Next::End(end) => {
                self.finish_sample();
                self.parsed.is_end = end > self.at;
                self.parsed.consumed = end;
                false
            }
            Next::Cut => {
                self.parsed.archive_cut(start);
                false
            }
            Next::Bad { at, reason } => {
                if self.parsed.resynced(self.given, (start, at), reason, self.limits) {
                    self.parsed.carry = vec![NEXT_LEFT_OUT];
                }
                false
            }
        }
    }

    /// An entry that is of no sample.
    fn pass_over(&mut self, entry: &Entry) -> bool {
        if self.sample.as_ref().is_some_and(|sample| self.is_over(sample.start, entry.end)) {
            self.finish_sample();
            if self.is_full() {
                self.parsed.consumed = entry.start;
                return false;
            }
        }
        match (entry.end(self.given), &self.sample) {
            (Some(end), _) => {
                self.at = end;
                return true;
            }
            (None, None) => self.parsed.skipped(entry.start, entry.end, self.given),
            (None, Some(sample)) if self.given.is_last => self.parsed.archive_cut(sample.start),
            (None, Some(sample)) => self.parsed.consumed = sample.start,
        }
        false
    }

    fn member(&mut self, entry: &Entry, key: Text, extension: Text) -> bool {
        let bytes = self.given.bytes;
        if self.sample.as_ref().is_some_and(|sample| sample.key.of(bytes) != key.of(bytes)) {
            self.finish_sample();
            if self.is_full() {
                self.parsed.consumed = entry.start;
                return false;
            }
        }
        let new = || Sample { start: entry.start, key, members: Vec::new(), bytes: 0 };
        let mut sample = self.sample.take().unwrap_or_else(new);
        sample.bytes = sample.bytes.saturating_add(entry.size);
        let limit = self.limits.record_bytes;
        if sample.bytes > limit as u64 || self.is_over(sample.start, entry.end) {
            let key = sample.key.of(bytes);
            self.parsed
                .damaged(sample.start, format!("{} is larger than {limit} bytes", shown(key)));
            self.parsed.skipped(sample.start, entry.end, self.given);
            self.parsed.carry = [&[LEFT_OUT], key].concat();
            return false;
        }
        let Some(data) = entry.data(self.given) else {
            if self.given.is_last {
                self.parsed.archive_cut(sample.start);
            } else {
                self.parsed.consumed = sample.start;
            }
            return false;
        };
        sample.members.push(Member { name: extension, data });
        self.sample = Some(sample);
        self.at = entry.end(self.given).unwrap_or(bytes.len());
        true
    }

    fn is_full(&self) -> bool {
        self.parsed.layout.records.len() >= self.limits.records
    }

    /// So much does not have to be kept for one sample.
    fn is_over(&self, start: usize, end: u64) -> bool {
        let most = self.limits.record_bytes.saturating_add(TAR_OVERHEAD_BYTES) as u64;
        end.saturating_sub(start as u64) > most
    }

    /// The sample is complete.
    fn finish_sample(&mut self) {
        let Some(mut sample) = self.sample.take() else {
            return;
        };
        let sizes = sample.members.iter().map(|member| member.data.bytes).enumerate();
        let largest = sizes.rev().max_by_key(|(_, bytes)| *bytes).map_or(0, |(index, _)| index);
        let value = sample.members.remove(largest);
        let layout = &mut self.parsed.layout;
        let count = |layout: &[Member]| {
            u32::try_from(layout.len())
                .expect("each takes a header of 512 bytes of less than 4 GiB")
        };
        let first = count(&layout.members);
        layout.members.append(&mut sample.members);
        layout.records.push(RecordLayout {
            key: Some(sample.key),
            value: value.data,
            value_name: Some(value.name),
            members: first..count(&layout.members),
            value_crc: None,
        });
    }
}

/// Skips what is left of a sample that is damaged; `None` if there is nothing of it.
fn leave_out(given: Given<'_>, carry: &[u8]) -> Option<Parsed> {
    let (state, key) = carry.split_first()?;
    let mut key = (*state == LEFT_OUT).then(|| key.to_vec());
    let mut parsed = Parsed::default();
    let mut at = 0;
    let mut is_over = false;
    loop {
        match next(given, at) {
            Next::More => break,
            // These are of what comes after it.
            Next::End(_) | Next::Cut | Next::Bad { .. } => is_over = true,
            Next::Entry(entry) => {
                if let Some((other, _)) = names(&entry, given.bytes) {
                    let other = other.of(given.bytes);
                    is_over = key.get_or_insert_with(|| other.to_vec()) != other;
                }
                if !is_over {
                    parsed.skipped(0, entry.end, given);
                    match entry.end(given) {
                        Some(end) => at = end,
                        None => break,
                    }
                }
            }
        }
        if is_over {
            break;
        }
    }
    if is_over && at == 0 {
        return None;
    }
    if !is_over {
        parsed.carry = match key {
            Some(key) => [&[LEFT_OUT], key.as_slice()].concat(),
            None => vec![NEXT_LEFT_OUT],
        };
    }
    Some(parsed)
}

#[cfg(test)]
mod tests;
