//! One MQTT connection: bytes to packets for the hub, packets from the hub to bytes.
//!
//! Reading and writing are two loops in one task, so neither waits for the other, except that both stall while the hub is
//! not taking input: that is how a slow disk slows devices down.
//!
//! **Invariant:** what is read of a packet above `EDGE_SMALL_PACKET_BYTES` was taken from the shared budget before, step by
//! step, and is given back when the hub has dealt with it. All smaller ones together are bounded by the number of connections.
//! **Invariant:** a large packet that stands still, or crawls, is given up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use robustmq_common::limits;
use robustmq_common::mqtt::codec::{self, DecodeError};
use robustmq_common::mqtt::packet::{Packet, ProtocolVersion};
use robustmq_common::mqtt::server::{CloseReason, ConnId, PeerInfo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::budget::{Budget, Charge};
use super::listener::ListenerCounters;
use super::outbox::Outbox;
use super::users::Users;

/// What a connection tells the hub.
pub(super) enum Input {
    /// It is there. Always the first.
    Connected {
        /// Which.
        conn: ConnId,
        /// Who.
        peer: PeerInfo,
        /// Where the hub puts what it has to write.
        outbox: Outbox,
    },
    /// It sent a packet.
    Packet {
        /// Which.
        conn: ConnId,
        /// What.
        packet: Packet,
        /// Given back when the hub drops it.
        charge: Option<Charge>,
    },
    /// It is not read, since others use the memory for large packets; or it is read again.
    Unread {
        /// Which.
        conn: ConnId,
        /// Whether it is not.
        unread: bool,
    },
    /// It sent what is no packet.
    Malformed {
        /// Which.
        conn: ConnId,
        /// Why.
        error: DecodeError,
    },
    /// So much of what it was sent has been written.
    Written {
        /// Which.
        conn: ConnId,
        /// How much.
        bytes: usize,
    },
    /// It has ended by itself.
    Closed {
        /// Which.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
}

/// What all connections share.
#[derive(Clone)]
pub(super) struct Shared {
    /// To the hub.
    pub input: mpsc::Sender<Input>,
    /// Memory for large packets on their way to the hub.
    pub budget: Budget,
    /// The largest packet taken.
    pub max_packet_bytes: usize,
    /// Absent: everybody may connect.
    pub users: Option<Arc<Users>>,
    /// Counts.
    pub counters: Arc<ListenerCounters>,
}

/// Why a loop ended.
enum Ended {
    /// The hub asked for it and knows.
    ByHub,
    /// Something that the hub has to hear of.
    By(CloseReason),
    /// There is no hub any more.
    NoHub,
}

struct Connection {
    id: ConnId,
    outbox: Outbox,
    shared: Shared,
    version: OnceLock<ProtocolVersion>,
}

/// Serves a connection until it ends; the hub has then heard of it.
pub(super) async fn serve<S>(stream: S, id: ConnId, peer: PeerInfo, shared: Shared)
where
    S: AsyncRead + AsyncWrite + Send,
{
    let outbox = Outbox::default();
    let connected = Input::Connected { conn: id, peer, outbox: outbox.clone() };
    if shared.input.send(connected).await.is_err() {
        return;
    }
    let connection = Connection { id, outbox, shared, version: OnceLock::new() };
    let (reader, writer) = tokio::io::split(stream);
    let ended = tokio::select! {
        ended = connection.write(writer) => ended,
        ended = connection.read(reader) => ended,
    };
    if let Err(Ended::By(reason)) = ended {
        let closed = Input::Closed { conn: id, reason };
        // Without a hub nobody needs to know.
        let _ = connection.shared.input.send(closed).await;
    }
}

type Never = std::convert::Infallible;

impl Connection {
    async fn tell(&self, input: Input) -> Result<(), Ended> {
        self.shared.input.send(input).await.map_err(|_| Ended::NoHub)
    }

    async fn read(&self, mut reader: impl AsyncRead + Unpin) -> Result<Never, Ended> {
        let mut buffer = BytesMut::new();
        let mut large: Option<Large> = None;
        let mut chunk = limits::EDGE_READ_BUFFER_BYTES;
        loop {
            self.hand_over(&mut buffer, &mut large).await?;
            self.outbox.readable().await;
            let total = announced_bytes(&buffer);
            if let Some(total) = total.filter(|total| *total > limits::EDGE_SMALL_PACKET_BYTES) {
                let large = large.get_or_insert_with(|| Large::new(total));
                self.make_room(large, buffer.len()).await?;
                let before = buffer.len();
                large.read(&mut reader, &mut buffer).await.map_err(Ended::By)?;
                count(&self.shared.counters.received_bytes, buffer.len() - before);
                continue;
            }
            buffer.reserve(chunk);
            let room = buffer.capacity() - buffer.len();
            let read = match reader.read_buf(&mut buffer).await {
                Ok(0) => return Err(Ended::By(CloseReason::PeerClosed)),
                Ok(read) => read,
                Err(_) => return Err(Ended::By(CloseReason::NetworkError)),
            };
            count(&self.shared.counters.received_bytes, read);
            // Who sends much gets a larger buffer.
            chunk = if read >= room {
                limits::EDGE_BUSY_READ_BUFFER_BYTES
            } else {
                limits::EDGE_READ_BUFFER_BYTES
            };
        }
    }

    /// Takes from the budget what the next bytes of a large packet need. While that takes time, the client is not silent.
    async fn make_room(&self, large: &mut Large, have: usize) -> Result<(), Ended> {
        let budget = &self.shared.budget;
        let wanted = large.wanted(have);
        if !budget.try_grow(&mut large.charge, wanted) {
            self.tell(Input::Unread { conn: self.id, unread: true }).await?;
            budget.grow(&mut large.charge, wanted).await;
            self.tell(Input::Unread { conn: self.id, unread: false }).await?;
        }
        Ok(())
    }

    /// Hands every whole packet in the buffer to the hub.
    async fn hand_over(
        &self,
        buffer: &mut BytesMut,
        large: &mut Option<Large>,
    ) -> Result<(), Ended> {
        loop {
            let version = self.version.get().copied();
            match codec::decode(buffer, version, self.shared.max_packet_bytes) {
                Ok(Some(mut packet)) => {
                    if let Packet::Connect(connect) = &mut packet {
                        self.version.get_or_init(|| connect.version);
                        if let Some(users) = &self.shared.users {
                            users.check(connect).await;
                        }
                    }
                    let charge = large.take().map(|large| large.charge);
                    self.tell(Input::Packet { conn: self.id, packet, charge }).await?;
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    if let DecodeError::UnsupportedVersion { answer_in, .. } = &error {
                        self.version.get_or_init(|| *answer_in);
                    }
                    self.tell(Input::Malformed { conn: self.id, error }).await?;
                    // The hub has the connection closed, after the reason was written.
                    return std::future::pending().await;
                }
            }
        }
    }

    async fn write(&self, mut writer: impl AsyncWrite + Unpin) -> Result<Never, Ended> {
        let mut buffer = BytesMut::new();
        loop {
            let pending = self.outbox.pending().await;
            for packet in &pending.packets {
                let version = self.version.get().copied().unwrap_or(ProtocolVersion::V5);
                if let Err(error) = codec::encode(packet, version, &mut buffer) {
                    tracing::error!(packet = packet.name(), %error, "a packet cannot be encoded");
                    return Err(Ended::By(CloseReason::NetworkError));
                }
                if buffer.len() >= limits::EDGE_WRITE_CHUNK_BYTES {
                    self.flush(&mut writer, &mut buffer).await?;
                }
            }
            self.flush(&mut writer, &mut buffer).await?;
            if pending.close.is_some() {
                // The peer may be gone already, which is what closing is for.
                let _ = tokio::time::timeout(limits::EDGE_CLOSE, writer.shutdown()).await;
                return Err(Ended::ByHub);
            }
            if buffer.capacity() > limits::EDGE_WRITE_CHUNK_BYTES {
                buffer = BytesMut::new();
            }
        }
    }

    async fn flush(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        buffer: &mut BytesMut,
    ) -> Result<(), Ended> {
        let bytes = buffer.len();
        if bytes == 0 {
            return Ok(());
        }
        let written = async {
            writer.write_all_buf(buffer).await?;
            writer.flush().await
        };
        let written = tokio::select! {
            written = written => written.map_err(|_| Ended::By(CloseReason::NetworkError)),
            () = tokio::time::sleep(limits::EDGE_WRITE_STALL) => {
                Err(Ended::By(CloseReason::NetworkError))
            }
            () = self.close_is_overdue() => Err(Ended::ByHub),
        };
        written?;
        count(&self.shared.counters.sent_bytes, bytes);
        buffer.clear();
        // A hub that has ended has closed every connection first; what it left to be written is still written.
        let _ = self.tell(Input::Written { conn: self.id, bytes }).await;
        Ok(())
    }

    async fn close_is_overdue(&self) {
        self.outbox.closing().await;
        tokio::time::sleep(limits::EDGE_CLOSE).await;
    }
}

fn count(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// A packet above `EDGE_SMALL_PACKET_BYTES` that is being read.
struct Large {
    total: usize,
    charge: Charge,
    /// How long its bytes may still be waited for.
    patience: Duration,
}

impl Large {
    fn new(total: usize) -> Self {
        let seconds = total / limits::EDGE_LARGE_BYTES_PER_SECOND;
        let crawling = Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX));
        let patience = limits::EDGE_LARGE_READ.saturating_add(crawling);
        Self { total, charge: Charge::default(), patience }
    }

    /// How much of it has to be charged before more than `have` bytes are read: twice as much each time, so that what came
    /// slowly never takes much more than what came.
    fn wanted(&self, have: usize) -> usize {
        if self.charge.covers() > have {
            return self.charge.covers();
        }
        have.saturating_mul(2).max(limits::EDGE_LARGE_STEP_BYTES).min(self.total)
    }

    /// Reads what is charged and has come.
    async fn read(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
        buffer: &mut BytesMut,
    ) -> Result<(), CloseReason> {
        let room = self.charge.covers().saturating_sub(buffer.len());
        buffer.reserve(room);
        let mut part = reader.take(u64::try_from(room).unwrap_or(u64::MAX));
        let started = Instant::now();
        let patience = self.patience.min(limits::EDGE_LARGE_READ);
        let read = tokio::time::timeout(patience, part.read_buf(buffer)).await;
        self.patience = self.patience.saturating_sub(started.elapsed());
        match read {
            Ok(Ok(0)) => Err(CloseReason::PeerClosed),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(CloseReason::NetworkError),
            Err(_) => {
                tracing::debug!(bytes = self.total, "a large packet came too slowly");
                Err(CloseReason::NetworkError)
            }
        }
    }
}

/// The size that the fixed header at the buffer's start announces; `None` while that header is not whole.
fn announced_bytes(buffer: &BytesMut) -> Option<usize> {
    let mut header = buffer.get(1..).unwrap_or_default();
    let mut remaining = 0_usize;
    for at in 0..4_u32 {
        if !header.has_remaining() {
            return None;
        }
        let byte = header.get_u8();
        remaining |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let header_bytes = 2 + usize::try_from(at).unwrap_or_default();
            return Some(header_bytes + remaining);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::announced_bytes;

    #[test]
    fn the_fixed_header_announces_the_size() {
        let check = |bytes: &[u8], expected: Option<usize>| {
            assert_eq!(announced_bytes(&BytesMut::from(bytes)), expected, "{bytes:?}");
        };
        check(&[], None);
        check(&[0x30], None);
        check(&[0xc0, 0], Some(2));
        check(&[0x30, 0x7f], Some(129));
        check(&[0x30, 0x80], None);
        check(&[0x30, 0x80, 0x01], Some(131));
        check(&[0x30, 0xff, 0xff, 0xff, 0x7f], Some(268_435_460));
        check(&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01], None);
    }
}
