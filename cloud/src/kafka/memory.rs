//! Memory that requests and answers of all connections share.

use std::sync::Arc;
use std::time::Duration;

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

    use super::{Budget, Charge};

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
