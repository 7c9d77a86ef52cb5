//! A broker that is killed between two epochs: what its cache has on SSD is not fetched again.

use std::sync::Arc;

use crate::bench::dataset::Stage;
use crate::bench::dataset::reader::Reader;
use crate::bench::dataset::run::blocking;
use crate::bench::dataset::stage::Topic;
use crate::dataset::account::Catalogue;

/// What came of it, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Crash {
    /// What the cache had in memory when the broker was killed, of which a part was on SSD as well.
    pub in_memory: u64,
    /// What it had on SSD.
    pub on_ssd: u64,
    /// What S3 gave for the epoch before, and for the epoch after.
    pub s3_before: u64,
    /// See there.
    pub s3_after: u64,
}

/// Reads two epochs, kills the broker, and reads a third.
///
/// # Errors
/// When a record is missing, doubled or another.
pub async fn read(stage: &mut Stage, data: &Arc<Catalogue>) -> anyhow::Result<Crash> {
    let topic = Topic::over("crash", 3, "shards", 1);
    stage.create(&topic).await?;
    let reader = Reader::start(&stage.kafka, &topic.name, [0], data)?;
    let reader = epoch(reader, data).await?;
    let first = stage.s3.given_bytes();
    let reader = epoch(reader, data).await?;
    let second = stage.s3.given_bytes();
    let cache = stage.status(&topic.name).await?.map(|status| status.cache).unwrap_or_default();
    stage.crash().await?;
    let reader = epoch(reader, data).await?;
    reader.account.check_complete(3)?;
    Ok(Crash {
        in_memory: cache.memory_bytes.unwrap_or_default(),
        on_ssd: cache.ssd_bytes.unwrap_or_default(),
        s3_before: second - first,
        s3_after: stage.s3.given_bytes() - second,
    })
}

async fn epoch(mut reader: Reader, data: &Arc<Catalogue>) -> anyhow::Result<Reader> {
    let samples = data.dataset().samples.len();
    blocking(move || {
        for _ in 0..samples {
            reader.next_record()?;
        }
        Ok(reader)
    })
    .await
}
