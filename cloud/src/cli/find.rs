//! `robustmq-cloud dataset find`: step by step, as the admin listener searches.

use std::io::{IsTerminal as _, Write as _};

use clap::Args;
use reqwest::{Client, Method, Url};
use robustmq_common::cli::complain;
use serde_json::Value;

use super::CommandError;
use super::edge::Admin;
use super::snapshots::{call, json, number, url};
use super::table::print_listing;
use super::units::{bytes, counted};

#[derive(Args)]
pub(super) struct Find {
    /// The topic
    topic: String,
    /// The sample's key: its name with its folders, or the name of the object that is the sample
    #[arg(long)]
    key: String,
    /// The epoch, counted from 0
    #[arg(long, default_value_t = 0)]
    epoch: u32,
    /// The object that it is in, below the source's prefix: nothing else is searched
    #[arg(long, value_name = "NAME")]
    object: Option<String>,
    /// Search to the end, also when some were found
    #[arg(long)]
    all: bool,
    /// Stop when so much was looked through, with the extent (1 to 8 MB) that it ends in
    #[arg(long, value_name = "MB")]
    limit_mb: Option<u64>,
    /// Go on where a search was stopped, as it said: OBJECT.EXTENT
    #[arg(long, value_name = "PLACE")]
    after: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: Admin,
}

const HEADING: [&str; 5] = ["PARTITION", "OFFSET", "EPOCH", "OBJECT", "NOTE"];

/// What the steps have come to.
#[derive(Default)]
struct Sum {
    matches: Vec<Value>,
    bytes: u64,
    searched: u64,
    uncounted: u64,
    keyless: u64,
    unreadable: Vec<String>,
}

pub(super) async fn run(client: &Client, args: Find) -> Result<(), CommandError> {
    let is_terminal = std::io::stderr().is_terminal();
    let (mut sum, mut after) = (Sum::default(), args.after.clone());
    let stopped = loop {
        let url = asked(&args, after.as_deref(), sum.left_bytes(&args))?;
        let found = json(call(client, Method::GET, url).await?).await?;
        sum.add(&found);
        let next = found.get("next").and_then(Value::as_str).map(str::to_owned);
        if is_terminal {
            let (objects, at) = (number(&found, "objects"), next.as_deref().unwrap_or("the end"));
            let megabytes = sum.bytes / 1_000_000;
            // A terminal that is gone is no reason to stop.
            let _ =
                write!(std::io::stderr(), "\r{megabytes} MB, at {at} of {objects} objects\x1b[K");
        }
        let is_enough = !args.all && !sum.matches.is_empty();
        if next.is_none() || is_enough {
            break None;
        }
        if sum.left_bytes(&args) == Some(0) {
            break next;
        }
        after = next;
    };
    if is_terminal {
        let _ = writeln!(std::io::stderr());
    }
    for reason in &sum.unreadable {
        complain("robustmq-cloud", &format!("warning: not searched: {reason}"));
    }
    if sum.matches.is_empty() {
        return Err(CommandError::Failed(sum.nothing(&args, stopped.as_deref())));
    }
    if let Some(passed_over) = sum.passed_over(&args.topic).filter(|_| args.all) {
        complain("robustmq-cloud", &format!("warning: {passed_over}"));
    }
    if let Some(after) = stopped {
        complain("robustmq-cloud", &sum.stopped(&after));
    }
    print_listing(args.json, &sum.matches, &HEADING, row)
}

fn asked(args: &Find, after: Option<&str>, bytes: Option<u64>) -> Result<Url, CommandError> {
    let mut url = url(&args.admin, &["datasets", &args.topic, "find"])?;
    let mut query = url.query_pairs_mut();
    query.append_pair("key", &args.key).append_pair("epoch", &args.epoch.to_string());
    let limit = bytes.map(|bytes| bytes.to_string());
    let further =
        [("object", args.object.as_deref()), ("after", after), ("limit_bytes", limit.as_deref())];
    for (name, value) in further {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    drop(query);
    Ok(url)
}

fn row(found: &Value) -> Vec<String> {
    let text = |key| found.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let offset = found.get("offset").and_then(Value::as_i64);
    let offset = offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
    let count = |key| number(found, key).to_string();
    vec![count("partition"), offset, count("epoch"), text("object"), text("note")]
}

impl Sum {
    fn add(&mut self, found: &Value) {
        let list = |key| found.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        self.matches.extend(list("matches"));
        self.bytes += number(found, "searched_bytes");
        self.searched += number(found, "searched_objects");
        self.uncounted += number(found, "uncounted_objects");
        self.keyless += number(found, "keyless_objects");
        for reason in list("unreadable").iter().filter_map(Value::as_str) {
            if !self.unreadable.iter().any(|listed| listed == reason) {
                self.unreadable.push(reason.to_owned());
            }
        }
    }

    /// How much may still be looked through.
    fn left_bytes(&self, args: &Find) -> Option<u64> {
        Some(args.limit_mb?.saturating_mul(1_000_000).saturating_sub(self.bytes))
    }

    /// That the limit was met, and where to go on.
    fn stopped(&self, after: &str) -> String {
        format!("stopped by --limit-mb after {}: --after {after} goes on", bytes(self.bytes))
    }

    /// What to say of objects that were not looked through, or were in part.
    fn passed_over(&self, topic: &str) -> Option<String> {
        let objects = counted(self.uncounted, "object");
        (self.uncounted > 0).then(|| {
            format!(
                "{objects} passed over, not counted in it: readers have not come near (robustmq.source.index=eager counts all), or the log ends before (`robustmq-cloud dataset status {topic}`)"
            )
        })
    }

    /// What to say where nothing was found.
    fn nothing(&self, args: &Find, stopped: Option<&str>) -> String {
        let Find { topic, key, epoch, .. } = args;
        let mut said =
            format!("no sample {key:?} in {} objects of {topic}, epoch {epoch}", self.searched);
        if let Some(after) = &args.after {
            said.push_str(&format!(", after {after}"));
        }
        if let Some(passed_over) = self.passed_over(topic) {
            said.push_str(&format!("; {passed_over}"));
        }
        if self.keyless > 0 {
            said.push_str(&format!("; records of {} objects have no keys", self.keyless));
        }
        if let Some(after) = stopped {
            said.push_str(&format!("; {}", self.stopped(after)));
        }
        said
    }
}
