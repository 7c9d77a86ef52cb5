//! The segment files: which there are, which are open, and reading values from them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use robustmq_common::disk::{Disk, DiskFile, read_range};
use robustmq_common::limits;

use super::format::{HEADER_BYTES, SegmentHeader};
use super::index::Locator;
use super::kept::{FIRST_KEPT, is_kept};
use super::recent::Recent;
use crate::store::StoreError;

/// All segments of one store. At most [`limits::STORE_OPEN_SEGMENTS`] of them are open.
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    table: Mutex<Table>,
    recent: Recent,
}

#[derive(Default)]
struct Table {
    segments: BTreeMap<u32, Segment>,
    open: usize,
    /// Counts uses, so that the file used longest ago is known.
    uses: u64,
}

struct Segment {
    bytes: u64,
    file: Option<Arc<dyn DiskFile>>,
    last_use: u64,
}

impl Table {
    fn make_room(&mut self) {
        while self.open >= limits::STORE_OPEN_SEGMENTS {
            let open = self.segments.values_mut().filter(|segment| segment.file.is_some());
            let Some(oldest) = open.min_by_key(|segment| segment.last_use) else { return };
            oldest.file = None;
            self.open -= 1;
        }
    }
}

/// The name of a segment's file.
fn file_name(number: u32) -> String {
    match is_kept(number) {
        true => format!("{:08}.kept", number - FIRST_KEPT),
        false => format!("{number:08}.seg"),
    }
}

/// The number of the segment whose file has this name.
fn number_of(name: &str) -> Option<u32> {
    let of = |ending| name.strip_suffix(ending).and_then(|number| number.parse::<u32>().ok());
    match of(".kept") {
        Some(number) => number.checked_add(FIRST_KEPT),
        None => of(".seg").filter(|number| !is_kept(*number)),
    }
}

impl Files {
    /// Finds the segments of a directory; opens none.
    pub(super) fn find(disk: Arc<dyn Disk>, dir: &Path, recent_bytes: usize) -> io::Result<Self> {
        let mut segments = BTreeMap::new();
        for name in disk.list(dir)? {
            if let Some(number) = number_of(&name) {
                let bytes = disk.open(&dir.join(&name), false)?.byte_len()?;
                segments.insert(number, Segment { bytes, file: None, last_use: 0 });
            }
        }
        let table = Mutex::new(Table { segments, ..Table::default() });
        Ok(Self { disk, dir: dir.to_owned(), table, recent: Recent::new(recent_bytes) })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn path(&self, number: u32) -> PathBuf {
        self.dir.join(file_name(number))
    }

    /// All segments and their sizes, by number.
    pub(super) fn all(&self) -> Vec<(u32, u64)> {
        self.lock().segments.iter().map(|(number, segment)| (*number, segment.bytes)).collect()
    }

    pub(super) fn total_bytes(&self) -> u64 {
        self.lock().segments.values().map(|segment| segment.bytes).sum()
    }

    pub(super) fn set_bytes(&self, number: u32, bytes: u64) {
        if let Some(segment) = self.lock().segments.get_mut(&number) {
            segment.bytes = bytes;
        }
    }

    /// A segment's file; `None` if there is no such segment any more.
    pub(super) fn get(&self, number: u32) -> io::Result<Option<Arc<dyn DiskFile>>> {
        let mut table = self.lock();
        table.uses += 1;
        let uses = table.uses;
        let Some(segment) = table.segments.get_mut(&number) else { return Ok(None) };
        segment.last_use = uses;
        if let Some(file) = &segment.file {
            return Ok(Some(Arc::clone(file)));
        }
        table.make_room();
        let file: Arc<dyn DiskFile> = self.disk.open(&self.path(number), false)?.into();
        table.open += 1;
        if let Some(segment) = table.segments.get_mut(&number) {
            segment.file = Some(Arc::clone(&file));
        }
        Ok(Some(file))
    }

    /// Makes a new segment with its header, durably.
    pub(super) fn create(&self, header: &SegmentHeader) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path(header.number);
        let made = (|| {
            let file: Arc<dyn DiskFile> = self.disk.open(&path, true)?.into();
            // Something may be left of an attempt that failed.
            file.set_len(0)?;
            robustmq_common::disk::write_all(&*file, &header.encode(), 0)?;
            file.sync()?;
            self.disk.sync_dir(&self.dir)?;
            Ok(file)
        })();
        let file = match made {
            Ok(file) => file,
            Err(error) => {
                // What is left is found to have no header, or no group, when the store is opened.
                let _ = self.disk.remove(&path);
                return Err(error);
            }
        };
        let mut table = self.lock();
        table.make_room();
        table.open += 1;
        let last_use = table.uses;
        let segment = Segment { bytes: HEADER_BYTES, file: Some(Arc::clone(&file)), last_use };
        table.segments.insert(header.number, segment);
        Ok(file)
    }

    /// Removes a segment. Reads that have its file go on.
    pub(super) fn remove(&self, number: u32) -> io::Result<()> {
        {
            let mut table = self.lock();
            if let Some(segment) = table.segments.remove(&number)
                && segment.file.is_some()
            {
                table.open -= 1;
            }
        }
        self.disk.remove(&self.path(number))
    }

    /// Makes removals durable.
    pub(super) fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir(&self.dir)
    }

    /// The values written last: [`Files::read`] need not read them.
    pub(super) fn recent(&self) -> &Recent {
        &self.recent
    }

    /// The values at `places`, in that order; `None` if a segment is not there any more, so that its values have moved or
    /// gone since they were looked up.
    pub(super) fn read(&self, places: &[Locator]) -> Result<Option<Vec<Bytes>>, StoreError> {
        let mut values = Vec::with_capacity(places.len());
        let recent = self.recent.find(places);
        let mut rest = places;
        while let Some(first) = rest.first() {
            if let Some(Some(value)) = recent.get(values.len()) {
                values.push(value.clone());
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            let (together, others) = rest.split_at(run_length(rest));
            rest = others;
            let Some(file) = self.get(first.segment).map_err(|e| self.failed(first, &e))? else {
                return Ok(None);
            };
            values.extend(read_run(&*file, together).map_err(|e| self.failed(first, &e))?);
        }
        Ok(Some(values))
    }

    fn failed(&self, place: &Locator, error: &io::Error) -> StoreError {
        StoreError::Read(format!("{}: {error}", self.path(place.segment).display()))
    }
}

/// Reads neighbours with one call; they share its buffer.
fn read_run(file: &dyn DiskFile, places: &[Locator]) -> io::Result<Vec<Bytes>> {
    let (Some(first), Some(last)) = (places.first(), places.last()) else { return Ok(Vec::new()) };
    let start = u64::from(first.offset);
    let wanted = usize::try_from(last.end() - start).map_err(io::Error::other)?;
    let buffer = Bytes::from(read_range(file, start, wanted)?);
    if buffer.len() != wanted {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let value = |place: &Locator| {
        let from = usize::try_from(u64::from(place.offset) - start).map_err(io::Error::other)?;
        Ok(buffer.slice(from..from + place.len as usize))
    };
    places.iter().map(value).collect()
}

/// How many of the first places lie one after the other, with small gaps.
fn run_length(places: &[Locator]) -> usize {
    let follows = |pair: &[Locator]| match pair {
        [before, next] => {
            let (end, start) = (before.end(), u64::from(next.offset));
            before.segment == next.segment
                && (end..=end + limits::STORE_READ_GAP_BYTES).contains(&start)
        }
        _ => false,
    };
    1 + places.windows(2).take_while(|pair| follows(pair)).count()
}
