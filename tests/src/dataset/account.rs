//! Whether readers were given each sample, whole, once in each epoch.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::{Context, ensure};

use super::{Dataset, Sample, hash};

/// What a record says that it is.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: &'a [u8],
    /// Its headers, in order.
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// Where a record belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// As its header says.
    pub epoch: u64,
    /// Index of the sample.
    pub sample: usize,
}

/// The samples of a dataset, to be found by their values. It does not change, so that threads share it.
pub struct Catalogue {
    dataset: Arc<Dataset>,
    by_hash: HashMap<u64, usize>,
}

impl Catalogue {
    /// Of this dataset.
    ///
    /// # Errors
    /// When two samples have the same value.
    pub fn of(dataset: Arc<Dataset>) -> anyhow::Result<Self> {
        let hashes = dataset.samples.iter().map(|sample| sample.hash);
        let by_hash: HashMap<u64, usize> = hashes.zip(0..).collect();
        ensure!(by_hash.len() == dataset.samples.len(), "two samples have the same value");
        Ok(Self { dataset, by_hash })
    }

    /// The dataset.
    #[must_use]
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// The sample with this value.
    ///
    /// # Errors
    /// When there is none.
    pub fn sample(&self, value: &[u8]) -> anyhow::Result<(usize, &Sample)> {
        let found = self.by_hash.get(&hash(value)).copied();
        let index = found.with_context(|| format!("{} bytes are no sample's", value.len()))?;
        let sample = self.dataset.samples.get(index).context("an index of the dataset")?;
        ensure!(sample.bytes == value.len(), "{} bytes are no sample's", value.len());
        Ok((index, sample))
    }

    /// Where a record belongs: its value has to be a sample's, and its key, headers and object those of the same sample.
    ///
    /// # Errors
    /// When it is not one.
    pub fn place(&self, record: &Record<'_>) -> anyhow::Result<Place> {
        let key = record.key.map(String::from_utf8_lossy);
        let shown = || key.as_deref().unwrap_or("no key").to_owned();
        let (index, sample) = self.sample(record.value).with_context(shown)?;
        if let Some(wanted) = &sample.key {
            ensure!(key.as_deref() == Some(wanted), "{wanted} came with the key {}", shown());
        }
        let header = |name: &str| {
            let found = record.headers.iter().find(|(found, _)| *found == name);
            found.map(|(_, value)| *value).with_context(|| format!("{}: no {name}", shown()))
        };
        for (name, wanted) in &sample.members {
            ensure!(hash(header(name)?) == *wanted, "{}: {name} has other bytes", shown());
        }
        let object = String::from_utf8_lossy(header("robustmq.object")?);
        let file = &self.dataset.files.get(sample.file).context("a file of the dataset")?.name;
        ensure!(object.ends_with(file.as_str()), "{} of {file} came as of {object}", shown());
        let epoch = String::from_utf8_lossy(header("robustmq.epoch")?);
        let epoch = epoch.parse().with_context(|| format!("{}: epoch {epoch:?}", shown()))?;
        Ok(Place { epoch, sample: index })
    }
}

/// What came.
#[derive(Debug, Default)]
pub struct Account {
    epochs: BTreeMap<u64, Vec<bool>>,
}

impl Account {
    /// Enters a record.
    ///
    /// # Errors
    /// When it has come before.
    pub fn enter(&mut self, catalogue: &Catalogue, place: Place) -> anyhow::Result<()> {
        let samples = catalogue.dataset().samples.len();
        let came = self.epochs.entry(place.epoch).or_insert_with(|| vec![false; samples]);
        let came = came.get_mut(place.sample).context("a sample of the dataset")?;
        let Place { epoch, sample } = place;
        ensure!(!*came, "sample {sample} came twice in epoch {epoch}");
        *came = true;
        Ok(())
    }

    /// What came to another reader of the same log.
    ///
    /// # Errors
    /// When something came to both.
    pub fn add(&mut self, catalogue: &Catalogue, other: &Self) -> anyhow::Result<()> {
        for (epoch, came) in &other.epochs {
            let samples = (0..).zip(came).filter(|(_, came)| **came).map(|(sample, _)| sample);
            for sample in samples {
                self.enter(catalogue, Place { epoch: *epoch, sample })?;
            }
        }
        Ok(())
    }

    /// Whether so many epochs are complete, and nothing is there of another.
    ///
    /// # Errors
    /// Names what is missing.
    pub fn check_complete(&self, epochs: u64) -> anyhow::Result<()> {
        let numbers: Vec<u64> = self.epochs.keys().copied().collect();
        let first = numbers.first().copied().unwrap_or_default();
        let wanted: Vec<u64> = (first..first + epochs).collect();
        ensure!(numbers == wanted, "epochs {numbers:?} came, of {epochs}");
        for (epoch, came) in &self.epochs {
            let missing: Vec<usize> =
                (0..).zip(came).filter(|(_, came)| !**came).map(|(sample, _)| sample).collect();
            let some = &missing[..missing.len().min(10)];
            let count = missing.len();
            ensure!(count == 0, "{count} samples are missing in epoch {epoch}, as {some:?}");
        }
        Ok(())
    }
}
