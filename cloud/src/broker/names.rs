//! Topics as a person knows them, for the log.

use robustmq_common::ids::TopicId;

use crate::topics::Catalogue;

/// A topic's name; its id, where the catalogue does not know one.
pub(super) async fn topic_name(topics: &Catalogue, id: TopicId) -> String {
    match topics.get_by_id(id).await {
        Ok(Some(topic)) => topic.name.as_str().to_owned(),
        _ => id.to_string(),
    }
}
