//! What lies where in the slab, and what goes when something else is to be written.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use robustmq_common::limits;

use super::journal::RUNS;
use crate::cache::ranks::{Rank, Ranks};
use crate::cache::users::{Class, Known};
use crate::cache::{ExtentId, UserId};
use tokio::time::Instant;

/// Blocks that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub first: u32,
    pub count: u32,
}

/// Where an extent is. Who reads it holds it, so that its blocks are not given away meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    /// Who has read it last when it was written.
    pub user: UserId,
    pub crc: u32,
    pub runs: Vec<Run>,
}

impl Slot {
    fn blocks(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.count)).sum()
    }
}

/// Blocks that content of this length takes, at least one, so that there are no more extents than blocks.
pub(super) fn blocks_for(bytes: usize) -> u64 {
    bytes.div_ceil(limits::dataset::SSD_BLOCK_BYTES).max(1) as u64
}

/// Which blocks are used: a bit each. The lowest that are free are taken first, so that the file grows no further than it has to.
#[derive(Debug)]
struct Blocks {
    used: Vec<u64>,
    count: u32,
    free: u64,
    /// No word before this one has a free block.
    first_free: usize,
}

impl Blocks {
    fn new(count: u32) -> Self {
        let words = (count as usize).div_ceil(64);
        Self { used: vec![0; words], count, free: u64::from(count), first_free: 0 }
    }

    fn set(&mut self, block: u32, is_used: bool) {
        let (word, bit) = ((block / 64) as usize, 1_u64 << (block % 64));
        let Some(bits) = self.used.get_mut(word) else { return };
        match (is_used, *bits & bit != 0) {
            (true, false) => {
                *bits |= bit;
                self.free -= 1;
            }
            (false, true) => {
                *bits &= !bit;
                self.free += 1;
                self.first_free = self.first_free.min(word);
            }
            _ => {}
        }
    }

    fn is_used(&self, block: u32) -> bool {
        let bits = self.used.get((block / 64) as usize).copied().unwrap_or(u64::MAX);
        bits & (1 << (block % 64)) != 0
    }

    /// Takes so many blocks, in at most [`RUNS`] stretches.
    fn take(&mut self, mut needed: u64) -> Option<Vec<Run>> {
        if needed > self.free {
            return None;
        }
        let mut runs: Vec<Run> = Vec::new();
        let mut block = u32::try_from(self.first_free * 64).unwrap_or(u32::MAX);
        while needed > 0 && block < self.count {
            if block.is_multiple_of(64) && self.used.get((block / 64) as usize) == Some(&u64::MAX) {
                block = block.saturating_add(64);
                continue;
            }
            if !self.is_used(block) {
                needed -= 1;
                match runs.last_mut() {
                    Some(run) if run.first + run.count == block => run.count += 1,
                    _ => runs.push(Run { first: block, count: 1 }),
                }
            }
            block += 1;
        }
        if runs.len() > RUNS {
            return None;
        }
        self.mark(&runs, true);
        let full = |word: &&u64| **word == u64::MAX;
        self.first_free += self.used.iter().skip(self.first_free).take_while(full).count();
        Some(runs)
    }

    fn mark(&mut self, runs: &[Run], is_used: bool) {
        for run in runs {
            (run.first..run.first + run.count).for_each(|block| self.set(block, is_used));
        }
    }

    /// Whether all of these exist, are free, and stand there in order, so that none is there twice.
    fn are_free(&self, runs: &[Run]) -> bool {
        let mut next = 0;
        runs.iter().all(|run| {
            let Some(end) = run.first.checked_add(run.count).filter(|end| *end <= self.count)
            else {
                return false;
            };
            let follows = run.first >= next;
            next = end;
            follows && (run.first..end).all(|block| !self.is_used(block))
        })
    }
}

/// What the slab holds.
#[derive(Debug)]
pub(super) struct Index {
    slots: HashMap<ExtentId, Arc<Slot>>,
    blocks: Blocks,
    /// Extents that memory has not.
    ranks: Ranks,
    /// Extents that stay in memory too: they go first, and cost nothing to be had again when they leave memory before.
    spare: Ranks,
}

fn bytes_of(slot: &Slot) -> u64 {
    slot.blocks() * limits::dataset::SSD_BLOCK_BYTES as u64
}

impl Index {
    pub(super) fn new(blocks: u32) -> Self {
        Self {
            slots: HashMap::new(),
            blocks: Blocks::new(blocks),
            ranks: Ranks::default(),
            spare: Ranks::default(),
        }
    }

    /// Takes what a journal tells of, unless it cannot be so: blocks that the slab has not, or that are another's, which was written later.
    pub(super) fn recover(&mut self, id: ExtentId, slot: Slot, slab_blocks: u64) {
        let is_there = |run: &Run| u64::from(run.first) + u64::from(run.count) <= slab_blocks;
        if slot.blocks() == blocks_for(id.bytes as usize)
            && slot.runs.iter().all(is_there)
            && self.blocks.are_free(&slot.runs)
        {
            self.blocks.mark(&slot.runs, true);
            self.insert(id, slot);
        }
    }

    /// What was written to blocks that were taken for it.
    pub(super) fn insert(&mut self, id: ExtentId, slot: Slot) {
        self.ranks.insert(id, slot.user, bytes_of(&slot));
        self.slots.insert(id, Arc::new(slot));
    }

    pub(super) fn remove(&mut self, id: ExtentId) {
        if let Some(slot) = self.slots.remove(&id) {
            self.blocks.mark(&slot.runs, false);
            self.ranks.remove(id);
            self.spare.remove(id);
        }
    }

    pub(super) fn get(&self, id: ExtentId) -> Option<Arc<Slot>> {
        self.slots.get(&id).cloned()
    }

    pub(super) fn contains(&self, id: ExtentId) -> bool {
        self.slots.contains_key(&id)
    }

    pub(super) fn is_of(&mut self, id: ExtentId, user: UserId) {
        self.ranks.is_of(id, user);
        self.spare.is_of(id, user);
    }

    /// Whether memory has it too.
    pub(super) fn set_spare(&mut self, id: ExtentId, is_spare: bool) {
        let Some(slot) = self.slots.get(&id) else { return };
        let bytes = bytes_of(slot);
        let (from, to) = if is_spare {
            (&mut self.ranks, &mut self.spare)
        } else {
            (&mut self.spare, &mut self.ranks)
        };
        if let Some(user) = from.user_of(id) {
            from.remove(id);
            to.insert(id, user, bytes);
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.ranks.bytes() + self.spare.bytes()
    }

    pub(super) fn bytes_of(&self, user: UserId) -> u64 {
        self.ranks.bytes_of(user) + self.spare.bytes_of(user)
    }

    /// What has to go so that this extent can be written; `None` if it does not rank, or if one of those is being read.
    pub(super) fn victims(
        &self,
        id: ExtentId,
        user: UserId,
        users: &Known,
        now: Instant,
    ) -> Option<Vec<ExtentId>> {
        let free = self.blocks.free * limits::dataset::SSD_BLOCK_BYTES as u64;
        let needed = blocks_for(id.bytes as usize) * limits::dataset::SSD_BLOCK_BYTES as u64;
        let mut needed = needed.saturating_sub(free);
        let standing_of = |user| users.standing(user, now);
        let mut victims = if needed > self.spare.bytes() {
            self.spare.in_order()
        } else {
            self.spare.last((Class::Pinned, Rank(0)), needed, standing_of)?
        };
        needed = needed.saturating_sub(self.spare.bytes());
        let place = standing_of(user).place(Rank::of(id));
        victims.extend(self.ranks.last(place, needed, standing_of)?);
        let is_free = |id: &ExtentId| self.slots.get(id).is_none_or(|s| Arc::strong_count(s) == 1);
        victims.iter().all(is_free).then_some(victims)
    }

    /// Takes blocks for content of this length.
    pub(super) fn take_blocks(&mut self, bytes: usize) -> Option<Vec<Run>> {
        self.blocks.take(blocks_for(bytes))
    }

    pub(super) fn give_back(&mut self, runs: &[Run]) {
        self.blocks.mark(runs, false);
    }

    /// All that is there, and who has read it last.
    pub(super) fn all(&self) -> Vec<(ExtentId, Slot)> {
        let user_of = |id| self.ranks.user_of(id).or_else(|| self.spare.user_of(id));
        let slots = self.slots.iter().map(|(id, slot)| {
            let user = user_of(*id).unwrap_or(slot.user);
            (*id, Slot { user, ..Slot::clone(slot) })
        });
        slots.collect()
    }

    pub(super) fn users(&self) -> HashSet<UserId> {
        self.slots.values().map(|slot| slot.user).collect()
    }
}
