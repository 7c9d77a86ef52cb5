//! Removing the records of deleted topics, in the background.
//!
//! A deletion leaves a note for each topic (`0x12 topic_id`). Going through the notes in order, and through what partitions hold in
//! the same order, finds the topics that were never written without looking at each: of those only the note goes. Few keys are
//! deleted one by one, many as a range.
//!
//! **Invariant:** a topic's keys go in the same write as its note: a crash leaves both or neither.
//! **Invariant:** nothing is written to a topic's partitions after they were looked through: they are closed first, and
//! everything that was submitted before has then been applied.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use robustmq_common::ids::TopicId;
use robustmq_common::limits;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::log::Log;
use crate::store::keys::archive::{Archived, archived_of_topic};
use crate::store::keys::dataset::ranges_of_topic;
use crate::store::keys::partition::{parse_topic, topic_range};
use crate::store::keys::topic::{deletion_key, parse_deletion_key};
use crate::store::keys::{Family, damaged};
use crate::store::{self, ScanLimit, Store, StoreError, WriteBatch};

/// Goes through the notes of deleted topics.
pub struct Removal {
    log: Arc<Log>,
    woken: Notify,
}

/// Where the next written topic is, as far as it is known.
enum Next {
    Unknown,
    /// Nothing is written between here and this topic.
    At(TopicId),
    /// Nothing is written beyond.
    End,
}

impl Removal {
    pub(super) fn new(log: Arc<Log>) -> Self {
        Self { log, woken: Notify::new() }
    }

    /// There are new notes.
    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }

    fn store(&self) -> &dyn Store {
        &**self.log.store()
    }

    /// Goes on with what a crash interrupted, then does what comes, until `shutdown`. It takes a part of the time only
    /// ([`limits::REMOVAL_REST`]).
    pub async fn run(&self, shutdown: CancellationToken) {
        let work = async {
            loop {
                match self.pass(limits::REMOVAL_REST).await {
                    // Notes may have come in before the place where the pass was. Those that come in now go together.
                    Ok(1..) => tokio::time::sleep(limits::REMOVAL_PAUSE).await,
                    Ok(0) => self.woken.notified().await,
                    Err(StoreError::Closed) => return,
                    Err(error) => {
                        tracing::warn!(%error, "records of deleted topics are removed later");
                        tokio::time::sleep(limits::REMOVAL_RETRY).await;
                    }
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = work => {}
        }
    }

    /// Removes what is noted, without rest. Returns of how many topics.
    ///
    /// # Errors
    /// [`StoreError`]: what was not removed still has its note.
    pub async fn finish(&self) -> Result<usize, StoreError> {
        let mut removed = 0;
        loop {
            match self.pass(0).await? {
                0 => return Ok(removed),
                more => removed += more,
            }
        }
    }

    /// Goes through all notes once.
    async fn pass(&self, rest: u32) -> Result<usize, StoreError> {
        let mut range = Family::TopicDeletion.range();
        let mut removed = 0;
        loop {
            let started = Instant::now();
            let limit = ScanLimit::items(limits::REMOVED_TOPICS);
            let page = self.store().scan(range.clone(), limit).await?;
            let parse = |(key, _): &(Bytes, Bytes)| {
                parse_deletion_key(key).map_err(|error| damaged(key, error))
            };
            let topics = page.items.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
            if !topics.is_empty() {
                self.remove(&topics).await?;
                removed += topics.len();
            }
            tokio::time::sleep(started.elapsed() * rest).await;
            match page.resume {
                Some(resume) => range.start = resume,
                None => return Ok(removed),
            }
        }
    }

    /// Removes topics, which are in the order of their ids.
    async fn remove(&self, topics: &[TopicId]) -> Result<(), StoreError> {
        self.log.close_topics(topics.iter().copied());
        let mut write = WriteBatch::new();
        if let Some(first) = topics.first() {
            // What was submitted before the topics were closed is applied before this, which changes nothing. As a deletion it is
            // taken on a full disk.
            write.delete_range(deletion_key(*first)..deletion_key(*first));
            store::write(self.store(), std::mem::take(&mut write)).await?;
        }
        self.doom_archived(topics).await?;
        self.remove_manifests(topics, &mut write).await?;
        let mut next = Next::Unknown;
        for topic in topics {
            let is_written = match next {
                Next::Unknown => true,
                Next::At(written) => written <= *topic,
                Next::End => false,
            };
            if is_written {
                next = self.remove_keys(*topic, &mut write).await?;
            }
            write.delete(deletion_key(*topic));
            if write.bytes() > limits::STORE_FREEING_WRITE_BYTES / 2 {
                store::write(self.store(), std::mem::take(&mut write)).await?;
            }
        }
        if write.is_empty() {
            return Ok(());
        }
        store::write(self.store(), write).await
    }

    /// Dooms the archived objects of topics, which are in the order of their ids.
    async fn doom_archived(&self, topics: &[TopicId]) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (topics.first(), topics.last()) else { return Ok(()) };
        let all = archived_of_topic(*first).start..archived_of_topic(*last).end;
        if self.store().scan(all, ScanLimit::items(1)).await?.items.is_empty() {
            return Ok(());
        }
        for topic in topics {
            let mut range = archived_of_topic(*topic);
            while !range.is_empty() {
                let limit = ScanLimit::items(limits::tier::DOOMED_AT_ONCE);
                let page = self.store().scan(range.clone(), limit).await?;
                let mut write = WriteBatch::new();
                for (key, value) in &page.items {
                    let decoded = Archived::decode(key, value);
                    let (keys, archived) = decoded.map_err(|error| damaged(key, error))?;
                    let doomed = archived.doomed(&keys);
                    write.put(doomed.key(), doomed.encode());
                    write.delete(key.clone());
                }
                if !write.is_empty() {
                    store::write(self.store(), write).await?;
                }
                range.start = page.resume.unwrap_or_else(|| range.end.clone());
            }
        }
        Ok(())
    }

    /// Has what is known of the sources of topics deleted by `write`. What objects hold goes at the next start, unless another topic has
    /// the same source.
    async fn remove_manifests(
        &self,
        topics: &[TopicId],
        write: &mut WriteBatch,
    ) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (topics.first(), topics.last()) else { return Ok(()) };
        let ([first, ..], [last, ..]) = (ranges_of_topic(*first), ranges_of_topic(*last));
        let all = first.start..last.end;
        if self.store().scan(all, ScanLimit::items(1)).await?.items.is_empty() {
            return Ok(());
        }
        for topic in topics {
            for range in ranges_of_topic(*topic) {
                write.delete_range(range);
            }
        }
        Ok(())
    }

    /// Has the keys of a topic deleted by `write`. Says where the next written topic is.
    async fn remove_keys(
        &self,
        topic: TopicId,
        write: &mut WriteBatch,
    ) -> Result<Next, StoreError> {
        let own = topic_range(topic);
        let all = own.start.clone()..Family::Partition.range().end;
        // Values come along, so few bytes are asked for.
        let limit =
            ScanLimit { items: limits::REMOVED_SINGLE_KEYS, bytes: limits::LOG_CHUNK_BYTES / 16 };
        let page = self.store().scan(all, limit).await?;
        let mut keys = Vec::new();
        for (key, _) in page.items {
            if !own.contains(&key) {
                for key in keys {
                    write.delete(key);
                }
                let written = parse_topic(&key).map_err(|error| damaged(&key, error))?;
                return Ok(Next::At(written));
            }
            keys.push(key);
        }
        if page.resume.is_some() {
            write.delete_range(own);
            return Ok(Next::Unknown);
        }
        for key in keys {
            write.delete(key);
        }
        Ok(Next::End)
    }
}
