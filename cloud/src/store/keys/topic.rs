//! The catalogue.
//!
//! ```text
//! 0x10 name 0x00 0x00     -> JSON: id, partitions, configuration, time of creation
//! 0x11 topic_id(16)       -> name
//! 0x12 topic_id(16)       -> empty: the topic is gone, its partitions' keys are still to be removed
//! ```

use std::ops::Range;

use bytes::{BufMut, Bytes};
use robustmq_common::ids::TopicId;

use super::{Family, Reader, ValueError};

/// The key of a topic by its name.
#[must_use]
pub fn name_key(name: &str) -> Bytes {
    let mut key = Family::TopicName.start(name.len() + 2);
    super::text::put(&mut key, name);
    key.freeze()
}

/// The names after `after` (exclusive), in order; all of them for `None`.
#[must_use]
pub fn names_after(after: Option<&str>) -> Range<Bytes> {
    let all = Family::TopicName.range();
    match after {
        // No key lies between a name's key and that key with one more byte.
        Some(name) => {
            let mut start = name_key(name).to_vec();
            start.push(0);
            start.into()..all.end
        }
        None => all,
    }
}

/// The key of a topic by its id.
#[must_use]
pub fn id_key(id: TopicId) -> Bytes {
    with_id(Family::TopicId, id)
}

/// The key that says that a deleted topic's records are still to be removed.
#[must_use]
pub fn deletion_key(id: TopicId) -> Bytes {
    with_id(Family::TopicDeletion, id)
}

/// The topic of a [`deletion_key`].
///
/// # Errors
/// [`ValueError`] if the key has another layout.
pub fn parse_deletion_key(key: &[u8]) -> Result<TopicId, ValueError> {
    let mut reader = Reader::new(key);
    reader.version(Family::TopicDeletion as u8)?;
    let id = TopicId(uuid::Uuid::from_bytes(reader.array()?));
    reader.end()?;
    Ok(id)
}

fn with_id(family: Family, id: TopicId) -> Bytes {
    let mut key = family.start(16);
    key.put_slice(id.as_bytes());
    key.freeze()
}

#[cfg(test)]
mod tests {
    use robustmq_common::ids::TopicId;
    use uuid::Uuid;

    use super::{deletion_key, id_key, name_key, names_after, parse_deletion_key};

    #[test]
    fn golden_bytes() {
        let id = TopicId(Uuid::from_bytes([7; 16]));
        assert_eq!(&name_key("t")[..], b"\x10t\0\0");
        assert_eq!(&id_key(id)[..], [&[0x11][..], &[7; 16]].concat());
        assert_eq!(&deletion_key(id)[..], [&[0x12][..], &[7; 16]].concat());
        assert_eq!(parse_deletion_key(&deletion_key(id)), Ok(id));
        assert!(parse_deletion_key(&id_key(id)).is_err());
    }

    #[test]
    fn a_page_starts_after_the_name_it_is_given() {
        let range = names_after(Some("b"));
        let check =
            |name: &str, inside| assert_eq!(range.contains(&name_key(name)), inside, "{name}");
        check("a", false);
        check("b", false);
        check("b-", true);
        check("ba", true);
        check("c", true);
        assert!(names_after(None).contains(&name_key("a")));
    }
}
