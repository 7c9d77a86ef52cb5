//! Writing an extent to the slab.

use std::io;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use robustmq_common::disk::write_all;
use robustmq_common::limits;
use tokio::time::Instant;

use super::Ssd;
use super::index::Slot;
use super::journal::{Journal, Record, content_crc};
use crate::cache::{ExtentId, UserId};

/// What is to be written.
pub(super) struct Write {
    pub id: ExtentId,
    pub user: UserId,
    pub content: Bytes,
}

/// The one that writes.
pub(super) struct Writer {
    journal: Journal,
    allowance: Allowance,
}

/// What may be written: so much a second in the long run.
struct Allowance {
    bytes: u64,
    since: Instant,
}

impl Allowance {
    fn take(&mut self, bytes: u64, now: Instant) -> bool {
        let micros = u64::try_from((now - self.since).as_micros()).unwrap_or(u64::MAX);
        let per_second = limits::dataset::SSD_WRITE_BYTES_PER_SECOND;
        let more = micros.saturating_mul(per_second / 1000) / 1000;
        if more > 0 {
            let most = limits::dataset::SSD_WRITE_BURST_BYTES;
            self.bytes = self.bytes.saturating_add(more).min(most);
            self.since = now;
        }
        let is_enough = self.bytes >= bytes;
        if is_enough {
            self.bytes -= bytes;
        }
        is_enough
    }
}

impl Writer {
    pub(super) fn new(journal: Journal, now: Instant) -> Self {
        let bytes = limits::dataset::SSD_WRITE_BURST_BYTES;
        Self { journal, allowance: Allowance { bytes, since: now } }
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.journal.sync()
    }

    /// Writes an extent in the place of those that rank after it, if it ranks (still) and if it may be written.
    pub(super) fn write(
        &mut self,
        ssd: &Ssd,
        write: &Write,
        is_limited: bool,
        now: Instant,
    ) -> io::Result<()> {
        let Write { id, user, content } = write;
        if content.len() != id.bytes as usize {
            return Ok(());
        }
        let (victims, runs) = {
            let mut index = ssd.index();
            if index.contains(*id) {
                return Ok(());
            }
            let Some(victims) = index.victims(*id, *user, &ssd.users.lock(), now) else {
                return Ok(());
            };
            if is_limited && !self.allowance.take(content.len() as u64, now) {
                return Ok(());
            }
            victims.iter().for_each(|victim| index.remove(*victim));
            (victims, index.take_blocks(content.len()))
        };
        // The journal gives up what lay there before it is overwritten.
        let removals: Vec<_> = victims.into_iter().map(Record::Remove).collect();
        if !removals.is_empty() {
            self.journal.append(&removals)?;
        }
        let Some(runs) = runs else { return Ok(()) };
        let slot = Slot { user: *user, crc: content_crc(*id, content), runs };
        if let Err(error) = self.write_slot(ssd, *id, &slot, content) {
            ssd.index().give_back(&slot.runs);
            return Err(error);
        }
        ssd.index().insert(*id, slot);
        ssd.written_bytes.fetch_add(content.len() as u64, Ordering::Relaxed);
        if self.journal.is_long() {
            let all = ssd.index().all();
            self.journal.compact(all.into_iter().map(|(id, slot)| Record::Put(id, slot)))?;
        }
        Ok(())
    }

    fn write_slot(
        &mut self,
        ssd: &Ssd,
        id: ExtentId,
        slot: &Slot,
        content: &[u8],
    ) -> io::Result<()> {
        let mut rest = content;
        for run in &slot.runs {
            let bytes = (run.count as usize * limits::dataset::SSD_BLOCK_BYTES).min(rest.len());
            let (front, back) = rest.split_at(bytes);
            let at = u64::from(run.first) * limits::dataset::SSD_BLOCK_BYTES as u64;
            write_all(&*ssd.slab, front, at)?;
            rest = back;
        }
        self.journal.append(&[Record::Put(id, slot.clone())])
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_written_is_so_much_a_second_in_the_long_run() {
        const RATE: u64 = limits::dataset::SSD_WRITE_BYTES_PER_SECOND;
        let mut now = Instant::now();
        let mut allowance = Allowance { bytes: limits::dataset::SSD_WRITE_BURST_BYTES, since: now };
        let mut written = 0;
        for _ in 0..100_000 {
            now += Duration::from_micros(137);
            written += if allowance.take(1 << 20, now) { 1 << 20 } else { 0 };
        }
        let most = limits::dataset::SSD_WRITE_BURST_BYTES + RATE * 137 / 10;
        assert!((most * 99 / 100..=most).contains(&written), "{written} of {most}");
        assert!(!allowance.take(limits::dataset::SSD_WRITE_BURST_BYTES, now));
        now += Duration::from_secs(3600);
        assert!(allowance.take(limits::dataset::SSD_WRITE_BURST_BYTES, now));
        assert!(!allowance.take(1, now), "a pause saves up no more than that");
    }
}
