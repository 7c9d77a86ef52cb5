//! Where a lane ends: what in its last segment is whole, what a crash cut short, and what is damaged.
//!
//! Recovery cuts by this judgement and `verify` reports by it, so that they never say different things of the same file.
//!
//! **Invariant:** nothing that was known to be synced is ever taken for an append that a crash cut short.

use std::io;

use robustmq_common::ids::{ChainDigest, EdgeSeq};

use super::disk::DiskFile;
use super::scan::{At, Found, Scan, Unreadable};
use super::segment::{HEADER_BYTES, Salt};

/// A lane's last segment, to be judged.
pub(super) struct Last<'f> {
    pub file: &'f dyn DiskFile,
    pub salt: Salt,
    pub base: EdgeSeq,
    /// `None` if the header could not be read.
    pub base_digest: Option<ChainDigest>,
    /// The file's length.
    pub len: u64,
    /// By the cursor, every sequence below this was synced.
    pub floor: EdgeSeq,
}

/// The first damage in a segment, and which sequences it costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lost {
    pub at_byte: u64,
    pub from: EdgeSeq,
    /// `None` where nothing good follows.
    pub to: Option<EdgeSeq>,
}

/// What a lane's last segment holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    /// Whatever stands from this byte on was promised to nobody.
    pub good_end: u64,
    /// The sequence after the last good record before `good_end`; the segment's first if there is none.
    pub next: EdgeSeq,
    /// The digest before `next`, if there is a record.
    pub digest: Option<ChainDigest>,
    pub damage: Option<Lost>,
}

impl Verdict {
    /// Whether the file was only being made when the machine stopped: the lane ends before it.
    pub fn was_being_made(&self, base: EdgeSeq) -> bool {
        self.next == base && self.damage.is_none()
    }
}

/// What cannot be read and may never have been synced, and what came before it.
struct Torn {
    good_end: u64,
    next: EdgeSeq,
    digest: Option<ChainDigest>,
    lost: Lost,
}

impl Last<'_> {
    /// Reads the segment to its end.
    pub fn judge(&self) -> io::Result<Verdict> {
        let header_bytes = HEADER_BYTES as u64;
        let start = At { offset: header_bytes, next: self.base, digest: self.base_digest };
        let mut scan = Scan::new(self.file, self.salt, start, self.len, Unreadable::IsDamage);
        let mut damage = None;
        let mut torn: Option<Torn> = None;
        let mut good_end = self.len.min(header_bytes);
        let (mut next, mut digest) = (self.base, None::<ChainDigest>);
        while let Some(found) = scan.next()? {
            let synced = match found {
                Found::Record(record) => {
                    next = EdgeSeq(record.seq().0.saturating_add(1));
                    digest = Some(record.digest());
                    Some(record.synced_before())
                }
                Found::Damage { at_byte, from, to, .. } if from < self.floor => {
                    damage.get_or_insert(Lost { at_byte, from, to });
                    None
                }
                Found::Damage { at_byte, from, to, synced_before_next } => {
                    let lost = Lost { at_byte, from, to };
                    torn.get_or_insert(Torn { good_end, next, digest, lost });
                    synced_before_next
                }
            };
            // Any later record may be the one that shows that what is lost was synced once: then it is damage.
            if let Some(Torn { lost, .. }) =
                torn.take_if(|torn| synced.is_some_and(|synced| synced >= torn.lost.from))
            {
                damage.get_or_insert(lost);
            }
            good_end = scan.at().offset;
        }
        if let Some(torn) = torn {
            (good_end, next, digest) = (torn.good_end, torn.next, torn.digest);
        }
        if next < self.floor {
            let to = Some(self.floor);
            damage.get_or_insert(Lost { at_byte: good_end, from: next, to });
        }
        Ok(Verdict { good_end, next, digest, damage })
    }
}
