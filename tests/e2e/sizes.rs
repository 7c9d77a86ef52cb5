//! What gateways have room for: resident memory when idle, and the size of what is flashed.

use std::path::Path;

use anyhow::ensure;
use robustmq_tests::process::{binary, free_port};
use robustmq_tests::{TestCloud, TestEdge, clients::programs};
use tokio::process::Command;

const MIB: u64 = 1024 * 1024;

#[tokio::test]
async fn idle_memory_stays_small() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let edge = TestEdge::start("idle", &cloud.uplink()?).await?;
    let (cloud, edge) = (cloud.program()?.resident_bytes()?, edge.program()?.resident_bytes()?);
    eprintln!("idle: edge {} KiB, cloud {} KiB", edge / 1024, cloud / 1024);
    ensure!(edge < 15 * MIB, "the edge takes {edge} bytes");
    ensure!(cloud < 100 * MIB, "the cloud takes {cloud} bytes");
    Ok(())
}

#[tokio::test]
async fn the_stripped_edge_binary_stays_small() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let stripped = dir.path().join("robustmq-edge");
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&stripped).arg(binary("robustmq-edge")?);
    programs::output(strip).await?;
    let bytes = std::fs::metadata(&stripped)?.len();
    eprintln!("stripped edge: {} KiB", bytes / 1024);
    ensure!(bytes < 12 * MIB, "{bytes} bytes");
    Ok(())
}

/// A port that is taken: exit code 1 and one line. An unknown key: exit code 2, and the line names file and key.
#[tokio::test]
async fn a_failed_start_says_why_in_one_line() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("edge.toml");
    std::fs::write(&config, "[queue]\nmax_bites = 7\n")?;
    let failed =
        start_fails("robustmq-edge", dir.path(), &["--config", &config.display().to_string()])
            .await?;
    ensure!(
        failed.0 == Some(2) && failed.1.contains("edge.toml") && failed.1.contains("max_bites"),
        "{failed:?}"
    );

    let taken = std::net::TcpListener::bind(("127.0.0.1", free_port()?))?;
    let address = taken.local_addr()?.to_string();
    let failed = start_fails("robustmq-edge", dir.path(), &["--mqtt-listen", &address]).await?;
    ensure!(failed.0 == Some(1) && failed.1.contains(&address), "{failed:?}");
    let failed = start_fails("robustmq-cloud", dir.path(), &["--kafka-listen", &address]).await?;
    ensure!(failed.0 == Some(1) && failed.1.contains(&address), "{failed:?}");
    Ok(())
}

async fn start_fails(
    name: &str,
    dir: &Path,
    arguments: &[&str],
) -> anyhow::Result<(Option<i32>, String)> {
    let data = dir.join(name);
    let output = Command::new(binary(name)?)
        .args(["serve", "--data-dir", &data.display().to_string()])
        .args(["--admin-listen", "127.0.0.1:0"])
        .args(arguments)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(std::time::Duration::from_secs(20), output).await??;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}
