//! What the benchmark of datasets can be told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::bench::dataset::stage::{BUCKET, CacheBytes, PREFIX, Stage};
use crate::bench::dataset::{accelerator, whole};
use crate::dataset::account::Catalogue;
use crate::dataset::{Coding, Dataset, Kind, Shape};
use crate::s3::{Faults, Latency};

/// How large, how fast, how far.
#[derive(clap::Args, Debug, Clone)]
pub struct Options {
    /// The size of the dataset, in GB
    #[arg(long, default_value_t = 0.5)]
    pub gigabytes: f64,
    /// What its shards are, in the rows scan, stall and memory; if left out it is webdataset, and all in the row memory
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Bytes of a sample; resnet50's are 114,660
    #[arg(long, default_value_t = accelerator::SAMPLE_BYTES)]
    pub sample_bytes: usize,
    /// Samples of a shard
    #[arg(long, default_value_t = 128)]
    pub shard_samples: usize,
    /// The share of the dataset that fits the cache
    #[arg(long, default_value_t = 0.7)]
    pub share: f64,
    /// What the broker's budget has besides, for what is on its way, in MiB
    #[arg(long, default_value_t = 64)]
    pub besides_mib: u64,
    /// Epochs of scans
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..))]
    pub epochs: u64,
    /// The least time that S3 takes to answer, in milliseconds
    #[arg(long, default_value_t = 100)]
    pub least_ms: u64,
    /// How much longer it takes in half of all cases
    #[arg(long, default_value_t = 50)]
    pub median_ms: u64,
    /// The share of answers in the long tail
    #[arg(long, default_value_t = 0.01)]
    pub tail: f64,
    /// By how much what comes on top is longer for those
    #[arg(long, default_value_t = 10.0)]
    pub tail_factor: f64,
    /// What the reader uses in the rows stall and cold, in MB/s
    #[arg(long, default_value_t = 100.0)]
    pub demand: f64,
    /// Members of the `$shared/` group in the row cold
    #[arg(long, default_value_t = 16)]
    pub members: usize,
    /// What one consumer reads in the row warm, in GB
    #[arg(long, default_value_t = 5.0)]
    pub warm_gigabytes: f64,
    /// Emulated accelerators
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub accelerators: u16,
    /// What they use together, in MB/s
    #[arg(long, default_value_t = 200.0)]
    pub accelerator_demand: f64,
    /// The size of their dataset, in GB
    #[arg(long, default_value_t = 1.5)]
    pub accelerator_gigabytes: f64,
    /// Their epochs
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(2..))]
    pub accelerator_epochs: u64,
    /// Samples of a step
    #[arg(long, default_value_t = 8)]
    pub batch: usize,
    /// Objects in the row create
    #[arg(long, default_value_t = 100_000)]
    pub objects: usize,
    /// Setting of the consumers (librdkafka's names), KEY=VALUE; may be given several times
    #[arg(long, value_parser = key_value)]
    pub consumer: Vec<(String, String)>,
    /// Where the broker keeps its files
    #[arg(long, default_value = "target")]
    pub dir: PathBuf,
}

/// How shards hold samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Tars
    #[default]
    Webdataset,
    /// JSON lines in gzip: an extent of one cannot be fetched without what is before it
    #[value(name = "jsonl.gz")]
    JsonlGzip,
    /// JSON lines in zstd
    #[value(name = "jsonl.zst")]
    JsonlZstd,
    /// A sample a row, in two row groups: none of one can be read before its columns are there
    Parquet,
}

impl Format {
    fn kind(self) -> Kind {
        match self {
            Self::Webdataset => Kind::WebDataset,
            Self::JsonlGzip => Kind::JsonLines(Coding::Gzip),
            Self::JsonlZstd => Kind::JsonLines(Coding::Zstd),
            Self::Parquet => Kind::Parquet,
        }
    }

    /// `robustmq.source.format`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Webdataset => "webdataset",
            Self::JsonlGzip | Self::JsonlZstd => "jsonl",
            Self::Parquet => "parquet",
        }
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it has to be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Options {
    /// A dataset of about this size, in memory; its shards are a multiple of `parts`.
    ///
    /// # Errors
    /// When samples are too small to be told apart.
    pub fn data(&self, gigabytes: f64, parts: usize) -> anyhow::Result<Arc<Catalogue>> {
        self.data_of(Format::Webdataset, gigabytes, parts)
    }

    /// The same in another format.
    ///
    /// # Errors
    /// As [`Options::data`].
    pub fn data_of(
        &self,
        format: Format,
        gigabytes: f64,
        parts: usize,
    ) -> anyhow::Result<Arc<Catalogue>> {
        let Self { shard_samples, sample_bytes, .. } = *self;
        let shard_bytes = shard_samples.max(1) as f64 * sample_bytes.max(1) as f64;
        let files = usize::try_from(whole(gigabytes * 1e9 / shard_bytes))?;
        let files = files.max(1).next_multiple_of(parts);
        let shape = Shape { seed: 1, files, samples: shard_samples, sample_bytes };
        Ok(Arc::new(Catalogue::of(Arc::new(Dataset::make(format.kind(), &shape)))?))
    }

    /// What S3 is like.
    #[must_use]
    pub fn faults(&self, bytes_a_second: u64) -> Faults {
        let latency = Latency {
            least: Duration::from_millis(self.least_ms),
            median: Duration::from_millis(self.median_ms),
            tail: self.tail,
            tail_factor: self.tail_factor,
        };
        Faults { latency, bytes_a_second, ..Faults::default() }
    }

    /// A broker whose cache holds `share` of the data, which is in S3 behind a link of so many bytes a second; 0 is no limit.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn stage(&self, data: &Dataset, share: f64, link: u64) -> anyhow::Result<Stage> {
        self.stage_with_ssd(data, share, 0.0, link).await
    }

    /// The same, and the SSD holds `ssd_share` of the data besides.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn stage_with_ssd(
        &self,
        data: &Dataset,
        share: f64,
        ssd_share: f64,
        link: u64,
    ) -> anyhow::Result<Stage> {
        let of_data = |share: f64| whole(data.content_bytes() as f64 * share);
        let cache = CacheBytes {
            memory: of_data(share) + (self.besides_mib << 20),
            ssd: of_data(ssd_share),
        };
        let stage = Stage::start(&self.dir, cache, &self.consumer).await?;
        data.put(&stage.s3, BUCKET, PREFIX);
        stage.s3.set_faults(self.faults(link));
        Ok(stage)
    }
}
