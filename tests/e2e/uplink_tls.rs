//! The uplink over TLS: the cloud shows a certificate, the edge trusts one authority and shows a token.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use robustmq_tests::clients::kcat;
use robustmq_tests::process::binary;
use robustmq_tests::{TestCloud, TestEdge, eventually};
use tokio::process::Command;

use crate::edge_tokens::{publish, register, with_token};

const PATIENCE: Duration = Duration::from_secs(60);

/// A certificate for `localhost` and 127.0.0.1 (`server`), and the authority that signed it (`ca`).
fn test_data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../common/src/net/testdata").join(name)
}

async fn cloud_with_tls() -> anyhow::Result<TestCloud> {
    let (certificate, key) = (test_data("server.pem"), test_data("server.key"));
    let toml = format!(
        "[uplink]\nrequire_token = true\ntls_cert = \"{}\"\ntls_key = \"{}\"\n",
        certificate.display(),
        key.display()
    );
    TestCloud::start_with(&toml).await
}

/// An edge that trusts what `ca` signed and shows `token`.
async fn edge_over_tls(
    cloud: &TestCloud,
    id: &str,
    ca: &str,
    token: &Path,
) -> anyhow::Result<TestEdge> {
    let url = format!("https://{}", cloud.program()?.address("uplink")?);
    let toml = format!("{}ca_file = \"{}\"\n", with_token(token), test_data(ca).display());
    TestEdge::start_with(id, &url, &toml).await
}

#[tokio::test]
async fn records_arrive_over_tls_and_none_goes_to_a_cloud_that_another_authority_vouches_for()
-> anyhow::Result<()> {
    let cloud = cloud_with_tls().await?;
    let dir = tempfile::tempdir()?;
    let token = register(&cloud, &dir, "plant-1", &["*"]).await?;
    let edge = edge_over_tls(&cloud, "plant-1", "ca.pem", &token).await?;
    publish(&edge, "hall/one", "sealed").await?;
    edge.drained(PATIENCE).await?;

    // The cloud's own certificate is no authority: it says so itself.
    let token = register(&cloud, &dir, "plant-2", &["*"]).await?;
    let wary = edge_over_tls(&cloud, "plant-2", "server.pem", &token).await?;
    publish(&wary, "hall/one", "kept back").await?;
    eventually("the edge says what is wrong with the certificate", PATIENCE, async || {
        let log = std::fs::read_to_string(wary.log())?;
        let mut lines = log.lines().filter(|line| line.contains("the uplink is interrupted"));
        Ok(lines.any(|line| line.contains("invalid peer certificate")).then_some(()))
    })
    .await?;
    ensure!(wary.waiting_records().await? == 1, "the record is gone");

    let records = kcat::read_all(&cloud.kafka()?, "hall.one").await?;
    ensure!(records.len() == 1 && records[0].value == b"sealed", "{records:?}");
    Ok(())
}

#[tokio::test]
async fn a_token_is_not_sent_over_plain_http_to_another_machine() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let token = dir.path().join("token");
    std::fs::write(&token, "rmq_0123")?;
    let mut command = Command::new(binary("robustmq-edge")?);
    // An address that is kept for documentation: nothing may be sent there before it is refused.
    command.args(["serve", "--edge-id", "plant-3", "--uplink", "http://192.0.2.1:9440"]);
    command.arg("--data-dir").arg(dir.path().join("data"));
    command.arg("--token-file").arg(&token).kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE, command.output()).await;
    let ended = ended.context("it started")??;
    let line = String::from_utf8(ended.stderr)?;
    ensure!(ended.status.code() == Some(2), "{:?}: {line}", ended.status);
    ensure!(line.lines().count() == 1, "{line}");
    for part in ["[uplink] url", "192.0.2.1", "plain http", "use https"] {
        ensure!(line.contains(part), "{line:?} does not say {part:?}");
    }
    Ok(())
}
