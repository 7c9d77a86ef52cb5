//! The store's own facts.
//!
//! ```text
//! 0x00 'f'                     -> format(4) generation(8)    written once, when the store is created
//! 0x00 'i' kind(1)             -> next(8)                    ids below it may have been given out
//! 0x00 'a'                     -> JSON: the identity of the archive, whether its marker was made, where it was last
//! ```

use bytes::{BufMut, Bytes};
use robustmq_common::ids::CloudGeneration;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Family, Reader, ValueError};

/// The version of the whole key layout. A store with another one is refused.
pub const STORE_FORMAT: u32 = 1;

/// The key of [`StoreIdentity`].
#[must_use]
pub fn identity_key() -> Bytes {
    let mut key = Family::System.start(1);
    key.put_u8(b'f');
    key.freeze()
}

/// Which layout the store has, and which state of the cloud it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreIdentity {
    /// The layout's version.
    pub format: u32,
    /// Drawn at random when the store is created. An operator who restores a backup has a new one drawn, so that edges
    /// notice that the cloud may have gone back.
    pub generation: CloudGeneration,
}

impl StoreIdentity {
    /// The value's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut value = Vec::with_capacity(12);
        value.put_u32(self.format);
        value.put_u64(self.generation.0);
        value.into()
    }

    /// Reads the value's bytes.
    ///
    /// # Errors
    /// [`ValueError`] says what is wrong with them.
    pub fn decode(value: &[u8]) -> Result<Self, ValueError> {
        let mut reader = Reader::new(value);
        let identity = Self { format: reader.u32()?, generation: CloudGeneration(reader.u64()?) };
        reader.end()?;
        Ok(identity)
    }
}

/// What a block of reserved ids is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum IdKind {
    /// Ids of idempotent producers.
    Producer = 1,
    /// Tokens of shared groups' cursors .
    Cursor = 2,
    /// Incarnations of edge queue stores.
    Incarnation = 3,
}

/// The key that holds the first id not yet reserved.
#[must_use]
pub fn ids_key(kind: IdKind) -> Bytes {
    let mut key = Family::System.start(2);
    key.put_u8(b'i');
    key.put_u8(kind as u8);
    key.freeze()
}

/// The key of [`ArchiveIdentity`].
#[must_use]
pub fn archive_key() -> Bytes {
    let mut key = Family::System.start(1);
    key.put_u8(b'a');
    key.freeze()
}

/// The archive of `tiered` topics that belongs to the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveIdentity {
    /// Drawn at random; the archive's marker has it too.
    pub archive_id: Uuid,
    /// The marker was there once. Until then it is on its way.
    pub is_made: bool,
    /// Where the archive was when it was last seen.
    pub url: String,
}

#[cfg(test)]
mod tests {
    use robustmq_common::ids::CloudGeneration;
    use uuid::Uuid;

    use super::{ArchiveIdentity, IdKind, StoreIdentity, archive_key, identity_key, ids_key};

    #[test]
    fn golden_bytes() {
        assert_eq!(&identity_key()[..], b"\x00f");
        assert_eq!(&ids_key(IdKind::Producer)[..], b"\x00i\x01");
        let identity = StoreIdentity { format: 1, generation: CloudGeneration(0x0102) };
        assert_eq!(&identity.encode()[..], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(StoreIdentity::decode(&identity.encode()), Ok(identity));
        assert!(StoreIdentity::decode(b"short").is_err());
        assert_eq!(&archive_key()[..], b"\x00a");
        let archive =
            ArchiveIdentity { archive_id: Uuid::nil(), is_made: true, url: "file:///a".into() };
        let json = r#"{"archive_id":"00000000-0000-0000-0000-000000000000","is_made":true,"url":"file:///a"}"#;
        assert_eq!(serde_json::to_string(&archive).expect("text"), json);
        assert_eq!(serde_json::from_str::<ArchiveIdentity>(json).expect("as written"), archive);
    }
}
