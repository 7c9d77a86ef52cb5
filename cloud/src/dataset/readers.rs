//! Who reads a partition, and where. A Fetch says neither: what goes on where the last read ended is the same reader.

use tokio::time::Instant;

use robustmq_common::limits::dataset as limits;

/// One reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reader {
    /// Where its next read is expected.
    pub next: i64,
    /// So many bytes ahead of it are fetched.
    pub ahead_bytes: u64,
    seen: Instant,
}

/// The readers of a partition, the latest last.
#[derive(Debug, Default)]
pub(super) struct Readers {
    readers: Vec<Reader>,
}

impl Readers {
    /// A read from `from` to `next`. One that follows its last read by the letter is read ahead for, twice as far each time, up to `most`;
    /// one that comes anew is not yet, unless it begins where readers begin.
    pub fn note(&mut self, from: i64, next: i64, begins: bool, most: u64, now: Instant) {
        let known = self.readers.iter().position(|reader| reader.next == from);
        let ahead_bytes = match known {
            Some(at) => {
                let before = self.readers.remove(at).ahead_bytes;
                (before * 2).max(limits::FIRST_AHEAD_BYTES)
            }
            None if begins => limits::FIRST_AHEAD_BYTES,
            None => 0,
        };
        if self.readers.len() >= limits::READERS {
            self.readers.remove(0);
        }
        self.readers.push(Reader { next, ahead_bytes: ahead_bytes.min(most), seen: now });
    }

    /// Those that have read lately, the latest first.
    pub fn active(&self, now: Instant) -> Vec<Reader> {
        let lately =
            |reader: &&Reader| now.saturating_duration_since(reader.seen) < limits::READER_KEPT;
        self.readers.iter().rev().filter(lately).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::{Readers, limits};

    #[test]
    fn who_goes_on_is_read_ahead_for_and_who_jumps_is_not() {
        let now = Instant::now();
        let mut readers = Readers::default();
        let most = 10 * limits::FIRST_AHEAD_BYTES;
        let ahead = |readers: &Readers| readers.active(now)[0].ahead_bytes;
        readers.note(500, 510, false, most, now);
        assert_eq!(ahead(&readers), 0);
        readers.note(510, 520, false, most, now);
        assert_eq!(ahead(&readers), limits::FIRST_AHEAD_BYTES);
        for step in 0..9 {
            readers.note(520 + step, 521 + step, false, most, now);
        }
        assert_eq!((ahead(&readers), readers.active(now).len()), (most, 1));
        readers.note(0, 10, true, most, now);
        assert_eq!(ahead(&readers), limits::FIRST_AHEAD_BYTES);
        for jump in 0..1000 {
            readers.note(jump * 1000, jump * 1000 + 1, false, most, now);
        }
        assert_eq!(readers.active(now).len(), limits::READERS);
        assert!(readers.active(now + limits::READER_KEPT).is_empty());
    }
}
