//! `robustmq-cloud` and `robustmq-edge` under test: a directory and ports that outlive the process, so that it can be killed
//! and started again as the same node.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::eventually;
use crate::process::{Program, binary, free_port, tail, unexpected_errors};

/// The edge's gauge of records that wait for the cloud's acknowledgement.
const QUEUED: &str = "robustmq_edge_queue_records";
/// The edge's counter of records that the cloud has acknowledged.
const UPLINKED: &str = "robustmq_edge_uplink_acknowledged_records_total";

/// What both kinds of server have in common.
pub struct Server {
    name: &'static str,
    binary: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    directory: tempfile::TempDir,
    program: Option<Program>,
    expected_errors: Vec<String>,
}

impl Server {
    fn new(name: &'static str) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix(name).tempdir()?;
        let arguments = vec![
            "serve".to_owned(),
            "--data-dir".to_owned(),
            path_text(&directory.path().join("data"))?,
        ];
        let binary = binary(name)?;
        let (environment, expected_errors) = (Vec::new(), Vec::new());
        Ok(Self { name, binary, arguments, environment, directory, program: None, expected_errors })
    }

    /// Gives `flag` a free port of its own, kept over restarts.
    fn listen(&mut self, flag: &str) -> anyhow::Result<()> {
        self.arguments.push(flag.to_owned());
        self.arguments.push(format!("127.0.0.1:{}", free_port()?));
        Ok(())
    }

    fn configure(&mut self, toml: &str) -> anyhow::Result<()> {
        let file = self.directory.path().join("config.toml");
        std::fs::write(&file, toml)?;
        self.arguments.extend(["--config".to_owned(), path_text(&file)?]);
        Ok(())
    }

    /// Starts it, or starts it again with the same directory and ports.
    ///
    /// # Errors
    /// When it runs already or does not get ready.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        ensure!(self.program.is_none(), "{} is running", self.name);
        let Self { name, binary, arguments, environment, .. } = self;
        let log = self.directory.path().join("log");
        let program = Program::start(name, binary, arguments, environment, &log).await?;
        self.program = Some(program);
        Ok(())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it was not running.
    pub async fn kill9(&mut self) -> anyhow::Result<()> {
        self.take()?.kill9().await
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it was not running, or does not end in time.
    pub async fn sigterm(&mut self) -> anyhow::Result<ExitStatus> {
        self.take()?.sigterm().await
    }

    fn take(&mut self) -> anyhow::Result<Program> {
        self.program.take().with_context(|| format!("{} is not running", self.name))
    }

    /// The process, while it runs.
    ///
    /// # Errors
    /// When it does not.
    pub fn program(&self) -> anyhow::Result<&Program> {
        self.program.as_ref().with_context(|| format!("{} is not running", self.name))
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Its log, of all runs.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Announces ERROR lines that contain `pattern`: they do not fail the test.
    pub fn expect_error(&mut self, pattern: &str) {
        self.expected_errors.push(pattern.to_owned());
    }

    /// ERROR lines that nobody announced.
    #[must_use]
    pub fn unexpected_errors(&self) -> Vec<String> {
        unexpected_errors(&self.log(), &self.expected_errors)
    }

    /// Asks the admin listener for a page.
    ///
    /// # Errors
    /// When there is no answer, or one that is not a success.
    pub async fn admin(&self, path: &str) -> anyhow::Result<String> {
        let url = format!("http://{}{path}", self.program()?.address("admin")?);
        let answer = http().get(&url).send().await.with_context(|| format!("GET {url}"))?;
        let status = answer.status();
        let body = answer.text().await?;
        ensure!(status.is_success(), "GET {url}: {status}: {body}");
        Ok(body)
    }

    /// One metric's value, all its label sets added up; `None` if there is none yet.
    ///
    /// # Errors
    /// As `admin`.
    pub async fn metric(&self, name: &str) -> anyhow::Result<Option<f64>> {
        let text = self.admin("/metrics").await?;
        let values: Vec<f64> = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        Ok((!values.is_empty()).then(|| values.iter().sum()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The child itself is killed by its own drop.
        if std::thread::panicking() {
            eprintln!("--- the log of {} ends:\n{}", self.name, tail(&self.log()));
            return;
        }
        let errors = self.unexpected_errors();
        if !errors.is_empty() {
            eprintln!("--- the log of {} ends:\n{}", self.name, tail(&self.log()));
        }
        assert!(
            errors.is_empty(),
            "{} logged errors that nobody announced: {errors:#?}",
            self.name
        );
    }
}

fn path_text(path: &Path) -> anyhow::Result<String> {
    match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => bail!("{} is not UTF-8", path.display()),
    }
}

/// A client for the admin listeners.
#[must_use]
pub fn http() -> reqwest::Client {
    // Fails when there is one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()
        .expect("a client without TLS needs nothing that can be missing")
}

/// A cloud on RocksDB.
pub struct TestCloud {
    server: Server,
}

impl TestCloud {
    /// Starts one with the default configuration.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with("").await
    }

    /// Starts one with this `cloud.toml`.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start_with(toml: &str) -> anyhow::Result<Self> {
        Self::start_in(toml, Vec::new()).await
    }

    /// Starts one with this `cloud.toml` and these environment variables.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start_in(toml: &str, environment: Vec<(String, String)>) -> anyhow::Result<Self> {
        let mut server = Server::new("robustmq-cloud")?;
        server.environment = environment;
        if !toml.is_empty() {
            server.configure(toml)?;
        }
        for flag in ["--kafka-listen", "--uplink-listen", "--admin-listen"] {
            server.listen(flag)?;
        }
        server.start().await?;
        Ok(Self { server })
    }

    /// `HOST:PORT` for Kafka clients.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kafka(&self) -> anyhow::Result<String> {
        Ok(self.program()?.address("kafka")?.to_owned())
    }

    /// What an edge is given as `--uplink`.
    ///
    /// # Errors
    /// When it is not running.
    pub fn uplink(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}", self.program()?.address("uplink")?))
    }
}

/// An edge.
pub struct TestEdge {
    server: Server,
}

impl TestEdge {
    /// Starts one that sends to `uplink`.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start(id: &str, uplink: &str) -> anyhow::Result<Self> {
        Self::start_with(id, uplink, "").await
    }

    /// Starts one with this `edge.toml`.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start_with(id: &str, uplink: &str, toml: &str) -> anyhow::Result<Self> {
        let mut server = Server::new("robustmq-edge")?;
        if !toml.is_empty() {
            server.configure(toml)?;
        }
        server.arguments.extend(["--edge-id".to_owned(), id.to_owned()]);
        server.arguments.extend(["--uplink".to_owned(), uplink.to_owned()]);
        for flag in ["--mqtt-listen", "--admin-listen"] {
            server.listen(flag)?;
        }
        server.start().await?;
        Ok(Self { server })
    }

    /// Records in the queue that the cloud has not acknowledged.
    ///
    /// # Errors
    /// When the edge does not say.
    pub async fn waiting_records(&self) -> anyhow::Result<u64> {
        self.count(QUEUED).await
    }

    /// Waits until the cloud has acknowledged everything.
    ///
    /// # Errors
    /// When it has not `within` this time.
    pub async fn drained(&self, within: Duration) -> anyhow::Result<()> {
        eventually("the edge's queue is empty", within, async || {
            Ok((self.waiting_records().await? == 0).then_some(()))
        })
        .await
    }

    /// Waits until the cloud has acknowledged `count` more records.
    ///
    /// # Errors
    /// When it has not `within` this time.
    pub async fn uplinked_more(&self, count: u64, within: Duration) -> anyhow::Result<()> {
        let wanted = self.count(UPLINKED).await? + count;
        eventually("the cloud acknowledges records", within, async || {
            Ok((self.count(UPLINKED).await? >= wanted).then_some(()))
        })
        .await
    }

    async fn count(&self, metric: &str) -> anyhow::Result<u64> {
        let value = self.metric(metric).await?.with_context(|| format!("no metric {metric}"))?;
        Ok(format!("{value:.0}").parse()?)
    }

    /// `HOST:PORT` for MQTT clients.
    ///
    /// # Errors
    /// When it is not running.
    pub fn mqtt(&self) -> anyhow::Result<String> {
        Ok(self.program()?.address("mqtt")?.to_owned())
    }
}

macro_rules! is_a_server {
    ($name:ident) => {
        impl std::ops::Deref for $name {
            type Target = Server;

            fn deref(&self) -> &Server {
                &self.server
            }
        }

        impl std::ops::DerefMut for $name {
            fn deref_mut(&mut self) -> &mut Server {
                &mut self.server
            }
        }
    };
}

is_a_server!(TestCloud);
is_a_server!(TestEdge);
