//! `robustmq-cloud dataset`, through the admin listener of the running broker.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

use super::edge::{Admin, admin_client, good};
use super::snapshots::{call, json, number, url};
use super::status::shown;
use super::units::{bytes, counted, grouped, parsed_bytes};
use super::{CommandError, print, print_json};

#[derive(Args)]
pub(super) struct Dataset {
    #[command(subcommand)]
    command: DatasetCommand,
}

#[derive(Subcommand)]
enum DatasetCommand {
    /// Show what is known of a topic with a source, and what the cache did for it
    #[command(after_help = "Example:\n  robustmq-cloud dataset status images --json")]
    Status {
        /// The topic
        topic: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: Admin,
    },
    /// List a topic's source again: what is new is in the epochs that begin from now on
    #[command(after_help = "Example:\n  robustmq-cloud dataset refresh images")]
    Refresh {
        /// The topic
        topic: String,
        #[command(flatten)]
        admin: Admin,
    },
    /// Find the partition and the offset of a sample by its key
    ///
    /// Where each object is a sample it is found at once. In archives, what is counted is looked through, out of the cache or from the source, until a
    /// sample with the key is found.
    #[command(
        after_help = "Examples:\n  robustmq-cloud dataset find images --key train/n01440764_10026\n  robustmq-cloud dataset find images --key train/n01440764_10026 --object train-0003.tar --epoch 2 --json"
    )]
    Find(super::find::Find),
    /// Bring a topic into the cache before anybody reads it, as much of it as the cache takes
    #[command(after_help = "Example:\n  robustmq-cloud dataset warm images")]
    Warm {
        /// The topic
        topic: String,
        /// Do not wait until it is done
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        admin: Admin,
    },
    /// Show what caches may take of memory, or change it until the broker is started again
    #[command(
        after_help = "Examples:\n  robustmq-cloud dataset cache\n  robustmq-cloud dataset cache --memory-bytes 8GiB"
    )]
    Cache {
        /// What extents of datasets and blocks of archived records may take from now on, together: bytes, or with a unit (64MiB, 8GB); at least 32MiB
        #[arg(long, value_name = "SIZE", value_parser = parsed_bytes)]
        memory_bytes: Option<u64>,
        #[command(flatten)]
        admin: Admin,
    },
}

/// How long a source may take to be listed: a million objects are a thousand pages.
pub(super) const LISTING: Duration = Duration::from_secs(3600);

/// How often a topic that is being brought into the cache is asked about.
const LOOK: Duration = Duration::from_millis(250);

/// How often it is told where there is no terminal.
const TOLD: Duration = Duration::from_secs(5);

pub(super) async fn run(args: Dataset) -> Result<(), CommandError> {
    let client = admin_client()?;
    match args.command {
        DatasetCommand::Status { topic, json: as_json, admin } => {
            let status = status(&client, &admin, &topic).await?;
            match as_json {
                true => print_json(&status)?,
                false => print(&shown(&status)),
            }
            Ok(())
        }
        DatasetCommand::Refresh { topic, admin } => {
            let done = refresh(&client, &admin, &topic).await?;
            let (added, all) = (number(&done, "added_objects"), number(&done, "objects"));
            print(&format!(
                "{topic}: {} added, {} in all\n",
                counted(added, "object"),
                grouped(all)
            ));
            print(&missing(&done));
            Ok(())
        }
        DatasetCommand::Find(args) => super::find::run(&client, args).await,
        DatasetCommand::Warm { topic, no_wait, admin } => {
            call(&client, Method::POST, url(&admin, &["datasets", &topic, "warm"])?).await?;
            match no_wait {
                true => {
                    print(&format!(
                        "{topic} is being brought into the cache: `robustmq-cloud dataset status {topic}` says how far it is\n"
                    ));
                    Ok(())
                }
                false => follow(&client, &admin, &topic).await,
            }
        }
        DatasetCommand::Cache { memory_bytes, admin } => {
            let url = url(&admin, &["cache"])?;
            let answer = match memory_bytes {
                None => call(&client, Method::GET, url).await?,
                Some(memory_bytes) => {
                    let new = serde_json::json!({ "memory_bytes": memory_bytes });
                    good(client.put(url).json(&new).send().await).await?
                }
            };
            print(&caches(&json(answer).await?));
            Ok(())
        }
    }
}

/// What caches may take, and who takes it.
fn caches(shown: &Value) -> String {
    let of = |name| bytes(number(shown, name));
    format!(
        "{} in all; archived blocks take {}, decoders and tables {}, extents {} of {} that they may take\n",
        of("memory_bytes"),
        of("archived_bytes"),
        of("decoding_bytes"),
        of("extents_bytes"),
        of("extents_budget_bytes")
    )
}

/// Has a source listed again, and waits until it is.
async fn refresh(client: &Client, admin: &Admin, topic: &str) -> Result<Value, CommandError> {
    let url = url(admin, &["datasets", topic, "refresh"])?;
    let listed = async {
        let mut answer = call(client, Method::POST, url.clone()).await?;
        // It goes on, and each of these waits for it for a while.
        while answer.status() == StatusCode::ACCEPTED {
            answer = call(client, Method::GET, url.clone()).await?;
        }
        json(answer).await
    };
    let too_long = |_| {
        CommandError::Failed(format!(
            "{topic} is still being listed after an hour, and goes on: `robustmq-cloud dataset status {topic}` says when it is over"
        ))
    };
    tokio::time::timeout(LISTING, listed).await.map_err(too_long)?
}

/// The objects that a refresh did not find any more.
fn missing(refreshed: &Value) -> String {
    let all = number(refreshed, "missing_objects");
    if all == 0 {
        return String::new();
    }
    let named = refreshed.get("missing").and_then(Value::as_array).cloned().unwrap_or_default();
    let names: Vec<&str> = named.iter().filter_map(Value::as_str).collect();
    let more = all.saturating_sub(names.len() as u64);
    let more = if more > 0 { format!(" and {} more", grouped(more)) } else { String::new() };
    let all = counted(all, "object");
    let uncounted = refreshed.get("uncounted").and_then(Value::as_array);
    let uncounted: Vec<&str> = uncounted.into_iter().flatten().filter_map(Value::as_str).collect();
    let ends = match uncounted.is_empty() {
        true => String::new(),
        false => format!(
            "not counted before: {}: it is left out, or the topic ends there (robustmq.source.on.corrupt, dataset status), until it is put back as it was\n",
            uncounted.join(", ")
        ),
    };
    format!("gone, though listed before: {all}: {}{more}\n{ends}", names.join(", "))
}

async fn status(client: &Client, admin: &Admin, topic: &str) -> Result<Value, CommandError> {
    json(call(client, Method::GET, url(admin, &["datasets", topic])?).await?).await
}

/// Shows how far it is until it is done.
async fn follow(client: &Client, admin: &Admin, topic: &str) -> Result<(), CommandError> {
    let is_terminal = std::io::stderr().is_terminal();
    let mut told = Instant::now();
    loop {
        let status = status(client, admin, topic).await?;
        let warming = status.get("warming").cloned().unwrap_or_default();
        let (done, all) = (number(&warming, "done_bytes"), number(&status, "bytes").max(1));
        let is_running = warming.get("is_running").and_then(Value::as_bool).unwrap_or_default();
        let percent = (u128::from(done) * 100 / u128::from(all)).min(100);
        if is_terminal {
            let full = usize::try_from(percent).unwrap_or(100) * 40 / 100;
            let bar = "#".repeat(full) + &".".repeat(40 - full);
            // A terminal that is gone is no reason to stop.
            let _ = write!(std::io::stderr(), "\r[{bar}] {percent:>3} %, {} MB", done / 1_000_000);
        } else if is_running && told.elapsed() >= TOLD {
            told = Instant::now();
            let _ =
                writeln!(std::io::stderr(), "{topic}: {percent} %, {} gone through", bytes(done));
        }
        if !is_running {
            if is_terminal {
                let _ = writeln!(std::io::stderr());
            }
            print(&warmed(topic, &status));
            return match warming.get("error").and_then(Value::as_str) {
                Some(trouble) => Err(CommandError::Failed(trouble.to_owned())),
                None => Ok(()),
            };
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What is in the cache when it is over.
fn warmed(topic: &str, status: &Value) -> String {
    let nothing = Value::Null;
    let of = |key| status.get(key).unwrap_or(&nothing);
    let done = number(of("warming"), "done_bytes");
    let (own, all) = (of("cache"), of("cache_total"));
    format!(
        "{topic}: {} gone through; of it {} stay in memory, {} on SSD; the cache holds {} and {} of all topics\n",
        bytes(done),
        bytes(number(own, "resident_bytes")),
        bytes(number(own, "ssd_bytes")),
        bytes(number(all, "memory_bytes")),
        bytes(number(all, "ssd_bytes"))
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{caches, missing, warmed};

    /// It was about the whole cache, as if all of it were the topic's.
    #[test]
    fn what_was_brought_into_the_cache_is_told_of_the_topic() {
        let status = json!({
            "warming": {"done_bytes": 5_000_000}, "cache": {"resident_bytes": 3_000_000, "ssd_bytes": 1_000_000},
            "cache_total": {"memory_bytes": 9_000_000, "ssd_bytes": 2_000_000},
        });
        let expected = "images: 5.0 MB gone through; of it 3.0 MB stay in memory, 1.0 MB on SSD; the cache holds 9.0 MB and 2.0 MB of all topics\n";
        assert_eq!(warmed("images", &status), expected);
    }

    #[test]
    fn objects_that_are_gone_are_named() {
        assert_eq!(missing(&json!({"missing_objects": 0, "missing": []})), "");
        let some = json!({"missing_objects": 3, "missing": ["a.tar", "b.tar"]});
        assert_eq!(
            missing(&some),
            "gone, though listed before: 3 objects: a.tar, b.tar and 1 more\n"
        );
        let one = json!({"missing_objects": 1, "missing": ["a.tar"], "uncounted": ["a.tar"]});
        assert_eq!(
            missing(&one),
            "gone, though listed before: 1 object: a.tar\nnot counted before: a.tar: it is left out, or the topic ends there (robustmq.source.on.corrupt, dataset status), until it is put back as it was\n"
        );
    }

    #[test]
    fn caches_are_shown_with_who_takes_what() {
        let shown = json!({"memory_bytes": 8_000_000_000_u64, "archived_bytes": 1_500_000, "decoding_bytes": 0, "extents_bytes": 2_000_000, "extents_budget_bytes": 7_998_500_000_u64});
        let expected = "8.0 GB in all; archived blocks take 1.5 MB, decoders and tables 0 B, extents 2.0 MB of 7.9 GB that they may take\n";
        assert_eq!(caches(&shown), expected);
    }
}
