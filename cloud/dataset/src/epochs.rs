//! From an offset of a partition to an object and a record in it, and how far that is known. No IO.
//!
//! Offsets are dense: epoch by epoch, within an epoch object by object in the epoch's order, as far as objects were counted. An object that is
//! being counted right now ends what is known; what was found of it so far may be read.
//!
//! **Invariant:** what an offset stands for never changes: an epoch's objects are fixed when it begins, its order is computed from the
//! seed, and an object has the same records each time.
//! **Invariant:** where each object begins is kept for the newest epochs and one older only: for others it is added up again ([`Epochs::add_up`]).
//! **Invariant:** in a window nothing may be read before all of it is found, but for the last one, which ends with its epoch.

use std::collections::VecDeque;

use crate::order::Permutation;

/// How the records of an epoch are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shuffle {
    /// As listed, each time.
    None,
    /// Objects in another order each epoch, records of an object as they lie there.
    Shards,
    /// Objects as in [`Shuffle::Shards`], and then records in another order within windows of so many.
    Window(u32),
}

/// A record: which object of the partition, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Counts from 0.
    pub epoch: u32,
    /// The object's number among those of its partition.
    pub object: u64,
    /// The record's number in the object.
    pub record: u64,
    /// Records from this one on that follow each other in the object and in the epoch.
    pub run: u64,
}

/// How much of an object is counted in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// All of its records.
    All,
    /// It is being counted.
    Part,
    /// It is not there, or its turn has not come.
    Nothing,
}

/// Epochs of which it is known where each object begins: the one that is read, the next, and those of slower readers.
const KEPT_EPOCHS: usize = 4;

/// Records that lie together in an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The object's number among those of its partition.
    pub object: u64,
    /// The first record's number in the object.
    pub record: u64,
    /// How many.
    pub records: u64,
}

/// What is read together, in the order in which it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Where its records are.
    pub parts: Vec<Part>,
    /// The offset after the last of them.
    pub end: i64,
}

/// One epoch, as far as it is counted.
#[derive(Debug, Clone)]
pub struct Epoch {
    number: u32,
    first_offset: i64,
    objects: u64,
    order: Option<Permutation>,
    /// Objects that are counted, and their records.
    counted: u64,
    records: u64,
    /// Records before each counted place, and after the last one; empty where that was given up.
    starts: Vec<u64>,
    /// Records found so far in the object at the next place.
    growing: u64,
}

impl Epoch {
    /// Counts from 0.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The offset of its first record.
    #[must_use]
    pub fn first_offset(&self) -> i64 {
        self.first_offset
    }

    /// Objects of the partition that it has.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.objects
    }

    /// Objects that are counted.
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.counted
    }

    /// All of them are.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.counted() == self.objects
    }

    /// The object at a place of the order.
    #[must_use]
    pub fn object_at(&self, place: u64) -> u64 {
        self.order.map_or(place, |order| order.at(place))
    }

    /// The place of an object in the order; `None` if the epoch began without it.
    #[must_use]
    pub fn place_of(&self, object: u64) -> Option<u64> {
        let place = || self.order.map_or(object, |order| order.place_of(object));
        (object < self.objects).then(place)
    }

    /// How much of an object is counted.
    #[must_use]
    pub fn has_counted(&self, object: u64) -> Counted {
        match self.place_of(object) {
            Some(place) if place < self.counted => Counted::All,
            Some(place) if place == self.counted && self.growing > 0 => Counted::Part,
            _ => Counted::Nothing,
        }
    }

    /// The next object to count.
    #[must_use]
    pub fn next_object(&self) -> Option<u64> {
        let place = self.counted();
        (place < self.objects).then(|| self.object_at(place))
    }

    /// Records that are counted.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Records that are known.
    fn known(&self) -> u64 {
        self.records + self.growing
    }

    /// Records that may be read.
    fn visible(&self, shuffle: Shuffle) -> u64 {
        match shuffle {
            Shuffle::Window(window) if !self.is_complete() => {
                let window = u64::from(window);
                self.known() / window * window
            }
            Shuffle::None | Shuffle::Shards | Shuffle::Window(_) => self.known(),
        }
    }

    /// The object and the record at a position of the order without windows.
    fn find(&self, position: u64) -> (u64, u64, u64) {
        let place = self.starts.partition_point(|start| *start <= position).saturating_sub(1);
        let start = self.starts.get(place).copied().unwrap_or(0);
        let end = self.starts.get(place + 1).copied().unwrap_or_else(|| self.known());
        (self.object_at(place as u64), position - start, end.saturating_sub(position))
    }
}

/// The epochs of a partition.
#[derive(Debug, Clone)]
pub struct Epochs {
    shuffle: Shuffle,
    seed: u64,
    epochs: VecDeque<Epoch>,
}

impl Epochs {
    /// None yet. `seed` is the topic's; each partition has an order of its own.
    #[must_use]
    pub fn new(shuffle: Shuffle, seed: u64, partition: u32) -> Self {
        let seed = seed ^ u64::from(partition).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { shuffle, seed, epochs: VecDeque::new() }
    }

    /// Begins the next epoch with the first `objects` objects of the partition. The one before has to be complete.
    pub fn begin(&mut self, objects: u64) -> &Epoch {
        let number = self.epochs.back().map_or(0, |last| last.number + 1);
        self.insert(number, self.known_end(), objects)
    }

    /// Takes over an epoch that was begun before.
    pub fn restore(&mut self, number: u32, first_offset: i64, objects: u64) -> &Epoch {
        self.insert(number, first_offset, objects)
    }

    fn insert(&mut self, number: u32, first_offset: i64, objects: u64) -> &Epoch {
        let shuffled = self.shuffle != Shuffle::None;
        let order = shuffled.then(|| Permutation::new(objects, self.seed, number.into(), 0));
        let epoch = Epoch {
            number,
            first_offset,
            objects,
            order,
            counted: 0,
            records: 0,
            starts: vec![0],
            growing: 0,
        };
        self.epochs.push_back(epoch);
        &self.epochs[self.epochs.len() - 1]
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Epoch> {
        self.epochs.iter()
    }

    /// The one of a number, if it has begun.
    #[must_use]
    pub fn epoch(&self, number: u32) -> Option<&Epoch> {
        self.epochs.iter().find(|epoch| epoch.number == number)
    }

    /// The newest.
    #[must_use]
    pub fn last(&self) -> Option<&Epoch> {
        self.epochs.back()
    }

    /// The first that is not complete: the one to count.
    #[must_use]
    pub fn counting(&self) -> Option<&Epoch> {
        self.epochs.iter().find(|epoch| !epoch.is_complete())
    }

    /// Counts the next object of the epoch that is being counted.
    pub fn count(&mut self, records: u64) {
        if let Some(epoch) = self.epochs.iter_mut().find(|epoch| !epoch.is_complete()) {
            epoch.counted += 1;
            epoch.records += records;
            epoch.starts.push(epoch.records);
            epoch.growing = 0;
            if epoch.is_complete() {
                self.give_up(None);
            }
        }
    }

    /// Gives up where objects begin in epochs that are not among the newest, but for one.
    fn give_up(&mut self, but: Option<u32>) {
        let old = self.epochs.len().saturating_sub(KEPT_EPOCHS);
        for epoch in self.epochs.iter_mut().take(old) {
            if epoch.is_complete() && Some(epoch.number) != but {
                epoch.starts = Vec::new();
            }
        }
    }

    /// The epoch of an offset, if it has to be added up again before its records are found.
    #[must_use]
    pub fn given_up(&self, offset: i64) -> Option<u32> {
        let epoch = self.epoch_of(offset)?;
        (epoch.starts.is_empty()).then_some(epoch.number)
    }

    /// Finds again where objects begin in an epoch; `records` says how many each has.
    pub fn add_up(&mut self, number: u32, records: impl Fn(u64) -> u64) {
        self.give_up(Some(number));
        let Some(epoch) = self.epochs.iter_mut().find(|epoch| epoch.number == number) else {
            return;
        };
        let mut sum = 0;
        let mut starts = Vec::with_capacity(usize::try_from(epoch.counted).unwrap_or(0) + 1);
        starts.push(0);
        for place in 0..epoch.counted {
            sum += records(epoch.object_at(place));
            starts.push(sum);
        }
        epoch.starts = starts;
    }

    /// So many records were found so far in the object that is being counted.
    pub fn grow(&mut self, records: u64) {
        if let Some(epoch) = self.epochs.iter_mut().find(|epoch| !epoch.is_complete()) {
            epoch.growing = records;
        }
    }

    /// The offset after the last one that is known, whether or not it may be read.
    fn known_end(&self) -> i64 {
        let end = |epoch: &Epoch| epoch.first_offset.saturating_add_unsigned(epoch.known());
        self.epochs.back().map_or(0, end)
    }

    /// The offset after the last record that may be read.
    #[must_use]
    pub fn high_watermark(&self) -> i64 {
        // Only the last may be incomplete, but for a moment after a start.
        let newest = self.counting().or(self.epochs.back());
        newest.map_or(0, |epoch| {
            epoch.first_offset.saturating_add_unsigned(epoch.visible(self.shuffle))
        })
    }

    /// The epoch that an offset belongs to.
    #[must_use]
    pub fn epoch_of(&self, offset: i64) -> Option<&Epoch> {
        self.epochs.iter().rev().find(|epoch| epoch.first_offset <= offset)
    }

    /// What is at an offset below the high watermark; nothing where its epoch was given up ([`Epochs::given_up`]).
    #[must_use]
    pub fn find(&self, offset: i64) -> Option<Place> {
        if !(0..self.high_watermark()).contains(&offset) {
            return None;
        }
        let epoch = self.epoch_of(offset)?;
        if epoch.starts.is_empty() {
            return None;
        }
        let position = u64::try_from(offset - epoch.first_offset).ok()?;
        let (position, most) = match self.shuffle {
            Shuffle::None | Shuffle::Shards => (position, u64::MAX),
            Shuffle::Window(window) => (self.in_window(epoch, position, window.into()), 1),
        };
        let (object, record, run) = epoch.find(position);
        Some(Place { epoch: epoch.number, object, record, run: run.min(most) })
    }

    fn in_window(&self, epoch: &Epoch, position: u64, window: u64) -> u64 {
        let (start, order) = self.window(epoch, position, window);
        start + order.at(position - start)
    }

    /// Where the window of a position begins, and its order.
    fn window(&self, epoch: &Epoch, position: u64, window: u64) -> (u64, Permutation) {
        let number = position / window;
        let start = number * window;
        let records = match epoch.is_complete() {
            true => window.min(epoch.known() - start),
            false => window,
        };
        (start, Permutation::new(records, self.seed, epoch.number.into(), number + 1))
    }

    /// The offset of a record in an epoch, which [`Epochs::find`] finds there; `None` where it may not be read yet, and where its epoch was given
    /// up ([`Epochs::given_up`]).
    #[must_use]
    pub fn offset_of(&self, epoch: u32, object: u64, record: u64) -> Option<i64> {
        let epoch = self.epoch(epoch)?;
        let place = usize::try_from(epoch.place_of(object)?).ok()?;
        let start = epoch.starts.get(place)?;
        let end = epoch.starts.get(place + 1).copied().unwrap_or_else(|| epoch.known());
        let position = start.checked_add(record).filter(|position| *position < end)?;
        let position = match self.shuffle {
            Shuffle::None | Shuffle::Shards => position,
            Shuffle::Window(window) => {
                let (start, order) = self.window(epoch, position, window.into());
                start + order.place_of(position - start)
            }
        };
        let is_visible = position < epoch.visible(self.shuffle);
        is_visible.then(|| epoch.first_offset.saturating_add_unsigned(position))
    }

    /// What is read from an offset on: the records of its window, all of them; where nothing is shuffled within windows, what follows in its
    /// object.
    #[must_use]
    pub fn stretch(&self, offset: i64) -> Option<Stretch> {
        let place = self.find(offset)?;
        let Shuffle::Window(window) = self.shuffle else {
            let end = offset.saturating_add_unsigned(place.run);
            let Place { object, record, run, .. } = place;
            return Some(Stretch { parts: vec![Part { object, record, records: run }], end });
        };
        let epoch = self.epoch_of(offset)?;
        let window = u64::from(window);
        let position = u64::try_from(offset - epoch.first_offset).ok()?;
        let start = position / window * window;
        let end = (start + window).min(epoch.known());
        let mut parts = Vec::new();
        let mut at = start;
        while at < end {
            let (object, record, run) = epoch.find(at);
            let records = run.min(end - at).max(1);
            parts.push(Part { object, record, records });
            at += records;
        }
        Some(Stretch { parts, end: epoch.first_offset.saturating_add_unsigned(end) })
    }
}

#[cfg(test)]
mod tests;
