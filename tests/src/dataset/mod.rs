//! Datasets as people in each format have them, made from a seed, and the account of what readers were given of them.
//!
//! **Invariant:** the same shape gives the same bytes, file by file.
//! **Invariant:** no two samples have the same value, so that a value says which sample it is.

pub mod account;
mod lines;
mod parquet;
pub mod tar;
mod tfrecord;

use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use xxhash_rust::xxh3::xxh3_64;

use crate::s3::FakeS3;

/// How files hold samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Tars with a `.cls` and a `.jpg` for each sample, as WebDataset's writer makes them.
    WebDataset,
    /// A JSON object a line.
    JsonLines(Coding),
    /// A sample a row.
    Parquet,
    /// TensorFlow's records.
    TfRecord,
    /// A file is a sample. There is one in each.
    Objects,
}

/// How lines are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// They are not.
    Plain,
    /// Two gzip members, one after the other.
    Gzip,
    /// Two zstd frames, one after the other.
    Zstd,
}

/// How large a dataset is.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Of all that is random.
    pub seed: u64,
    /// Files.
    pub files: usize,
    /// Samples of each file.
    pub samples: usize,
    /// Bytes of a value; lines are a little longer. At least 16, so that no two are the same.
    pub sample_bytes: usize,
}

/// What a reader has to be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The record's key, where the format has one.
    pub key: Option<String>,
    /// XXH3 of the record's value.
    pub hash: u64,
    /// Bytes of the value.
    pub bytes: usize,
    /// The sample's other parts, which are headers: names and XXH3 of their bytes.
    pub members: Vec<(String, u64)>,
    /// Index of its file.
    pub file: usize,
}

/// One file.
#[derive(Debug, Clone)]
pub struct File {
    /// Below the prefix.
    pub name: String,
    /// Its content.
    pub bytes: Bytes,
}

/// A dataset. Files are in the order in which they are listed, samples in the order of files.
#[derive(Debug, Clone, Default)]
pub struct Dataset {
    /// Its files.
    pub files: Vec<File>,
    /// Its samples.
    pub samples: Vec<Sample>,
}

/// A file that is being written, and the samples that are in it.
struct Writing {
    file: usize,
    rng: SmallRng,
    samples: Vec<Sample>,
}

impl Writing {
    /// Random bytes.
    fn noise(&mut self, bytes: usize) -> Vec<u8> {
        let mut noise = vec![0; bytes];
        self.rng.fill_bytes(&mut noise);
        noise
    }

    /// Random letters, one of sixteen each.
    fn letters(&mut self, count: usize) -> String {
        self.noise(count).iter().map(|byte| char::from(b'a' + byte % 16)).collect()
    }

    fn sample(&mut self, key: Option<String>, value: &[u8], members: Vec<(String, u64)>) {
        let (hash, bytes) = (hash(value), value.len());
        self.samples.push(Sample { key, hash, bytes, members, file: self.file });
    }
}

/// What says which bytes they are.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

impl Dataset {
    /// Makes one.
    #[must_use]
    pub fn make(kind: Kind, shape: &Shape) -> Self {
        let mut dataset = Self::default();
        for file in 0..shape.files {
            // Files do not depend on each other, so that more of them leave the first ones as they are.
            let seed = hash(&[shape.seed.to_be_bytes(), (file as u64).to_be_bytes()].concat());
            let rng = SmallRng::seed_from_u64(seed);
            let mut writing = Writing { file, rng, samples: Vec::new() };
            let (extension, bytes) = match kind {
                Kind::WebDataset => ("tar", tar::web_dataset(&mut writing, shape)),
                Kind::JsonLines(coding) => lines::json_lines(&mut writing, shape, coding),
                Kind::Parquet => ("parquet", parquet::rows(&mut writing, shape)),
                Kind::TfRecord => ("tfrecord", tfrecord::records(&mut writing, shape)),
                Kind::Objects => ("bin", writing.noise(shape.sample_bytes)),
            };
            let name = format!("shard-{file:06}.{extension}");
            if kind == Kind::Objects {
                writing.sample(Some(name.clone()), &bytes, Vec::new());
            }
            dataset.samples.append(&mut writing.samples);
            dataset.files.push(File { name, bytes: bytes.into() });
        }
        dataset
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes.len() as u64).sum()
    }

    /// Bytes of what is in them, which may be compressed.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        let samples: u64 = self.samples.iter().map(|sample| sample.bytes as u64 + 1).sum();
        self.bytes().max(samples)
    }

    /// Puts the files below `prefix`, which ends with a slash. Nothing is copied.
    pub fn put(&self, s3: &FakeS3, bucket: &str, prefix: &str) {
        for file in &self.files {
            s3.put(bucket, &format!("{prefix}{}", file.name), file.bytes.clone());
        }
    }

    /// Writes the files into a directory, which is created if it is not there.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, directory: &Path) -> anyhow::Result<()> {
        let shown = directory.display();
        std::fs::create_dir_all(directory).with_context(|| format!("create {shown}"))?;
        for File { name, bytes } in &self.files {
            let written = std::fs::write(directory.join(name), bytes);
            written.with_context(|| format!("write {name} to {shown}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
