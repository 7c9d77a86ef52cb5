//! The records inside a batch.
//!
//! ```text
//! length varint, attributes i8, timestampDelta varlong, offsetDelta varint,
//! keyLength varint (-1: null), key, valueLength varint (-1: null), value,
//! headersCount varint, then for each: keyLength varint, key, valueLength varint (-1: null), value
//! ```

use bytes::{BufMut as _, Bytes, BytesMut};

use super::BatchError;
use super::builder::{put_nullable, wide};
use super::header::BatchHeader;
use super::varint::{put_varlong, varint, varlong};
use crate::ids::Offset;
use crate::limits;

/// One record of a batch. Key, value and headers share the batch's (or its decompressed) bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset in the partition.
    pub offset: Offset,
    /// Milliseconds since 1970 (-1: none); the batch's append time where the topic has `LogAppendTime`.
    pub timestamp_ms: i64,
    /// The key, or null.
    pub key: Option<Bytes>,
    /// The value, or null (a tombstone).
    pub value: Option<Bytes>,
    /// The headers in their order; names may repeat.
    pub headers: Vec<RecordHeader>,
}

impl Record {
    /// The value of the first header called `name` that has one.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        let found = self.headers.iter().find(|header| header.key == name.as_bytes());
        found.and_then(|header| header.value.as_ref())
    }
}

/// A record's header. Apache Kafka wants its key to be UTF-8 and does not check it; neither does this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Its name.
    pub key: Bytes,
    /// Its value, or null.
    pub value: Option<Bytes>,
}

/// Iterates a batch's records. Ends after the first error.
#[derive(Debug)]
pub struct Records {
    base_offset: Offset,
    base_timestamp: i64,
    append_time: Option<i64>,
    last_offset_delta: i32,
    dense: bool,
    count: i32,
    next_index: i32,
    previous_delta: i32,
    data: Bytes,
    at: usize,
    record_from: usize,
    headers_from: usize,
}

impl Records {
    pub(super) fn open(
        header: &BatchHeader,
        data: Bytes,
        max_bytes: usize,
    ) -> Result<Self, BatchError> {
        let data = header.attributes.compression()?.decompress(data, max_bytes)?;
        let append_time = header.attributes.is_log_append_time().then_some(header.max_timestamp);
        Ok(Self {
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            append_time,
            last_offset_delta: header.last_offset_delta,
            dense: i64::from(header.records_count) == i64::from(header.last_offset_delta) + 1,
            count: header.records_count,
            next_index: 0,
            previous_delta: -1,
            data,
            at: 0,
            record_from: 0,
            headers_from: 0,
        })
    }

    /// The bytes of the record that `next` gave last, with its length in front.
    pub(super) fn last_bytes(&self) -> &[u8] {
        self.data.get(self.record_from..self.at).unwrap_or_default()
    }

    /// The same with one more header behind its own.
    pub(super) fn put_last_with(&self, out: &mut BytesMut, name: &str, value: &[u8]) {
        // All of it was decoded, so the parts are there.
        let part = |from, to| self.data.get(from..to).unwrap_or_default();
        let (mut body_from, mut own_from) = (self.record_from, self.headers_from);
        let _length = varint(&self.data, &mut body_from);
        let count = varint(&self.data, &mut own_from).unwrap_or_default();
        let (fields, own) = (part(body_from, self.headers_from), part(own_from, self.at));
        let mut behind = BytesMut::with_capacity(own.len() + name.len() + value.len() + 16);
        put_varlong(&mut behind, i64::from(count) + 1);
        behind.put_slice(own);
        put_nullable(&mut behind, Some(name.as_bytes()));
        put_nullable(&mut behind, Some(value));
        put_varlong(out, wide(fields.len() + behind.len()));
        out.put_slice(fields);
        out.put_slice(&behind);
    }

    fn decode(&mut self) -> Result<Record, &'static str> {
        self.record_from = self.at;
        let mut at = self.at;
        let length = varint(&self.data, &mut at).ok_or("its length is cut")?;
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| at.checked_add(length))
            .filter(|end| *end <= self.data.len())
            .ok_or("it does not fit the batch")?;
        let mut fields = Fields { data: self.data.slice(at..end), at: 0 };
        fields.skip(1).ok_or("its attributes are cut")?;
        let timestamp_delta = fields.varlong().ok_or("its timestamp is cut")?;
        let offset_delta = fields.varint().ok_or("its offset is cut")?;
        let in_order = offset_delta > self.previous_delta && offset_delta <= self.last_offset_delta;
        if !in_order || (self.dense && offset_delta != self.next_index) {
            return Err("its offset is out of order");
        }
        let key = fields.nullable().ok_or("its key is cut")?;
        let value = fields.nullable().ok_or("its value is cut")?;
        let headers_from = at + fields.at;
        let headers = fields.headers()?;
        if fields.at != fields.data.len() {
            return Err("it goes on behind its headers");
        }
        self.previous_delta = offset_delta;
        self.headers_from = headers_from;
        self.at = end;
        Ok(Record {
            offset: Offset(self.base_offset.0.saturating_add(i64::from(offset_delta))),
            timestamp_ms: self
                .append_time
                .unwrap_or_else(|| self.base_timestamp.wrapping_add(timestamp_delta)),
            key,
            value,
            headers,
        })
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next_index;
        if index >= self.count {
            let left = self.at < self.data.len();
            self.at = self.data.len();
            let reason = "bytes follow the last record";
            return left.then_some(Err(BatchError::Record { index, reason }));
        }
        let record = self.decode().map_err(|reason| BatchError::Record { index, reason });
        if record.is_ok() {
            self.next_index += 1;
        } else {
            self.count = 0;
            self.at = self.data.len();
        }
        Some(record)
    }
}

/// Reads one record's fields, each `None` when the bytes end first.
struct Fields {
    data: Bytes,
    at: usize,
}

impl Fields {
    fn skip(&mut self, bytes: usize) -> Option<()> {
        let to = self.at.checked_add(bytes).filter(|to| *to <= self.data.len())?;
        self.at = to;
        Some(())
    }

    fn varint(&mut self) -> Option<i32> {
        varint(&self.data, &mut self.at)
    }

    fn varlong(&mut self) -> Option<i64> {
        varlong(&self.data, &mut self.at)
    }

    fn take(&mut self, length: i32) -> Option<Bytes> {
        let from = self.at;
        self.skip(usize::try_from(length).ok()?)?;
        Some(self.data.slice(from..self.at))
    }

    fn nullable(&mut self) -> Option<Option<Bytes>> {
        match self.varint()? {
            -1 => Some(None),
            length => self.take(length).map(Some),
        }
    }

    fn headers(&mut self) -> Result<Vec<RecordHeader>, &'static str> {
        let count = self.varint().ok_or("its header count is cut")?;
        let count = usize::try_from(count).map_err(|_| "its header count is negative")?;
        if count > limits::RECORD_HEADERS {
            return Err("it has too many headers");
        }
        // A header takes two bytes at least, so a made-up count reserves no more than the record could hold.
        let mut headers = Vec::with_capacity(count.min((self.data.len() - self.at) / 2));
        for _ in 0..count {
            let length = self.varint().ok_or("a header's key is cut")?;
            let key = self.take(length).ok_or("a header's key is cut")?;
            let value = self.nullable().ok_or("a header's value is cut")?;
            headers.push(RecordHeader { key, value });
        }
        Ok(headers)
    }
}

/// The fewest bytes that a record takes: each of its fields in one byte.
pub(super) const LEAST_RECORD_BYTES: usize = 7;

/// Checks `count` uncompressed records of a dense batch as [`Records`] would decode them, allocating nothing.
///
/// # Errors
/// [`BatchError::Record`] for the first malformed one.
pub(super) fn check_dense(data: &[u8], count: i32) -> Result<(), BatchError> {
    let mut at = 0;
    for index in 0..count {
        at =
            check_record(data, at, index).map_err(|reason| BatchError::Record { index, reason })?;
    }
    let reason = "bytes follow the last record";
    if at == data.len() { Ok(()) } else { Err(BatchError::Record { index: count, reason }) }
}

/// Checks the record at `at` and returns where it ends.
fn check_record(data: &[u8], mut at: usize, index: i32) -> Result<usize, &'static str> {
    let length = varint(data, &mut at).ok_or("its length is cut")?;
    let end = usize::try_from(length).ok().and_then(|length| at.checked_add(length));
    let record = end.and_then(|end| data.get(..end)).ok_or("it does not fit the batch")?;
    skip(record, &mut at, 1).ok_or("its attributes are cut")?;
    varlong(record, &mut at).ok_or("its timestamp is cut")?;
    if varint(record, &mut at).ok_or("its offset is cut")? != index {
        return Err("its offset is out of order");
    }
    skip_nullable(record, &mut at).ok_or("its key is cut")?;
    skip_nullable(record, &mut at).ok_or("its value is cut")?;
    let headers = varint(record, &mut at).ok_or("its header count is cut")?;
    let headers = usize::try_from(headers).map_err(|_| "its header count is negative")?;
    if headers > limits::RECORD_HEADERS {
        return Err("it has too many headers");
    }
    for _ in 0..headers {
        let length = varint(record, &mut at).ok_or("a header's key is cut")?;
        skip(record, &mut at, length).ok_or("a header's key is cut")?;
        skip_nullable(record, &mut at).ok_or("a header's value is cut")?;
    }
    if at == record.len() { Ok(at) } else { Err("it goes on behind its headers") }
}

fn skip(record: &[u8], at: &mut usize, length: i32) -> Option<()> {
    let to = at.checked_add(usize::try_from(length).ok()?)?;
    *at = Some(to).filter(|to| *to <= record.len())?;
    Some(())
}

fn skip_nullable(record: &[u8], at: &mut usize) -> Option<()> {
    match varint(record, at)? {
        -1 => Some(()),
        length => skip(record, at, length),
    }
}
