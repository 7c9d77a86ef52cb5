//! An S3 server in memory over the files of a directory, that answers as late as a real one.
#![expect(clippy::print_stdout, reason = "a command-line program reports on standard output")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use robustmq_tests::s3::{FakeS3, Faults, Latency};

/// Serves a directory's files as objects until interrupted, with a store's latency and a link's bandwidth. Nothing is written to the files.
///
/// Prints the environment of a broker that uses it. Example: slow_s3 --directory /data/photos --bucket photos --link-megabytes 400
#[derive(Parser)]
struct Arguments {
    /// The directory whose files are read into memory; those of its directories too
    #[arg(long)]
    directory: PathBuf,
    /// The bucket they are in
    #[arg(long, default_value = "data")]
    bucket: String,
    /// Milliseconds that every answer takes at least
    #[arg(long, default_value_t = 100)]
    least_ms: u64,
    /// Milliseconds on top, in the median
    #[arg(long, default_value_t = 50)]
    median_ms: u64,
    /// The share of answers, of 1, that take ten times as much on top
    #[arg(long, default_value_t = 0.01)]
    tail: f64,
    /// What all answers together get through the link, in MB/s; 0 is no limit
    #[arg(long, default_value_t = 0)]
    link_megabytes: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let s3 = FakeS3::start(1).await?;
    s3.create_bucket(&arguments.bucket);
    let (mut objects, mut bytes) = (0, 0);
    for path in files(&arguments.directory)? {
        let key = path.strip_prefix(&arguments.directory)?.to_str().context("no name in UTF-8")?;
        let content = std::fs::read(&path).with_context(|| path.display().to_string())?;
        (objects, bytes) = (objects + 1, bytes + content.len());
        s3.put(&arguments.bucket, key, content.into());
    }
    let latency = Latency {
        least: Duration::from_millis(arguments.least_ms),
        median: Duration::from_millis(arguments.median_ms),
        tail: arguments.tail,
        tail_factor: 10.0,
    };
    let bytes_a_second = arguments.link_megabytes.saturating_mul(1_000_000);
    s3.set_faults(Faults { latency, bytes_a_second, ..Faults::default() });
    for (name, value) in s3.environment() {
        println!("export {name}={value}");
    }
    println!("# s3://{}/: {objects} objects, {bytes} bytes; Ctrl-C ends", arguments.bucket);
    tokio::signal::ctrl_c().await?;
    println!("# {} bytes were given out", s3.given_bytes());
    Ok(())
}

/// The files below a directory, by name.
fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = std::fs::read_dir(&directory);
        for entry in entries.with_context(|| directory.display().to_string())? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => directories.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}
