//! Records that the cloud will never take, kept for a person to look at.
//!
//! `dead-letter.jsonl`: one JSON object a line; when it has grown to half the limit it becomes `dead-letter.old.jsonl`, so the two
//! together stay below the limit. A crash between keeping a letter and telling the cloud so keeps it twice: incarnation, lane
//! and sequence name it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use robustmq_common::ids::{EdgeSeq, Incarnation, LaneId};
use robustmq_common::limits;
use robustmq_common::sync::{EdgeRecord, RejectReason};
use serde::Serialize;

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

/// Dead letters in a file.
#[derive(Debug, Clone)]
pub struct DeadLetterFile {
    path: PathBuf,
    max_bytes: u64,
}

impl DeadLetterFile {
    /// In `dir`, at most [`limits::DEAD_LETTER_BYTES`].
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        Self { path: dir.join("dead-letter.jsonl"), max_bytes: limits::DEAD_LETTER_BYTES }
    }

    fn keep_now(&self, letters: &[DeadLetter]) -> io::Result<()> {
        let mut lines = Vec::new();
        for letter in letters {
            serde_json::to_writer(&mut lines, &Line::of(letter))?;
            lines.push(b'\n');
        }
        let length = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        if length > 0 && length.saturating_add(lines.len() as u64) > self.max_bytes / 2 {
            fs::rename(&self.path, self.path.with_extension("old.jsonl"))?;
        }
        let existed = self.path.exists();
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        file.write_all(&lines)?;
        file.sync_data()?;
        if !existed && let Some(dir) = self.path.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }
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
        let file = DeadLetterFile { path: path.clone(), max_bytes: 400 };
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
    }
}
