//! A file's content: all of it once, and extents of it again.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use robustmq_common::limits::dataset as limits;
use tokio::time::Instant;

use super::group::{self, Group};
use super::held::{Held, Room};
use super::render::{Part, Renderer, Stop};
use super::table::Table;
use super::{decode, footer};
use crate::fetch::{FetchError, Object, Source};
use crate::format::Damage;
use crate::index::{
    ExtentIndex, Found, ObjectIndex, Pace, Reading, add_extent, extent_id, layout_of, stopped,
};

/// The footer, or what is wrong with it.
async fn table(
    source: &dyn Source,
    object: &Object,
    reading: &Reading,
) -> Result<Result<Table, String>, FetchError> {
    let tail_start = object.size.saturating_sub(limits::PARQUET_TAIL_BYTES);
    let tail = source.get(object, tail_start..object.size).await?;
    let length = match footer::length(&tail, object.size) {
        Ok(length) => length,
        Err(fault) => return Ok(Err(fault)),
    };
    let end = object.size - footer::TAIL as u64;
    let start = end - length;
    let footer = match start.checked_sub(tail_start).and_then(|skip| usize::try_from(skip).ok()) {
        Some(skip) => tail.slice(skip..tail.len() - footer::TAIL),
        None => source.get(object, start..end).await?,
    };
    let (rows_as, most) =
        (reading.rows_as.clone().unwrap_or_default(), reading.large.record_bytes());
    Ok(decode(move || Table::open(&footer, &rows_as, most)).await)
}

/// A row group in memory, or what is wrong with it.
async fn group(
    (source, object): (&dyn Source, &Object),
    table: &Arc<Table>,
    number: usize,
    gets: usize,
    room: Arc<Room>,
) -> Result<Result<Group, String>, FetchError> {
    let fetched = match group::fetch(source, object, table, number, gets).await? {
        Ok(fetched) => fetched,
        Err(fault) => return Ok(Err(fault)),
    };
    let (table, size) = (Arc::clone(table), object.size);
    Ok(decode(move || fetched.open(&table, number, size, room)).await)
}

/// The row groups of a file that is counted.
struct Groups<'a> {
    from: (&'a dyn Source, &'a Object),
    table: Arc<Table>,
    held: &'a Held,
    gets: usize,
    /// Those that have come and are not read yet.
    ready: HashMap<usize, Result<Group, String>>,
    /// For how long they are to wait for readers while others wait for their room; then they are read to their ends, whether more is wanted or
    /// not.
    patience: Duration,
}

impl Groups<'_> {
    /// Has some come together.
    async fn bring(&mut self, numbers: &[usize]) -> Result<(), FetchError> {
        let size = self.from.1.size;
        let bytes = numbers.iter().map(|number| self.table.group_bytes(*number, size)).sum();
        let room = self.held.room(bytes).await;
        let groups = numbers
            .iter()
            .map(|number| group(self.from, &self.table, *number, self.gets, Arc::clone(&room)));
        for (number, group) in numbers.iter().zip(join_all(groups).await) {
            self.ready.insert(*number, group?);
        }
        let groups = self.ready.values().filter_map(|group| group.as_ref().ok());
        self.patience = groups.map(|group| group.patience).max().unwrap_or(Duration::MAX);
        Ok(())
    }

    /// Reads one, or says what is wrong with it.
    async fn read(&mut self, number: usize) -> Result<Renderer, String> {
        match self.ready.remove(&number) {
            Some(Ok(group)) => decode(move || Renderer::new(Arc::new(group), 0)).await,
            Some(Err(fault)) => Err(fault),
            None => Err("it did not come".into()),
        }
    }

    /// Returns when more is wanted, or others have waited for their room for as long as it would take to fetch them again.
    async fn wanted(&mut self, found: &mut impl Found) -> bool {
        if self.is_hurried() {
            return true;
        }
        let began = Instant::now();
        tokio::select! {
            biased;
            is_wanted = found.wanted() => {
                if self.held.is_awaited() {
                    self.patience = self.patience.saturating_sub(began.elapsed());
                }
                is_wanted
            }
            () = self.held.is_room_awaited(self.patience) => {
                self.patience = Duration::ZERO;
                true
            }
        }
    }

    fn is_hurried(&self) -> bool {
        self.patience.is_zero()
    }
}

/// One step: the renderer comes back with what it has written.
async fn step(mut renderer: Renderer, stop: Stop) -> Result<(Renderer, Part), String> {
    decode(move || {
        let part = renderer.part(stop);
        Ok((renderer, part))
    })
    .await
}

/// Reads a file and says what it holds.
///
/// # Errors
/// [`FetchError`]: nothing is known of it then.
pub(crate) async fn index(
    source: &dyn Source,
    object: &Object,
    mut index: ObjectIndex,
    pace: Pace,
    held: &Held,
    found: &mut impl Found,
) -> Result<ObjectIndex, FetchError> {
    let table = match table(source, object, &index.reading).await? {
        Ok(table) => Arc::new(table),
        Err(reason) => {
            index.note(Damage { at: 0, reason });
            return Ok(index);
        }
    };
    let (from, gets, ready) = ((source, object), pace.gets, HashMap::new());
    let table_of = Arc::clone(&table);
    let mut groups = Groups { from, table: table_of, held, gets, ready, patience: Duration::MAX };
    let mut file = File { object, index, at: 0, extent_bytes: pace.extent_bytes };
    let (mut numbers, mut read_bytes) = (0..table.groups(), 0_u64);
    while !numbers.is_empty() && !file.is_bomb() {
        let bundle = bundle(&table, &mut numbers, object.size);
        let bytes = bundle.iter().map(|number| table.group_bytes(*number, object.size));
        read_bytes = read_bytes.saturating_add(bytes.sum());
        if read_bytes > object.size {
            let fault = "its row groups have more bytes together than it has: the rest is not read";
            file.damaged(0, fault.into());
            break;
        }
        groups.bring(&bundle).await?;
        for number in bundle {
            if let Err(fault) = file.read(&mut groups, number, found).await? {
                file.damaged(0, format!("row group {number}: {fault}"));
            }
        }
        // Now it waits, without room.
        if groups.is_hurried() && !numbers.is_empty() && !found.wanted().await {
            return Err(stopped(object));
        }
    }
    if file.is_bomb() {
        let at = file.at;
        file.damaged(0, format!("{} bytes became {at} bytes: the rest is not read", object.size));
    }
    Ok(file.index)
}

/// Small row groups that are fetched together, or the next one.
fn bundle(table: &Table, numbers: &mut Range<usize>, file_bytes: u64) -> Vec<usize> {
    let (mut bundle, mut bytes) = (Vec::new(), 0);
    while bundle.len() < limits::PARQUET_BUNDLE && numbers.start < numbers.end {
        // What writers put into a row group without rows is no page at times.
        if table.group(numbers.start).is_ok_and(|(_, rows)| rows == 0) {
            numbers.start += 1;
            continue;
        }
        bytes += table.group_bytes(numbers.start, file_bytes);
        if !bundle.is_empty() && bytes > limits::EXTENT_BYTES as u64 {
            break;
        }
        bundle.extend(numbers.next());
    }
    bundle
}

/// A file that is read.
struct File<'a> {
    object: &'a Object,
    index: ObjectIndex,
    /// Bytes of content so far.
    at: u64,
    /// Of an extent, about.
    extent_bytes: usize,
}

impl File<'_> {
    fn damaged(&mut self, at: u64, reason: String) {
        self.index.note(Damage { at: self.at + at, reason });
    }

    fn is_bomb(&self) -> bool {
        let most = self.object.size.saturating_mul(limits::EXPANSION);
        self.at > most.max(limits::PARQUET_CONTENT_BYTES)
    }

    /// Reads a row group to its end, which waits for readers, but not for long while others wait for its room: fetched again, it would take longer.
    /// The cache keeps what it has room for, so that a row group which nobody reads any more costs time alone, and no more of it than a bomb may.
    async fn read(
        &mut self,
        groups: &mut Groups<'_>,
        number: usize,
        found: &mut impl Found,
    ) -> Result<Result<(), String>, FetchError> {
        let records = u32::try_from(limits::EXTENT_RECORDS).unwrap_or(u32::MAX);
        let bytes = self.extent_bytes;
        let stop = Stop { bytes, most: bytes / 16 * 17, records };
        let mut reading = match groups.read(number).await {
            Ok(renderer) => Some(renderer),
            Err(fault) => return Ok(Err(fault)),
        };
        while let Some(renderer) = reading.take() {
            let (next, part) = match step(renderer, stop).await {
                Ok(read) => read,
                Err(fault) => return Ok(Err(fault)),
            };
            // It has no room while it waits at its end.
            reading = (!part.is_end).then_some(next);
            let listed = part.damage.len() as u64;
            for (at, fault) in part.damage {
                self.damaged(at as u64, format!("row group {number}, {fault}"));
            }
            self.index.damaged += part.damaged.saturating_sub(listed);
            let is_found = part.records > 0
                && self.extent(
                    part.content.into(),
                    (u32::try_from(number).unwrap_or(u32::MAX), part.first_row),
                    found,
                );
            if is_found && !(found.publish(&self.index).await && groups.wanted(found).await) {
                return Err(stopped(self.object));
            }
            if self.is_bomb() {
                break;
            }
        }
        Ok(Ok(()))
    }

    /// Adds an extent. Whether it has records.
    fn extent(&mut self, content: Bytes, first: (u32, u64), found: &mut impl Found) -> bool {
        let (object, index, start) = (self.object, &self.index, self.at);
        let mut extent = layout_of(object, index, start, content);
        self.at += extent.content.len() as u64;
        if extent.layout.records.is_empty() || !add_extent(&mut self.index, start, &mut extent) {
            return false;
        }
        self.index.rows.push(first);
        found.extent(&self.index, Arc::new(extent));
        true
    }
}

/// The content of an extent again.
///
/// # Errors
/// [`FetchError`].
pub(crate) async fn fetch(
    source: &dyn Source,
    object: &Object,
    index: &ObjectIndex,
    extent: &ExtentIndex,
    (held, id): (&Arc<Held>, u128),
) -> Result<Bytes, FetchError> {
    let damaged = |reason: String| FetchError::Damaged { object: object.path.to_string(), reason };
    let at = index.extents.partition_point(|other| other.start < extent.start);
    let found = index.rows.get(at).copied();
    let (number, first) = found.ok_or_else(|| damaged("no rows are known of an extent".into()))?;
    let (table_cell, group_cell) = (held.table(id), held.group(id, number));
    let group = group_cell.get_or_try_init(|| async {
        let table = table_cell.get_or_try_init(|| async {
            let table = table(source, object, &index.reading).await?.map_err(damaged)?;
            Ok::<_, FetchError>(Arc::new(table))
        });
        let (table, number) = (table.await?, number as usize);
        let room = held.room(table.group_bytes(number, object.size)).await;
        let group = group((source, object), table, number, limits::INDEXING_GETS, room).await?;
        Ok::<_, FetchError>(Arc::new(group.map_err(damaged)?))
    });
    let group = Arc::clone(group.await?);
    let renderer = decode(move || Renderer::new(group, first)).await.map_err(damaged)?;
    let bytes = extent.bytes as usize;
    let stop = Stop { bytes, most: bytes, records: extent.records };
    let (_, part) = step(renderer, stop).await.map_err(damaged)?;
    // Of a file that is still counted, more extents of the last row group may come to be known.
    let is_known = !index.is_growing || index.rows.last().is_some_and(|(last, _)| *last > number);
    let until = |end: u32| index.rows.partition_point(|(other, _)| *other < end);
    let of_group = index.extents.get(until(number)..until(number.saturating_add(1)));
    let of_group = of_group.filter(|_| is_known);
    let of_group = of_group.map(|extents| extents.iter().map(|extent| extent_id(id, extent)));
    held.was_read(group_cell, extent_id(id, extent), of_group);
    Ok(part.content.into())
}
