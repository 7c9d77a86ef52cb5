//! Extents that are read again: they have to be what was indexed.

use bytes::Bytes;

use super::chunks::extent_of_chunk;
use super::{ExtentIndex, ObjectIndex, sidecar};
use crate::fetch::{FetchError, Object};
use crate::format::{Input, Parsed};
use crate::layout::{Extent, Layout};

/// Finds the records of whole content.
pub(crate) fn layout_of(
    object: &Object,
    index: &ObjectIndex,
    start: u64,
    content: Bytes,
) -> Extent {
    let layout = parsed(object, index, start, &content).layout;
    Extent { content, layout }
}

/// What the parser says of whole content.
fn parsed(object: &Object, index: &ObjectIndex, start: u64, content: &[u8]) -> Parsed {
    let input = Input {
        bytes: content,
        is_first: start == 0,
        is_last: true,
        prelude: &index.prelude,
        carry: &[],
        object: object.path.as_ref(),
    };
    index.reading.parser().parse(input, index.reading.limits())
}

/// The content of an extent read again, checked and with its records found.
///
/// # Errors
/// [`FetchError::Damaged`]: it is not what was indexed.
pub fn open(
    object: &Object,
    index: &ObjectIndex,
    extent: &ExtentIndex,
    content: Bytes,
) -> Result<Extent, FetchError> {
    let damaged = |reason: String| FetchError::Damaged { object: object.path.to_string(), reason };
    if content.len() != extent.bytes as usize {
        return Err(damaged(format!("{} bytes of {}", content.len(), extent.bytes)));
    }
    let check = |layout: &mut Layout, content: &[u8]| {
        let crc = layout.note_checksums(content);
        match extent.crc.is_some_and(|expected| crc != expected) {
            true => Err(damaged("another checksum".to_owned())),
            false => Ok(()),
        }
    };
    if let Some(chunk) = index.chunk(extent.first_record) {
        let mut found = extent_of_chunk(&chunk.of.key, content);
        check(&mut found.layout, &found.content)?;
        return Ok(found);
    }
    let mut found = parsed(object, index, extent.start, &content);
    check(&mut found.layout, &content)?;
    if found.layout.records.len() != extent.records as usize {
        let (found, records) = (found.layout.records.len(), extent.records);
        return Err(damaged(format!("{found} records of {records}")));
    }
    // Nobody has read it before: as many records may have been found elsewhere in it than where they were said to be.
    if extent.crc.is_none() && sidecar::is_false(&found, &content) {
        return Err(damaged("its index file says that records lie elsewhere".to_owned()));
    }
    Ok(Extent { content, layout: found.layout })
}
