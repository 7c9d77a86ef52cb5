//! A load: a task of its own, which nobody's giving up ends.

use std::sync::Arc;

use bytes::Bytes;
use robustmq_common::limits::dataset as limits;
use tokio::sync::{oneshot, watch};

use super::front::{Cache, unavailable};
use super::users::UserId;
use super::{ExtentId, Found, Load, Tier};
use crate::fetch::FetchError;
use crate::layout::Extent;

/// Loads one extent, and tells those who wait.
pub(super) struct LoadTask {
    place: Place,
    user: UserId,
    load: Arc<dyn Load>,
    sender: watch::Sender<Option<Result<Found, FetchError>>>,
    /// When there is room for it, where there was none.
    turn: Option<oneshot::Receiver<()>>,
}

/// The extent's place among the loads. It is given back if the task ends early, however that happens.
struct Place {
    cache: Arc<Cache>,
    id: ExtentId,
    is_settled: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_settled {
            let id = self.id;
            self.cache.change(|memory, _, _| memory.abandon(id));
        }
    }
}

impl LoadTask {
    pub(super) fn new(
        cache: &Arc<Cache>,
        id: ExtentId,
        user: UserId,
        load: Arc<dyn Load>,
        sender: watch::Sender<Option<Result<Found, FetchError>>>,
        turn: Option<oneshot::Receiver<()>>,
    ) -> Self {
        let place = Place { cache: Arc::clone(cache), id, is_settled: false };
        Self { place, user, load, sender, turn }
    }

    pub(super) async fn run(self) {
        let Self { mut place, user, load, sender, turn } = self;
        let (cache, id) = (Arc::clone(&place.cache), place.id);
        if let Some(turn) = turn {
            wait_for(turn, &cache).await;
        }
        let mut source_bytes = 0;
        let loaded = load_extent(&cache, id, user, &load, &mut source_bytes).await;
        let outcome = match loaded {
            Ok((extent, tier)) => {
                let reader = cache.change(|memory, scene, changes| {
                    memory.settle(id, Arc::clone(&extent), source_bytes, scene, changes)
                });
                place.is_settled = true;
                if let Some(reader) = reader {
                    cache.count_read(id, reader, tier, source_bytes);
                }
                Ok((extent, tier))
            }
            Err(error) => {
                cache.users.count(user, |counts| counts.failed_loads += 1);
                Err(error)
            }
        };
        // Before anybody hears of it: who asks again finds nothing on its way.
        drop(place);
        sender.send_replace(Some(outcome));
    }
}

/// Waits for room. What others do not read any more, which they do not tell, becomes room with time.
async fn wait_for(mut turn: oneshot::Receiver<()>, cache: &Cache) {
    // It is told, or its place among the loads is gone, which only its own task gives back.
    while tokio::time::timeout(limits::BEING_READ, &mut turn).await.is_err() {
        cache.change(|_, _, _| {});
    }
}

async fn load_extent(
    cache: &Cache,
    id: ExtentId,
    user: UserId,
    load: &Arc<dyn Load>,
    source_bytes: &mut u32,
) -> Result<Found, FetchError> {
    if let Some(ssd) = &cache.ssd
        && let Some(content) = ssd.read(id, user).await
    {
        match open(id, load, content).await {
            Ok(extent) => return Ok((extent, Tier::Ssd)),
            Err(_) => ssd.is_damaged(id),
        }
    }
    let mut is_first = true;
    loop {
        let content = load.fetch().await?;
        let bytes = content.len() as u64;
        cache.users.count(user, |counts| counts.source_bytes += bytes);
        *source_bytes = source_bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        match open(id, load, content).await {
            // It may have been damaged on its way.
            Err(FetchError::Damaged { .. }) if is_first => is_first = false,
            opened => return opened.map(|extent| (extent, Tier::Source)),
        }
    }
}

/// Checks and parses away from the threads that serve connections: it takes milliseconds.
async fn open(
    id: ExtentId,
    load: &Arc<dyn Load>,
    content: Bytes,
) -> Result<Arc<Extent>, FetchError> {
    let load = Arc::clone(load);
    let opened = tokio::task::spawn_blocking(move || load.open(content)).await;
    match opened {
        Ok(opened) => opened.map(Arc::new),
        Err(error) => Err(unavailable(id, &format!("finding its records failed: {error}"))),
    }
}
