//! Reads frames from a connection, taking memory as their bytes arrive.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use robustmq_common::limits;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::memory::{Budget, Charge, Exhausted};

/// Why no further frame comes from a connection.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The size prefix is no size: another protocol, or TLS, speaks here.
    #[error("a frame of {size} bytes was announced; at most {limit} are taken")]
    Size {
        /// What the prefix says.
        size: i32,
        /// The largest frame taken.
        limit: usize,
    },
    /// No request for too long.
    #[error("no request for {0:?}")]
    Idle(Duration),
    /// A frame came too slowly.
    #[error("a frame of {size} bytes was not complete after {after:?}")]
    Slow {
        /// Its size in bytes.
        size: usize,
        /// The time that it had.
        after: Duration,
    },
    /// Other requests use all the memory there is.
    #[error(transparent)]
    Memory(#[from] Exhausted),
}

/// Memory is taken in steps of this size, then of four times what has arrived.
const FIRST_STEP_BYTES: usize = 64 * 1024;

/// The next frame without its size prefix, or `None` when the peer has closed the connection between frames.
///
/// # Errors
/// [`ReadError`]; the connection cannot be read any further.
pub async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    memory: &Budget,
    limit_bytes: usize,
    idle: Duration,
) -> Result<Option<(Bytes, Charge)>, ReadError> {
    let mut prefix = [0; 4];
    let first = tokio::time::timeout(idle, stream.read(&mut prefix)).await;
    let got = first.map_err(|_| ReadError::Idle(idle))??;
    if got == 0 {
        return Ok(None);
    }
    let rest = prefix.get_mut(got..).unwrap_or_default();
    let in_time = tokio::time::timeout(limits::KAFKA_FRAME_TIMEOUT, stream.read_exact(rest)).await;
    in_time.map_err(|_| ReadError::Slow { size: 4, after: limits::KAFKA_FRAME_TIMEOUT })??;
    let announced = i32::from_be_bytes(prefix);
    let size = usize::try_from(announced).ok().filter(|size| *size <= limit_bytes);
    let size = size.ok_or(ReadError::Size { size: announced, limit: limit_bytes })?;
    let seconds = size / limits::KAFKA_FRAME_BYTES_PER_SECOND;
    let after = limits::KAFKA_FRAME_TIMEOUT + Duration::from_secs(seconds as u64);
    let body = tokio::time::timeout(after, read_body(stream, memory, size)).await;
    body.map_err(|_| ReadError::Slow { size, after })?.map(Some)
}

async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    memory: &Budget,
    size: usize,
) -> Result<(Bytes, Charge), ReadError> {
    let mut charge = Charge::default();
    let mut frame = BytesMut::new();
    let mut room = size.min(limits::KAFKA_FREE_FRAME_BYTES);
    frame.reserve(room);
    while frame.len() < size {
        if frame.len() == room {
            let step = (frame.len() * 3).max(FIRST_STEP_BYTES).min(size - room);
            charge.merge(memory.charge(step, limits::KAFKA_MEMORY_WAIT).await?);
            frame.reserve(step);
            room += step;
        }
        let mut part = (&mut *stream).take((room - frame.len()) as u64);
        if part.read_buf(&mut frame).await? == 0 {
            return Err(ReadError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    Ok((frame.freeze(), charge))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Budget, ReadError, read_frame};

    const IDLE: Duration = Duration::from_secs(600);

    async fn read(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let memory = Budget::new(1 << 20);
        let read = read_frame(&mut bytes, &memory, 1 << 20, IDLE).await;
        read.map(|frame| frame.map(|(bytes, _)| bytes.to_vec()))
    }

    fn framed(body: &[u8]) -> Vec<u8> {
        let size = i32::try_from(body.len()).expect("a small test body");
        [&size.to_be_bytes()[..], body].concat()
    }

    #[tokio::test]
    async fn frames_of_all_sizes_come_whole() {
        for size in [0, 1, 16 * 1024, 16 * 1024 + 1, 300_000, 1 << 20] {
            let body: Vec<u8> = (0..size).map(|i: usize| i.to_le_bytes()[0]).collect();
            let frame = read(&framed(&body)).await.expect("a good frame");
            assert_eq!(frame.as_deref(), Some(&body[..]), "{size}");
        }
    }

    #[tokio::test]
    async fn sizes_that_are_none_are_refused_before_anything_is_allocated() {
        for size in [-1, i32::MIN, (1 << 20) + 1, i32::MAX] {
            let refused = read(&i32::to_be_bytes(size)).await;
            assert!(matches!(refused, Err(ReadError::Size { size: s, .. }) if s == size));
        }
    }

    #[tokio::test]
    async fn an_end_between_frames_is_no_error_and_one_within_is() {
        assert!(matches!(read(b"").await, Ok(None)));
        assert!(matches!(read(b"\0\0").await, Err(ReadError::Io(_))));
        assert!(matches!(read(b"\0\0\0\x05abc").await, Err(ReadError::Io(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_taken_as_bytes_arrive_and_given_back() {
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        let memory = Budget::new(1 << 20);
        let announced = tokio::spawn({
            let memory = memory.clone();
            async move { read_frame(&mut server, &memory, 1 << 30, IDLE).await }
        });
        let half = [&(1_i32 << 29).to_be_bytes()[..], &[7; 100_000]].concat();
        tokio::io::AsyncWriteExt::write_all(&mut client, &half).await.expect("an open pipe");
        while memory.available_bytes() == 1 << 20 {
            tokio::task::yield_now().await;
        }
        assert!(memory.available_bytes() >= (1 << 20) - 400_000, "a size alone takes nothing");
        drop(client);
        assert!(announced.await.expect("no panic").is_err());
        assert_eq!(memory.available_bytes(), 1 << 20);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_and_slow_senders_are_told_apart() {
        let (mut client, mut server) = tokio::io::duplex(64);
        let memory = Budget::new(1 << 20);
        let idle = read_frame(&mut server, &memory, 1 << 20, IDLE).await;
        assert!(matches!(idle, Err(ReadError::Idle(_))));
        tokio::io::AsyncWriteExt::write_all(&mut client, b"\0\0\0\x05a").await.expect("open");
        let slow = read_frame(&mut server, &memory, 1 << 20, IDLE).await;
        assert!(matches!(slow, Err(ReadError::Slow { size: 5, .. })));
    }
}
