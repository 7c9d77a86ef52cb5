//! Shards of MosaicML's streaming (MDS, version 2), as its `MDSWriter` writes them; numbers are u32, little-endian:
//!
//! ```text
//! samples | offset of each sample, and of the end (samples + 1) | JSON: column_names, column_sizes, ... | samples
//! sample: the size of each column that has no fixed one | the columns' data
//! ```
//!
//! With the columns a sample says itself where it ends. So the table of offsets is checked when the header is read (that it rises, and that
//! the first sample is as long as it says), and not kept: only the columns are, in the prelude. What is written behind the last sample,
//! which no writer does, is therefore taken for samples.
//!
//! The value is the column that is the largest in the shard's first sample (of equals the first); the others are members.

use robustmq_common::limits::dataset::PRELUDE_BYTES;
use serde::{Deserialize, Serialize};

use super::{Given, Input, Limits, Parsed, Parser};
use crate::layout::{Layout, Member, RecordLayout, Span, Text};

/// [`super::Format::Mds`].
pub(super) struct Mds;

/// A call ends when it has found so many columns for each record that it may return: they take more memory than they may take content.
const MEMBERS_PER_RECORD: usize = 16;

/// The JSON of a shard, as far as it is of use.
#[derive(Deserialize)]
struct Config {
    version: u32,
    format: String,
    column_names: Vec<String>,
    column_sizes: Vec<Option<u32>>,
}

/// What is kept of a shard's beginning.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Shard {
    /// Where the first sample begins.
    header: u32,
    /// Names, and sizes if they are fixed.
    columns: Vec<(String, Option<u32>)>,
    /// Which column becomes the value.
    value: usize,
}

fn number_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

impl Shard {
    /// Reads the header, with the first sample's sizes. `Ok(None)`: more is needed.
    fn read(given: Given<'_>, limits: Limits) -> Result<Option<Self>, String> {
        let bytes = given.bytes;
        let (Some(samples), Some(header)) = (number_at(bytes, 0), number_at(bytes, 4)) else {
            return Ok(None);
        };
        let table_end = 8 + 4 * u64::from(samples);
        let config_bytes = u64::from(header)
            .checked_sub(table_end)
            .ok_or("the first sample's offset lies within the table of offsets")?;
        if config_bytes > PRELUDE_BYTES as u64 {
            return Err(format!("the shard's columns take more than {PRELUDE_BYTES} bytes"));
        }
        if table_end > limits.record_bytes.saturating_add(PRELUDE_BYTES) as u64 {
            return Err(format!("the table of {samples} offsets is too large"));
        }
        let header_end = header as usize;
        if bytes.len() < header_end {
            return Ok(None);
        }
        let config_start = header_end - usize::try_from(config_bytes).expect("at most the prelude");
        let config: Config = serde_json::from_slice(&bytes[config_start..header_end])
            .map_err(|error| format!("the shard's columns are not readable: {error}"))?;
        let mut shard = Self::with(config, header)?;
        shard.check_table(&bytes[4..config_start])?;
        if samples > 0 {
            let Some(sizes) = shard.sizes(&bytes[header_end..]) else {
                return Ok(None);
            };
            let total = shard.head_bytes() + sizes.clone().map(u64::from).sum::<u64>();
            let end = number_at(bytes, 8).unwrap_or_default();
            if total != u64::from(end - header) {
                return Err("the first sample is not as long as the table of offsets says".into());
            }
            let largest = sizes.enumerate().map(|(column, bytes)| (bytes, usize::MAX - column));
            shard.value = usize::MAX - largest.max().map_or(usize::MAX, |(_, column)| column);
        }
        Ok(Some(shard))
    }

    fn with(config: Config, header: u32) -> Result<Self, String> {
        if config.version != 2 || config.format != "mds" {
            let (format, version) = (config.format.escape_debug(), config.version);
            return Err(format!("the shard is \"{format}\" of version {version}, not MDS of 2"));
        }
        if config.column_names.is_empty() || config.column_names.len() != config.column_sizes.len()
        {
            return Err("the shard has no columns, or not a size for each".into());
        }
        if config.column_sizes.contains(&Some(0)) {
            return Err("a column of the shard has no bytes".into());
        }
        let columns = config.column_names.into_iter().zip(config.column_sizes).collect();
        Ok(Self { header, columns, value: 0 })
    }

    /// What a sample takes at least is between each two offsets.
    fn check_table(&self, table: &[u8]) -> Result<(), String> {
        let fixed = self.columns.iter().filter_map(|(_, size)| *size).map(u64::from).sum::<u64>();
        let least = fixed + self.head_bytes();
        let (offsets, _) = table.as_chunks::<4>();
        let rises = |pair: &[[u8; 4]]| match pair {
            [offset, next] => {
                let offset = u64::from(u32::from_le_bytes(*offset));
                u64::from(u32::from_le_bytes(*next)) >= offset + least
            }
            _ => false,
        };
        match offsets.windows(2).position(|pair| !rises(pair)) {
            Some(sample) => Err(format!("the offset of sample {} is not possible", sample + 1)),
            None => Ok(()),
        }
    }

    /// Bytes of the sizes before a sample's data.
    fn head_bytes(&self) -> u64 {
        4 * self.columns.iter().filter(|(_, size)| size.is_none()).count() as u64
    }

    /// The sizes of all columns of the sample that begins here; `None` if they are not in sight.
    fn sizes<'a>(&'a self, sample: &'a [u8]) -> Option<impl Iterator<Item = u32> + Clone + 'a> {
        let head_bytes = usize::try_from(self.head_bytes()).ok()?;
        let mut head = sample.get(..head_bytes)?.as_chunks::<4>().0.iter();
        Some(self.columns.iter().map(move |(_, size)| match size {
            Some(size) => *size,
            None => head.next().map_or(0, |size| u32::from_le_bytes(*size)),
        }))
    }

    /// Adds a sample whose data begins at `data`.
    fn add(
        &self,
        layout: &mut Layout,
        names: &[Text],
        mut data: usize,
        sizes: impl Iterator<Item = u32>,
    ) {
        let count = |layout: &Layout| {
            u32::try_from(layout.members.len()).expect("each takes a byte of less than 4 GiB")
        };
        let first = count(layout);
        let mut value = Span::default();
        for (column, (name, size)) in names.iter().zip(sizes).enumerate() {
            let span = Span::new(data, size as usize);
            data += size as usize;
            if column == self.value {
                value = span;
            } else {
                layout.members.push(Member { name: name.clone(), data: span });
            }
        }
        let members = first..count(layout);
        let value_name = names.get(self.value).cloned();
        layout.records.push(RecordLayout {
            key: None,
            value,
            value_name,
            members,
            value_crc: None,
        });
    }
}

/// The shard; if it was not known yet, what later calls need of it goes to `prelude`. `Ok(None)`: more is needed.
fn shard(
    input: Input<'_>,
    limits: Limits,
    prelude: &mut Option<Vec<u8>>,
) -> Result<Option<Shard>, String> {
    if !input.prelude.is_empty() {
        let shard = serde_json::from_slice(input.prelude).map_err(|error| {
            format!("what was kept of the shard's header is not readable: {error}")
        })?;
        return Ok(Some(shard));
    }
    if !input.is_first {
        return Err("the shard's header is not known".into());
    }
    let Some(shard) = Shard::read(input.given(), limits)? else {
        return Ok(None);
    };
    let kept = serde_json::to_vec(&shard).map_err(|error| error.to_string())?;
    if kept.len() > PRELUDE_BYTES {
        return Err(format!("the shard's columns take more than {PRELUDE_BYTES} bytes"));
    }
    *prelude = Some(kept);
    Ok(Some(shard))
}

impl Parser for Mds {
    fn parse(&self, input: Input<'_>, limits: Limits) -> Parsed {
        let given = input.given();
        let mut parsed = Parsed::default();
        let shard = match shard(input, limits, &mut parsed.prelude) {
            Ok(Some(shard)) => shard,
            Ok(None) => {
                if given.is_last && !given.bytes.is_empty() {
                    parsed.damaged(0, "the shard's header is cut off".into());
                    parsed.is_end = true;
                }
                return parsed;
            }
            Err(reason) => {
                parsed.damaged(0, reason);
                parsed.is_end = true;
                return parsed;
            }
        };
        let name = |(name, _): &(String, _)| Text::Owned(name.as_bytes().into());
        let names: Vec<Text> = shard.columns.iter().map(name).collect();
        let most_members = limits.records.saturating_mul(MEMBERS_PER_RECORD);
        let mut at = if input.is_first { shard.header as usize } else { 0 };
        while at < given.bytes.len()
            && parsed.found() < limits.records
            && parsed.layout.members.len() < most_members
        {
            let Some(sizes) = shard.sizes(&given.bytes[at..]) else {
                parsed.cut_off(at, given.is_last);
                break;
            };
            let bytes = sizes.clone().map(u64::from).sum::<u64>();
            let data = at as u64 + shard.head_bytes();
            let end = data + bytes;
            if bytes > limits.record_bytes as u64 {
                let limit = limits.record_bytes;
                parsed.damaged(at, format!("the sample is larger than {limit} bytes"));
                parsed.skipped(at, end, given);
                return parsed;
            }
            let Some(end) = usize::try_from(end).ok().filter(|end| *end <= given.bytes.len())
            else {
                parsed.cut_off(at, given.is_last);
                break;
            };
            let data = end - usize::try_from(bytes).expect("at most the limit, which is a usize");
            shard.add(&mut parsed.layout, &names, data, sizes);
            at = end;
        }
        parsed.consumed = at.min(given.bytes.len());
        parsed
    }
}

#[cfg(test)]
mod tests;
