//! One segment file, byte by byte. Numbers are little-endian.
//!
//! ```text
//! header, 64 bytes                             record, 56 bytes and more
//!  0  8  magic "RMQSEGMT"                       0  4  length of the whole record
//!  8  2  format, 1                              4  4  CRC32C of everything else in it, salted (see below)
//! 10  1  lane                                   8  8  sequence
//! 11  1  0                                     16  8  digest of the lane up to and including this record
//! 12 16  store id                              24  8  received: milliseconds since boot
//! 28 16  boot id of all its records            32  8  received: milliseconds since 1970, 0 if not known
//! 44  8  sequence of the first record          40  4  sequences before and including this one that were not known to be
//! 52  8  digest before the first record               synced when it was appended
//! 60  4  CRC32C of the 60 bytes before         44  4  time to live in seconds, 0 for none
//!                                              48  2  length of the client id
//!                                              50  2  packet id, 0 for none
//!                                              52  1  QoS (bits 0 and 1), retain (bit 2), packet id 0 is one (bit 3)
//!                                              53  1  kind, 1
//!                                              54  2  0
//!                                              56     client id, then the body
//! ```
//!
//! A record's digest is the xxh3-64 of its bytes from 24 to its end, seeded with the digest before it. Equal digests at a
//! sequence therefore mean equal histories.
//!
//! The CRC is salted with the store id and the lane, so that neither a record of another queue nor a payload that a device
//! made up to look like a record is ever taken for one when a damaged segment is searched for what is still good.
//!
//! *Not known to be synced* tells a torn tail from damage. If something unreadable is followed by a good record that was
//! appended when the unreadable one was already synced, then acknowledged data was damaged; if by none such, a crash
//! interrupted writes that nobody was promised.

use std::time::Duration;

use bytes::{BufMut, Bytes};
use robustmq_common::ids::{ChainDigest, EdgeSeq, LaneId};
use robustmq_common::limits::QUEUE_RECORD_BYTES;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::clock::{BootId, Stamp};
use super::types::{Append, Entry, Origin, StoreId};

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 64;
/// Bytes of a record before its client id.
pub(super) const RECORD_HEAD_BYTES: usize = 56;
/// The format that this program writes.
pub(super) const FORMAT: u16 = 1;

const MAGIC: &[u8; 8] = b"RMQSEGMT";
const DIGEST_FROM: usize = 24;
const KIND_PUBLISH: u8 = 1;
const QOS_MASK: u8 = 0b011;
const RETAIN: u8 = 0b100;
const PACKET_ID_ZERO: u8 = 0b1000;

/// A segment's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub lane: LaneId,
    pub store: StoreId,
    pub boot: BootId,
    pub base: EdgeSeq,
    pub base_digest: ChainDigest,
}

/// What a header's bytes turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeaderRead {
    Good(Header),
    /// Written by a later program.
    Newer(u16),
    Bad,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0u8; HEADER_BYTES];
        let mut out = &mut bytes[..];
        out.put_slice(MAGIC);
        out.put_u16_le(FORMAT);
        out.put_u8(self.lane.0);
        out.put_u8(0);
        out.put_slice(&self.store.0);
        out.put_slice(&self.boot.0);
        out.put_u64_le(self.base.0);
        out.put_u64_le(self.base_digest.0);
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Whether it is that of the segment which begins at `base` of this lane.
    pub fn belongs(&self, store: StoreId, lane: LaneId, base: EdgeSeq) -> bool {
        (self.store, self.lane, self.base) == (store, lane, base)
    }

    pub fn decode(bytes: &[u8]) -> HeaderRead {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else { return HeaderRead::Bad };
        let crc_matches = crc32c::crc32c(&bytes[..60]) == le_u32(bytes, 60);
        if &bytes[..8] != MAGIC || !crc_matches {
            return HeaderRead::Bad;
        }
        let format = le_u16(bytes, 8);
        if format != FORMAT {
            return HeaderRead::Newer(format);
        }
        HeaderRead::Good(Self {
            lane: LaneId(bytes[10]),
            store: StoreId(array(bytes, 12)),
            boot: BootId(array(bytes, 28)),
            base: EdgeSeq(le_u64(bytes, 44)),
            base_digest: ChainDigest(le_u64(bytes, 52)),
        })
    }
}

/// What the CRC of a lane's records starts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Salt(u32);

impl Salt {
    pub fn new(store: StoreId, lane: LaneId) -> Self {
        Self(crc32c::crc32c_append(crc32c::crc32c(&store.0), &[lane.0]))
    }

    fn crc(self, record: &[u8]) -> u32 {
        let crc = crc32c::crc32c_append(self.0, record.get(..4).unwrap_or_default());
        crc32c::crc32c_append(crc, record.get(8..).unwrap_or_default())
    }
}

/// The digest of a lane without records.
pub(super) fn first_digest(store: StoreId, lane: LaneId) -> ChainDigest {
    ChainDigest(xxh3_64_with_seed(&store.0, u64::from(lane.0)))
}

/// Where in its lane a record comes to stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub seq: EdgeSeq,
    /// The digest before it.
    pub before: ChainDigest,
    /// The last sequence known to be synced.
    pub synced: EdgeSeq,
}

/// The bytes that an append takes in a segment.
pub(super) fn encoded_len(append: &Append) -> usize {
    RECORD_HEAD_BYTES
        .saturating_add(append.origin.client_id.len())
        .saturating_add(append.body.len())
}

/// Appends the record to `out` and returns the digest after it. The caller has checked `encoded_len` against
/// `QUEUE_RECORD_BYTES` and the client id against 65,535.
pub(super) fn encode(
    append: &Append,
    stamp: &Stamp,
    place: &Place,
    salt: Salt,
    out: &mut Vec<u8>,
) -> ChainDigest {
    let start = out.len();
    let origin = &append.origin;
    let length = encoded_len(append);
    out.reserve(length);
    out.put_u32_le(u32::try_from(length).expect("checked against QUEUE_RECORD_BYTES"));
    out.put_u32_le(0);
    out.put_u64_le(place.seq.0);
    out.put_u64_le(0);
    out.put_u64_le(stamp.uptime_ms);
    out.put_i64_le(stamp.wall_ms.unwrap_or(0));
    let unsynced = place.seq.0.saturating_sub(place.synced.0);
    out.put_u32_le(u32::try_from(unsynced).unwrap_or(u32::MAX));
    out.put_u32_le(ttl_seconds(append.ttl));
    out.put_u16_le(u16::try_from(origin.client_id.len()).expect("checked by the caller"));
    out.put_u16_le(origin.packet_id.unwrap_or(0));
    let retain = if origin.retain { RETAIN } else { 0 };
    let zero = if origin.packet_id == Some(0) { PACKET_ID_ZERO } else { 0 };
    out.put_u8((origin.qos & QOS_MASK) | retain | zero);
    out.put_u8(KIND_PUBLISH);
    out.put_u16_le(0);
    out.put_slice(&origin.client_id);
    out.put_slice(&append.body);

    let record = &mut out[start..];
    let digest = xxh3_64_with_seed(&record[DIGEST_FROM..], place.before.0);
    record[16..24].copy_from_slice(&digest.to_le_bytes());
    let crc = salt.crc(record);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
    ChainDigest(digest)
}

fn ttl_seconds(ttl: Option<Duration>) -> u32 {
    let Some(ttl) = ttl else { return 0 };
    let whole = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0)).max(1);
    u32::try_from(whole).unwrap_or(u32::MAX)
}

/// The length that a record's first bytes claim, if it is one that a record can have.
pub(super) fn claimed_len(head: &[u8]) -> Option<usize> {
    let length = usize::try_from(u32::from_le_bytes(*head.first_chunk::<4>()?)).ok()?;
    (RECORD_HEAD_BYTES..=QUEUE_RECORD_BYTES).contains(&length).then_some(length)
}

/// The sequence that a record's first bytes claim.
pub(super) fn claimed_seq(head: &[u8]) -> Option<EdgeSeq> {
    head.get(8..16)?.first_chunk::<8>().map(|bytes| EdgeSeq(u64::from_le_bytes(*bytes)))
}

/// A record whose CRC is right, still in the buffer that it was read into.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordView<'a> {
    bytes: &'a [u8],
    client_len: usize,
}

impl<'a> RecordView<'a> {
    /// `bytes` are exactly one record, by its claimed length.
    pub fn parse(bytes: &'a [u8], salt: Salt) -> Option<Self> {
        let head = bytes.first_chunk::<RECORD_HEAD_BYTES>()?;
        let client_len = usize::from(le_u16(head, 48));
        let sound = claimed_len(bytes) == Some(bytes.len())
            && head[53] == KIND_PUBLISH
            && RECORD_HEAD_BYTES + client_len <= bytes.len()
            && salt.crc(bytes) == le_u32(head, 4);
        sound.then_some(Self { bytes, client_len })
    }

    /// Bytes that `parse` has taken before.
    pub fn parsed(bytes: &'a [u8], client_len: usize) -> Self {
        Self { bytes, client_len }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn seq(&self) -> EdgeSeq {
        EdgeSeq(le_u64(self.bytes, 8))
    }

    pub fn digest(&self) -> ChainDigest {
        ChainDigest(le_u64(self.bytes, 16))
    }

    /// Whether it follows on from a record with that digest.
    pub fn continues(&self, before: ChainDigest) -> bool {
        xxh3_64_with_seed(&self.bytes[DIGEST_FROM..], before.0) == self.digest().0
    }

    /// The last sequence known to be synced when this one was appended.
    pub fn synced_before(&self) -> EdgeSeq {
        EdgeSeq(self.seq().0.saturating_sub(u64::from(le_u32(self.bytes, 40))))
    }

    pub fn stamp(&self, boot: BootId) -> Stamp {
        let wall_ms = i64::from_le_bytes(array(self.bytes, 32));
        Stamp {
            boot,
            uptime_ms: le_u64(self.bytes, 24),
            wall_ms: (wall_ms != 0).then_some(wall_ms),
        }
    }

    pub fn ttl(&self) -> Option<Duration> {
        let seconds = le_u32(self.bytes, 44);
        (seconds != 0).then(|| Duration::from_secs(u64::from(seconds)))
    }

    /// Client id and body, one after the other.
    pub fn tail(&self) -> &'a [u8] {
        self.bytes.get(RECORD_HEAD_BYTES..).unwrap_or_default()
    }

    /// How much of [`tail`](Self::tail) is the client id.
    pub fn client_len(&self) -> usize {
        self.client_len
    }

    /// The record with memory of its own; client id and body are for the caller to fill in.
    pub fn to_entry(self, boot: BootId) -> Entry {
        let flags = self.bytes[52];
        let packet_id = le_u16(self.bytes, 50);
        Entry {
            seq: self.seq(),
            digest: self.digest(),
            stamp: self.stamp(boot),
            ttl: self.ttl(),
            origin: Origin {
                client_id: Bytes::new(),
                packet_id: (packet_id != 0 || flags & PACKET_ID_ZERO != 0).then_some(packet_id),
                qos: flags & QOS_MASK,
                retain: flags & RETAIN != 0,
            },
            body: Bytes::new(),
        }
    }
}

/// A segment's file name.
pub(super) fn file_name(base: EdgeSeq, bad: bool) -> String {
    format!("{:020}.{}", base.0, if bad { "bad" } else { "seg" })
}

/// The first sequence that a file name speaks of and whether the segment is known to be damaged; `None` if it is not the
/// name of a segment.
pub(super) fn parse_file_name(name: &str) -> Option<(EdgeSeq, bool)> {
    let (digits, kind) = name.split_once('.')?;
    let bad = match kind {
        "seg" => false,
        "bad" => true,
        _ => return None,
    };
    let canonical = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    let base = digits.parse().ok().filter(|base| canonical && *base > 0)?;
    Some((EdgeSeq(base), bad))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0u8; N];
    if let Some(found) = bytes.get(at..at + N) {
        out.copy_from_slice(found);
    }
    out
}

fn le_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

fn le_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn le_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}
