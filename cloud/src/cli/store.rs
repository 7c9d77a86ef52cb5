//! `robustmq-cloud store`: on the data directory itself, while no broker runs on it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use rand::RngExt as _;
use robustmq_common::config::{self, Sources};
use robustmq_common::ids::CloudGeneration;
use robustmq_common::net::StartError;
use serde::{Serialize, Serializer};

use super::{CommandError, print, print_json};
use crate::broker;
use crate::settings::Settings;
use crate::store::keys::system::StoreIdentity;
use crate::store::{Store, StoreError};

#[derive(Args)]
pub(super) struct StoreCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Give the store a new generation, after a backup was restored to it; the broker has to be stopped
    ///
    /// Edges that were connected before say in their log that the cloud may have gone back. Kafka clients see another cluster id.
    #[command(
        after_help = "Example:\n  robustmq-cloud store renew-identity --data-dir /var/lib/robustmq-cloud"
    )]
    RenewIdentity(RenewIdentity),
}

#[derive(Args)]
struct RenewIdentity {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the store is kept
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: StoreCommand) -> Result<(), CommandError> {
    match args.command {
        Command::RenewIdentity(args) => renew_identity(&args).await,
    }
}

/// What was changed.
#[derive(Debug, Serialize)]
struct Renewed {
    #[serde(serialize_with = "as_text")]
    before: CloudGeneration,
    #[serde(serialize_with = "as_text")]
    generation: CloudGeneration,
}

/// A generation has 64 bits, and most readers of JSON keep 53 of a number.
fn as_text<S: Serializer>(generation: &CloudGeneration, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(generation)
}

async fn renew_identity(args: &RenewIdentity) -> Result<(), CommandError> {
    let mut sources = Sources::of_process(args.config.as_deref());
    sources.flag("data_dir", args.data_dir.as_ref().map(|dir| dir.to_string_lossy().into_owned()));
    let settings: Settings = config::load(&sources).map_err(StartError::from)?;
    let directory = settings.store_dir();
    if settings.cluster.object_store.is_none() && !directory.is_dir() {
        // Opening it would make one.
        return Err(CommandError::Failed(format!("there is no store in {}", directory.display())));
    }
    let failed = |error: StoreError| CommandError::Failed(error.to_string());
    let store = broker::open_store(&settings).await?;
    let renewed = renew(&*store).await;
    store.close().await.map_err(failed)?;
    let renewed = renewed.map_err(failed)?;
    if args.json {
        return Ok(print_json(&renewed)?);
    }
    let Renewed { before, generation } = renewed;
    print(&format!("generation {generation} instead of {before}\n"));
    Ok(())
}

async fn renew(store: &dyn Store) -> Result<Renewed, StoreError> {
    let identity = StoreIdentity::load(store).await?.ok_or_else(|| StoreError::Open {
        path: store.stats().engine.to_owned(),
        reason: "it holds nothing, so there is no identity to renew".to_owned(),
    })?;
    let renewed = identity.renew(store, CloudGeneration(rand::rng().random())).await?;
    Ok(Renewed { before: identity.generation, generation: renewed.generation })
}

#[cfg(test)]
mod tests {
    use robustmq_common::ids::CloudGeneration;

    use super::{Renewed, StoreIdentity, renew};
    use crate::store::{MemoryStore, StoreError};

    /// As numbers, `jq` and JavaScript showed another generation than the log.
    #[test]
    fn generations_are_exact_in_json() {
        let renewed = Renewed {
            before: CloudGeneration((1 << 53) + 1),
            generation: CloudGeneration(u64::MAX),
        };
        let json = serde_json::to_string(&renewed).expect("text");
        assert_eq!(json, r#"{"before":"9007199254740993","generation":"18446744073709551615"}"#);
    }

    #[tokio::test]
    async fn only_a_store_that_has_an_identity_gets_another_one() {
        let store = MemoryStore::new();
        let refused = renew(&store).await;
        assert!(matches!(refused, Err(StoreError::Open { .. })), "{refused:?}");
        assert_eq!(StoreIdentity::load(&store).await, Ok(None), "nothing was made");

        let first = StoreIdentity::load_or_create(&store, CloudGeneration(1)).await;
        let renewed = renew(&store).await.expect("renewed");
        assert_eq!(renewed.before, first.expect("created").generation);
        assert_ne!(renewed.generation, renewed.before);
        let found = StoreIdentity::load(&store).await.expect("readable").expect("there");
        assert_eq!(found.generation, renewed.generation);
    }
}
