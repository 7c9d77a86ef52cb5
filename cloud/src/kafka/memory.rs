//! Memory that requests and answers of all connections share.

use std::sync::Arc;
use std::time::Duration;

use robustmq_common::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many bytes, given out and taken back.
#[derive(Debug, Clone)]
pub struct Budget {
    permits: Arc<Semaphore>,
    total_bytes: usize,
}

/// Bytes taken from a [`Budget`]; dropping it gives them back.
#[derive(Debug, Default)]
pub struct Charge(Option<OwnedSemaphorePermit>);

/// The budget had no room for so long that waiting on would only make it worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no memory for {bytes} bytes after {waited:?}: all of it is in use by other requests")]
pub struct Exhausted {
    bytes: usize,
    waited: Duration,
}

/// The memory of one answer that is built as a whole, charged before each of its parts is built. The first
/// [`limits::KAFKA_FREE_ANSWER_BYTES`] are free, so that small answers never wait for large ones.
///
/// **Invariant:** whoever holds memory for an answer waits for no more of it (but for the one listing of all topics), so that no two
/// wait for each other.
#[derive(Debug)]
pub struct AnswerMemory {
    budget: Budget,
    charge: Charge,
    bytes: usize,
}

/// There is no memory for more of an answer: what is left of the request is to be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoMemory {
    /// Others have it.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// Only this answer may be so large that it will never be built.
    #[error("an answer of more than {limit_bytes} bytes is not built; ask for less at once")]
    TooLarge {
        /// The most that an answer may take.
        limit_bytes: usize,
    },
}

impl AnswerMemory {
    /// For one answer. Holds nothing yet.
    #[must_use]
    pub fn new(budget: &Budget) -> Self {
        Self { budget: budget.clone(), charge: Charge::default(), bytes: 0 }
    }

    /// Takes memory for `bytes` more. Waits only while it holds none.
    ///
    /// # Errors
    /// [`NoMemory`]; what was taken before stays.
    pub async fn grow(&mut self, bytes: usize) -> Result<(), NoMemory> {
        let patience = match self.charge.bytes() {
            0 => limits::KAFKA_MEMORY_WAIT,
            _ => Duration::ZERO,
        };
        self.take(bytes, patience).await
    }

    /// Takes memory for `bytes` more and waits for it, whatever it holds: for one answer at a time.
    ///
    /// # Errors
    /// [`NoMemory`]; what was taken before stays.
    pub async fn grow_alone(&mut self, bytes: usize) -> Result<(), NoMemory> {
        self.take(bytes, limits::KAFKA_MEMORY_WAIT).await
    }

    async fn take(&mut self, bytes: usize, patience: Duration) -> Result<(), NoMemory> {
        let total = self.bytes.saturating_add(bytes);
        let charged = total.saturating_sub(limits::KAFKA_FREE_ANSWER_BYTES);
        let limit_bytes = self.budget.total_bytes / limits::KAFKA_ANSWER_SHARE;
        if charged > limit_bytes {
            return Err(NoMemory::TooLarge { limit_bytes });
        }
        let missing = charged - self.charge.bytes();
        if missing > 0 {
            let more = match self.budget.try_charge(missing) {
                Some(more) => more,
                None => self.budget.charge(missing, patience).await?,
            };
            self.charge.merge(more);
        }
        self.bytes = total;
        Ok(())
    }

    /// What stays charged until the answer, encoded to so many `bytes`, is sent.
    #[must_use]
    pub fn sending(mut self, bytes: usize) -> Charge {
        self.charge.shrink_to(bytes);
        self.charge
    }
}

impl Budget {
    /// A budget of `total_bytes`.
    #[must_use]
    pub fn new(total_bytes: usize) -> Self {
        let total_bytes = total_bytes.min(Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(total_bytes)), total_bytes }
    }

    /// Bytes not given out.
    #[must_use]
    pub fn available_bytes(&self) -> usize {
        self.permits.available_permits()
    }

    /// Whether little is left.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.available_bytes() < self.total_bytes / limits::KAFKA_SHORT_OF_MEMORY
    }

    /// Takes bytes if they are there now.
    #[must_use]
    pub fn try_charge(&self, bytes: usize) -> Option<Charge> {
        let permits = u32::try_from(bytes.min(self.total_bytes)).ok()?;
        self.permits.clone().try_acquire_many_owned(permits).ok().map(|p| Charge(Some(p)))
    }

    /// Takes bytes, waiting for them. More than the whole budget counts as the whole budget.
    ///
    /// # Errors
    /// [`Exhausted`] after `patience`: connections that wait for each other with half a frame each must not do so for ever.
    pub async fn charge(&self, bytes: usize, patience: Duration) -> Result<Charge, Exhausted> {
        let exhausted = Exhausted { bytes, waited: patience };
        let permits = u32::try_from(bytes.min(self.total_bytes)).map_err(|_| exhausted)?;
        let acquire = self.permits.clone().acquire_many_owned(permits);
        match tokio::time::timeout(patience, acquire).await {
            Ok(Ok(permit)) => Ok(Charge(Some(permit))),
            _ => Err(exhausted),
        }
    }
}

impl Charge {
    /// Takes another charge of the same budget over.
    pub fn merge(&mut self, other: Self) {
        match (&mut self.0, other.0) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (mine @ None, theirs) => *mine = theirs,
            (Some(_), None) => {}
        }
    }

    /// What it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.0
            && let Some(surplus) = permit.num_permits().checked_sub(bytes)
        {
            drop(permit.split(surplus));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use robustmq_common::limits;

    use super::{AnswerMemory, Budget, Charge, NoMemory};

    #[tokio::test(start_paused = true)]
    async fn an_answer_grows_within_its_share_and_waits_only_with_empty_hands() {
        let free = limits::KAFKA_FREE_ANSWER_BYTES;
        let budget = Budget::new(100);
        let all = budget.try_charge(100).expect("it is free");
        let mut answer = AnswerMemory::new(&budget);
        answer.grow(free).await.expect("small answers take nothing");
        let waiting = tokio::spawn(async move { answer.grow(30).await.map(|()| answer) });
        tokio::task::yield_now().await;
        drop(all);
        let mut answer = waiting.await.expect("no panic").expect("it waited for the others");
        assert_eq!(budget.available_bytes(), 70);
        let limit_bytes = 100 / limits::KAFKA_ANSWER_SHARE;
        assert_eq!(answer.grow(30).await, Err(NoMemory::TooLarge { limit_bytes }));
        let rest = budget.try_charge(70).expect("it is free");
        let started = tokio::time::Instant::now();
        assert!(matches!(answer.grow(10).await, Err(NoMemory::Exhausted(_))));
        assert_eq!(started.elapsed(), Duration::ZERO, "it holds something, so it does not wait");
        drop(rest);
        answer.grow(10).await.expect("there is some");
        let sending = answer.sending(15);
        assert_eq!(budget.available_bytes(), 85);
        drop(sending);
        assert_eq!(budget.available_bytes(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_comes_back() {
        let budget = Budget::new(100);
        let mut charge = Charge::default();
        charge.merge(budget.try_charge(60).expect("60 of 100 are there"));
        assert!(budget.try_charge(41).is_none());
        charge.merge(budget.try_charge(40).expect("the rest is there"));
        assert_eq!(budget.available_bytes(), 0);
        charge.shrink_to(10);
        assert_eq!(budget.available_bytes(), 90);
        let patience = Duration::from_secs(1);
        assert!(budget.charge(91, patience).await.is_err());
        drop(charge);
        assert!(budget.charge(1_000_000, patience).await.is_ok(), "capped at the whole budget");
        assert_eq!(budget.available_bytes(), 100);
    }
}
