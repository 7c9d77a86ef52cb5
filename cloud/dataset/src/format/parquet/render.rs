//! Rows of a row group as content: what JSON lines or Arrow's batches they become.
//!
//! **Invariant:** what a row becomes, and where a batch of rows ends that begins with a given row, depends on the rows alone: not on how many
//! are decoded at once, nor on where reading began.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::ArrowError;
use arrow_select::concat::concat_batches;
use memchr::memchr_iter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use robustmq_common::limits::dataset as limits;

use super::group::Group;
use super::{Rows, json, sizes};

/// What is damaged is told after so many findings, where no record is found.
const DAMAGED_AT_ONCE: u64 = 1000;

/// Reads a row group on.
pub(super) struct Renderer {
    group: Arc<Group>,
    reader: ParquetRecordBatchReader,
    /// The first step goes over rows.
    goes_over_rows: bool,
    /// Decoded rows that are not written yet.
    decoded: Option<Decoded>,
    /// The next row that is not written.
    next: u64,
    /// Records that are written and were not taken yet.
    written: Written,
    is_end: bool,
}

struct Decoded {
    batch: RecordBatch,
    sizes: Vec<u64>,
    /// Of those that come next.
    at: usize,
    /// The largest row.
    most: usize,
}

struct Written {
    bytes: Vec<u8>,
    /// The largest record.
    most: usize,
    records: VecDeque<Record>,
}

/// A record that is written, or what is wrong with its rows.
struct Record {
    rows: Range<u64>,
    /// Where it is.
    outcome: Result<Range<usize>, String>,
}

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stop {
    /// After so many bytes of content,
    pub bytes: usize,
    /// or before there are more than so many, but for one record that has more.
    pub most: usize,
    /// After so many records.
    pub records: u32,
}

/// What was written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub content: Vec<u8>,
    pub records: u32,
    /// The row that the first record begins with, within the row group.
    pub first_row: u64,
    /// How often something of it cannot be read.
    pub damaged: u64,
    /// The first of these, each with its place in the content.
    pub damage: Vec<(usize, String)>,
    /// The row group is read.
    pub is_end: bool,
}

impl Renderer {
    /// The rows of a row group from `first` on.
    pub fn new(group: Arc<Group>, first: u64) -> Result<Self, String> {
        let reader = group.read(first).map_err(|error| error.to_string())?;
        let (goes_over_rows, next) = (first > 0, first);
        let (decoded, written, is_end) = (None, Written::new(group.table.record_bytes), false);
        Ok(Self { group, reader, goes_over_rows, decoded, next, written, is_end })
    }

    /// Content until `stop`, or to the end.
    pub fn part(&mut self, stop: Stop) -> Part {
        let content = Vec::with_capacity(stop.most.min(limits::EXTENT_BYTES / 16 * 17));
        let mut part = Part { content, ..Part::default() };
        while part.content.len() < stop.bytes && part.records < stop.records {
            if part.records > 0 && part.content.len() + self.written.next_bytes() > stop.most {
                break;
            }
            if self.written.take(&mut part) {
                continue;
            }
            // Whoever waits for records is told of damage before more is looked at.
            if self.is_end || (part.records == 0 && part.damaged >= DAMAGED_AT_ONCE) {
                break;
            }
            self.write();
        }
        part.is_end = self.is_end && self.written.records.is_empty();
        if part.content.len() < part.content.capacity() / 16 * 15 {
            part.content.shrink_to_fit();
        }
        part
    }

    /// Writes some more, or comes to the end.
    fn write(&mut self) {
        self.written.clear();
        let written = catch_unwind(AssertUnwindSafe(|| match self.group.table.rows {
            Rows::Json => self.write_lines(),
            Rows::Arrow => self.write_batch(),
        }));
        if let Err(fault) = written.unwrap_or_else(|_| Err(super::PANICKED.into())) {
            self.end_with(fault);
        }
    }

    /// What is left of the row group cannot be read.
    fn end_with(&mut self, fault: String) {
        self.written.damaged(self.next..self.group.rows.max(self.next), fault);
        self.decoded = None;
        self.is_end = true;
    }

    /// Has rows decoded; `None` at the end.
    fn decoded(&mut self) -> Result<Option<&mut Decoded>, String> {
        if self.decoded.is_none() {
            if self.next >= self.group.rows {
                return Ok(None);
            }
            self.group.begin_step(std::mem::take(&mut self.goes_over_rows));
            let Some(batch) = self.reader.next() else {
                return Err(format!("there are to be {}, and there are no more", self.group.rows));
            };
            let batch = batch.map_err(reason)?;
            let left = usize::try_from(self.group.rows - self.next).unwrap_or(usize::MAX);
            let batch = batch.slice(0, batch.num_rows().min(left));
            if batch.num_rows() == 0 {
                return Err("none come, though there are to be more".into());
            }
            let sizes = sizes::of(&batch, self.group.table.rows);
            let most = self.group.table.record_bytes;
            self.decoded = Some(Decoded { batch, sizes, at: 0, most });
        }
        Ok(self.decoded.as_mut())
    }

    /// These rows were taken.
    fn went_on(&mut self, count: usize) -> Range<u64> {
        let first = self.next;
        self.next += count as u64;
        if self.decoded.as_ref().is_some_and(|decoded| decoded.at >= decoded.batch.num_rows()) {
            self.decoded = None;
        }
        first..self.next
    }

    /// Writes some rows as lines.
    fn write_lines(&mut self) -> Result<(), String> {
        let Some(decoded) = self.decoded()? else {
            self.is_end = true;
            return Ok(());
        };
        let before = decoded.at;
        let Some(taken) = decoded.take(usize::MAX, limits::PARQUET_RENDERED_BYTES) else {
            let rows = self.went_on(1);
            self.written.damaged(rows, too_large(self.group.table.record_bytes));
            return Ok(());
        };
        // At least as many: they are not to be moved each time that there are twice as many.
        let bytes = decoded.sizes.get(before..decoded.at).unwrap_or_default();
        let bytes = bytes.iter().fold(0_u64, |sum, size| sum.saturating_add(*size));
        self.written.bytes.reserve(usize::try_from(bytes).unwrap_or(0));
        json::write(&taken, &mut self.written.bytes).map_err(reason)?;
        if memchr_iter(b'\n', &self.written.bytes).count() != taken.num_rows() {
            return Err("they are not as many lines of JSON".into());
        }
        let rows = self.went_on(taken.num_rows());
        self.written.lines(rows.start);
        Ok(())
    }

    /// Writes rows as a batch, which is a record.
    fn write_batch(&mut self) -> Result<(), String> {
        let (mut batches, mut count, mut bytes) = (Vec::new(), 0, 0_u64);
        let first = self.next;
        let mut fault = None;
        while count < limits::ARROW_BATCH_ROWS {
            let decoded = match self.decoded() {
                Ok(Some(decoded)) => decoded,
                Ok(None) => break,
                // The rows before are good.
                Err(found) => {
                    fault = Some(found);
                    break;
                }
            };
            let room = limits::ARROW_BATCH_BYTES.saturating_sub(bytes);
            if count > 0 && decoded.next_size() > room {
                break;
            }
            let before = decoded.at;
            let Some(taken) = decoded.take(limits::ARROW_BATCH_ROWS - count, room) else {
                let rows = self.went_on(1);
                self.written.damaged(rows, too_large(self.group.table.record_bytes));
                return Ok(());
            };
            let sizes = decoded.sizes.get(before..decoded.at).unwrap_or_default();
            bytes = sizes.iter().fold(bytes, |sum, size| sum.saturating_add(*size));
            count += taken.num_rows();
            self.went_on(taken.num_rows());
            batches.push(taken);
        }
        if count > 0 {
            let frame = self.frame(&batches).map_err(|error| {
                self.next = first;
                reason(error)
            })?;
            self.written.frame(&frame, first..self.next);
        }
        match fault {
            Some(fault) => Err(fault),
            None => {
                self.is_end = count == 0;
                Ok(())
            }
        }
    }

    /// Batches as one, in Arrow's stream format.
    fn frame(&self, batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
        let schema = &self.group.table.schema;
        let read = batches.first().map_or_else(|| Arc::clone(schema), RecordBatch::schema);
        let whole = concat_batches(&read, batches)?;
        let columns = whole.columns().iter().zip(schema.fields());
        let columns = columns.map(|(column, field)| arrow_cast::cast(column, field.data_type()));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let whole = RecordBatch::try_new(Arc::clone(schema), columns)?;
        let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
        writer.write(&whole)?;
        writer.finish()?;
        writer.into_inner()
    }
}

fn reason(error: ArrowError) -> String {
    match error {
        // It has what Parquet says, which begins alike.
        ArrowError::ParquetError(text) => text,
        error => error.to_string(),
    }
}

impl Decoded {
    fn next_size(&self) -> u64 {
        self.sizes.get(self.at).copied().unwrap_or(0)
    }

    /// Takes rows that have `bytes` together at most, or one that is larger; `None` and goes over it if that is too large for a record.
    fn take(&mut self, most: usize, bytes: u64) -> Option<RecordBatch> {
        let at = self.at;
        if self.next_size() > self.most as u64 {
            self.at += 1;
            return None;
        }
        let mut total = self.next_size();
        self.at += 1;
        while self.at - at < most && self.at < self.sizes.len() {
            total = total.saturating_add(self.next_size());
            if total > bytes {
                break;
            }
            self.at += 1;
        }
        Some(self.batch.slice(at, self.at - at))
    }
}

fn too_large(most: usize) -> String {
    format!("larger than {most} bytes")
}

impl Written {
    fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), most, records: VecDeque::new() }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
    }

    fn damaged(&mut self, rows: Range<u64>, fault: String) {
        self.records.push_back(Record { rows, outcome: Err(fault) });
    }

    /// What was written is lines, one for each row.
    fn lines(&mut self, first: u64) {
        let mut start = 0;
        for (end, row) in memchr_iter(b'\n', &self.bytes).zip(first..) {
            let line = start..end + 1;
            start = line.end;
            let outcome = match line.len() > self.most {
                true => Err(too_large(self.most)),
                false => Ok(line),
            };
            self.records.push_back(Record { rows: row..row + 1, outcome });
        }
    }

    /// Takes a batch over, with its length before it.
    fn frame(&mut self, frame: &[u8], rows: Range<u64>) {
        let length = u32::try_from(frame.len()).ok();
        let most = self.most;
        let length = length.filter(|bytes| *bytes as usize <= most);
        let outcome = length.map(|bytes| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(&bytes.to_le_bytes());
            self.bytes.extend_from_slice(frame);
            start..self.bytes.len()
        });
        self.records.push_back(Record { rows, outcome: outcome.ok_or_else(|| too_large(most)) });
    }

    /// Bytes of the next record.
    fn next_bytes(&self) -> usize {
        self.records.front().map_or(0, |record| record.outcome.as_ref().map_or(0, Range::len))
    }

    /// Moves the next record to `part`; `false` if there is none.
    fn take(&mut self, part: &mut Part) -> bool {
        let Some(Record { rows, outcome }) = self.records.pop_front() else { return false };
        match outcome {
            Ok(bytes) => {
                if part.records == 0 {
                    part.first_row = rows.start;
                }
                let content = self.bytes.get(bytes).unwrap_or_default();
                // No room for twice as much is made for one that is large.
                part.content.reserve_exact(content.len());
                part.content.extend_from_slice(content);
                part.records += 1;
            }
            Err(fault) => {
                part.damaged += 1;
                if part.damage.len() < limits::LISTED_DAMAGES {
                    let rows = match rows.end.saturating_sub(rows.start) {
                        1 => format!("row {}", rows.start),
                        _ => format!("rows from {} on", rows.start),
                    };
                    part.damage.push((part.content.len(), format!("{rows}: {fault}")));
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{ArrowError, reason};

    #[test]
    fn what_parquet_says_is_told_once() {
        let error = ArrowError::ParquetError("Parquet error: column \"a\": cut off".to_owned());
        assert_eq!(reason(error), "Parquet error: column \"a\": cut off");
    }
}
