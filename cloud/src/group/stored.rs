//! What is durable of a group, byte by byte. Keys are in [`crate::store::keys::group`].
//!
//! ```text
//! metadata  version(1)=1 changed_ms(8) generation(4) protocol_type? protocol? leader? members(4) member*
//! member    id instance? client_id client_host session_ms(4) rebalance_ms(4) metadata assignment
//! offset    version(1)=1 offset(8) leader_epoch(4) committed_ms(8) metadata
//! ```
//!
//! Texts and bytes are a length (4) and so many bytes; `?` may be absent: length 0xffff_ffff.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::machine::{Snapshot, StoredMember};

const VERSION: u8 = 1;
const ABSENT: u32 = u32::MAX;

/// Why a stored value cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// It ends too early, or goes on too long.
    #[error("the value has the wrong length")]
    Length,
    /// Written by a later release.
    #[error("layout version {0} is not known to this release")]
    Version(u8),
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset that the group wants to read.
    pub offset: i64,
    /// The epoch of the record before it; -1 if the client did not say.
    pub leader_epoch: i32,
    /// The client's own note.
    pub metadata: String,
    /// When, in milliseconds since 1970.
    pub committed_ms: i64,
}

impl CommittedOffset {
    /// The stored bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(25 + self.metadata.len());
        out.put_u8(VERSION);
        out.put_i64(self.offset);
        out.put_i32(self.leader_epoch);
        out.put_i64(self.committed_ms);
        put(&mut out, self.metadata.as_bytes());
        out.freeze()
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// [`StoredError`].
    pub fn decode(mut value: Bytes) -> Result<Self, StoredError> {
        version(&mut value)?;
        let read = Self {
            offset: value.try_get_i64().map_err(|_| StoredError::Length)?,
            leader_epoch: value.try_get_i32().map_err(|_| StoredError::Length)?,
            committed_ms: value.try_get_i64().map_err(|_| StoredError::Length)?,
            metadata: text(&mut value)?,
        };
        if value.is_empty() { Ok(read) } else { Err(StoredError::Length) }
    }
}

/// The stored bytes of a group that last changed at `changed_ms` (milliseconds since 1970).
#[must_use]
pub fn encode_group(snapshot: &Snapshot, changed_ms: i64) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_i64(changed_ms);
    out.put_i32(snapshot.generation);
    for text in [&snapshot.protocol_type, &snapshot.protocol, &snapshot.leader] {
        put_optional(&mut out, text.as_deref());
    }
    out.put_u32(u32::try_from(snapshot.members.len()).unwrap_or(u32::MAX));
    for member in &snapshot.members {
        put(&mut out, member.member_id.as_bytes());
        put_optional(&mut out, member.instance_id.as_deref());
        put(&mut out, member.client_id.as_bytes());
        put(&mut out, member.client_host.as_bytes());
        out.put_u32(millis(member.session_timeout));
        out.put_u32(millis(member.rebalance_timeout));
        put(&mut out, &member.metadata);
        put(&mut out, &member.assignment);
    }
    out.freeze()
}

/// Reads a group and when it last changed (milliseconds since 1970).
///
/// # Errors
/// [`StoredError`].
pub fn decode_group(mut value: Bytes) -> Result<(Snapshot, i64), StoredError> {
    version(&mut value)?;
    let changed_ms = value.try_get_i64().map_err(|_| StoredError::Length)?;
    let generation = value.try_get_i32().map_err(|_| StoredError::Length)?;
    let mut snapshot = Snapshot {
        generation,
        protocol_type: optional_text(&mut value)?,
        protocol: optional_text(&mut value)?,
        leader: optional_text(&mut value)?,
        members: Vec::new(),
    };
    let members = value.try_get_u32().map_err(|_| StoredError::Length)?;
    for _ in 0..members {
        snapshot.members.push(StoredMember {
            member_id: text(&mut value)?,
            instance_id: optional_text(&mut value)?,
            client_id: text(&mut value)?,
            client_host: text(&mut value)?,
            session_timeout: duration(&mut value)?,
            rebalance_timeout: duration(&mut value)?,
            metadata: bytes(&mut value)?.ok_or(StoredError::Length)?,
            assignment: bytes(&mut value)?.ok_or(StoredError::Length)?,
        });
    }
    if value.is_empty() { Ok((snapshot, changed_ms)) } else { Err(StoredError::Length) }
}

fn put(out: &mut BytesMut, bytes: &[u8]) {
    // Everything stored here came in one request of at most KAFKA_FRAME_BYTES.
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
}

fn put_optional(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put(out, text.as_bytes()),
        None => out.put_u32(ABSENT),
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn version(value: &mut Bytes) -> Result<(), StoredError> {
    match value.try_get_u8() {
        Ok(VERSION) => Ok(()),
        Ok(other) => Err(StoredError::Version(other)),
        Err(_) => Err(StoredError::Length),
    }
}

fn bytes(value: &mut Bytes) -> Result<Option<Bytes>, StoredError> {
    let length = value.try_get_u32().map_err(|_| StoredError::Length)?;
    if length == ABSENT {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| StoredError::Length)?;
    if length > value.len() {
        return Err(StoredError::Length);
    }
    Ok(Some(value.split_to(length)))
}

fn optional_text(value: &mut Bytes) -> Result<Option<String>, StoredError> {
    let Some(bytes) = bytes(value)? else { return Ok(None) };
    String::from_utf8(bytes.into()).map(Some).map_err(|_| StoredError::Text)
}

fn text(value: &mut Bytes) -> Result<String, StoredError> {
    optional_text(value)?.ok_or(StoredError::Length)
}

fn duration(value: &mut Bytes) -> Result<Duration, StoredError> {
    let millis = value.try_get_u32().map_err(|_| StoredError::Length)?;
    Ok(Duration::from_millis(u64::from(millis)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::{any, proptest};

    use super::{CommittedOffset, StoredError, decode_group, encode_group};
    use crate::group::machine::{Snapshot, StoredMember};

    fn member(id: &str, instance: Option<&str>) -> StoredMember {
        StoredMember {
            member_id: id.to_owned(),
            instance_id: instance.map(str::to_owned),
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_secs(300),
            metadata: Bytes::from_static(b"subscribed"),
            assignment: Bytes::from_static(b""),
        }
    }

    #[test]
    fn a_group_comes_back_as_it_was() {
        let empty = Snapshot::default();
        let full = Snapshot {
            protocol_type: Some("consumer".to_owned()),
            generation: 7,
            protocol: Some("range".to_owned()),
            leader: Some("a".to_owned()),
            members: vec![member("a", None), member("b", Some("rack-2"))],
        };
        for snapshot in [empty, full] {
            let stored = encode_group(&snapshot, 99);
            assert_eq!(decode_group(stored.clone()), Ok((snapshot, 99)));
            for length in 0..stored.len() {
                assert_eq!(decode_group(stored.slice(..length)), Err(StoredError::Length));
            }
        }
    }

    #[test]
    fn a_later_release_is_told_apart_from_damage() {
        assert_eq!(decode_group(Bytes::from_static(&[2])), Err(StoredError::Version(2)));
        assert_eq!(CommittedOffset::decode(Bytes::from_static(&[9])), Err(StoredError::Version(9)));
    }

    proptest! {
        #[test]
        fn offsets_come_back_as_they_were(
            offset in any::<i64>(), leader_epoch in any::<i32>(), committed_ms in any::<i64>(),
            metadata in ".*",
        ) {
            let committed = CommittedOffset { offset, leader_epoch, metadata, committed_ms };
            assert_eq!(CommittedOffset::decode(committed.encode()), Ok(committed));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in any::<Vec<u8>>()) {
            let bytes = Bytes::from(bytes);
            let _ = decode_group(bytes.clone());
            let _ = CommittedOffset::decode(bytes);
        }
    }
}
