//! The least that moving bytes between two sockets of this machine costs: what a broker's figures are a ratio to.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use serde::Serialize;

use crate::bench::cost::thread_cpu;

/// What is written at once: a client's batch.
const WRITE_BYTES: usize = 64 * 1024;
/// What is read at once.
const READ_BYTES: usize = 256 * 1024;

/// A sender and a receiver, a thread each.
#[derive(Debug, Clone, Serialize)]
pub struct Loopback {
    /// From the first byte to the last.
    pub seconds: f64,
    /// Bytes sent and received.
    pub bytes: u64,
    /// Processor time of the thread that sends.
    pub sender_cpu_seconds: f64,
    /// Processor time of the thread that receives.
    pub receiver_cpu_seconds: f64,
}

/// Sends for this long.
///
/// # Errors
/// When sockets fail, or bytes get lost.
pub fn run(length: Duration) -> anyhow::Result<Loopback> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut outgoing = TcpStream::connect(listener.local_addr()?)?;
    let (mut incoming, _) = listener.accept()?;
    let started = Instant::now();
    let sender = thread::spawn(move || -> anyhow::Result<(u64, Duration)> {
        let before = thread_cpu()?;
        let batch = vec![7u8; WRITE_BYTES];
        let mut bytes = 0;
        while started.elapsed() < length {
            outgoing.write_all(&batch)?;
            bytes += batch.len() as u64;
        }
        Ok((bytes, thread_cpu()?.saturating_sub(before)))
    });
    let receiver = thread::spawn(move || -> anyhow::Result<(u64, Duration)> {
        let before = thread_cpu()?;
        let mut buffer = vec![0u8; READ_BYTES];
        let mut bytes = 0;
        loop {
            match incoming.read(&mut buffer)? {
                0 => return Ok((bytes, thread_cpu()?.saturating_sub(before))),
                read => bytes += read as u64,
            }
        }
    });
    let panicked = |_| anyhow!("a thread of the loopback pair panicked");
    let (sent, sender_cpu) = sender.join().map_err(panicked)?.context("send over loopback")?;
    let (received, receiver_cpu) =
        receiver.join().map_err(panicked)?.context("receive over loopback")?;
    ensure!(sent == received, "{received} of {sent} bytes arrived over loopback");
    Ok(Loopback {
        seconds: started.elapsed().as_secs_f64(),
        bytes: sent,
        sender_cpu_seconds: sender_cpu.as_secs_f64(),
        receiver_cpu_seconds: receiver_cpu.as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_sent_arrive_and_cost_something() {
        let pair = run(Duration::from_millis(100)).unwrap();
        assert!(pair.bytes > 0 && pair.sender_cpu_seconds > 0.0, "{pair:?}");
    }
}
