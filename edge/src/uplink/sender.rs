//! Sends one lane: cuts batches, keeps a few of them under way, takes in the answers in order.

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt};
use robustmq_common::ids::{ChainDigest, EdgeSeq, Incarnation, LaneId};
use robustmq_common::limits;
use robustmq_common::sync::{
    Answer, BatchBuilder, BatchIdentity, LanePosition, LaneState, OpenBatch, Outcome, Refusal,
    SkipReason,
};
use tokio::time::Instant;

use super::backlog::{Chunk, Piece};
use super::engine::{Exit, Shared, Trouble};
use super::greet::is_same_history;
use super::pacing::Backoff;
use super::transport::{Call, TransportError, exchange};

/// A batch that is under way.
struct Sent {
    to: EdgeSeq,
    digest_after: ChainDigest,
}

type Answered = (Sent, Result<Answer, TransportError>);

/// What an answer means for the lane.
enum Next {
    /// Go on.
    Continue,
    /// What is under way is void: go on after the acknowledged sequence.
    Resume,
    /// As `Resume`, after a pause.
    Retry(Trouble),
    /// The lane cannot go on by itself.
    Leave(Exit),
}

pub(super) struct LaneSender<'a> {
    shared: &'a Shared,
    lane: LaneId,
    incarnation: Incarnation,
    acknowledged: EdgeSeq,
    digest: ChainDigest,
    /// The cloud has begun this batch: the next one has to be cut exactly so.
    open: Option<OpenBatch>,
    /// The first sequence that is in no batch yet, and the digest before it.
    next: EdgeSeq,
    next_digest: ChainDigest,
    /// A batch is cut at this size: less than `most_bytes` while the link is too slow for that.
    batch_bytes: usize,
    most_bytes: usize,
    window: FuturesOrdered<BoxFuture<'a, Answered>>,
    backoff: Backoff,
}

impl<'a> LaneSender<'a> {
    pub fn new(shared: &'a Shared, incarnation: Incarnation, state: &LaneState) -> Self {
        Self {
            shared,
            lane: state.lane,
            incarnation,
            acknowledged: state.acknowledged_through,
            digest: state.digest,
            open: state.open,
            next: after(state.acknowledged_through),
            next_digest: state.digest,
            batch_bytes: shared.settings.batch_bytes,
            most_bytes: shared.settings.batch_bytes,
            window: FuturesOrdered::new(),
            backoff: shared.backoff(),
        }
    }

    pub async fn run(mut self) -> Exit {
        let Ok(mut synced) = self.shared.backlog.synced(self.lane) else {
            return Exit::Hello("the queue lost a lane");
        };
        let mut due: Option<Instant> = None;
        loop {
            let through = *synced.borrow_and_update();
            let waiting = through.0.saturating_add(1).saturating_sub(self.next.0);
            let room =
                self.window.len() < if self.open.is_some() { 1 } else { self.window_limit() };
            let cut = waiting > 0 && room;
            let full = waiting >= self.shared.settings.batch_records as u64 || self.open.is_some();
            let now = Instant::now();
            let at = match (cut, full) {
                (true, false) => *due.get_or_insert(now + self.shared.settings.linger),
                _ => now,
            };
            let next = tokio::select! {
                biased;
                Some((sent, answer)) = self.window.next(), if !self.window.is_empty() => {
                    self.answered(&sent, answer).await
                }
                () = tokio::time::sleep_until(at), if cut => {
                    due = None;
                    match self.cut().await {
                        Ok(()) => Next::Continue,
                        Err(trouble) => Next::Retry(trouble),
                    }
                }
                changed = synced.changed(), if waiting == 0 || cut => match changed {
                    Ok(()) => Next::Continue,
                    Err(_) => return Exit::Hello("the queue was closed"),
                },
            };
            match next {
                Next::Continue => {}
                Next::Resume => self.resume(),
                Next::Retry(trouble) => {
                    self.resume();
                    self.shared.failed(&trouble, trouble.disconnects());
                    tokio::time::sleep(self.backoff.failed(trouble.floor())).await;
                }
                Next::Leave(exit) => return exit,
            }
        }
    }

    fn window_limit(&self) -> usize {
        self.shared.settings.window.clamp(1, limits::UPLINK_WINDOW_MAX)
    }

    /// Forgets what is under way: the next batch starts after what is acknowledged.
    fn resume(&mut self) {
        self.window = FuturesOrdered::new();
        self.next = after(self.acknowledged);
        self.next_digest = self.digest;
    }

    /// Cuts the next batch and sends it on its way.
    async fn cut(&mut self) -> Result<(), Trouble> {
        let (max_bytes, max_records) = match self.open {
            Some(_) => (limits::SYNC_BATCH_BYTES, limits::SYNC_BATCH_ENTRIES),
            None => (self.batch_bytes, self.shared.settings.batch_records),
        };
        let backlog = self.shared.backlog.as_ref();
        let chunk = backlog.read(self.lane, self.next, max_bytes, max_records).await?;
        if chunk.pieces.is_empty() {
            return Err(Trouble::Batch(format!("the queue does not give sequence {}", self.next)));
        }
        let records = chunk.pieces.len() as u64;
        let (builder, digest_after) = self.fill(chunk).await?;
        let to = builder.next_seq();
        if self.open.is_some_and(|open| to != after(open.through)) {
            let open = "the batch that the cloud began cannot be sent again as a whole";
            return Err(Trouble::Batch(open.to_owned()));
        }
        let identity = BatchIdentity {
            incarnation: self.incarnation,
            session: self.shared.session,
            lane: self.lane,
            digest_before: self.next_digest,
            digest_after,
            acknowledged_through: self.acknowledged,
        };
        let (_, frame) =
            builder.finish(&identity).map_err(|error| Trouble::Batch(error.to_string()))?;
        self.shared.metrics.sent(records, frame.len());
        let now = Instant::now();
        let pause = self.shared.bucket.as_ref().map(|bucket| bucket.take(frame.len(), now));
        let (transport, call) = (self.shared.transport.as_ref(), Call::Batch(self.lane));
        let sent = Sent { to, digest_after };
        self.window.push_back(Box::pin(async move {
            tokio::time::sleep(pause.unwrap_or_default()).await;
            (sent, exchange(transport, call, frame.into()).await)
        }));
        self.next = to;
        self.next_digest = digest_after;
        Ok(())
    }

    /// Puts as much of a chunk into a batch as it takes, and says what the digest after that is.
    async fn fill(&mut self, chunk: Chunk) -> Result<(BatchBuilder, ChainDigest), Trouble> {
        let mut builder = BatchBuilder::new(self.next);
        let end = self.open.map_or(u64::MAX, |open| after(open.through).0);
        let mut whole = true;
        for piece in &chunk.pieces {
            let left = end.saturating_sub(builder.next_seq().0);
            let taken = match piece {
                _ if left == 0 => false,
                Piece::Record { wall_ms, body } => {
                    builder.push_record(*wall_ms, body)
                        // A record that no batch can hold must not stop the lane for ever.
                        || (builder.body_bytes() == 0 && {
                            tracing::error!(lane = %self.lane, seq = %builder.next_seq(), bytes = body.len(),
                                "a record is larger than a batch may be; it is passed over");
                            builder.push_skip(1, SkipReason::Quarantined)
                        })
                }
                Piece::Skip { count, reason } => {
                    whole &= *count <= left;
                    builder.push_skip((*count).min(left), *reason)
                }
            };
            whole &= taken;
            if !whole {
                break;
            }
        }
        if whole {
            return Ok((builder, chunk.digest));
        }
        let last = EdgeSeq(builder.next_seq().0.saturating_sub(1));
        if let Some(open) = self.open.filter(|open| open.through == last) {
            return Ok((builder, open.digest));
        }
        match self.shared.backlog.digest_at(self.lane, last).await? {
            Some(digest) => Ok((builder, digest)),
            None => Err(Trouble::Batch(format!("the queue has no digest at sequence {last}"))),
        }
    }

    async fn answered(&mut self, sent: &Sent, answer: Result<Answer, TransportError>) -> Next {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                if error == TransportError::Timeout {
                    // A link that takes longer for a batch than an answer may take would never carry one.
                    let least = limits::UPLINK_LEAST_BATCH_BYTES.min(self.most_bytes);
                    self.batch_bytes = (self.batch_bytes / 2).max(least);
                }
                return Next::Retry(Trouble::Transport(error));
            }
        };
        self.shared.heard(answer.generation);
        match answer.outcome {
            Outcome::Lane(state) => self.state(Some(sent), &state).await,
            Outcome::Refused(Refusal::DigestMismatch { state }) => self.state(None, &state).await,
            Outcome::Refused(Refusal::Gap { expected }) if expected <= self.acknowledged => {
                Next::Leave(Exit::Hello("the cloud went back behind what it acknowledged"))
            }
            Outcome::Refused(
                Refusal::Fenced { .. } | Refusal::Conflict { .. } | Refusal::Moved,
            ) => Next::Leave(Exit::Hello("the incarnation was fenced")),
            Outcome::Refused(refusal) => {
                if let Refusal::TooLarge { .. } = refusal {
                    self.most_bytes = (self.most_bytes / 2).max(1);
                    self.batch_bytes = self.batch_bytes.min(self.most_bytes);
                }
                Next::Retry(Trouble::Refused(refusal))
            }
            Outcome::Hello { .. } | Outcome::Heartbeat => Next::Retry(Trouble::OtherAnswer),
        }
    }

    /// Takes in what the cloud has of the lane. With `sent`, this is the answer to that batch.
    async fn state(&mut self, sent: Option<&Sent>, state: &LaneState) -> Next {
        let expected = sent.is_some_and(|sent| {
            after(state.acknowledged_through) == sent.to && state.digest == sent.digest_after
        });
        if !expected || state.open.is_some() {
            match self.shows_same_history(state).await {
                Ok(true) => {}
                Ok(false) => return Next::Leave(Exit::Hello("the cloud has another history")),
                Err(trouble) => return Next::Retry(trouble),
            }
        }
        if let Err(trouble) = self.shared.take_in(self.incarnation, self.acknowledged, state).await
        {
            return Next::Retry(trouble);
        }
        let progress = state.acknowledged_through > self.acknowledged;
        self.acknowledged = state.acknowledged_through;
        self.digest = state.digest;
        self.open = state.open;
        if progress {
            self.batch_bytes = (self.batch_bytes + self.batch_bytes / 8 + 1).min(self.most_bytes);
            self.backoff.succeeded();
            self.shared.connected();
        }
        match (expected, progress) {
            (true, _) => Next::Continue,
            (false, true) => Next::Resume,
            // The cloud does not move and does not say why: not in a hurry, then.
            (false, false) => Next::Retry(Trouble::OtherAnswer),
        }
    }

    async fn shows_same_history(&mut self, state: &LaneState) -> Result<bool, Trouble> {
        let backlog = self.shared.backlog.as_ref();
        let position = LanePosition {
            acknowledged_through: self.acknowledged,
            digest: self.digest,
            ..backlog.position(self.lane)?.lane
        };
        Ok(is_same_history(backlog, &position, state).await?)
    }
}

fn after(seq: EdgeSeq) -> EdgeSeq {
    EdgeSeq(seq.0.saturating_add(1))
}

#[cfg(test)]
mod tests;
