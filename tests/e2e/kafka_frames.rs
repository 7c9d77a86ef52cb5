//! Bytes that no Kafka client sends: they cost their sender the connection, and nobody else anything.

use std::time::Duration;

use anyhow::{Context, ensure};
use robustmq_tests::TestCloud;
use robustmq_tests::clients::programs::{self, Client, Job};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CLOSED: Duration = Duration::from_secs(30);
const MIB: u64 = 1024 * 1024;

/// A request as bytes: its length, header version 1 without a client id, and a body.
fn frame(api_key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    request.extend(api_key.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(7_i32.to_be_bytes());
    request.extend((-1_i16).to_be_bytes());
    request.extend(body);
    let mut frame = u32::try_from(request.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    frame.extend(request);
    frame
}

fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let mut flexible = vec![0];
    // A compact array of 2^32 - 2 elements.
    flexible.extend([0xff, 0xff, 0xff, 0xff, 0x0f]);
    vec![
        ("a web browser", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("a negative length", (-5_i32).to_be_bytes().to_vec()),
        ("a length of 2 GiB", i32::MAX.to_be_bytes().to_vec()),
        ("a frame without a header", vec![0, 0, 0, 2, 0, 3]),
        ("Metadata with 2^31 - 1 topics", frame(3, 1, &i32::MAX.to_be_bytes())),
        ("Metadata with 2^32 - 2 topics", frame(3, 12, &flexible)),
        ("Fetch that ends early", frame(1, 4, &[0xff; 9])),
        (
            "Produce with 2^31 - 1 topics",
            frame(0, 7, &[0xff, 0xff, 0, 1, 0, 0, 0, 9, 0x7f, 0xff, 0xff, 0xff]),
        ),
        ("an unknown request", frame(9999, 0, &[])),
        ("Metadata of a version to come", frame(3, 999, &[])),
    ]
}

#[tokio::test]
async fn a_malformed_frame_costs_its_sender_the_connection_and_nobody_else() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let kafka = cloud.kafka()?;
    let job = Job { kafka: &kafka, topic: "undisturbed", count: 10, more: &[] };
    programs::produce(Client::ConfluentKafka, &job).await?;
    let before = cloud.program()?.resident_bytes()?;
    for (what, bytes) in malformed() {
        let mut stream = TcpStream::connect(&kafka).await?;
        stream.write_all(&bytes).await?;
        let mut rest = Vec::new();
        // The broker closes: the read ends, in order or with a reset.
        let closed = tokio::time::timeout(CLOSED, stream.read_to_end(&mut rest)).await;
        closed.map(drop).with_context(|| format!("still open after {what}"))?;
    }
    let after = cloud.program()?.resident_bytes()?;
    ensure!(after < before + 64 * MIB, "memory went from {before} to {after} bytes");
    ensure!(programs::read(Client::ConfluentKafka, &job).await?.is_exact(10), "the log suffered");
    Ok(())
}

/// Clients that are newer than the broker ask for a version it does not have: ApiVersions answers that in version 0 (KIP-511).
#[tokio::test]
async fn a_client_from_the_future_is_told_which_versions_there_are() -> anyhow::Result<()> {
    const UNSUPPORTED_VERSION: i16 = 35;
    let cloud = TestCloud::start().await?;
    let mut stream = TcpStream::connect(cloud.kafka()?).await?;
    stream.write_all(&frame(18, 900, &[0])).await?;
    let length = tokio::time::timeout(CLOSED, stream.read_u32()).await??;
    let mut answer = vec![0; usize::try_from(length)?];
    stream.read_exact(&mut answer).await?;
    let (correlation, error) = (&answer[..4], &answer[4..6]);
    ensure!(
        correlation == 7_i32.to_be_bytes() && error == UNSUPPORTED_VERSION.to_be_bytes(),
        "{answer:?}"
    );
    Ok(())
}
