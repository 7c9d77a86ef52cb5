//! Listing a source again: it takes as long as the source is large, so it goes on though nobody waits for it, and can be asked about.

use std::sync::Arc;
use std::time::Duration;

use robustmq_common::ids::TopicId;
use tokio::sync::watch;

use super::{Datasets, Refreshed, StatusError};
use crate::topics::Topic;

type Outcome = Arc<Result<Refreshed, StatusError>>;

/// A listing that was begun.
#[derive(Debug, Clone)]
pub struct Refreshing {
    /// When, in milliseconds since 1970.
    pub began_ms: i64,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl Refreshing {
    /// One that begins now, and what is told of its outcome.
    pub(crate) fn new(began_ms: i64) -> (watch::Sender<Option<Outcome>>, Self) {
        let (sender, outcome) = watch::channel(None);
        (sender, Self { began_ms, outcome })
    }

    /// What came of it, if it is over within `most`.
    pub async fn outcome(&mut self, most: Duration) -> Option<Outcome> {
        match tokio::time::timeout(most, self.outcome.wait_for(Option::is_some)).await {
            Err(_) => None,
            Ok(Ok(outcome)) => outcome.clone(),
            // Whoever would have said it has ended.
            Ok(Err(_)) => Some(Arc::new(Err(StatusError::Stopping))),
        }
    }

    /// What an operator has to look at, if it is over.
    pub(super) fn trouble(&self) -> Option<String> {
        let outcome = self.outcome.borrow().clone()?;
        match &*outcome {
            Err(error) => Some(format!("its source was not listed again: {error}")),
            Ok(Refreshed { missing_objects: 0, .. }) => None,
            Ok(Refreshed { missing_objects, missing, uncounted, .. }) => {
                let names = missing.join(", ");
                let more = missing_objects.saturating_sub(missing.len() as u64);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                let ends = match uncounted.is_empty() {
                    true => String::new(),
                    false => format!(
                        "; what was not counted before is left out as long as objects next to it can be read, and the topic does not go on behind it otherwise, nor with robustmq.source.on.corrupt=stop: put it back as it was, or create another topic ({})",
                        uncounted.join(", ")
                    ),
                };
                Some(format!("when it was listed last, objects were gone: {names}{more}{ends}"))
            }
        }
    }

    fn is_over(&self) -> bool {
        self.outcome.borrow().is_some() || self.outcome.has_changed().is_err()
    }
}

impl Datasets {
    /// Begins to list a topic's source again, or joins in where that goes on already.
    ///
    /// # Errors
    /// [`StatusError::NoDataset`].
    pub fn begin_refresh(
        self: &Arc<Self>,
        topic: &Arc<Topic>,
        now_ms: i64,
    ) -> Result<Refreshing, StatusError> {
        if topic.config.source.is_none() {
            return Err(StatusError::NoDataset(topic.name.clone()));
        }
        let mut inner = self.lock();
        if let Some(running) = inner.refreshing.get(&topic.id).filter(|begun| !begun.is_over()) {
            return Ok(running.clone());
        }
        let (sender, begun) = Refreshing::new(now_ms);
        inner.refreshing.insert(topic.id, begun.clone());
        drop(inner);
        let (this, topic) = (Arc::clone(self), Arc::clone(topic));
        tokio::spawn(async move {
            let refreshed = tokio::select! {
                refreshed = this.refresh(&topic, now_ms) => refreshed,
                // What was written of it does not count before its head is.
                () = this.cancel.cancelled() => Err(StatusError::Stopping),
            };
            match &refreshed {
                Ok(done) => done.log(&topic.name),
                Err(error) => {
                    tracing::warn!(topic = topic.name.as_str(), %error, "a source was not listed again");
                }
            }
            sender.send_replace(Some(Arc::new(refreshed)));
        });
        Ok(begun)
    }

    /// The listing of a topic's source that was begun last, since the broker was started.
    #[must_use]
    pub fn refreshing(&self, topic: TopicId) -> Option<Refreshing> {
        self.lock().refreshing.get(&topic).cloned()
    }

    /// Whether one goes on.
    pub(super) fn is_refreshing(&self, topic: TopicId) -> bool {
        self.refreshing(topic).is_some_and(|begun| !begun.is_over())
    }
}
