//! A batch: what an edge has of one lane from one sequence up to another, each sequence either a record or explicitly skipped.
//!
//! ```text
//! "RMQB" version(1) crc32c(4)    over everything after it
//! incarnation(8) session(16) lane(1) from(8) to(8) digest_before(8) digest_after(8) acknowledged_through(8)
//! body_bytes(4)                  before compression
//! body                           zstd, to the end
//!
//! body: entries in sequence order
//!   record: 0(1) wall_ms(8) length(4) body      wall_ms: -2^63 for unknown
//!   skip:   1(1) count(8) reason(1)
//! ```

use super::wire::{FRAME_HEAD_BYTES, Reader, frame_end, frame_open, frame_start};
use super::{DecodeError, SessionId};
use crate::ids::{ChainDigest, EdgeSeq, Incarnation, LaneId};
use crate::limits::{SYNC_BATCH_BYTES, SYNC_BATCH_ENTRIES, SYNC_FRAME_BYTES};

const MAGIC: [u8; 4] = *b"RMQB";
const VERSION: u8 = 1;
const RECORD: u8 = 0;
const SKIP: u8 = 1;
const RECORD_HEAD_BYTES: usize = 13;
const SKIP_BYTES: usize = 10;
const UNKNOWN_TIME: i64 = i64::MIN;
/// The level at which zstd is fast on a gateway and still halves telemetry.
const ZSTD_LEVEL: i32 = 3;

/// Why an edge does not send a sequence that it once appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SkipReason {
    /// Its time to live had passed.
    Expired,
    /// The full queue's policy dropped it.
    Dropped,
    /// It lay in a segment that could not be read.
    Quarantined,
}

impl SkipReason {
    /// All of them, for tables and metrics.
    pub const ALL: [Self; 3] = [Self::Expired, Self::Dropped, Self::Quarantined];

    /// The reason in one word, as metrics and logs name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Dropped => "dropped",
            Self::Quarantined => "quarantined",
        }
    }

    /// The reason as it stands in frames and in files.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Expired => 1,
            Self::Dropped => 2,
            Self::Quarantined => 3,
        }
    }

    /// The reason with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// What a batch says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The incarnation of the edge's queue store that the cloud issued.
    pub incarnation: Incarnation,
    /// The run of the edge process.
    pub session: SessionId,
    /// The lane.
    pub lane: LaneId,
    /// The first sequence covered.
    pub from: EdgeSeq,
    /// The sequence after the last one covered.
    pub to: EdgeSeq,
    /// The chain digest before `from`.
    pub digest_before: ChainDigest,
    /// The chain digest after the last sequence covered.
    pub digest_after: ChainDigest,
    /// What the edge knows to be acknowledged, rejections up to it kept safe: the cloud may forget those.
    pub acknowledged_through: EdgeSeq,
}

/// One sequence or run of sequences of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A record.
    Record {
        /// Its sequence.
        seq: EdgeSeq,
        /// When the gateway took it, in milliseconds since the Unix epoch; `None` if its clock was never known.
        wall_ms: Option<i64>,
        /// Its bytes, as [`super::EdgeRecord::encode`] made them.
        body: &'a [u8],
    },
    /// Sequences that are not sent.
    Skip {
        /// The first one.
        first: EdgeSeq,
        /// How many, at least one.
        count: u64,
        /// Why.
        reason: SkipReason,
    },
}

/// A batch that was read and checked: its entries cover `from..to` without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    header: BatchHeader,
    body: Vec<u8>,
}

impl Batch {
    /// What the batch says about itself.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Its entries, in sequence order.
    #[must_use]
    pub fn entries(&self) -> Entries<'_> {
        Entries { reader: Reader::new(&self.body), next: self.header.from.0 }
    }

    /// Reads and checks a batch.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > SYNC_FRAME_BYTES {
            let (length, limit) = (bytes.len(), SYNC_FRAME_BYTES);
            return Err(DecodeError::TooLong { field: "batch frame", length, limit });
        }
        let mut reader = frame_open(bytes, MAGIC, VERSION)?;
        let header = decode_header(&mut reader)?;
        let length = reader.length("batch body", SYNC_BATCH_BYTES)?;
        let body = zstd::bulk::decompress(reader.remainder(), length)
            .map_err(|error| DecodeError::Compression { reason: error.to_string() })?;
        if body.len() != length {
            return Err(DecodeError::Invalid { field: "batch body length" });
        }
        let batch = Self { header, body };
        batch.check_entries()?;
        Ok(batch)
    }

    fn check_entries(&self) -> Result<(), DecodeError> {
        let mut entries = self.entries();
        let mut count = 0_usize;
        while entries.read()?.is_some() {
            count += 1;
            if count > SYNC_BATCH_ENTRIES {
                let limit = SYNC_BATCH_ENTRIES;
                return Err(DecodeError::TooLong { field: "batch entries", length: count, limit });
            }
        }
        if entries.next != self.header.to.0 {
            return Err(DecodeError::Invalid { field: "batch range" });
        }
        Ok(())
    }
}

fn decode_header(reader: &mut Reader<'_>) -> Result<BatchHeader, DecodeError> {
    let header = BatchHeader {
        incarnation: Incarnation(reader.u64()?),
        session: SessionId(reader.u128()?),
        lane: LaneId(reader.u8()?),
        from: EdgeSeq(reader.u64()?),
        to: EdgeSeq(reader.u64()?),
        digest_before: ChainDigest(reader.u64()?),
        digest_after: ChainDigest(reader.u64()?),
        acknowledged_through: EdgeSeq(reader.u64()?),
    };
    if header.from.0 == 0 || header.from >= header.to {
        return Err(DecodeError::Invalid { field: "batch range" });
    }
    if header.acknowledged_through >= header.from {
        return Err(DecodeError::Invalid { field: "acknowledged_through" });
    }
    Ok(header)
}

/// Iterates over a checked batch.
pub struct Entries<'a> {
    reader: Reader<'a>,
    next: u64,
}

impl<'a> Entries<'a> {
    fn read(&mut self) -> Result<Option<Entry<'a>>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let first = EdgeSeq(self.next);
        let (entry, count) = match self.reader.u8()? {
            RECORD => {
                let wall_ms = Some(self.reader.i64()?).filter(|ms| *ms != UNKNOWN_TIME);
                let length = self.reader.length("record", SYNC_BATCH_BYTES)?;
                (Entry::Record { seq: first, wall_ms, body: self.reader.bytes(length)? }, 1)
            }
            SKIP => {
                let count = self.reader.u64()?;
                let reason = SkipReason::from_code(self.reader.u8()?)
                    .ok_or(DecodeError::Invalid { field: "skip reason" })?;
                (Entry::Skip { first, count, reason }, count)
            }
            _ => return Err(DecodeError::Invalid { field: "entry kind" }),
        };
        let next = self.next.checked_add(count).filter(|_| count > 0);
        self.next = next.ok_or(DecodeError::Invalid { field: "skip count" })?;
        Ok(Some(entry))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        // Decoding has walked over all of it once, so an error cannot come up here.
        self.read().ok().flatten()
    }
}

/// Who sends a batch, and where it stands in its lane's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchIdentity {
    /// The incarnation of the edge's queue store that the cloud issued.
    pub incarnation: Incarnation,
    /// The run of the edge process.
    pub session: SessionId,
    /// The lane.
    pub lane: LaneId,
    /// The chain digest before the first sequence.
    pub digest_before: ChainDigest,
    /// The chain digest after the last sequence.
    pub digest_after: ChainDigest,
    /// What the edge knows to be acknowledged.
    pub acknowledged_through: EdgeSeq,
}

/// Builds one batch, in sequence order, within the limits.
#[derive(Debug)]
pub struct BatchBuilder {
    from: EdgeSeq,
    to: EdgeSeq,
    body: Vec<u8>,
    entries: usize,
}

impl BatchBuilder {
    /// An empty batch that begins at `from`.
    #[must_use]
    pub fn new(from: EdgeSeq) -> Self {
        Self { from, to: from, body: Vec::new(), entries: 0 }
    }

    /// The sequence that comes next.
    #[must_use]
    pub fn next_seq(&self) -> EdgeSeq {
        self.to
    }

    /// Bytes so far, before compression.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// Adds the record at [`Self::next_seq`]; false if it does not fit any more ([`SYNC_BATCH_BYTES`], [`SYNC_BATCH_ENTRIES`]).
    #[must_use]
    pub fn push_record(&mut self, wall_ms: Option<i64>, body: &[u8]) -> bool {
        let (Ok(length), Some(next)) =
            (u32::try_from(body.len()), self.room(RECORD_HEAD_BYTES + body.len(), 1))
        else {
            return false;
        };
        self.body.push(RECORD);
        self.body.extend_from_slice(&wall_ms.unwrap_or(UNKNOWN_TIME).to_be_bytes());
        self.body.extend_from_slice(&length.to_be_bytes());
        self.body.extend_from_slice(body);
        self.to = next;
        self.entries += 1;
        true
    }

    /// Says that `count` sequences from [`Self::next_seq`] on are not sent; false if it does not fit any more or `count` is 0.
    #[must_use]
    pub fn push_skip(&mut self, count: u64, reason: SkipReason) -> bool {
        let Some(next) = self.room(SKIP_BYTES, count) else { return false };
        self.body.push(SKIP);
        self.body.extend_from_slice(&count.to_be_bytes());
        self.body.push(reason.code());
        self.to = next;
        self.entries += 1;
        true
    }

    /// The sequence after an entry of `count` sequences and `bytes` bytes, if that fits.
    fn room(&self, bytes: usize, count: u64) -> Option<EdgeSeq> {
        let fits = self.body.len().checked_add(bytes)? <= SYNC_BATCH_BYTES
            && self.entries < SYNC_BATCH_ENTRIES
            && count > 0;
        self.to.0.checked_add(count).filter(|_| fits).map(EdgeSeq)
    }

    /// The finished frame and its header.
    ///
    /// # Errors
    /// What zstd says; it has no reason to fail on a slice in memory.
    pub fn finish(self, identity: &BatchIdentity) -> std::io::Result<(BatchHeader, Vec<u8>)> {
        let header = BatchHeader {
            incarnation: identity.incarnation,
            session: identity.session,
            lane: identity.lane,
            from: self.from,
            to: self.to,
            digest_before: identity.digest_before,
            digest_after: identity.digest_after,
            acknowledged_through: identity.acknowledged_through,
        };
        let compressed = zstd::bulk::compress(&self.body, ZSTD_LEVEL)?;
        let mut out = Vec::with_capacity(FRAME_HEAD_BYTES + 96 + compressed.len());
        frame_start(&mut out, MAGIC, VERSION);
        encode_header(&header, &mut out);
        let length = u32::try_from(self.body.len()).map_err(std::io::Error::other)?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&compressed);
        frame_end(&mut out);
        Ok((header, out))
    }
}

fn encode_header(header: &BatchHeader, out: &mut Vec<u8>) {
    out.extend_from_slice(&header.incarnation.0.to_be_bytes());
    out.extend_from_slice(&header.session.0.to_be_bytes());
    out.push(header.lane.0);
    for number in [
        header.from.0,
        header.to.0,
        header.digest_before.0,
        header.digest_after.0,
        header.acknowledged_through.0,
    ] {
        out.extend_from_slice(&number.to_be_bytes());
    }
}
