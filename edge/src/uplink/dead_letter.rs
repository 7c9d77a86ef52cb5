//! Records that the cloud will never take, kept for a person to look at.
//!
//! `dead-letter.jsonl`: one JSON object a line; when it has grown to half the limit it becomes `dead-letter.old.jsonl`, so the two
//! together stay below the limit. A crash between keeping a letter and telling the cloud so keeps it twice: incarnation, lane
//! and sequence name it.
//!
//! **Invariant:** what is reported is what the files hold, also of earlier runs; who has dealt with the letters removes the
//! files, and nothing is reported any more.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use robustmq_common::ids::{EdgeSeq, Incarnation, LaneId};
use robustmq_common::limits;
use robustmq_common::sync::{EdgeRecord, RejectReason};
use serde::{Deserialize, Serialize};

/// A record that was rejected for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The incarnation that it was sent under.
    pub incarnation: Incarnation,
    /// Its lane.
    pub lane: LaneId,
    /// Its sequence.
    pub seq: EdgeSeq,
    /// Why the cloud does not take it.
    pub reason: RejectReason,
    /// Its encoded body; `None` if the queue cannot give it any more.
    pub body: Option<Bytes>,
}

/// Keeps dead letters.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// Keeps `letters`; they are durable when this returns.
    ///
    /// # Errors
    /// What the disk says.
    async fn keep(&self, letters: Vec<DeadLetter>) -> io::Result<()>;
}

/// What the dead-letter files hold, for an operator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterReport {
    /// Records in the files.
    pub records: u64,
    /// The file with the newest ones; older ones are beside it.
    pub file: String,
    /// The newest few, the newest first.
    pub newest: Vec<NewestLetter>,
}

/// A dead letter without what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewestLetter {
    /// The lane that it was sent in.
    pub lane: LaneId,
    /// Its sequence.
    pub seq: EdgeSeq,
    /// Why the cloud did not take it, as [`RejectReason::as_str`] names it.
    pub reason: String,
    /// The MQTT topic, where it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mqtt_topic: Option<String>,
}

/// Dead letters in a file. Cheap to clone; the clones are one file.
#[derive(Debug, Clone)]
pub struct DeadLetterFile {
    path: PathBuf,
    max_bytes: u64,
    tally: Arc<Mutex<Tally>>,
}

/// What is in the files.
#[derive(Debug, Default)]
struct Tally {
    older: u64,
    newer: u64,
    /// The newest last.
    newest: VecDeque<NewestLetter>,
}

impl Tally {
    fn push(&mut self, letter: NewestLetter) {
        if self.newest.len() >= limits::DEAD_LETTERS_SHOWN {
            self.newest.pop_front();
        }
        self.newest.push_back(letter);
    }

    /// Takes in the letters of a file, at most `max_bytes` of it, and says how many they are. A torn line is none.
    fn read(&mut self, path: &Path, max_bytes: u64) -> io::Result<u64> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut lines = BufReader::new(file.take(max_bytes));
        let mut letters = 0;
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            if let Ok(letter) = serde_json::from_slice(&line) {
                letters += 1;
                self.push(letter);
            }
            line.clear();
        }
        Ok(letters)
    }
}

impl DeadLetterFile {
    /// In `dir`, at most [`limits::DEAD_LETTER_BYTES`]. Reads what earlier runs have left there.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        Self::at(dir.join("dead-letter.jsonl"), limits::DEAD_LETTER_BYTES)
    }

    fn at(path: PathBuf, max_bytes: u64) -> Self {
        let file = Self { path, max_bytes, tally: Arc::default() };
        let mut tally = Tally::default();
        for (path, is_older) in [(file.older(), true), (file.path.clone(), false)] {
            match tally.read(&path, max_bytes) {
                Ok(letters) if is_older => tally.older = letters,
                Ok(letters) => tally.newer = letters,
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "dead letters of earlier runs cannot be counted");
                }
            }
        }
        *file.tally() = tally;
        file
    }

    fn older(&self) -> PathBuf {
        self.path.with_extension("old.jsonl")
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        // A holder cannot leave `Tally` half changed, so a poisoned lock is still good.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the files hold.
    #[must_use]
    pub fn report(&self) -> DeadLetterReport {
        let (has_older, has_newer) = (self.older().exists(), self.path.exists());
        let tally = self.tally();
        let records =
            if has_older { tally.older } else { 0 } + if has_newer { tally.newer } else { 0 };
        let shown = usize::try_from(records).unwrap_or(usize::MAX);
        DeadLetterReport {
            records,
            file: self.path.display().to_string(),
            newest: tally.newest.iter().rev().take(shown).cloned().collect(),
        }
    }

    fn keep_now(&self, letters: &[DeadLetter]) -> io::Result<()> {
        let mut bytes = if is_torn(&self.path)? { vec![b'\n'] } else { Vec::new() };
        let lines: Vec<Line> = letters.iter().map(Line::of).collect();
        for line in &lines {
            serde_json::to_writer(&mut bytes, line)?;
            bytes.push(b'\n');
        }
        let length = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        if length > 0 && length.saturating_add(bytes.len() as u64) > self.max_bytes / 2 {
            fs::rename(&self.path, self.older())?;
            let mut tally = self.tally();
            tally.older = tally.newer;
        }
        let existed = self.path.exists();
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        if !existed && let Some(dir) = self.path.parent() {
            File::open(dir)?.sync_all()?;
        }
        let mut tally = self.tally();
        tally.newer = if existed { tally.newer } else { 0 } + lines.len() as u64;
        for line in lines {
            tally.push(line.newest());
        }
        Ok(())
    }
}

/// Whether the last line has no end: a crash or a full disk cut it off. What is appended must not become a part of it.
fn is_torn(path: &Path) -> io::Result<bool> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[async_trait]
impl DeadLetters for DeadLetterFile {
    async fn keep(&self, letters: Vec<DeadLetter>) -> io::Result<()> {
        let file = self.clone();
        tokio::task::spawn_blocking(move || file.keep_now(&letters))
            .await
            .map_err(io::Error::other)?
    }
}

#[derive(Serialize)]
struct Line {
    incarnation: Incarnation,
    lane: LaneId,
    seq: EdgeSeq,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mqtt_topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
}

impl Line {
    fn of(letter: &DeadLetter) -> Self {
        let mut line = Self {
            incarnation: letter.incarnation,
            lane: letter.lane,
            seq: letter.seq,
            reason: letter.reason.as_str(),
            mqtt_topic: None,
            client_id: None,
            payload: None,
            payload_hex: None,
        };
        let Some(body) = &letter.body else { return line };
        let payload = match EdgeRecord::decode(body) {
            Ok(record) => {
                line.mqtt_topic = Some(record.mqtt_topic.to_owned());
                line.client_id = Some(record.client_id.to_owned());
                record.payload
            }
            Err(_) => body,
        };
        match std::str::from_utf8(payload) {
            Ok(text) => line.payload = Some(text.to_owned()),
            Err(_) => line.payload_hex = Some(hex(payload)),
        }
        line
    }

    fn newest(self) -> NewestLetter {
        NewestLetter {
            lane: self.lane,
            seq: self.seq,
            reason: self.reason.to_owned(),
            mqtt_topic: self.mqtt_topic,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{DeadLetter, DeadLetterFile, DeadLetters, EdgeSeq, Incarnation, LaneId};
    use robustmq_common::sync::RejectReason;

    fn letter(seq: u64, body: &'static [u8]) -> DeadLetter {
        DeadLetter {
            incarnation: Incarnation(1),
            lane: LaneId(0),
            seq: EdgeSeq(seq),
            reason: RejectReason::IllegalTopic,
            body: Some(body.into()),
        }
    }

    #[tokio::test]
    async fn letters_are_readable_and_bounded() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("dead-letter.jsonl");
        let file = DeadLetterFile::at(path.clone(), 400);
        file.keep(vec![letter(1, b"text"), letter(2, b"\xff\x00")]).await.expect("kept");
        let text = std::fs::read_to_string(&path).expect("there");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                r#"{"incarnation":1,"lane":0,"seq":1,"reason":"illegal_topic","payload":"text"}"#,
                r#"{"incarnation":1,"lane":0,"seq":2,"reason":"illegal_topic","payload_hex":"ff00"}"#,
            ]
        );
        for seq in 3..20 {
            file.keep(vec![letter(seq, b"text")]).await.expect("kept");
        }
        let size = |name: &str| {
            std::fs::metadata(dir.path().join(name)).map_or(0, |metadata| metadata.len())
        };
        assert!(size("dead-letter.jsonl") + size("dead-letter.old.jsonl") <= 400);
        let text = std::fs::read_to_string(&path).expect("there");
        assert!(text.lines().last().expect("a line").contains(r#""seq":19"#));
        let lines = |name: &str| {
            std::fs::read_to_string(dir.path().join(name)).expect("there").lines().count()
        };
        let left = lines("dead-letter.jsonl") + lines("dead-letter.old.jsonl");
        assert_eq!(file.report().records, left as u64, "what was dropped is not counted");
    }

    /// After a restart nothing said that records had been rejected: the counter began at 0 again.
    #[tokio::test]
    async fn letters_are_reported_with_their_reasons_until_somebody_removes_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = DeadLetterFile::in_dir(dir.path());
        assert_eq!((file.report().records, file.report().newest), (0, Vec::new()));
        file.keep((1..=9).map(|seq| letter(seq, b"text")).collect()).await.expect("kept");
        let check = |file: &DeadLetterFile| {
            let report = file.report();
            assert_eq!(report.records, 9);
            assert!(report.file.ends_with("dead-letter.jsonl"), "{}", report.file);
            let newest: Vec<_> =
                report.newest.iter().map(|l| (l.seq.0, l.reason.as_str())).collect();
            assert_eq!(newest, [9, 8, 7, 6, 5].map(|seq| (seq, "illegal_topic")));
        };
        check(&file);
        let path = dir.path().join("dead-letter.jsonl");
        let torn = std::fs::read_to_string(&path).expect("there") + r#"{"incarnation":1,"la"#;
        std::fs::write(&path, torn).expect("written");
        check(&DeadLetterFile::in_dir(dir.path()));

        // The next letter has a line of its own.
        file.keep(vec![letter(10, b"text")]).await.expect("kept");
        let report = DeadLetterFile::in_dir(dir.path()).report();
        assert_eq!((report.records, report.newest[0].seq.0), (10, 10));

        std::fs::remove_file(path).expect("there");
        assert_eq!((file.report().records, file.report().newest), (0, Vec::new()));
        file.keep(vec![letter(11, b"text")]).await.expect("kept");
        let report = file.report();
        assert_eq!((report.records, report.newest.len()), (1, 1));
    }
}
