//! Topics whose names match a pattern: found once for each version of the catalogue, however many ask.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use regex::{Regex, RegexBuilder};
use robustmq_common::ids::TopicId;
use robustmq_common::limits;

use super::Catalogue;
use crate::store::StoreError;

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PatternError {
    /// No pattern of the `regex` crate, or one that would take too much memory.
    #[error("the pattern is not valid: {0}")]
    Invalid(#[from] regex::Error),
    /// The topics cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Topics and how many partitions they have.
type Topics = Arc<BTreeMap<TopicId, i32>>;

/// What was found lately, by pattern, with the catalogue's version then.
#[derive(Default)]
pub struct Patterns {
    found: Mutex<HashMap<String, (u64, Topics)>>,
    looking: tokio::sync::Mutex<()>,
}

impl Patterns {
    /// The topics whose whole names match `pattern`, with their partitions.
    ///
    /// # Errors
    /// [`PatternError`].
    pub async fn matching(
        &self,
        topics: &Catalogue,
        pattern: &str,
    ) -> Result<BTreeMap<TopicId, i32>, PatternError> {
        if let Some(found) = self.find(pattern, topics.version()) {
            return Ok((*found).clone());
        }
        let regex = compile(pattern)?;
        // One walk over all topics at a time.
        let _one_at_a_time = self.looking.lock().await;
        let version = topics.version();
        if let Some(found) = self.find(pattern, version) {
            return Ok((*found).clone());
        }
        let found = walk(topics, &regex).await?;
        let mut known = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= limits::shared::PATTERNS {
            known.clear();
        }
        known.insert(pattern.to_owned(), (version, Arc::new(found.clone())));
        Ok(found)
    }

    fn find(&self, pattern: &str, version: u64) -> Option<Topics> {
        let known = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, found) = known.get(pattern)?;
        (*at == version).then(|| found.clone())
    }
}

async fn walk(topics: &Catalogue, regex: &Regex) -> Result<BTreeMap<TopicId, i32>, StoreError> {
    let mut found = BTreeMap::new();
    let mut after = None;
    loop {
        let page = topics.list(after.as_ref(), limits::TOPIC_PAGE).await?;
        let matching = page.topics.iter().filter(|topic| regex.is_match(topic.name.as_str()));
        found.extend(matching.map(|topic| (topic.id, topic.partitions)));
        match page.topics.last().filter(|_| page.more) {
            Some(last) => after = Some(last.name.clone()),
            None => return Ok(found),
        }
    }
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    let whole = format!("^(?:{pattern})$");
    RegexBuilder::new(&whole).size_limit(limits::shared::PATTERN_BYTES).build()
}

#[cfg(test)]
mod tests {
    use super::compile;

    #[test]
    fn patterns_match_whole_names_and_bad_ones_are_errors() {
        let matches = |pattern, name| compile(pattern).map(|regex| regex.is_match(name));
        assert_eq!(matches("a|b", "a"), Ok(true));
        assert_eq!(matches("a|b", "ab"), Ok(false));
        assert_eq!(matches("t.*", "t1"), Ok(true));
        assert!(matches("(", "t").is_err());
        assert!(matches("(a{1000}){1000}", "t").is_err(), "it takes bounded memory");
    }
}
