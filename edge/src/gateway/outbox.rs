//! What the hub hands to one connection: packets to write, when to close, whether to read.
//!
//! It has no capacity of its own. The server core bounds it: messages stop above `connection_backlog_bytes`, and what
//! answers the client's own packets is bounded by pausing the reader.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use robustmq_common::mqtt::packet::{Packet, ReasonCode};
use tokio::sync::Notify;

#[derive(Default)]
struct Inner {
    packets: VecDeque<Packet>,
    paused: bool,
    close: Option<ReasonCode>,
}

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    for_writer: Notify,
    for_reader: Notify,
    for_closing: Notify,
}

/// One connection's outbox; the hub and the connection hold it together.
#[derive(Clone, Default)]
pub(super) struct Outbox(Arc<Shared>);

/// What there is to write.
pub(super) struct Pending {
    /// In order.
    pub packets: VecDeque<Packet>,
    /// After the packets: close.
    pub close: Option<ReasonCode>,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A holder cannot leave `Inner` half changed, so a poisoned lock is still good.
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn send(&self, packet: Packet) {
        let mut inner = self.lock();
        let first = inner.packets.is_empty();
        inner.packets.push_back(packet);
        drop(inner);
        if first {
            self.0.for_writer.notify_one();
        }
    }

    pub(super) fn close(&self, reason: ReasonCode) {
        self.lock().close.get_or_insert(reason);
        self.0.for_writer.notify_one();
        self.0.for_closing.notify_one();
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.lock().paused = paused;
        self.0.for_reader.notify_one();
    }

    /// Waits until there is something to write or the connection has to close. For one caller at a time.
    pub(super) async fn pending(&self) -> Pending {
        loop {
            {
                let mut inner = self.lock();
                if !inner.packets.is_empty() || inner.close.is_some() {
                    let packets = std::mem::take(&mut inner.packets);
                    return Pending { packets, close: inner.close };
                }
            }
            self.0.for_writer.notified().await;
        }
    }

    /// Waits until the connection has to close. For one caller at a time.
    pub(super) async fn closing(&self) {
        while self.lock().close.is_none() {
            self.0.for_closing.notified().await;
        }
    }

    /// Waits while reading is paused. For one caller at a time.
    pub(super) async fn readable(&self) {
        while self.lock().paused {
            self.0.for_reader.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use robustmq_common::mqtt::packet::{Packet, ReasonCode};

    use super::Outbox;

    #[tokio::test]
    async fn what_was_sent_before_the_close_is_written_first() {
        let outbox = Outbox::default();
        outbox.send(Packet::PingReq);
        outbox.send(Packet::PingResp);
        outbox.close(ReasonCode::ServerShuttingDown);
        outbox.close(ReasonCode::UnspecifiedError);
        let pending = outbox.pending().await;
        assert_eq!(pending.packets, [Packet::PingReq, Packet::PingResp]);
        assert_eq!(pending.close, Some(ReasonCode::ServerShuttingDown), "the first reason counts");
    }

    #[tokio::test]
    async fn a_paused_reader_goes_on_when_told_to() {
        let outbox = Outbox::default();
        outbox.set_paused(true);
        let other = outbox.clone();
        let mut reader = tokio::spawn(async move { other.readable().await });
        tokio::select! {
            biased;
            _ = &mut reader => panic!("it was paused"),
            () = tokio::task::yield_now() => {}
        }
        outbox.set_paused(false);
        tokio::time::timeout(Duration::from_secs(20), reader).await.unwrap().unwrap();
    }
}
