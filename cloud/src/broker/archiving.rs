//! The archive of `tiered` topics at a start, and what works on it.
//!
//! A start asks whether the archive is this store's (`tier::Owner`). What is not is refused. Where the object store does not say, the broker
//! starts, for everything else works: then nothing is archived or removed before it has said so.

use std::sync::Arc;

use robustmq_common::limits;
use robustmq_common::net::StartError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::archiver::Archiver;
use super::{failed, housekeeping};
use crate::metrics::TierMetrics;
use crate::objects::locate;
use crate::settings::Settings;
use crate::store::Store;
use crate::tier::{Archive, Janitor, Owner, OwnerError, TierSettings, check_without_archive};

/// Where under its URL the archive of `tiered` topics lies.
const ARCHIVE_PATH: &str = "tier";

/// The archive, and whether it may be used.
pub(super) struct Archiving {
    pub archive: Arc<Archive>,
    owner: Owner,
    metrics: TierMetrics,
    is_confirmed: bool,
    /// When the log said why it cannot be used.
    told: Option<Instant>,
}

/// Where a person has said, or would say, where the archive is.
fn key(settings: &Settings) -> &'static str {
    match (&settings.tier.object_store, &settings.cluster.object_store) {
        (None, Some(_)) => "[cluster] object_store",
        _ => "[tier] object_store",
    }
}

/// Opens the archive that is configured.
///
/// # Errors
/// [`StartError`]: it is that of another store, or there is none and this store has objects in one.
pub(super) async fn open(
    settings: &Settings,
    store: &Arc<dyn Store>,
    metrics: TierMetrics,
) -> Result<Option<Archiving>, StartError> {
    let Some(url) = settings.archive_url() else {
        let checked = check_without_archive(&**store).await;
        return checked.map(|()| None).map_err(|error| refused(settings, error));
    };
    let location = locate(url, ARCHIVE_PATH, limits::tier::PUT)
        .map_err(|reason| StartError::Failed(format!("[tier] object_store {url}: {reason}")))?;
    let tier =
        TierSettings { cache_bytes: settings.cache.shares(true).0, ..TierSettings::default() };
    let archive = Arc::new(Archive::new(location, tier, metrics.clone()));
    let owner = Owner::new(Arc::clone(store), Arc::clone(&archive), url.to_string());
    let mut archiving = Archiving { archive, owner, metrics, is_confirmed: false, told: None };
    match tokio::time::timeout(limits::tier::START_WAIT, archiving.confirm()).await {
        Ok(Ok(())) => {}
        Ok(Err(OwnerError::Archive(error))) => {
            archiving.told = Some(Instant::now());
            warn(url, &error);
        }
        Ok(Err(error)) => return Err(refused(settings, error)),
        Err(_) => {
            archiving.metrics.failures.inc();
            let seconds = limits::tier::START_WAIT.as_secs();
            warn(url, &format!("it has not answered within {seconds} s"));
        }
    }
    Ok(Some(archiving))
}

fn refused(settings: &Settings, error: OwnerError) -> StartError {
    match error {
        OwnerError::Foreign(reason) => {
            StartError::Refused { key: key(settings).to_owned(), reason }
        }
        OwnerError::Store(error) => failed("the store cannot be used")(error),
        OwnerError::Archive(error) => StartError::Failed(error.to_string()),
    }
}

fn warn(url: &dyn std::fmt::Display, error: &dyn std::fmt::Display) {
    tracing::warn!(
        %url, %error,
        "the archive of tiered topics cannot be used: nothing is archived or removed there until it answers, and records stay in the store"
    );
}

impl Archiving {
    async fn confirm(&mut self) -> Result<(), OwnerError> {
        self.metrics.unconfirmed.set(1);
        match self.owner.confirm().await {
            Ok(()) => {
                self.metrics.unconfirmed.set(0);
                self.is_confirmed = true;
                Ok(())
            }
            Err(error) => {
                self.metrics.failures.inc();
                Err(error)
            }
        }
    }

    /// Archives and removes until `shutdown`, from when the archive is known to be this store's.
    pub(super) async fn run(
        mut self,
        archiver: Archiver,
        store: Arc<dyn Store>,
        shutdown: CancellationToken,
    ) {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = self.confirmed() => {}
        }
        let janitor = Janitor::new(store, Arc::clone(&self.archive));
        tokio::join!(
            archiver.run(housekeeping::wall_ms, shutdown.clone()),
            janitor.run(housekeeping::wall_ms, shutdown),
        );
    }

    /// Waits until the archive is known to be this store's. Where it turns out to be another's, a person may still make it right.
    async fn confirmed(&mut self) {
        if self.is_confirmed {
            return;
        }
        let mut pause = limits::tier::RETRY;
        let mut is_foreign = false;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(limits::tier::RETRY_OUTAGE_MOST);
            let Err(error) = self.confirm().await else { break };
            let is_news = matches!(error, OwnerError::Foreign(_)) && !is_foreign;
            let was_told = self.told.is_some_and(|told| told.elapsed() < limits::tier::TOLD_AGAIN);
            if was_told && !is_news {
                tracing::debug!(%error, "the archive of tiered topics cannot be used");
                continue;
            }
            self.told = Some(Instant::now());
            match error {
                OwnerError::Foreign(reason) => {
                    is_foreign = true;
                    tracing::error!(
                        %reason,
                        "the archive of tiered topics is not this store's: nothing is archived or removed there"
                    );
                }
                error => tracing::warn!(%error, "nothing is archived or removed still"),
            }
        }
        tracing::info!("the archive of tiered topics answers, and is this store's");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::TryStreamExt as _;
    use object_store::path::Path;
    use object_store::{ObjectStore as _, ObjectStoreExt as _};
    use tokio_util::sync::CancellationToken;

    use super::{Archiving, Owner, limits};
    use crate::broker::archiver::tests::World;
    use crate::broker::kept_log::KeptLog;

    const LONG: Duration = Duration::from_secs(3600);

    /// A partition that is to be archived, and an archive that is not known yet.
    async fn world() -> (World, Archiving) {
        let world = World::new();
        let partition = world.due("t").await;
        world.due.offer((partition.keys().topic, partition.keys().partition), 1);
        let archive = world.log.archive().expect("there is one").clone();
        let owner = Owner::new(world.store.clone(), archive.clone(), "s3://a".to_owned());
        let metrics = world.metrics.clone();
        (world, Archiving { archive, owner, metrics, is_confirmed: false, told: None })
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_archived_before_the_archive_is_known() {
        for is_others in [false, true] {
            let (log, _guard) = KeptLog::listen();
            let (world, archiving) = world().await;
            let objects = world.objects.clone();
            let marker = Path::from("tier/archive.json");
            if is_others {
                let others = format!("{{\"archive_id\":\"{}\"}}", uuid::Uuid::nil());
                objects.put(&marker, others.into()).await.expect("it is up");
            }
            objects.set_down(true);
            let shutdown = CancellationToken::new();
            let run = archiving.run(world.archiver, world.store.clone(), shutdown.clone());
            let task = tokio::spawn(run);
            tokio::time::sleep(LONG).await;
            assert_eq!(world.metrics.unconfirmed.get(), 1);
            let told = log.warnings("503 Slow Down").len() as u64;
            assert!((1..=1 + LONG.as_secs() / limits::tier::TOLD_AGAIN.as_secs()).contains(&told));
            objects.set_down(false);
            tokio::time::sleep(LONG).await;
            let listed: Vec<_> = objects.list(None).try_collect().await.expect("it is up");
            let found = (listed.len(), world.metrics.unconfirmed.get());
            // The marker, and an object behind it.
            let expected = if is_others { (1, 1) } else { (2, 0) };
            assert_eq!(found, expected);
            shutdown.cancel();
            task.await.expect("it ends");
        }
    }
}
