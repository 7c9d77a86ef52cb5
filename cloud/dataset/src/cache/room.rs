//! Room in the cache's memory for what is fetched of objects to know what they hold.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::front::{Cache, locked};

/// Bytes of the cache's memory, until this is dropped.
pub struct Taken {
    cache: Arc<Cache>,
    bytes: usize,
}

impl fmt::Debug for Taken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Taken").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let bytes = self.bytes;
        self.cache.change(|memory, _, _| memory.give_back_piece(bytes));
    }
}

/// Somebody who waits, and may stop waiting when its turn has come and it has not heard of that.
struct Waiting<'a> {
    cache: &'a Arc<Cache>,
    bytes: usize,
    turn: oneshot::Receiver<()>,
    has_heard: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.turn.close();
        if self.has_heard {
            return;
        }
        match self.turn.try_recv() {
            Ok(()) => drop(Taken { cache: Arc::clone(self.cache), bytes: self.bytes }),
            // Those behind it need not wait for it any more.
            Err(_) => self.cache.change(|_, _, _| {}),
        }
    }
}

impl Cache {
    /// Room for so many bytes of an object, once there is some. What came of it is given to [`Cache::put`].
    pub async fn take_room(self: &Arc<Self>, bytes: usize) -> Taken {
        let turn =
            self.change(|memory, scene, changes| match memory.take_piece(bytes, scene, changes) {
                true => None,
                false => Some(memory.wait_for_piece(bytes)),
            });
        if let Some(turn) = turn {
            self.room_awaited.notify_waiters();
            let mut waiting = Waiting { cache: self, bytes, turn, has_heard: false };
            // It is told: the cache is here.
            (&mut waiting.turn).await.ok();
            waiting.has_heard = true;
        }
        Taken { cache: Arc::clone(self), bytes }
    }

    /// The same, if there is room now, and nobody waits for some.
    #[must_use]
    pub fn try_take_room(self: &Arc<Self>, bytes: usize) -> Option<Taken> {
        let has_room =
            self.change(|memory, scene, changes| memory.take_piece(bytes, scene, changes));
        if !has_room {
            self.room_awaited.notify_waiters();
        }
        has_room.then(|| Taken { cache: Arc::clone(self), bytes })
    }

    /// Room for what is left of what had room until now.
    pub(crate) fn keep_room(self: &Arc<Self>, bytes: usize) -> Taken {
        self.change(|memory, _, _| memory.keep_piece(bytes));
        Taken { cache: Arc::clone(self), bytes }
    }

    /// Returns when somebody needs more room than there is: who has some and does not go on is to give it back.
    pub async fn is_room_awaited(&self) {
        let told = self.room_awaited.notified();
        tokio::pin!(told);
        told.as_mut().enable();
        if !locked(&self.memory).is_room_awaited() {
            told.await;
        }
    }

    /// What is taken.
    #[must_use]
    pub fn room_bytes(&self) -> usize {
        locked(&self.memory).pieces_bytes()
    }
}
