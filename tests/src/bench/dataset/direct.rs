//! The same training loop without a broker: each accelerator gets whole shards from S3, one ahead of the one that it works on.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{Context, ensure};
use bytes::Bytes;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::bench::dataset::stage::BUCKET;
use crate::dataset::account::{Account, Catalogue, Place};
use crate::dataset::tar;

/// A shard that is being fetched: of which epoch.
type Ahead = (u64, JoinHandle<anyhow::Result<Bytes>>);

/// One accelerator's shards, in an order of its own in each epoch.
pub struct Direct {
    client: reqwest::Client,
    base: String,
    runtime: Handle,
    catalogue: Arc<Catalogue>,
    /// Epoch and file, in order.
    shards: VecDeque<(u64, usize)>,
    ahead: Option<Ahead>,
    ready: VecDeque<Place>,
    /// What has come.
    pub account: Account,
}

impl Direct {
    /// Of the files `files` of the catalogue's dataset, which lie below `prefix`. The first is asked for at once.
    #[must_use]
    pub fn start(
        endpoint: &str,
        prefix: &str,
        files: &[usize],
        epochs: u64,
        seed: u64,
        catalogue: &Arc<Catalogue>,
        runtime: Handle,
    ) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut shards = VecDeque::new();
        for epoch in 0..epochs {
            let mut order = files.to_vec();
            order.shuffle(&mut rng);
            shards.extend(order.into_iter().map(|file| (epoch, file)));
        }
        let base = format!("{endpoint}/{BUCKET}/{prefix}");
        let (client, catalogue) = (client(), Arc::clone(catalogue));
        let (ready, account) = (VecDeque::new(), Account::default());
        let mut direct =
            Self { client, base, runtime, catalogue, shards, ahead: None, ready, account };
        direct.ahead = direct.fetch();
        direct
    }

    fn fetch(&mut self) -> Option<Ahead> {
        let (epoch, file) = self.shards.pop_front()?;
        let name = &self.catalogue.dataset().files.get(file)?.name;
        let request = signed(self.client.get(format!("{}{name}", self.base)));
        let got = async move { Ok(request.send().await?.error_for_status()?.bytes().await?) };
        Some((epoch, self.runtime.spawn(got)))
    }

    /// The next sample. Blocks.
    ///
    /// # Errors
    /// When S3 fails, or a sample is missing, doubled or another.
    pub fn next_sample(&mut self) -> anyhow::Result<()> {
        while self.ready.is_empty() {
            let (epoch, ahead) = self.ahead.take().context("there are no more shards")?;
            let shard = self.runtime.block_on(ahead)??;
            self.ahead = self.fetch();
            for (name, value) in tar::members(&shard) {
                let Some(key) = name.strip_suffix(".jpg") else { continue };
                let (sample, found) = self.catalogue.sample(value).context(name.to_owned())?;
                ensure!(found.key.as_deref() == Some(key), "{key} has another sample's bytes");
                self.ready.push_back(Place { epoch, sample });
            }
        }
        let place = self.ready.pop_front().context("it is not empty")?;
        self.account.enter(&self.catalogue, place)
    }
}

/// A client that waits as long as it takes.
///
/// # Panics
/// Never: a client without TLS needs nothing that can be missing.
#[must_use]
pub fn client() -> reqwest::Client {
    // Fails when there is one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build();
    client.expect("a client without TLS needs nothing that can be missing")
}

/// The server looks only whether there is a signature.
pub fn signed(request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    request.header("authorization", "AWS4-HMAC-SHA256 Credential=key/")
}
