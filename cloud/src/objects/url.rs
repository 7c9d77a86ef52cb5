//! Where an object store is, as people write it: `s3://bucket/prefix` or `file:///dir`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A place in an object store. What it displays is what it was read from, but for slashes at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ObjectStoreUrl {
    /// Everything under a prefix of a bucket.
    S3 {
        /// The bucket.
        bucket: String,
        /// Without slashes at its ends; may be empty.
        prefix: String,
    },
    /// A directory, absolute.
    File {
        /// The directory.
        dir: PathBuf,
    },
}

impl FromStr for ObjectStoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix = prefix.trim_end_matches('/');
            check_bucket(bucket)
                .and_then(|()| check_prefix(prefix))
                .map_err(|why| format!("{text:?}: {why}"))?;
            return Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() });
        }
        if let Some(path) = text.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(format!(
                    "{text:?} names no absolute directory: write file:///DIR, with three slashes"
                ));
            }
            let dir = path.trim_end_matches('/');
            if dir.is_empty() {
                return Err(format!("{text:?} is the root of the file system: name a directory"));
            }
            return Ok(Self::File { dir: PathBuf::from(dir) });
        }
        Err(format!("{text:?} is neither s3://BUCKET/PREFIX nor file:///DIR"))
    }
}

fn check_bucket(bucket: &str) -> Result<(), String> {
    let legal =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if (3..=63).contains(&bucket.len())
        && bucket.chars().all(legal)
        && bucket.starts_with(ends)
        && bucket.ends_with(ends)
    {
        return Ok(());
    }
    Err(format!("{bucket:?} is no bucket's name: 3 to 63 of a-z, 0-9, '.', '-' and '_'"))
}

fn check_prefix(prefix: &str) -> Result<(), String> {
    if prefix.is_empty() {
        return Ok(());
    }
    let legal = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '%' | '\\' | '*');
    let broken =
        |part: &str| part.is_empty() || part == "." || part == ".." || !part.chars().all(legal);
    match prefix.split('/').find(|part| broken(part)) {
        Some(part) => Err(format!("{part:?} cannot be a part of the prefix")),
        None => Ok(()),
    }
}

impl fmt::Display for ObjectStoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::File { dir } => write!(f, "file://{}", dir.display()),
        }
    }
}

impl TryFrom<String> for ObjectStoreUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ObjectStoreUrl> for String {
    fn from(url: ObjectStoreUrl) -> Self {
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::ObjectStoreUrl;

    #[test]
    fn urls_are_read_and_shown() {
        let check = |text: &str, shown: &str| {
            let url: ObjectStoreUrl = text.parse().expect(text);
            assert_eq!(url.to_string(), shown);
            assert_eq!(shown.parse(), Ok(url));
        };
        check("s3://bucket", "s3://bucket");
        check("s3://bucket/", "s3://bucket");
        check("s3://my.bucket-1/a/b/", "s3://my.bucket-1/a/b");
        check("file:///var/lib/x", "file:///var/lib/x");
        check("file:///x/", "file:///x");
    }

    #[test]
    fn what_names_no_place_is_refused_with_what_would() {
        let check = |text: &str, said: &str| {
            let why = text.parse::<ObjectStoreUrl>().expect_err(text);
            assert!(why.contains(said), "{why}");
        };
        check("", "s3://BUCKET/PREFIX");
        check("/var/lib", "file:///DIR");
        check("S3://bucket", "s3://BUCKET");
        check("gs://bucket", "s3://BUCKET");
        check("file://dir", "three slashes");
        check("file:///", "root");
        check("s3://", "3 to 63");
        check("s3://Bucket/x", "3 to 63");
        check("s3://key:secret@bucket/x", "3 to 63");
        check("s3://bucket//x", "part of the prefix");
        check("s3://bucket/a/../b", "part of the prefix");
        check("s3://bucket/a?x=1", "part of the prefix");
    }
}
