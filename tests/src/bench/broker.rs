//! A broker to measure: one of ours, started here, or any that runs already.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::TempDir;

use crate::TestCloud;
use crate::bench::cost::{Footprint, Process};
use crate::bench::kafka::Kafka;
use crate::servers::http;

/// A broker to measure.
pub struct Broker {
    /// As tables call it.
    pub name: String,
    /// How clients reach it.
    pub kafka: Kafka,
    /// On the disk whose syncs are measured beside it.
    pub dir: PathBuf,
    /// Configuration of topics on it.
    pub topic_config: Vec<(String, String)>,
    pid: Option<u32>,
    admin: Option<String>,
    own: Option<TestCloud>,
    /// Where its archived records are: an archive is one store's.
    _archive: Option<TempDir>,
}

impl Broker {
    /// Starts one with the default configuration, but for a place for archived records, and a directory of its own below `dir`.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start(dir: &Path, kafka: impl FnOnce(&str) -> Kafka) -> anyhow::Result<Self> {
        // Whatever holds the system's temporary files may be no disk at all. A second call changes nothing.
        let _ = tempfile::env::override_temp_dir(dir);
        let archive = TempDir::with_prefix_in("archive-", dir.canonicalize()?)?;
        let toml = format!("[tier]\nobject_store = \"file://{}\"\n", archive.path().display());
        let own = TestCloud::start_with(&toml).await?;
        let kafka = kafka(&own.kafka()?);
        Ok(Self {
            name: "robustmq".to_owned(),
            kafka,
            dir: own.data(),
            topic_config: Vec::new(),
            pid: None,
            admin: None,
            own: Some(own),
            _archive: Some(archive),
        })
    }

    /// One that runs.
    #[must_use]
    pub fn running(
        name: &str,
        kafka: Kafka,
        pid: Option<u32>,
        admin: Option<String>,
        dir: PathBuf,
    ) -> Self {
        Self {
            name: name.to_owned(),
            kafka,
            dir,
            topic_config: Vec::new(),
            pid,
            admin,
            own: None,
            _archive: None,
        }
    }

    /// Its process, where that is known.
    ///
    /// # Errors
    /// When it was started here and has ended.
    pub fn process(&self) -> anyhow::Result<Option<Process>> {
        match &self.own {
            Some(own) => Ok(Some(Process(own.program()?.id().context("the broker has ended")?))),
            None => Ok(self.pid.map(Process)),
        }
    }

    /// Its memory and files, where its process is known.
    ///
    /// # Errors
    /// When it has ended.
    pub fn footprint(&self) -> anyhow::Result<Option<Footprint>> {
        self.process()?.map(Footprint::of).transpose()
    }

    /// Stops and starts it again, if it was started here; whether that is so.
    ///
    /// # Errors
    /// When it does not stop, or does not start.
    pub async fn restart(&mut self) -> anyhow::Result<bool> {
        let Some(own) = &mut self.own else { return Ok(false) };
        own.sigterm().await?;
        own.start().await?;
        Ok(true)
    }

    /// Its page of metrics, where its admin listener is known.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> anyhow::Result<Option<String>> {
        if let Some(own) = &self.own {
            return Ok(Some(own.admin("/metrics").await?));
        }
        let Some(admin) = &self.admin else { return Ok(None) };
        let url = format!("http://{admin}/metrics");
        let answer = http().get(&url).send().await.with_context(|| format!("GET {url}"))?;
        Ok(Some(answer.error_for_status()?.text().await?))
    }
}
