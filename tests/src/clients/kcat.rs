//! kcat (librdkafka): reads whole topics.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;

const READ: Duration = Duration::from_secs(180);
/// Sizes come first, so that key and value may be any bytes. kcat gives no size for headers: they have a line of their own, and
/// what the system writes there has no line breaks.
const FORMAT: &str = "%p %o %K %S\n%k%s\n%h\n";

/// kcat as the system has it: cargo's library path would give it the librdkafka that the benchmarks are built with, which has fewer
/// codecs.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new("kcat");
    command.env_remove("LD_LIBRARY_PATH");
    command
}

/// One record as kcat printed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub headers: Vec<(String, String)>,
}

impl Record {
    /// One with a key and a value only.
    #[must_use]
    pub fn of(key: &[u8], value: &[u8]) -> Self {
        Self { key: key.to_vec(), value: value.to_vec(), ..Self::default() }
    }

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// All records of `topic`, partition by partition in offset order, up to the present end of the log.
///
/// # Errors
/// When kcat fails or prints what it should not.
pub async fn read_all(kafka: &str, topic: &str) -> anyhow::Result<Vec<Record>> {
    let arguments =
        ["-C", "-b", kafka, "-t", topic, "-o", "beginning", "-e", "-q", "-X", "check.crcs=true"];
    let mut records = parse(&run(&[&arguments[..], &["-f", FORMAT]].concat()).await?)?;
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}

/// The names of all topics.
///
/// # Errors
/// When kcat fails.
pub async fn topics(kafka: &str) -> anyhow::Result<Vec<String>> {
    let listing: serde_json::Value =
        serde_json::from_slice(&run(&["-L", "-J", "-b", kafka]).await?)?;
    let topics = listing["topics"].as_array().context("kcat -L -J lists topics")?;
    Ok(topics.iter().filter_map(|topic| Some(topic["topic"].as_str()?.to_owned())).collect())
}

/// Runs kcat with these arguments and gives its standard output.
///
/// # Errors
/// When it fails or takes too long, with what it said.
pub async fn run(arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let child = command()
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start kcat (scripts/setup installs it)")?;
    let output = tokio::time::timeout(READ, child.wait_with_output())
        .await
        .with_context(|| format!("kcat {arguments:?} did not end after {READ:?}"))??;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kcat {arguments:?}: {}: {said}", output.status);
    Ok(output.stdout)
}

fn parse(mut output: &[u8]) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    while !output.is_empty() {
        let mut numbers =
            std::str::from_utf8(line(&mut output)?)?.split(' ').map(str::parse::<i64>);
        let mut number = || numbers.next().context("four numbers")?.context("a number");
        let (partition, offset, key, value) = (number()?, number()?, number()?, number()?);
        // kcat gives -1 as the size of null.
        let key = take(&mut output, key.max(0))?.to_vec();
        let value = take(&mut output, value.max(0))?.to_vec();
        ensure!(line(&mut output)?.is_empty(), "kcat printed more than the sizes that it gave");
        let headers = std::str::from_utf8(line(&mut output)?)?;
        let headers = headers.split(',').filter_map(|header| header.split_once('='));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        records.push(Record { partition: i32::try_from(partition)?, offset, key, value, headers });
    }
    Ok(records)
}

fn line<'a>(output: &mut &'a [u8]) -> anyhow::Result<&'a [u8]> {
    let end = output.iter().position(|byte| *byte == b'\n').context("kcat ended within a line")?;
    let (line, rest) = output.split_at(end);
    *output = &rest[1..];
    Ok(line)
}

fn take<'a>(output: &mut &'a [u8], count: i64) -> anyhow::Result<&'a [u8]> {
    let (bytes, rest) =
        output.split_at_checked(usize::try_from(count)?).context("kcat ended within a record")?;
    *output = rest;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_in_key_and_value_are_read_back() {
        let printed = b"0 7 1 4\nk\n\0 x\na=1,b=two\n1 0 -1 0\n\n\n";
        let records = parse(printed).unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!((records[0].partition, records[0].offset), (0, 7));
        assert_eq!(
            (records[0].key.as_slice(), records[0].value.as_slice()),
            (&b"k"[..], &b"\n\0 x"[..])
        );
        assert_eq!(records[0].header("b"), Some("two"));
        assert_eq!((records[1].partition, records[1].key.len()), (1, 0));
        assert!(parse(b"0 7 1 400\nk").is_err());
    }
}
